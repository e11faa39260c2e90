"""Checks of what is said, on both sides, before anybody is told."""
