"""Recordings of sessions whose clients have consented to them."""
