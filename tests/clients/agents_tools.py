"""Use tools of an MCP server, and functions that need a person's yes, through `openai-agents`.

The Python package refuses its own `HostedMCPTool` in realtime sessions, before it connects. So
these go and come as the server's own events, by the way that its documentation shows for what it
does not know. Functions with `needs_approval` are its own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agents import HostedMCPTool, UserError, function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner
from agents.tool import Tool
from agents_sdk import Talk
from common import MY_NAME, Options, check, run, scenario

MAPS: Any = {
    "type": "mcp",
    "server_label": "maps",
    "require_approval": {"never": {"tool_names": ["get_weather"]}},
}


@function_tool(needs_approval=True)
def hang_up(caller: str) -> str:
    """End a call."""
    return f"{caller} is gone"


@contextlib.asynccontextmanager
async def connected(
    options: Options, modality: str = "text", tools: Sequence[Tool] = (hang_up,)
) -> AsyncIterator[Talk]:
    """Start a session that writes, or speaks."""
    agent = RealtimeAgent(name="parley", instructions="Answer.", tools=[*tools])
    model_config = {
        "url": f"ws://{options.host}/v1/realtime?model={options.config}",
        "api_key": "none",
        "initial_model_settings": {"output_modalities": [modality]},
    }
    async with await RealtimeRunner(agent).run(model_config=model_config) as session:
        talk = Talk(session)
        ears = asyncio.create_task(talk.listen())
        try:
            yield talk
        finally:
            ears.cancel()


async def done(talk: Talk, kind: str, mark: int) -> dict[str, Any]:
    """Wait for an item of a kind that is final."""
    return await talk.inbox.wait(
        lambda events: next(
            (
                event["item"]
                for event in talk.raw("conversation.item.done", events)
                if event["item"]["type"] == kind
            ),
            None,
        ),
        f"a final {kind}",
        mark,
    )


async def ask(talk: Talk, text: str) -> int:
    """Type a turn, and return a mark before its answer."""
    mark = talk.inbox.mark
    await talk.session.send_message(text)
    return mark


async def answered(talk: Talk, mark: int) -> None:
    """Ask for a response and wait for it."""
    await talk.send("response.create")
    await talk.server_event("response.done", mark)


async def main(options: Options) -> None:
    """Hold all scenarios."""
    set_tracing_disabled(disabled=True)
    async with connected(options) as talk:
        await servers_tools(options, talk)
        await own_functions(talk)
    async with connected(options, "audio") as talk:
        await by_voice(talk)


async def offer(talk: Talk) -> list[str]:
    """Offer the server's tools beside the function; returns their names."""
    await talk.server_event("session.updated", 0)
    mark = talk.inbox.mark
    function = {"type": "function", "name": "hang_up", "parameters": hang_up.params_json_schema}
    await talk.send("session.update", session={"type": "realtime", "tools": [MAPS, function]})
    listed = await done(talk, "mcp_list_tools", mark)
    return [tool["name"] for tool in listed["tools"]]


async def refused_by_the_package(options: Options) -> str:
    """Return what the package says of its own hosted tool."""
    try:
        async with connected(options, tools=[HostedMCPTool(tool_config=MAPS)]):
            return "nothing"
    except UserError as error:
        return str(error)


async def servers_tools(options: Options, talk: Talk) -> None:
    """List, call, approve and deny."""
    async with scenario("listing"):
        # Once it takes them, these scenarios are to use them.
        refusal = await refused_by_the_package(options)
        check("Must be a function tool" in refusal, f"the package said {refusal}")
        names = await offer(talk)
        check(names[:2] == ["get_weather", "delete_city"], f"listed {names}")
    async with scenario("call"):
        mark = await ask(talk, "what is the weather in oslo")
        call = await done(talk, "mcp_call", mark)
        check(call["output"] == "rain in oslo", f"{call}")
    async with scenario("approved"):
        mark = await ask(talk, "delete oslo")
        request = await done(talk, "mcp_approval_request", mark)
        await talk.server_event("response.done", mark)
        await answer(talk, request["id"], approve=True)
        call = await done(talk, "mcp_call", mark)
        check(call["output"] == "oslo is gone, False", f"{call}")
    async with scenario("denied"):
        mark = await ask(talk, "delete oslo")
        request = await done(talk, "mcp_approval_request", mark)
        await talk.server_event("response.done", mark)
        later = talk.inbox.mark
        await answer(talk, request["id"], approve=False)
        await answered(talk, later)
        words = await written(talk, later)
        check(words == "it said The call was not approved.", words)


async def own_functions(talk: Talk) -> None:
    """Approve and reject what `needs_approval` holds."""
    async with scenario("needs approval, approved"):
        mark = await ask(talk, "hang up on peter")
        asked = await talk.inbox.event("tool_approval_required", mark)
        await talk.session.approve_tool_call(asked.call_id)
        words = await written(talk, mark)
        check(words == "it said peter is gone", words)
    async with scenario("needs approval, denied"):
        mark = await ask(talk, "hang up on peter")
        asked = await talk.inbox.event("tool_approval_required", mark)
        await talk.session.reject_tool_call(asked.call_id)
        words = await written(talk, mark)
        check(words == "it said Tool execution was not approved.", words)


async def by_voice(talk: Talk) -> None:
    """Call by spoken turns, and hear what came of it; the script knows what each turn means."""
    async with scenario("spoken call"):
        await offer(talk)
        mark = talk.inbox.mark
        await talk.speak(MY_NAME)
        call = await done(talk, "mcp_call", mark)
        check(call["output"] == "rain in oslo", f"{call}")
        await spoken(talk, "it said rain in oslo")
    for name, approve in (("spoken, approved", True), ("spoken, denied", False)):
        async with scenario(name):
            mark = talk.inbox.mark
            await talk.speak(MY_NAME)
            request = await done(talk, "mcp_approval_request", mark)
            await talk.server_event("response.done", mark)
            await answer(talk, request["id"], approve=approve)
            if approve:
                call = await done(talk, "mcp_call", mark)
                check(call["approval_request_id"] == request["id"], f"{call}")
            told = "oslo is gone, False" if approve else "The call was not approved."
            await spoken(talk, f"it said {told}")


async def spoken(talk: Talk, words: str) -> None:
    """Ask for a response, and hear it."""
    mark = talk.inbox.mark
    await answered(talk, mark)
    said = await talk.server_event("response.output_audio_transcript.done", mark)
    check(said["transcript"] == words, f"{said}")
    check(talk.audio_s(mark) > 0.5, f"{talk.audio_s(mark)} s of audio")


async def answer(talk: Talk, request_id: str, *, approve: bool) -> None:
    """Answer a request for approval."""
    item = {
        "type": "mcp_approval_response",
        "id": f"answer_{request_id[-8:]}",
        "approval_request_id": request_id,
        "approve": approve,
    }
    await talk.send("conversation.item.create", item=item)


async def written(talk: Talk, mark: int) -> str:
    """Return the next text."""
    return str((await talk.server_event("response.output_text.done", mark))["text"])


if __name__ == "__main__":
    run(main)
