"""Echo and noise are taken out of a stream, which keeps its length and its place in time."""

import importlib

import numpy as np
import pytest

from server.audio.cleaning import EchoCanceller, NoiseReducer, check_library
from server.audio.vad import Echo
from server.errors import ConfigError
from tests.server.sounds import silence, voice

RATES_HZ = [8_000, 16_000, 24_000, 48_000]
CHUNKS = [160, 320, 441, 5_000]


def _power_db(pcm: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(pcm**2) + 1e-12))


def _noise(seconds: float, rate_hz: int, level: float = 0.02, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(int(seconds * rate_hz))).astype(np.float32)


def _cancelled(
    canceller: EchoCanceller, near: np.ndarray, far: np.ndarray, chunk: int = 320
) -> np.ndarray:
    parts = [
        canceller.feed(near[start : start + chunk], far[start : start + chunk])
        for start in range(0, len(near), chunk)
    ]
    return np.concatenate((*parts, canceller.finish()))


def _reduced(reducer: NoiseReducer, pcm: np.ndarray, chunk: int = 320) -> np.ndarray:
    parts = [reducer.feed(pcm[start : start + chunk]) for start in range(0, len(pcm), chunk)]
    return np.concatenate((*parts, reducer.finish()))


def _delayed(pcm: np.ndarray, num_samples: int) -> np.ndarray:
    return np.concatenate((np.zeros(num_samples, np.float32), pcm))[: len(pcm)]


def _lag(cleaned: np.ndarray, pcm: np.ndarray, most: int) -> int:
    """Return by how many samples `cleaned` is late."""
    lags = list(range(-most, most + 1))
    inner = slice(most, -most)
    likeness = [float(np.dot(cleaned[inner], np.roll(pcm, lag)[inner])) for lag in lags]
    return lags[int(np.argmax(likeness))]


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_an_echo_is_taken_out(rate_hz: int) -> None:
    """Once it is known that there is one, by 15 dB and more, at any rate that engines have."""
    far = voice(4.0, rate_hz)
    echo = 0.5 * _delayed(far, rate_hz // 10)
    near = (echo + _noise(4.0, rate_hz, 0.0005)).astype(np.float32)
    cleaned = _cancelled(EchoCanceller(rate_hz), near, far, rate_hz // 50)
    assert len(cleaned) == len(near)
    for second in (2, 3):
        part = slice(second * rate_hz, (second + 1) * rate_hz)
        assert _power_db(echo[part]) - _power_db(cleaned[part]) > 15, f"second {second}"


@pytest.mark.parametrize("chunk", CHUNKS)
def test_without_sound_nothing_is_changed_or_held_back(chunk: int) -> None:
    """Who is not spoken to is heard as they are, at once."""
    near, canceller = _noise(1.0, 16_000), EchoCanceller(16_000)
    for start in range(0, len(near), chunk):
        part = near[start : start + chunk]
        assert np.array_equal(canceller.feed(part, np.zeros_like(part)), part)
    assert not len(canceller.finish())


@pytest.mark.parametrize("chunk", CHUNKS)
def test_before_an_echo_is_found_nothing_is_held_back(chunk: int) -> None:
    """The canceller follows; the stream does not wait for it, and is what was recorded."""
    far = voice(4.0)
    near = (0.5 * _delayed(far, 1_600) + _noise(4.0, 16_000, 0.0005)).astype(np.float32)
    canceller, heard = EchoCanceller(16_000), []
    for start in range(0, len(near), chunk):
        part = slice(start, start + chunk)
        heard.append(canceller.feed(near[part], far[part]))
        if canceller.state is Echo.REMOVED:
            break
        assert np.array_equal(heard[-1], near[part])
    # What was returned before is not returned again.
    num_fed = sum(map(len, heard))
    heard.append(_cancelled(canceller, near[start + chunk :], far[start + chunk :], chunk))
    assert 16_000 * 0.8 < start < 16_000 * 2, "it is found after a second or so"
    assert len(np.concatenate(heard)) == len(near)
    assert num_fed >= start


@pytest.mark.parametrize("chunk", CHUNKS)
def test_cancelling_keeps_length_and_place(chunk: int) -> None:
    """It begins and ends in the middle of a stream, which neither stops nor jumps."""
    near = voice(5.0)
    far = np.concatenate((silence(1.0), 0.02 * voice(2.0)[::-1], silence(2.0))).astype(np.float32)
    canceller = EchoCanceller(16_000)
    cleaned, num_fed = [], 0
    for start in range(0, len(near), chunk):
        part = near[start : start + chunk]
        num_fed += len(part)
        cleaned.append(canceller.feed(part, far[start : start + chunk]))
        held_back = num_fed - sum(map(len, cleaned))
        assert 0 <= held_back <= 16_000 * 18 // 1000
    heard = np.concatenate((*cleaned, canceller.finish()))
    assert len(heard) == len(near)
    for start in (0, 20_000, 40_000, 70_000):
        place = slice(start, start + 8_000)
        assert abs(_lag(heard[place], near[place], 40)) <= 4
    assert np.array_equal(heard[:15_000], near[:15_000])  # a chunk may reach into it
    # A second after the last sound it passes untouched again.
    assert np.array_equal(heard[70_000:], near[70_000:])
    # Nothing that was not there before sounds like a click.
    assert np.abs(np.diff(heard)).max() < 1.5 * np.abs(np.diff(near)).max()


def test_finishing_in_the_middle_goes_on_afterwards() -> None:
    """A turn that is committed while the assistant speaks has all of its sound, and so the next."""
    far, near = voice(4.0), _noise(4.0, 16_000, 0.05)
    near = (near + 0.5 * _delayed(far, 1_600)).astype(np.float32)
    canceller = EchoCanceller(16_000)
    first = _cancelled(canceller, near[:33_333], far[:33_333])
    second = _cancelled(canceller, near[33_333:], far[33_333:])
    assert (len(first), len(second)) == (33_333, len(near) - 33_333)
    alone = _cancelled(EchoCanceller(16_000), near, far)
    later = slice(8_000, 24_000)
    assert abs(_power_db(second[later]) - _power_db(alone[33_333:][later])) < 3


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("kind", ["near_field", "far_field"])
def test_noise_is_reduced_and_speech_kept(rate_hz: int, kind: str) -> None:
    """Of a far microphone's noise more is taken away than of a near one's."""
    speech = np.concatenate((silence(2.0, rate_hz), voice(2.0, rate_hz)))
    noisy = (speech + _noise(4.0, rate_hz, 0.01)).astype(np.float32)
    cleaned = _reduced(NoiseReducer(rate_hz, kind, 1.0), noisy, rate_hz // 50)  # type: ignore[arg-type]
    assert len(cleaned) == len(noisy)
    quiet, spoken = slice(rate_hz, 2 * rate_hz), slice(5 * rate_hz // 2, 4 * rate_hz)
    less_db = _power_db(noisy[quiet]) - _power_db(cleaned[quiet])
    assert less_db > {"near_field": 5, "far_field": 7}[kind]
    assert abs(_power_db(noisy[spoken]) - _power_db(cleaned[spoken])) < 2
    assert abs(_lag(cleaned[spoken], noisy[spoken], rate_hz // 200)) <= rate_hz // 4_000


def test_strength_is_how_much_of_it() -> None:
    """None of it leaves the sound as it is, half of it is in between."""
    noisy = (np.concatenate((silence(1.5), voice(1.0))) + _noise(2.5, 16_000, 0.01)).astype(
        np.float32
    )
    assert np.array_equal(_reduced(NoiseReducer(16_000, "far_field", 0.0), noisy), noisy)
    quiet = slice(16_000, 24_000)
    half, all_of_it = (
        _power_db(_reduced(NoiseReducer(16_000, "far_field", strength), noisy)[quiet])
        for strength in (0.5, 1.0)
    )
    assert all_of_it < half - 3 < _power_db(noisy[quiet]) - 6


def test_cutting_a_stream_does_not_matter() -> None:
    """What comes out is the same however the stream came."""
    far = voice(4.0)
    near = (0.5 * _delayed(far, 1_600) + 0.2 * voice(4.0)[::-1]).astype(np.float32)
    whole = _cancelled(EchoCanceller(16_000), near, far, 1_600)
    for chunk in CHUNKS:
        cut = _cancelled(EchoCanceller(16_000), near, far, chunk)
        # Where it begins depends on where a chunk ends.
        assert np.allclose(cut[2 * 16_000 :], whole[2 * 16_000 :], atol=2e-2)
        noise = _reduced(NoiseReducer(16_000, "near_field", 1.0), near, chunk)
        assert np.array_equal(noise, _reduced(NoiseReducer(16_000, "near_field", 1.0), near, 777))


def test_a_missing_library_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the server learns what to install."""

    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    check_library()
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ConfigError, match="pywebrtc-audio"):
        check_library()
