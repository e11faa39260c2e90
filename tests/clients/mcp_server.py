"""Serve MCP on loopback for `make clients`: `python -m tests.clients.mcp_server PORT`."""

import sys

from tests.server.mcp.serving import weather_server

if __name__ == "__main__":
    weather_server().run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
