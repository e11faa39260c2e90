"""Connections: bytes to events and back, flow control, credentials and close codes."""
