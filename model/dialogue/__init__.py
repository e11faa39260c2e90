"""Say how a conversation becomes steps of the language model."""
