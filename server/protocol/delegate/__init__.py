"""Leave an answer to a text model: what it is asked, what comes back, and who answers when."""
