"""Tools of MCP servers: what is asked of whoever does the I/O, what comes back, and what follows."""
