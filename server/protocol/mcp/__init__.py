"""Tools of MCP servers: what is offered of them, what is asked of whoever does the I/O."""
