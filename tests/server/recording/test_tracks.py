"""The two tracks are aligned to the sample, and the right one has what was heard and no more."""

import numpy as np
import pytest

from server.recording.tracks import Stereo, Tracks

HZ = 1_000  # a sample is a millisecond


def tone(seconds: float, level: float = 0.5) -> np.ndarray:
    """Return sound of one level, so that its place can be read off."""
    return np.full(round(seconds * HZ), level, dtype=np.float32)


def written(tracks: Tracks, until_s: float, into: Stereo | None = None) -> Stereo:
    """Return both tracks up to a time, on top of what was written before."""
    sound = np.zeros((tracks.place(until_s), 2), dtype=np.int16)
    if into is not None:
        sound[: len(into)] = into
    for start, block in tracks.take(until_s):
        assert start >= (0 if into is None else len(into))
        sound[start : start + len(block)] = block
    return sound


def spans(channel: np.ndarray) -> list[tuple[int, int]]:
    """Return where there is sound, in milliseconds."""
    edges = np.flatnonzero(np.diff((channel != 0).astype(int), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


@pytest.fixture
def tracks() -> Tracks:
    """Return tracks that begin at 100 s."""
    return Tracks(HZ, 100.0)


def test_sound_of_a_microphone_lies_where_it_was_recorded(tracks: Tracks) -> None:
    """It arrived when its last sample had been recorded."""
    tracks.hear(tone(0.5), 101.0)
    assert spans(written(tracks, 103)[:, 0]) == [(500, 1000)]


def test_jitter_makes_no_gaps_and_a_pause_does(tracks: Tracks) -> None:
    """Pieces that come late or together are one stretch of sound."""
    for arrival_s in (101.0, 101.15, 101.16, 101.31):
        tracks.hear(tone(0.1), arrival_s)
    tracks.hear(tone(0.1), 103.0)
    assert spans(written(tracks, 104)[:, 0]) == [(900, 1300), (2900, 3000)]


def test_what_comes_faster_than_it_can_be_spoken_follows_on(tracks: Tracks) -> None:
    """A file is appended at once: nothing of it lies on top of anything."""
    for _ in range(3):
        tracks.hear(tone(1.0), 100.5)
    assert spans(written(tracks, 105)[:, 0]) == [(0, 3000)]


def test_a_transport_that_plays_says_when(tracks: Tracks) -> None:
    """To the sample, gaps included."""
    tracks.sound(tone(0.02), 101.0)
    tracks.sound(tone(0.02), 101.02)
    tracks.sound(tone(0.02), 101.5)
    assert spans(written(tracks, 103)[:, 1]) == [(1000, 1040), (1500, 1520)]


def test_a_transport_that_is_sent_sound_ahead_plays_it_in_turn(tracks: Tracks) -> None:
    """A telephone gets a second at once; what it is told to forget was not heard."""
    for _ in range(25):
        tracks.sound(tone(0.04), 101.0)
    tracks.sound(tone(0.04), 101.5)
    tracks.hush(101.7)
    tracks.hush(101.8)
    # It goes on at the last mark that came back.
    tracks.sound(tone(0.04), 102.0)
    tracks.sound(tone(0.04), 102.0)
    tracks.sound(tone(0.04), 104.0)
    tracks.hush(105.0)
    expected = [(1000, 1700), (2000, 2080), (4000, 4040)]
    assert spans(written(tracks, 106)[:, 1]) == expected


def test_a_clock_that_is_not_exact_makes_no_gaps(tracks: Tracks) -> None:
    """Frames come a few milliseconds early or late, and follow each other to the sample."""
    for at_s in (101.0, 101.018, 101.043, 101.06):
        tracks.sound(tone(0.02), at_s)
    assert spans(written(tracks, 103)[:, 1]) == [(1000, 1080)]


def test_a_client_plays_what_it_gets_one_after_the_other(tracks: Tracks) -> None:
    """However fast it comes."""
    for sent_s in (101.0, 101.01, 101.02):
        tracks.play("a", tone(1.0), sent_s)
    tracks.play("b", tone(1.0), 101.03)
    tracks.play("c", tone(1.0), 106.0)
    assert spans(written(tracks, 108)[:, 1]) == [(1000, 5000), (6000, 7000)]


def test_a_client_that_ran_dry_plays_on_when_there_is_more(tracks: Tracks) -> None:
    """And what it says was heard counts all stretches of the item."""
    tracks.play("a", tone(1.0), 101.0)
    tracks.play("a", tone(1.0), 103.0)
    tracks.stop(103.8)
    tracks.cut("a", 1300)
    assert spans(written(tracks, 105)[:, 1]) == [(1000, 2000), (3000, 3300)]


def test_speech_stops_it_and_the_client_says_how_much_was_heard(tracks: Tracks) -> None:
    """The client's word counts, whether it heard less than the server thinks or more."""
    tracks.play("a", tone(4.0), 101.0)
    tracks.stop(102.5)
    assert spans(written(tracks, 100.9)[:, 1]) == []
    tracks.cut("a", 1300)
    tracks.play("b", tone(0.5), 103.0)
    tracks.stop(103.2)
    tracks.cut("b", 400)
    assert spans(written(tracks, 106)[:, 1]) == [(1000, 2300), (3000, 3400)]


def test_a_reply_that_nobody_heard_is_not_there(tracks: Tracks) -> None:
    """Nor is one that waited behind it."""
    tracks.play("a", tone(2.0), 101.0)
    tracks.play("b", tone(2.0), 101.1)
    tracks.stop(101.5)
    tracks.cut("a", 0)
    assert spans(written(tracks, 106)[:, 1]) == []


def test_it_does_not_matter_when_it_is_written(tracks: Tracks) -> None:
    """Piece by piece, three seconds behind, or at the end: the same sound."""
    other, sound = Tracks(HZ, 100.0), None
    for number in range(40):
        now_s = 100 + number * 0.5
        for each in (tracks, other):
            each.hear(tone(0.5, 0.1 + number / 100), now_s + 0.5)
            if number % 8 == 2:
                each.play(f"item_{number}", tone(3.0, 0.3), now_s)
            if number % 8 == 5:
                each.stop(now_s)
                each.cut(f"item_{number - 3}", 1234)
        sound = written(other, max(100.0, now_s - 3), sound)
    assert np.array_equal(written(other, 123, sound), written(tracks, 123))


def test_long_silence_is_not_made(tracks: Tracks) -> None:
    """Who says nothing for an hour takes no memory."""
    tracks.hear(tone(0.1), 100.1)
    tracks.hear(tone(0.1), 3700.0)
    blocks = [*tracks.take(3800)]
    assert [start for start, _ in blocks] == [0, 3_590_000]
    assert all(len(block) <= 10 * HZ for _, block in blocks)


def test_what_was_written_is_forgotten(tracks: Tracks) -> None:
    """A call of hours holds seconds."""
    for number in range(1000):
        now_s = 100 + number * 0.1
        tracks.hear(tone(0.1), now_s)
        tracks.sound(tone(0.1), now_s)
        tracks.play(f"item_{number}", tone(0.1), now_s)
        for _ in tracks.take(now_s - 3):
            pass
    held = (tracks._users, tracks._placed, tracks._items)
    assert all(len(each) < 40 for each in held)


def test_loud_sound_is_not_turned_around(tracks: Tracks) -> None:
    """Sixteen bits end where they end."""
    tracks.hear(np.array([2.0, -2.0, 1.0, -1.0], dtype=np.float32), 100.004)
    assert written(tracks, 101)[:4, 0].tolist() == [32767, -32767, 32767, -32767]
