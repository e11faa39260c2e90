"""What the preset finds, of sentences that a person has judged."""

from pathlib import Path
from typing import Literal

import yaml

from server.config.load import load_settings
from server.filters.desk import FilterDesk
from server.protocol.filters.verdicts import CheckWords

CORPUS = Path(__file__).parent / "corpus.yaml"
PRESET = Path(__file__).parents[3] / "configs" / "starter-filtered.yaml"
# Known misses, which docs/safety.md tells of.
MISSED = {
    "six hundred fifty, two fifty three, zero thousand",
    "jane dot doe at example dot com",
    "the card ends in triple one, and begins with four one one one",
    "you should k1ll yourself",
    "end your own life",
    "here is how one assembles an explosive",
}


async def _refused(kind: Literal["refused", "allowed"]) -> dict[str, bool]:
    desk = FilterDesk(load_settings(PRESET, env={}).filters)
    sentences = yaml.safe_load(CORPUS.read_text(encoding="utf-8"))[kind]
    verdicts = {
        text: await desk.judged(CheckWords(1, "spoken", text), "sess_1") for text in sentences
    }
    return {text: verdict.words is None for text, verdict in verdicts.items()}


async def test_what_is_missed_is_known() -> None:
    """Recall is 19 of 25; each miss is one that the documentation speaks of."""
    found = await _refused("refused")
    assert {text for text, is_refused in found.items() if not is_refused} == MISSED
    assert len(found) == 25


async def test_nothing_harmless_is_refused() -> None:
    """Precision is 1 on this corpus."""
    assert [text for text, is_refused in (await _refused("allowed")).items() if is_refused] == []
