"""Whether a loudspeaker is heard in a microphone."""

import numpy as np
import pytest

from server.audio.echo_path import EchoPath

RATE_HZ = 16_000
CHUNK = 320


def _speech(seconds: float, seed: int) -> np.ndarray:
    """Make noise that comes and goes as syllables do, each in bands of its own."""
    rng = np.random.default_rng(seed)
    num = int(seconds * RATE_HZ)
    spectrum_hz = np.fft.rfftfreq(num, 1 / RATE_HZ)
    made = np.zeros(num)
    for centre_hz in (300, 700, 1_500, 2_500, 4_000):
        noise = np.fft.rfft(rng.standard_normal(num))
        band = np.fft.irfft(noise * (np.abs(spectrum_hz - centre_hz) < centre_hz / 4), num)
        syllables = rng.uniform(0, 1, num // 1_600 + 2) ** 4
        made += (
            band
            / np.std(band)
            * np.interp(np.arange(num) / 1_600, range(len(syllables)), syllables)
        )
    return (0.05 * made).astype(np.float32)


def _followed(near: np.ndarray, far: np.ndarray) -> list[bool | None]:
    path, states = EchoPath(RATE_HZ), []
    for start in range(0, len(far), CHUNK):
        path.feed(near[start : start + CHUNK], far[start : start + CHUNK])
        states.append(path.is_found)
    return states


def _echo(far: np.ndarray, delay_ms: int, level_db: float) -> np.ndarray:
    late = RATE_HZ * delay_ms // 1000
    back = np.concatenate((np.zeros(late, np.float32), far))[: len(far)]
    noise = np.random.default_rng(9).standard_normal(len(far)).astype(np.float32)
    return (back * 10 ** (level_db / 20) + 0.0005 * noise).astype(np.float32)


@pytest.mark.parametrize("delay_ms", [10, 100, 300, 450])
@pytest.mark.parametrize("level_db", [0, -10, -20])
def test_an_echo_is_found(delay_ms: int, level_db: float) -> None:
    """At any delay that can be cancelled, and any level that disturbs, in a second and a half."""
    far = _speech(6.0, 1)
    states = _followed(_echo(far, delay_ms, level_db), far)
    assert set(states[:39]) == {None}, "0.8 s are compared"
    assert False not in states
    assert all(states[75:])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("lead_s", [0.0, 0.3, 0.8])
def test_who_speaks_as_a_reply_begins_is_no_echo(seed: int, lead_s: float) -> None:
    """Both begin at once, and are not alike for that."""
    far, user = _speech(4.0, 2 * seed), _speech(4.0, 2 * seed + 1)
    near = _echo(far, 0, -120)
    lead = int(lead_s * RATE_HZ)
    near[lead:] += user[: len(user) - lead]
    states = _followed(near, far)
    assert True not in states
    assert states[115] is False, "it is known in 2.3 s at the latest"


def test_silence_is_no_echo() -> None:
    """Who is not heard needs no cancelling, and a voice that comes later is nobody's echo."""
    far, user = _speech(8.0, 1), _speech(8.0, 2)
    near = _echo(far, 0, -120)
    near[3 * RATE_HZ :] += user[3 * RATE_HZ :]
    states = _followed(near, far)
    assert states[0] is None
    assert set(states[2 * 50 :]) == {False}


def test_an_echo_that_begins_later_is_found() -> None:
    """A headset is taken off: it is looked for again every four seconds."""
    far = _speech(16.0, 1)
    near = _echo(far, 0, -120)
    near[5 * RATE_HZ :] = _echo(far, 150, -6)[5 * RATE_HZ :]
    states = _followed(near, far)
    assert not any(states[2 * 50 : 5 * 50])
    assert all(states[11 * 50 :])


def test_a_microphone_that_is_off_has_no_echo() -> None:
    """Until it is on."""
    far = _speech(16.0, 1)
    near = np.zeros_like(far)
    near[8 * RATE_HZ :] = _echo(far, 150, -6)[8 * RATE_HZ :]
    states = _followed(near, far)
    assert set(states[2 * 50 : 8 * 50]) == {False}
    assert all(states[14 * 50 :])


def test_a_microphone_that_was_off_for_a_moment_still_has_its_echo() -> None:
    """Who is muted for two seconds is heard with it at once."""
    far = _speech(8.0, 1)
    near = _echo(far, 150, -6)
    near[3 * RATE_HZ : 5 * RATE_HZ] = 0.0
    assert all(_followed(near, far)[75:])


def test_a_silent_reply_does_not_show_that_the_microphone_is_off() -> None:
    """What is not played is not recorded."""
    far = _speech(8.0, 1)
    far[RATE_HZ // 2 :] = 0.0
    assert set(_followed(np.zeros_like(far), far)) == {None}


def test_what_is_not_played_says_nothing() -> None:
    """Without sound in the far end there is nothing to compare."""
    user = _speech(5.0, 2)
    assert set(_followed(user, np.zeros_like(user))) == {None}
