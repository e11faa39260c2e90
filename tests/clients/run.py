"""Let unmodified Realtime clients hold conversations with the server, and print who managed what.

`make clients` runs this. Each client program lives in an environment of its own, with pinned
versions, and prints one JSON line a scenario. The exit status is 0 only if nothing failed.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from server.client.local import local_server
from server.names import ROOT

HERE = Path(__file__).parent
ENVIRONMENTS = ROOT / ".venv-clients"
TIMEOUT_S = 600.0

SCENARIOS = (
    "connect and session",
    "spoken turn",
    "push to talk",
    "text turn",
    "tool call",
    "history",
    "interruption",
    "transcription",
    "errors",
    "reconnect",
    "first audio",
)
# Of those that use tools of an MCP server, and functions that need a person's yes.
TOOLS = (
    "listing",
    "call",
    "approved",
    "denied",
    "needs approval, approved",
    "needs approval, denied",
    "spoken call",
    "spoken, approved",
    "spoken, denied",
)
MARKS = {"pass": "pass", "n/a": "n/a", "fail": "FAIL"}
# What it says when it passes is what was measured.
MEASURED = "first audio"


@dataclass(frozen=True, slots=True)
class Client:
    """A client program and the server that it talks to.

    Attributes:
        name: of the package, as the table shows it.
        config: which server, by the stem of its file in configs/.
        command: without the server's address and name, which follow.
        turns: how the server finds the end of spoken turns.
        options: what else follows.
        scenarios: what it is to manage.
        script: that a scripted server follows.
    """

    name: str
    config: str
    turns: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = SCENARIOS
    script: str = "script.yaml"

    @property
    def server(self) -> tuple[str, str]:
        """Return what tells its server from others."""
        return self.config, self.script if self.config == "scripted" else ""


@dataclass(slots=True)
class Outcome:
    """What became of a client's scenarios: verdict and reason, by name."""

    client: Client
    took_s: float = 0.0
    verdicts: dict[str, tuple[str, str]] = field(default_factory=dict)
    noise: str = ""

    @property
    def is_good(self) -> bool:
        """Return whether no scenario failed or is missing."""
        return all(self.verdict(name)[0] != "fail" for name in self.client.scenarios)

    def verdict(self, scenario: str) -> tuple[str, str]:
        """Return how a scenario went, and why."""
        return self.verdicts.get(scenario, ("fail", "the program did not get there"))


def _python(environment: str, program: str) -> tuple[str, ...]:
    return (str(ENVIRONMENTS / environment / "bin" / "python"), str(HERE / program))


def _node(environment: str, program: str) -> tuple[str, ...]:
    return ("node", str(ENVIRONMENTS / f"node-{environment}" / program))


_GA = _python("openai", "openai_sdk.py")
_AGENTS = _python("openai", "agents_sdk.py")
_DUPLEX = _python("openai", "openai_duplex.py")
_NODE = _node("agents", "agents_realtime.mjs")
_AGENTS_TOOLS = _python("openai", "agents_tools.py")
_NODE_TOOLS = _node("agents", "agents_tools.mjs")
_PAGE = (sys.executable, "-m", "tests.clients.agents_webrtc")
_BETA, _AZURE = ("--dialect", "beta"), ("--azure",)
_SERVER, _SEMANTIC, _MODEL = "server_vad", "semantic_vad", "the model"
_TYPING, _SCRIPT_TOOLS = "typing, semantic_vad", "script_tools.yaml"

CLIENTS = (
    Client("openai (GA)", "scripted", _SERVER, _GA),
    Client("openai (beta)", "scripted", _SERVER, _GA, _BETA),
    Client("openai, Azure (GA)", "scripted", _SERVER, _GA, _AZURE),
    Client("openai, Azure (beta)", "scripted", _SERVER, _GA, (*_AZURE, *_BETA)),
    Client("rt-client, Azure", "scripted", _SERVER, _node("azure", "rt_client.mjs")),
    Client("openai-agents", "scripted", _SEMANTIC, _AGENTS),
    Client("openai-agents, Twilio", "scripted", _SEMANTIC, _python("openai", "twilio_stream.py")),
    Client("@openai/agents-realtime", "scripted", _SEMANTIC, _NODE),
    Client("@openai/agents-realtime, WebRTC", "scripted", _SEMANTIC, _PAGE),
    Client("vision-agents, WebRTC", "scripted", _SEMANTIC, _python("vision", "vision_call.py")),
    Client(
        "livekit-plugins-openai", "scripted", _SEMANTIC, _python("livekit", "livekit_session.py")
    ),
    Client(
        "@livekit/agents-plugin-openai",
        "scripted",
        _SEMANTIC,
        _node("livekit", "livekit_session.mjs"),
    ),
    Client("pipecat-ai", "scripted", _SERVER, _python("pipecat", "pipecat_service.py")),
    Client("pydantic-ai", "scripted", _SERVER, _python("pydantic", "pydantic_agent.py")),
    Client(
        "LangChain voice agent", "scripted", _SERVER, _python("langchain", "langchain_voice.py")
    ),
    Client("openai-agents", "scripted", _TYPING, _AGENTS_TOOLS, (), TOOLS, _SCRIPT_TOOLS),
    Client("@openai/agents-realtime", "scripted", _TYPING, _NODE_TOOLS, (), TOOLS, _SCRIPT_TOOLS),
    Client("openai (GA)", "starter", _SERVER, _GA),
    Client("openai (beta)", "starter", _SERVER, _GA, _BETA),
    Client("openai-agents", "starter", _SEMANTIC, _AGENTS),
    Client("openai (GA)", "moshi-tiny", _MODEL, _DUPLEX),
    Client("openai (beta)", "moshi-tiny", _MODEL, _DUPLEX, _BETA),
    Client("openai-agents", "moshi-tiny", _MODEL, _python("openai", "agents_duplex.py")),
    Client("@openai/agents-realtime", "moshi-tiny", _MODEL, _NODE),
    Client("pipecat-ai", "moshi-tiny", _MODEL, _python("pipecat", "pipecat_duplex.py")),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the clients, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help="clients, configs and scripts with this in their name"
    )
    args = parser.parse_args(argv)
    chosen = [c for c in CLIENTS if args.only in " ".join((c.name, *c.server))]
    if not chosen:
        parser.error(f"no client is called {args.only!r}")
    # A program for Node finds its packages from where it lies, and so does a page.
    shared = [*HERE.glob("node/*.mjs")]
    for program in (*HERE.glob("node/*/*.mjs"), *HERE.glob("node/*/*.html")):
        for source in (program, *shared):
            shutil.copy(source, ENVIRONMENTS / f"node-{program.parent.name}")
    outcomes: list[Outcome] = []
    for config, script in dict.fromkeys(client.server for client in chosen):
        follows = (f"model.script={HERE / script}",) if script else ()
        with (
            _mcp_server() as mcp,
            local_server(ROOT / "configs" / f"{config}.yaml", (*follows, mcp)) as url,
        ):
            for client in chosen:
                if client.server == (config, script):
                    _write(sys.stderr, f"{client.name} with {config} {script}")
                    outcomes.append(_talk(client, url.removeprefix("ws://")))
    for scenarios in dict.fromkeys(outcome.client.scenarios for outcome in outcomes):
        alike = [outcome for outcome in outcomes if outcome.client.scenarios == scenarios]
        _write(sys.stdout, _table(alike, scenarios))
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _write(stream: TextIO, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def _talk(client: Client, host: str) -> Outcome:
    outcome = Outcome(client)
    began_s = time.monotonic()
    assets = (ROOT / "tests" / "assets").as_uri()
    try:
        process = subprocess.run(
            [*client.command, host, client.config, *client.options],
            env={**os.environ, "PARLEY_ASSETS": f"{assets}/"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        outcome.noise = str(error)
        return outcome
    outcome.took_s = time.monotonic() - began_s
    outcome.noise = process.stderr
    for line in process.stdout.splitlines():
        if line.startswith('{"scenario"'):
            row = json.loads(line)
            outcome.verdicts[row["scenario"]] = (row["verdict"], row["why"])
    return outcome


@contextlib.contextmanager
def _mcp_server() -> Iterator[str]:
    """Serve MCP on a free port, and yield the setting by which sessions may use it as `maps`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.clients.mcp_server", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"mcp.servers={{maps: {{url: 'http://127.0.0.1:{port}/mcp'}}}}"
    finally:
        process.terminate()
        process.wait()


def _table(outcomes: Sequence[Outcome], scenarios: Sequence[str]) -> str:
    """Write the table as Markdown, then why what is not passed is not."""
    lines = [
        "| client | server | turns by | " + " | ".join(scenarios) + " |",
        "|---" * (len(scenarios) + 3) + "|",
    ]
    notes: list[str] = []
    for outcome in outcomes:
        client = outcome.client
        who = f"| {client.name} | {client.config} | {client.turns} | "
        verdicts = [outcome.verdict(name) for name in scenarios]
        cells = [
            why if (name, verdict) == (MEASURED, "pass") else MARKS[verdict]
            for name, (verdict, why) in zip(scenarios, verdicts, strict=True)
        ]
        lines.append(who + " | ".join(cells) + " |")
        notes += [
            f"- {outcome.client.name} with {outcome.client.config}, {name}: {verdict}: {why}"
            for name, (verdict, why) in zip(scenarios, verdicts, strict=True)
            if verdict != "pass"
        ]
        if not outcome.is_good and outcome.noise:
            notes.append(f"  the end of what it wrote:\n{outcome.noise[-2000:]}")
    took = ", ".join(f"{outcome.client.name} {outcome.took_s:.0f} s" for outcome in outcomes)
    return "\n".join([*lines, "", *notes, "", f"Took: {took}."])


if __name__ == "__main__":
    sys.exit(main())
