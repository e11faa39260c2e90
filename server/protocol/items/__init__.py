"""The conversation: its items, their recordings, and edits of them."""
