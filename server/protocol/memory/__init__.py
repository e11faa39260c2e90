"""Keep the engine's memory equal to the conversation."""
