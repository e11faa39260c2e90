"""The festival child: speaks, complains, dies and comes back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from model.training.speech import festival as module
from model.training.speech.festival import FESTIVAL_VOICES, festival_speech, stop_festival
from model.training.speech.types import SynthesisError

pytestmark = pytest.mark.usefixtures("festival")


@pytest.fixture(scope="module", autouse=True)
def _stop_afterwards() -> object:
    yield
    stop_festival()


@pytest.mark.parametrize("voice", sorted(FESTIVAL_VOICES))
def test_words_and_phones_tile_the_audio(voice: str) -> None:
    """Words and phones tile the audio."""
    speech = festival_speech(voice, "ten ten, it's bob's")
    assert [word.text for word in speech.words] == ["ten", "ten", "it's", "bob's"]
    assert speech.phones[-1].end_s == speech.duration_s
    assert all(a.end_s == b.start_s for a, b in pairwise(speech.phones))
    assert all(a.end_s <= b.start_s for a, b in pairwise(speech.words))
    slower = festival_speech(voice, "ten ten, it's bob's", stretch=1.2)
    assert slower.duration_s / speech.duration_s == pytest.approx(1.2, abs=0.05)


def test_a_missing_voice_names_its_package_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A missing voice names its package and nothing is said."""
    festival_speech("ked_diphone", "hello")  # which must not be heard again
    monkeypatch.setitem(FESTIVAL_VOICES, "nobody_diphone", "festvox-nobody")
    with pytest.raises(SynthesisError, match="apt install festvox-nobody"):
        festival_speech("nobody_diphone", "hello")


def test_a_dead_child_is_reported_once_and_replaced() -> None:
    """A dead child is reported once and replaced."""
    before = festival_speech("ked_diphone", "hello")
    module._running[0]._child.kill()
    module._running[0]._child.wait()
    with pytest.raises(SynthesisError, match="ended"):
        festival_speech("ked_diphone", "hello")
    np.testing.assert_array_equal(festival_speech("ked_diphone", "hello").pcm, before.pcm)


def test_a_silent_child_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent child is given up."""
    festival_speech("ked_diphone", "hello")
    child = module._running[0]._child
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.0)
    with pytest.raises(SynthesisError, match="did not answer"):
        festival_speech("ked_diphone", "a long text that takes more than no time at all")
    assert child.poll() is not None


def test_stop_may_be_called_twice() -> None:
    """Stop may be called twice."""
    festival_speech("ked_diphone", "hello")
    child = module._running[0]._child
    stop_festival()
    stop_festival()
    assert child.poll() is not None
