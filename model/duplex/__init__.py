"""Conversations in which the model listens and speaks at once."""
