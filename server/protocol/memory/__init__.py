"""What the engine has to be told, so that it remembers what the conversation holds."""
