"""Run one response from its announcement to its end.

Every `added` that is sent gets its `done`, whatever way the response ends.
"""

import base64
from dataclasses import replace

from model.engine.messages import Pcm, Usage
from server.audio.wire import AudioEncoder
from server.protocol.checks import JsonObject
from server.protocol.conversation import Conversation
from server.protocol.events import (
    ContentPartAdded,
    ContentPartDone,
    ItemAdded,
    ItemDone,
    OutputAudioDelta,
    OutputAudioDone,
    OutputAudioTranscriptDelta,
    OutputAudioTranscriptDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    RateLimitsUpdated,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
)
from server.protocol.items import AudioPart, Message, TextPart, Word
from server.protocol.moves import ResponseMove, ResponseState, next_response_state
from server.protocol.response import Response, ResponseStatus

# There is one output item with one content part: the message.
_OUTPUT_INDEX = 0
_CONTENT_INDEX = 0


class Speaking:
    """Hold the response in progress.

    Args:
        response: as announced, in progress.
        turn: names the response to the engine.
        item_id: of the message that it becomes.
        conversation: where the message goes.
        engine_rate_hz: of the audio that comes in.
        frame_ms: one audio token's length.
    """

    def __init__(
        self,
        response: Response,
        turn: int,
        item_id: str,
        conversation: Conversation,
        engine_rate_hz: int,
        frame_ms: int,
    ) -> None:
        self.response = response
        self.turn = turn
        self.item_id = item_id
        self.state = ResponseState.CREATED
        self._conversation = conversation
        self._rate_hz = engine_rate_hz
        self._frame_ms = frame_ms
        output_format = response.request.output_format
        self._encoder = AudioEncoder(output_format.encoding, output_format.rate_hz, engine_rate_hz)
        self._text = ""
        self._num_texts = 0
        self._words: list[Word] = []
        self._num_samples = 0
        self._first_audio_s: float | None = None

    @property
    def is_audio(self) -> bool:
        """Say whether the response is spoken; else it is written."""
        return self.response.request.modality == "audio"

    @property
    def audio_ms(self) -> int:
        """Return how much audio was sent."""
        return self._num_samples * 1000 // self._rate_hz

    def heard_ms(self, now_s: float) -> int:
        """Return the most that a client can have played by now.

        It plays in real time from the first audio on, and not more than it was sent.
        """
        if self._first_audio_s is None:
            return 0
        return min(self.audio_ms, max(0, round((now_s - self._first_audio_s) * 1000)))

    def announced(self) -> list[ServerEvent]:
        """Say that the response exists."""
        return [ResponseCreated(self.response)]

    def text(self, delta: str) -> list[ServerEvent]:
        """Pass on words."""
        # Engines separate words by leading spaces; a message does not begin with one.
        if not self._text:
            delta = delta.lstrip()
        if not delta:
            return []
        events = self._begun()
        self._text += delta
        self._num_texts += 1
        kind = OutputAudioTranscriptDelta if self.is_audio else OutputTextDelta
        events.append(kind(*self._place, delta))
        return events

    def audio(self, pcm: Pcm, now_s: float) -> list[ServerEvent]:
        """Pass on audio, one event a chunk."""
        if not self.is_audio:
            return []
        events = self._begun()
        if self._first_audio_s is None:
            self._first_audio_s = now_s
        self._num_samples += len(pcm)
        return [*events, *self._audio_delta(self._encoder.encode(pcm))]

    def word(self, text: str, start_ms: int) -> None:
        """Remember where a word begins."""
        self._words.append(Word(text, start_ms))

    def ended(
        self,
        status: ResponseStatus,
        details: JsonObject | None,
        usage: Usage | None,
        move: ResponseMove,
    ) -> list[ServerEvent]:
        """Close everything that is open, then the response."""
        is_open = self.state is ResponseState.SPEAKING
        self.state = next_response_state(self.state, move)
        events: list[ServerEvent] = []
        if is_open:
            # A response that was cut short does not send the tail that nobody will hear.
            if self.is_audio and status in ("completed", "incomplete"):
                events += self._audio_delta(self._encoder.finish())
            events += self._closed("completed" if status == "completed" else "incomplete")
        self.response = replace(
            self.response,
            status=status,
            status_details=details,
            output=(self._conversation[self.item_id],) if is_open else (),
            usage=usage or self._usage_so_far(),
        )
        return [*events, ResponseDone(self.response), RateLimitsUpdated()]

    @property
    def _place(self) -> tuple[str, str, int, int]:
        return self.response.id, self.item_id, _OUTPUT_INDEX, _CONTENT_INDEX

    @property
    def part(self) -> TextPart | AudioPart:
        """Return the content so far."""
        if self.is_audio:
            return AudioPart("output_audio", self._text, self.audio_ms, tuple(self._words))
        return TextPart("output_text", self._text)

    def _audio_delta(self, data: bytes) -> list[ServerEvent]:
        if not data:
            return []
        return [OutputAudioDelta(*self._place, base64.b64encode(data).decode("ascii"))]

    def _begun(self) -> list[ServerEvent]:
        """Open the item and its part, once."""
        is_first = self.state is ResponseState.CREATED
        self.state = next_response_state(self.state, ResponseMove.OUTPUT)
        if not is_first:
            return []
        item = Message(self.item_id, "assistant", "in_progress", ())
        previous_id = self._conversation.append(item)
        return [
            OutputItemAdded(self.response.id, _OUTPUT_INDEX, item),
            ItemAdded(previous_id, item),
            ContentPartAdded(*self._place, self.part),
        ]

    def _closed(self, status: ResponseStatus) -> list[ServerEvent]:
        """Close the part and the item."""
        part = self.part
        assert status in ("completed", "incomplete")
        item = Message(self.item_id, "assistant", status, (part,))
        self._conversation.replace(item)
        content: list[ServerEvent]
        if self.is_audio:
            content = [
                OutputAudioDone(*self._place),
                OutputAudioTranscriptDone(*self._place, self._text),
            ]
        else:
            content = [OutputTextDone(*self._place, self._text)]
        return [
            *content,
            ContentPartDone(*self._place, part),
            ItemDone(self._conversation.previous_id(self.item_id), item),
            OutputItemDone(self.response.id, _OUTPUT_INDEX, item),
        ]

    def _usage_so_far(self) -> Usage:
        """Count what was sent of a response that the engine did not finish."""
        return Usage(
            output_text_tokens=self._num_texts,
            output_audio_tokens=self.audio_ms // self._frame_ms,
        )
