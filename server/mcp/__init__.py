"""Speak to MCP servers: which may be reached, by which way, and within what bounds."""
