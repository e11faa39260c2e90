"""What the transformer remembers: pages of keys and values, and who has which."""
