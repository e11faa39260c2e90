"""Words that were not heard were never said: the shipped starter, its memory and its answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from websockets.asyncio.client import ClientConnection, connect

from model.assemble.weights import Starter, load_starter
from model.engine.config import EngineConfig
from model.messages import (
    AppendText,
    Command,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    ResponseWord,
    Truncate,
)
from model.text import Special
from model.turns.engine import TickEngine
from model.turns.history import History
from model.vocabulary import TurnVocabulary
from server.config.load import load_settings
from server.config.settings import Settings
from server.engine import make_engine
from tests.server.serving import serving

CONFIG = Path(__file__).parents[2] / "configs" / "starter.yaml"
COUNT, SUM = "count from one to ten", "what is two plus two"
COUNTED = "one two three four five six seven eight nine ten"
HEARD_MS = 900


class Clock:
    """Seconds that pass only when they are needed."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class Conversation:
    """One session on an engine of its own."""

    def __init__(self, starter: Starter) -> None:
        voices = {voice: Special.VOICE0 + i for i, voice in enumerate(starter.voices)}
        tokenizer = starter.tokenizer
        vocabulary = TurnVocabulary(pieces=tokenizer.pieces, encode=tokenizer.encode, voices=voices)
        self._clock = Clock()
        self._engine = TickEngine(
            starter.lm,
            starter.codec,
            vocabulary,
            EngineConfig(max_sessions=1),
            clock=self._clock,
        )
        self.send(Open("s", starter.voices[0]))

    @property
    def history(self) -> History:
        """Return what the model has been fed and will be fed again, if need be."""
        history: History = next(iter(self._engine._slots)).program.history
        return history

    def send(self, *commands: Command) -> list[Output]:
        """Carry commands out until nothing is left to do."""
        with torch.inference_mode():
            outputs = [output for command in commands for output in self._engine.apply(command)]
            while (due_s := self._engine.next_due_s()) is not None:
                self._clock.now_s = max(self._clock.now_s, due_s)
                outputs += self._engine.tick()
        return outputs

    def ask(self, number: int, text: str) -> list[Output]:
        """Type something; the reply is the item "a" and the number."""
        typed = AppendText("s", f"u{number}", "user", text)
        return self.send(typed, Respond("s", number, f"a{number}"))


def written(outputs: list[Output]) -> str:
    """Return the words of a reply."""
    return "".join(o.text for o in outputs if isinstance(o, ResponseText)).strip()


def spoken(outputs: list[Output]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the audio of a reply."""
    return np.concatenate([o.pcm for o in outputs if isinstance(o, ResponseAudio)])


@pytest.fixture(scope="module")
def settings() -> Settings:
    """Return what the starter is served with."""
    return load_settings(CONFIG, ())


@pytest.fixture(scope="module")
def starter(settings: Settings) -> Starter:
    """Return the shipped weights, as they are served."""
    assert settings.model.dir is not None
    starter = load_starter(CONFIG.parents[1] / settings.model.dir, settings.engine.linears)
    starter.lm.requires_grad_(requires_grad=False)
    starter.codec.requires_grad_(requires_grad=False)
    return starter


def test_the_next_reply_is_as_if_the_rest_had_never_been_said(starter: Starter) -> None:
    """It equals, token for token, that of a new session which only ever had what was heard."""
    truncated = Conversation(starter)
    counted = truncated.ask(1, COUNT)
    assert written(counted) == COUNTED
    truncated.send(Truncate("s", "a1", HEARD_MS))
    starts_ms = [o.start_ms for o in counted if isinstance(o, ResponseWord)]
    num_heard = sum(start_ms < HEARD_MS for start_ms in starts_ms)
    assert 0 < num_heard < 8, starts_ms

    # Nothing but the heard words, planned and spoken, is left in what the model is fed.
    history = truncated.history
    steps = history.block(2, len(history))
    words = "".join(starter.tokenizer.pieces[piece] for piece in steps.text if piece >= 0)
    heard = COUNTED.split()[:num_heard]
    replied = words.split("<reply>")[1]
    assert replied.replace("<pad>", "") == "".join(
        ["▁" + "▁".join(heard), "<speak>", "▁" + "▁".join(heard), "<eos>"]
    )

    # A new session, in which that much was said and no more.
    fresh = Conversation(starter)
    fresh.history.extend(steps)
    whole = Conversation(starter)
    whole.ask(1, COUNT)
    replies = [each.ask(2, SUM) for each in (truncated, fresh, whole)]
    assert [written(reply) for reply in replies] == ["two plus two is four"] * 3
    assert _told(replies[0]) == _told(replies[1])
    np.testing.assert_allclose(spoken(replies[0]), spoken(replies[1]), atol=1e-4)
    # Had the unheard words been said, the reply would have sounded otherwise.
    assert _differ(spoken(replies[0]), spoken(replies[2]))


def _told(outputs: list[Output]) -> list[Output]:
    """Return everything but audio and counts."""
    return [o for o in outputs if not isinstance(o, ResponseAudio | ResponseStarted | ResponseDone)]


def _differ(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    return len(first) != len(second) or not np.allclose(first, second, atol=1e-2)


async def _ask(client: ClientConnection, kind: str, until: str, **event: Any) -> dict[str, Any]:
    await client.send(json.dumps({"type": kind, **event}))
    while True:
        answer: dict[str, Any] = json.loads(await client.recv())
        assert answer["type"] != "error", answer
        if answer["type"] == until:
            return answer


@pytest.mark.usefixtures("no_tasks_left")
async def test_a_client_sees_only_what_was_heard(settings: Settings) -> None:
    """The item's transcript ends where it was cut, and the conversation goes on."""
    async with (
        serving(make_engine(settings), settings) as served,
        connect(f"{served.url}/v1/realtime?model=starter", max_size=None) as client,
    ):

        async def ask(text: str) -> dict[str, Any]:
            content = [{"type": "input_text", "text": text}]
            item = {"type": "message", "role": "user", "content": content}
            done = "conversation.item.done"
            await _ask(client, "conversation.item.create", done, item=item)
            answer = await _ask(client, "response.create", "response.done")
            reply: dict[str, Any] = answer["response"]["output"][0]
            return reply

        reply = await ask(COUNT)
        assert reply["content"][0]["transcript"] == COUNTED
        place = {"item_id": reply["id"], "content_index": 0, "audio_end_ms": HEARD_MS}
        await _ask(client, "conversation.item.truncate", "conversation.item.truncated", **place)
        retrieved = await _ask(
            client, "conversation.item.retrieve", "conversation.item.retrieved", item_id=reply["id"]
        )
        heard = retrieved["item"]["content"][0]["transcript"]
        assert heard.startswith("one")
        assert COUNTED.startswith(heard)
        assert "nine" not in heard
        assert (await ask(SUM))["content"][0]["transcript"] == "two plus two is four"
