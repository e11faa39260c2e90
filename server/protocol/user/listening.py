"""Follow what the user says: the open turn, the audio before it, and the words heard in it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from server.protocol.events import InputAudio
from server.protocol.ids import Ids
from server.protocol.moves import TurnMove, TurnState, next_turn_state
from server.protocol.server_events import (
    InputTranscriptionCompleted,
    InputTranscriptionDelta,
    InputTranscriptionScored,
    ServerEvent,
)
from server.protocol.wire.checks import JsonObject

# A worked example, with audio at 16 kHz and voice detection on:
#
#     appended 0-2,000 ms     nobody speaks: it waits as preroll, the latest of it where it is long
#     speech found at 1,700   the turn begins 300 ms before (prefix_padding_ms): `began(1400)` takes
#                             600 ms out of the preroll and forgets the rest
#     appended 2,000-4,000    belongs to the turn
#     end found at 3,900      the turn is closed with 2,600 ms: 1,400 to 4,000
#
# Words come from the engine as it hears them, for the oldest turn that is not transcribed yet.
# `emitted` is what the client has, `heard` what the engine has said. If the engine hears a turn
# again, because it was lost, `heard` begins anew, and only what goes beyond `emitted` is sent: no
# word comes twice.
#
# Source: Realtime guide, "Voice activity detection", prefix_padding_ms; Realtime API reference,
# server events, input_audio_buffer.speech_started (`item_id` is that of the item to come).


@dataclass(slots=True)
class Utterance:
    """Follow one spoken user turn until its transcript is final.

    Attributes:
        item_id: of the item that the turn becomes.
        is_announced: True once the client has been told `item_id`.
        num_samples: the turn's audio so far.
        has_speech: whether there may be speech in it.
        emitted: the words that the client was sent.
        heard: the words that the engine reported since it began to hear the turn. When a turn is
            fed again they come again, and only what goes beyond `emitted` is new.
    """

    item_id: str
    is_announced: bool
    num_samples: int = 0
    has_speech: bool = False
    emitted: str = ""
    heard: str = ""

    def news(self) -> list[ServerEvent]:
        """Return the words that the client does not have yet."""
        heard = self.heard.lstrip()
        if not self.is_announced or not heard.startswith(self.emitted):
            return []
        delta = heard[len(self.emitted) :]
        self.emitted = heard
        return [InputTranscriptionDelta(self.item_id, 0, delta)] if delta else []


class Listening:
    """Hold the user's side of a session.

    Args:
        sample_rate_hz: of all audio.
        max_kept_samples: how much audio without speech is kept; the padding before speech, and a
            commit by hand, are cut from it.
        ids: makes the items' ids.
    """

    def __init__(self, sample_rate_hz: int, max_kept_samples: int, ids: Ids) -> None:
        self._rate_hz = sample_rate_hz
        self._max_kept_samples = max_kept_samples
        self._ids = ids
        self._state = TurnState.QUIET
        self._preroll: deque[InputAudio] = deque()
        self._num_preroll_samples = 0
        self._num_samples = 0  # of all appended audio
        self._utterances: deque[Utterance] = deque()

    @property
    def has_turn(self) -> bool:
        """Say whether a turn is open."""
        return self._state is not TurnState.QUIET

    @property
    def is_announced(self) -> bool:
        """Say whether the open turn's item has been announced."""
        return self._state is TurnState.SPEECH

    @property
    def announced_id(self) -> str | None:
        """Return the id of the item that the open turn will become, if clients know it."""
        return self._utterances[-1].item_id if self.is_announced else None

    @property
    def starts_ms(self) -> int:
        """Return where in the appended audio the open turn starts."""
        assert self.has_turn, "there is no open turn"
        return (self._num_samples - self._utterances[-1].num_samples) * 1000 // self._rate_hz

    @property
    def buffered_ms(self) -> float:
        """Return how much audio a commit would take."""
        num = self._utterances[-1].num_samples if self.has_turn else self._num_preroll_samples
        return num * 1000 / self._rate_hz

    @property
    def heard_ms(self) -> int:
        """Return how much audio was appended in all."""
        return self._num_samples * 1000 // self._rate_hz

    @property
    def begins_ms(self) -> int:
        """Return where in the appended audio a turn can begin at the earliest."""
        return (self._num_samples - self._num_preroll_samples) * 1000 // self._rate_hz

    def audio(self, heard: InputAudio, *, is_detecting: bool) -> list[InputAudio]:
        """Take appended audio and return what of it belongs to the turn.

        Args:
            heard: the audio.
            is_detecting: True if a turn begins when speech is detected, not by appending.
        """
        num_samples = len(heard.pcm)
        self._num_samples += num_samples
        if not num_samples:
            return []
        if is_detecting and not self.has_turn:
            self._preroll.append(heard)
            self._num_preroll_samples += num_samples
            # The oldest piece goes only if what is left is still enough.
            while self._num_preroll_samples - len(self._preroll[0].pcm) >= self._max_kept_samples:
                self._num_preroll_samples -= len(self._preroll.popleft().pcm)
            return []
        self._move(TurnMove.APPEND, is_announced=False)
        return self._counted([heard])

    def began(self, start_ms: int, *, is_speech: bool = True) -> tuple[str, list[InputAudio]]:
        """Begin a turn, or let the open one be announced; return its item and its audio so far.

        Args:
            start_ms: where it begins, unless it is open already.
            is_speech: whether speech was detected.
        """
        self._move(TurnMove.BEGIN, is_announced=True)
        self._utterances[-1].is_announced = True
        self._utterances[-1].has_speech |= is_speech
        return self._utterances[-1].item_id, self._counted(self._preroll_from(start_ms))

    def undetected(self) -> list[InputAudio]:
        """Begin a turn of audio in which no turn was found, and return that audio."""
        assert not self.has_turn, "a turn is open already"
        self._move(TurnMove.APPEND, is_announced=False)
        return self._counted(self._preroll_from(0))

    def closed(self, move: TurnMove) -> tuple[str, int]:
        """End the turn; return its item and its length in milliseconds."""
        self._move(move, is_announced=True)
        utterance = self._utterances[-1]
        utterance.is_announced = True
        return utterance.item_id, utterance.num_samples * 1000 // self._rate_hz

    def is_silence(self, item_id: str) -> bool:
        """Say whether nobody spoke in a turn that was closed; what was heard in it is no word."""
        utterance = next(u for u in self._utterances if u.item_id == item_id)
        if not utterance.has_speech:
            utterance.heard = ""
        return not utterance.has_speech

    def cleared(self) -> None:
        """Forget the open turn and all audio before it."""
        if self.has_turn:
            self._utterances.pop()
        self._move(TurnMove.CLEAR, is_announced=False)
        self.forget_preroll()

    def forget_preroll(self) -> None:
        """Forget audio in which no speech was found."""
        self._preroll.clear()
        self._num_preroll_samples = 0

    def item_audio(self, item_id: str, num_samples: int) -> None:
        """Expect the words of an item that came as audio; they are heard before an open turn's."""
        # Before the open turn, which is always the last: the engine hears in this order.
        place = len(self._utterances) - self.has_turn
        self._utterances.insert(place, Utterance(item_id, is_announced=True))
        self._utterances[place].num_samples = num_samples

    def hears_again(self) -> None:
        """Note that the engine is about to hear the open turn from its start."""
        if self.has_turn:
            self._utterances[-1].heard = ""

    def news(self, item_id: str) -> list[ServerEvent]:
        """Return the words of an utterance that the client does not have yet."""
        return [event for u in self._utterances if u.item_id == item_id for event in u.news()]

    def words(self, text: str) -> str | None:
        """Add words to the utterance that the engine hears: one after the other, oldest first.

        Returns:
            The utterance's item, None if there is none.
        """
        if not self._utterances:
            return None
        self._utterances[0].heard += text
        return self._utterances[0].item_id

    def lost(self, is_awaited: Callable[[str], bool]) -> list[str]:
        """Note that the engine lost everything.

        Args:
            is_awaited: says whether a committed item is being heard again.

        Returns:
            The items whose words will never be known.
        """
        committed = list(self._utterances)[: len(self._utterances) - self.has_turn]
        gone = [u for u in committed if not is_awaited(u.item_id)]
        for utterance in gone:
            self._utterances.remove(utterance)
        for utterance in self._utterances:
            utterance.heard = ""
        return [utterance.item_id for utterance in gone]

    def transcribed(
        self, item_id: str, text: str, logprobs: tuple[JsonObject, ...] | None = None
    ) -> list[ServerEvent]:
        """Close an utterance with its final words.

        Args:
            item_id: of the utterance.
            text: the words.
            logprobs: of their tokens, as clients are sent them; None for those who want none.
        """
        for utterance in self._utterances:
            if utterance.item_id == item_id:
                self._utterances.remove(utterance)
                utterance.heard = text
                seconds = utterance.num_samples / self._rate_hz
                # Realtime API reference, …input_audio_transcription.completed: usage by duration.
                usage = {"type": "duration", "seconds": seconds}
                completed = InputTranscriptionCompleted(item_id, 0, text, usage)
                if logprobs is not None:
                    completed = InputTranscriptionScored(item_id, 0, text, usage, logprobs)
                return [*utterance.news(), completed]
        return []

    def _move(self, move: TurnMove, *, is_announced: bool) -> None:
        state = next_turn_state(self._state, move)
        if self._state is TurnState.QUIET and state is not TurnState.QUIET:
            self._utterances.append(Utterance(self._ids.new("item"), is_announced))
        self._state = state

    def _counted(self, chunks: list[InputAudio]) -> list[InputAudio]:
        self._utterances[-1].num_samples += sum(len(chunk.pcm) for chunk in chunks)
        self._utterances[-1].has_speech |= any(chunk.has_speech for chunk in chunks)
        return chunks

    def _preroll_from(self, start_ms: int) -> list[InputAudio]:
        """Take the kept audio from a moment on; what is older is forgotten."""
        start = start_ms * self._rate_hz // 1000
        position = self._num_samples - self._num_preroll_samples
        taken: list[InputAudio] = []
        for chunk in self._preroll:
            skipped = min(max(0, start - position), len(chunk.pcm))
            if skipped < len(chunk.pcm):
                pcm = chunk.pcm[skipped:].copy() if skipped else chunk.pcm
                taken.append(InputAudio(pcm, chunk.has_speech))
            position += len(chunk.pcm)
        self.forget_preroll()
        return taken
