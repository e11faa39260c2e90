"""Hear the user: what is understood is the script's, when it is understood follows the audio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from model.messages import Pcm
from model.scripted.script import Hear

# About two hundred words a minute, as people talk.
_WORD_MS = 300
# A frame counts as sound above -40 dBFS; three quiet ones after it sound like the end of a turn.
_SOUND_LEVEL = 0.01
_QUIET_FRAMES = 3


@dataclass(frozen=True, slots=True)
class HeardEnd:
    """Report that the turn sounds finished, `audio_ms` after its start."""

    audio_ms: int


@dataclass(frozen=True, slots=True)
class Understood:
    """What a turn was understood as.

    Attributes:
        text: its words.
        num_frames: that it had.
        logprobs: its words, spaces included, and their log-probabilities, where the script has any.
    """

    text: str
    num_frames: int
    logprobs: tuple[tuple[str, float], ...] = ()


@dataclass(slots=True)
class _Turn:
    """The turn in progress."""

    num_frames: int = 0
    rest: Pcm = field(default_factory=lambda: np.zeros(0, dtype=np.float32))  # under one frame
    num_words: int = 0  # reported
    num_quiet: int = 0  # frames since the last sound
    has_sound: bool = False  # since its end was last reported
    is_finished: bool = False  # as was reported, and no sound was heard since


class Hearing:
    """Follow the user's turns of one session.

    Args:
        entries: of the script.
        used: indices of entries that were heard and are used up; kept by the caller.
        frame_samples: samples of one frame.
        frame_ms: its length.
    """

    __slots__ = ("_committed", "_entries", "_frame_ms", "_frame_samples", "_turn", "used")

    def __init__(
        self, entries: Sequence[Hear], used: set[int], *, frame_samples: int, frame_ms: int
    ) -> None:
        self._entries = entries
        self._frame_samples, self._frame_ms = frame_samples, frame_ms
        self._turn = _Turn()
        self._committed: tuple[_Turn, frozenset[int]] | None = None  # tentatively
        self.used = used

    def hear(self, pcm: Pcm) -> list[str | HeardEnd]:
        """Take audio, float32 [samples].

        Returns:
            Words to be added to the turn's live transcript, and where it sounds finished.
        """
        turn = self._turn
        # A client sends what it likes: 3,000 samples with frames of 1,920 are one frame now, and
        # 1,080 samples that wait for more.
        pcm = np.concatenate((turn.rest, pcm))
        num_whole = len(pcm) - len(pcm) % self._frame_samples
        turn.rest = pcm[num_whole:].copy()
        news: list[str | HeardEnd] = []
        for frame in pcm[:num_whole].reshape(-1, self._frame_samples):
            turn.num_frames += 1
            news += self._words(turn)
            news += self._end(turn, is_sound=float(np.dot(frame, frame)) > self._sound_energy)
        return news

    @property
    def is_finished(self) -> bool:
        """Say whether the turn in progress sounds finished."""
        return self._turn.is_finished

    def clear(self) -> None:
        """Forget the turn in progress."""
        self._turn = _Turn()

    def commit(self, *, is_tentative: bool) -> Understood | None:
        """End the turn.

        Returns:
            What it was understood as; None if it had no frames.
        """
        turn = self._turn
        # The turn is copied, because going on changes it. A reopened turn goes on from the copy,
        # and the entry of the script that it had used up is free again.
        if is_tentative:
            self._committed = replace(turn), frozenset(self.used)
        num_frames = turn.num_frames + (len(turn.rest) > 0 and not is_tentative)
        self._turn = _Turn()
        if not num_frames:
            return None
        found = self._entry(num_frames * self._frame_ms, is_over=True)
        if found is None:
            return Understood("", num_frames)
        index, entry = found
        if not entry.repeat:
            self.used.add(index)
        tokens = [word if n == 0 else f" {word}" for n, word in enumerate(entry.words)]
        logprobs = tuple(zip(tokens, entry.logprobs, strict=False))  # there may be none
        return Understood(" ".join(entry.words), num_frames, logprobs)

    def reopen(self) -> None:
        """Go on with the turn that was tentatively committed last, which there must be."""
        assert self._committed is not None
        self._turn, used = self._committed
        self._committed = None
        self.used.clear()
        self.used.update(used)

    @property
    def _sound_energy(self) -> float:
        return _SOUND_LEVEL**2 * self._frame_samples

    def _entry(self, audio_ms: int, *, is_over: bool) -> tuple[int, Hear] | None:
        """Find what a turn is understood as; one that goes on can still grow into an entry."""
        # While the user speaks, an entry that asks for two seconds may still be meant: only its
        # upper bound counts. At the end both do.
        for index, entry in enumerate(self._entries):
            is_long_enough = not is_over or entry.min_ms <= audio_ms
            is_short_enough = entry.max_ms is None or audio_ms <= entry.max_ms
            if index not in self.used and is_long_enough and is_short_enough:
                return index, entry
        return None

    def _words(self, turn: _Turn) -> list[str]:
        audio_ms = turn.num_frames * self._frame_ms
        found = self._entry(audio_ms, is_over=False)
        words = [] if found is None else found[1].words
        # At 1,000 ms 1,000 // 300 = 3 words have been heard. Those that were not reported yet are
        # the news.
        news = words[turn.num_words : audio_ms // _WORD_MS]
        spaced = [word if turn.num_words + i == 0 else f" {word}" for i, word in enumerate(news)]
        turn.num_words += len(news)
        return spaced

    def _end(self, turn: _Turn, *, is_sound: bool) -> list[HeardEnd]:
        # Three quiet frames are 240 ms. The end is reported once; only sound after it makes another
        # one possible.
        turn.num_quiet = 0 if is_sound else turn.num_quiet + 1
        turn.has_sound = turn.has_sound or is_sound
        turn.is_finished = turn.is_finished and not is_sound
        audio_ms = turn.num_frames * self._frame_ms
        found = self._entry(audio_ms, is_over=False)
        is_unfinished = found is not None and found[1].unfinished
        if not turn.has_sound or turn.num_quiet < _QUIET_FRAMES or is_unfinished:
            return []
        turn.has_sound, turn.is_finished = False, True
        return [HeardEnd(audio_ms)]
