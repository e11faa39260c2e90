"""A client that holds spoken conversations in real time."""
