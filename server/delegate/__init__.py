"""Ask a text model, by the Chat Completions API, within bounds."""
