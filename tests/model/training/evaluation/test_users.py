"""Who speaks in an evaluation, and what reaches the model."""

from collections import Counter

import numpy as np
import pytest

from model.training.evaluation.users import LEAD_S, TAIL_S, SynthesisedUsers
from model.training.speech.types import Phone, Speech, SynthesisError, Word
from model.training.speech.voices import Voice

KNOWN = (
    Voice("slt", "flite", "slt", weight=3.0),
    Voice("en+f1", "espeak", "en+f1", weight=1.0),
    Voice("en+f2", "espeak", "en+f2", weight=0.0),
)
HELD_OUT = (
    Voice("ked", "festival", "ked"),
    Voice("absent", "festival", "absent"),
    Voice("en-us+f5", "espeak", "en-us+f5"),
)
JOE = (Voice("joe", "piper", "joe"),)


def speech(voice: Voice, text: str) -> Speech:
    """Speak for half a second, at full level; one voice is not installed."""
    if voice.name == "absent":
        raise SynthesisError("not installed")
    pcm = np.full(8000, -32768, np.int16)
    return Speech(pcm, (Word(text, 0.0, 0.4),), (Phone("pau", 0.0, 0.5),))


@pytest.fixture
def users() -> SynthesisedUsers:
    """Give users with three known and three held-out voices."""
    return SynthesisedUsers(KNOWN, {"held out": HELD_OUT, "joe": JOE}, speech)


def test_known_voices_are_drawn_by_weight(users: SynthesisedUsers) -> None:
    """Voices speak as often as they do in training; the seed decides."""
    drawn = Counter(users.choose("known", 0, n) for n in range(400))
    assert drawn["slt"] / 400 == pytest.approx(0.75, abs=0.07)
    assert drawn["en+f2"] == 0
    again = Counter(users.choose("known", 0, n) for n in range(400))
    assert drawn == again


def test_held_out_voices_take_turns(users: SynthesisedUsers) -> None:
    """Those that can speak share the conversations; the others are named."""
    drawn = Counter(users.choose("held out", 0, n) for n in range(40))
    assert drawn == {"ked": 20, "en-us+f5": 20}
    assert users.skipped("held out") == ("absent",)
    assert users.skipped("known") == ()


def test_held_out_voices_meet_both_assistant_voices(users: SynthesisedUsers) -> None:
    """Two alternating voices on either side must not stay in step."""
    pairs = {(users.choose("held out", 0, n), n % 2) for n in range(8)}
    assert len(pairs) == 4


def test_every_set_of_strangers_speaks_for_itself(users: SynthesisedUsers) -> None:
    """A second synthesiser is heard alone, and nobody of the other set is missed in it."""
    assert {users.choose("joe", 0, n) for n in range(5)} == {"joe"}
    assert users.skipped("joe") == ()
    assert users.group("joe") == "joe"


def test_no_held_out_voice_at_all() -> None:
    """The error says what is the matter before a conversation begins."""
    users = SynthesisedUsers(KNOWN, {"held out": HELD_OUT[1:2]}, speech)
    with pytest.raises(SynthesisError, match=r"none of these held-out voices .*: absent"):
        users.choose("held out", 0, 0)


def test_rows_of_the_report(users: SynthesisedUsers) -> None:
    """Many made-up training voices are one row; a held-out one has its own."""
    rows = [users.group(name) for name in ("slt", "en+f1", "en+f2", "ked", "en-us+f5")]
    assert rows == ["slt", "espeak-ng", "espeak-ng", "ked", "en-us+f5"]


def test_speech_stands_between_silences(users: SynthesisedUsers) -> None:
    """The end is that of the last word, not of the audio."""
    spoken = users.speak("slt", "hello")
    lead, tail = round(16_000 * LEAD_S), round(16_000 * TAIL_S)
    assert spoken.pcm.dtype == np.float32
    assert len(spoken.pcm) == lead + 8000 + tail
    assert not spoken.pcm[:lead].any()
    assert not spoken.pcm[-tail:].any()
    assert np.all(spoken.pcm[lead:-tail] == -1.0)
    assert spoken.end_ms == 1000 * LEAD_S + 400
