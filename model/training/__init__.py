"""Making the starter: its conversations, its speech, its training and its scores."""
