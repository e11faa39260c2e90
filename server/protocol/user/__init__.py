"""The user's side: turns, what is heard, idle time, early replies."""
