"""Have the schemas of functions checked before the event that brings them is taken."""

import asyncio
from collections import OrderedDict

import structlog

from model.errors import OverloadedError
from model.schemas.service import SchemaService
from server.errors import ClientError
from server.protocol.settings.tools import OfferedSchema, offered_schemas
from server.protocol.wire.checks import JsonObject

_NUM_TOLD = 1024

_log = structlog.get_logger("schemas")


class SchemaGate:
    """Let events pass whose functions can be called.

    Args:
        service: compiles, elsewhere.
        max_tools: how many functions an event may bring.
    """

    def __init__(self, service: SchemaService, max_tools: int) -> None:
        self._service = service
        self._max_tools = max_tools
        self._told: OrderedDict[str, None] = OrderedDict()  # schemas whose relaxing was logged

    async def check(self, owner: str, given: JsonObject, path: str) -> None:
        """Check the functions of a session, of a response, or of a request for one.

        Args:
            owner: whose turn it takes in the queue.
            given: what may have `tools`.
            path: where it was sent.

        Raises:
            ClientError: one of its tools or schemas is wrong, or too many wait.
        """
        if not given.get("tools"):
            return
        offered = offered_schemas(given["tools"], f"{path}.tools", max_tools=self._max_tools)
        for schema in offered:
            try:
                verdict = await asyncio.wrap_future(self._service.check(owner, schema.text))
            except OverloadedError:
                raise ClientError(
                    "Too many function schemas wait to be compiled. Try again later.",
                    code="rate_limit_exceeded",
                    param=schema.path,
                    kind="rate_limit_error",
                ) from None
            if verdict.refused is not None:
                raise schema.refusal(verdict.refused)
            if verdict.left_out:
                self._tell(schema, verdict.left_out)

    async def close(self) -> None:
        """End what compiles."""
        await asyncio.to_thread(self._service.close)

    def _tell(self, schema: OfferedSchema, left_out: tuple[str, ...]) -> None:
        """Say once what is checked only after a call."""
        if schema.text in self._told:
            return
        self._told[schema.text] = None
        if len(self._told) > _NUM_TOLD:
            self._told.popitem(last=False)
        _log.info("schema relaxed", function=schema.name, checked_after=", ".join(left_out))
