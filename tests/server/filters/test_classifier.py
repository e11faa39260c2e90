"""The classifier that runs here: what it finds, and how many it judges at a time."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.filters import FilterSettings
from server.errors import ConfigError
from server.filters import classifier
from server.filters.classifier import Offensive
from server.filters.desk import FilterDesk
from server.filters.remote import CheckError
from server.protocol.filters.verdicts import CheckWords

SENTENCES = Path(__file__).parent / "offensive.yaml"
CHECK = {"kind": "offensive", "budget_ms": 10_000}


@pytest.fixture(scope="module")
def desk() -> FilterDesk:
    """Load the package's model, as settings ask for it."""
    pytest.importorskip("profanity_check", reason="the extra `classifier` is not installed")
    return FilterDesk(FilterSettings.model_validate({"checks": [CHECK]}))


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("you are a stupid idiot and i hate you", True),
        ("shut up, you moron", True),
        ("piece of shit", True),
        ("what a beautiful day it is", False),
        ("scunthorpe is a town in england", False),
        ("kill the process and start it again", False),
        ("i hate rainy days", False),
        # What it gets wrong: it knows words, and not what they mean here.
        ("the cock crows at dawn", True),
        ("end your own life", False),
    ],
)
async def test_abuse_is_found(desk: FilterDesk, text: str, *, is_refused: bool) -> None:
    """In whole texts, by how likely it is."""
    verdict = await desk.judged(CheckWords(1, "spoken", text), "sess_1")
    assert (verdict.words is None) is is_refused


async def test_how_good_it_is_is_known(desk: FilterDesk) -> None:
    """Recall is 12 of 20, precision 12 of 15, on sentences that were written before that."""
    judged = yaml.safe_load(SENTENCES.read_text(encoding="utf-8"))
    refused = {
        kind: [
            text
            for text in texts
            if (await desk.judged(CheckWords(1, "spoken", text), "sess_1")).words is None
        ]
        for kind, texts in judged.items()
    }
    assert [len(texts) for texts in judged.values()] == [20, 20]
    assert len(refused["refused"]) == 12
    assert refused["allowed"] == [
        "the donkey is also called an ass",
        "what does the word idiot mean",
        "i hate mondays",
    ]


class _Slow:
    """Judges when it may, and notes what it was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may = threading.Event()
        self.may.set()

    def __call__(self, texts: list[str]) -> list[float]:
        assert self.may.wait(30.0)
        self.asked.append(texts)
        if "broken" in texts:
            raise ValueError(texts)
        return [0.9 if "bad" in text else 0.1 for text in texts]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> _Slow:
    """Put a model in the package's place."""
    model = _Slow()
    monkeypatch.setattr(classifier, "_loaded", lambda: model)
    return model


async def test_who_asks_meanwhile_is_judged_together(slow: _Slow) -> None:
    """So that many cost no more than a few; who has given up waits for nobody."""
    check = Offensive(0.8)
    slow.may.clear()
    first = asyncio.create_task(check.judge("good"))
    await asyncio.sleep(0)
    others = [asyncio.create_task(check.judge(text)) for text in ("bad", "fine", "late")]
    await asyncio.sleep(0)
    others.pop().cancel()
    slow.may.set()
    found = [(await each).is_refused for each in (first, *others)]
    assert found == [False, True, False]
    assert slow.asked[1:] == [["good"], ["bad", "fine", "late"]]
    await check.close()


async def test_what_breaks_is_said_and_the_next_is_judged(slow: _Slow) -> None:
    """The words in it are told to nobody."""
    check = Offensive(0.8)
    with pytest.raises(CheckError) as caught:
        await check.judge("broken")
    assert str(caught.value) == "ValueError"
    assert (await check.judge("bad")).is_refused
    assert slow.asked[1:] == [["broken"], ["bad"]]
    await check.close()


def test_without_the_package_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what to install."""
    import sys  # noqa: PLC0415

    absent: Any = None
    monkeypatch.setitem(sys.modules, "profanity_check", absent)
    with pytest.raises(ConfigError, match=r"pip install \.\[classifier\]"):
        FilterDesk(FilterSettings.model_validate({"checks": [CHECK]}))
