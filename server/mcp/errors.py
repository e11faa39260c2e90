"""Say how a listing or a call failed, in the API's three kinds."""

from server.errors import ParleyError
from server.protocol.items.mcp import McpError


class McpFailure(ParleyError):  # noqa: N818 - an `McpError` is what the API calls its content
    """Report that an MCP server did not do what it was asked.

    Attributes:
        error: for clients and for the model.
    """

    def __init__(self, error: McpError) -> None:
        super().__init__(error.message)
        self.error = error

    @classmethod
    def protocol(cls, code: int, message: str) -> "McpFailure":
        """Say that the server broke the protocol, or refused by an error of the protocol.

        Args:
            code: of JSON-RPC, 0 if it is none of the server's.
            message: for a person.
        """
        # Source: Realtime reference, `mcp_call.error`: the three kinds and which of them has a
        # code.
        return cls(McpError("protocol_error", message, code))

    @classmethod
    def http(cls, code: int, message: str) -> "McpFailure":
        """Say that the server could not be reached, or refused by its status.

        Args:
            code: HTTP status, 0 if there was no answer.
            message: for a person.
        """
        return cls(McpError("http_error", message, code))

    @classmethod
    def tool(cls, message: str) -> "McpFailure":
        """Say that the tool itself failed."""
        return cls(McpError("tool_execution_error", message))
