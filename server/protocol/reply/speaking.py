"""Say or write the message of a response."""

import base64

from model.messages import EngineInfo, Pcm
from server.audio.speed import SpeedChanger
from server.audio.wire import AudioEncoder
from server.protocol.items.items import AudioPart, Message, Part, Status, TextPart, Word
from server.protocol.items.recordings import Recordings
from server.protocol.reply.output_items import OutputItems
from server.protocol.reply.playout import Playout
from server.protocol.server_events import (
    ContentPartAdded,
    ContentPartDone,
    OutputAudioDelta,
    OutputAudioDone,
    OutputAudioTranscriptDelta,
    OutputAudioTranscriptDone,
    OutputTextDelta,
    OutputTextDone,
    ServerEvent,
)
from server.protocol.settings.request import ResponseRequest
from server.protocol.sound import Sound

# The events of one spoken message, in order:
#
#     response.output_item.added, conversation.item.added, response.content_part.added
#     response.output_audio_transcript.delta and response.output_audio.delta, as they are made
#     response.output_audio.done, response.output_audio_transcript.done, response.content_part.done
#     conversation.item.done, response.output_item.done
#
# A worked example of lengths. `speed` is 2: the engine makes 800 ms of sound, the client is sent
# 400 ms. Tokens count what was made, places such as audio_end_ms what is played;
# `AudioPart.model_ms` brings a place of the client's back into the engine's time: 300 ms heard are
# 600 ms made.
#
# Source: Realtime API reference, server events, response.output_audio.delta and its neighbours.

_CONTENT_INDEX = 0  # a message has one content part


class Speaking:
    """Hold the message that a response makes.

    Args:
        response_id: of the response.
        item_id: of the message.
        request: says whether it is spoken, and how.
        outputs: where the message goes.
        recordings: keep its sound; None for what nobody can ask for.
        info: of the engine that the sound comes from.
        playout: follows the sound where the transport plays it; None: clients are sent it.
    """

    def __init__(
        self,
        response_id: str,
        item_id: str,
        request: ResponseRequest,
        outputs: OutputItems,
        recordings: Recordings | None,
        info: EngineInfo,
        playout: Playout | None = None,
    ) -> None:
        self.item_id = item_id
        self.is_audio = request.modality == "audio"
        self.is_open = False
        self.num_texts = 0
        self._response_id = response_id
        self._outputs = outputs
        self._recordings = recordings
        self._info = info
        self._playout = playout
        self._speed = request.speed
        self._speed_changer = SpeedChanger(info.sample_rate_hz, request.speed)
        output_format = request.output_format
        self._encoder = AudioEncoder(
            output_format.encoding, output_format.rate_hz, info.sample_rate_hz
        )
        self._text = ""
        self._words: list[Word] = []
        self._num_made_samples = 0  # by the engine
        self._num_samples = 0  # for the client, which may hear them faster or slower
        self._first_audio_s: float | None = None

    @property
    def has_text(self) -> bool:
        """Say whether there are words yet."""
        return bool(self._text)

    @property
    def num_frames(self) -> int:
        """Count the frames that the engine has made."""
        made_ms = self._num_made_samples * 1000 // self._info.sample_rate_hz
        return made_ms // self._info.frame_ms

    @property
    def audio_ms(self) -> int:
        """Return how much audio was sent, as the client plays it."""
        return self._num_samples * 1000 // self._info.sample_rate_hz

    @property
    def part(self) -> Part:
        """Return the content so far."""
        if not self.is_audio:
            return TextPart("output_text", self._text)
        words = tuple(self._words)
        return AudioPart("output_audio", self._text, self.audio_ms, words, speed=self._speed)

    def heard_ms(self, now_s: float) -> int:
        """Return the most that a client can have played by now.

        It plays in real time from the first audio on, and not more than it was sent. A transport
        that plays by itself knows it.
        """
        if self._playout is not None:
            played_ms = self._playout.heard_ms(self.item_id)
            return self.audio_ms if played_ms is None else played_ms
        if self._first_audio_s is None:
            return 0
        return min(self.audio_ms, max(0, round((now_s - self._first_audio_s) * 1000)))

    def is_played(self, now_s: float) -> bool:
        """Say whether a client may be hearing it, or will."""
        return self.is_audio and self.heard_ms(now_s) < self.audio_ms

    def opened(self) -> list[ServerEvent]:
        """Open the message and its part."""
        self.is_open = True
        if self._recordings is not None and self.is_audio:
            self._recordings.begin(self.item_id)
        item = Message(self.item_id, "assistant", "in_progress", ())
        return [*self._outputs.opened(item), ContentPartAdded(*self._place, self.part)]

    def text(self, text: str) -> list[ServerEvent]:
        """Add words: of the text, or of what the audio says."""
        self._text += text
        self.num_texts += 1
        delta = OutputAudioTranscriptDelta if self.is_audio else OutputTextDelta
        return [delta(*self._place, text)]

    def audio(self, pcm: Pcm, now_s: float) -> list[ServerEvent | Sound]:
        """Pass on audio, one event a chunk."""
        if self._first_audio_s is None:
            self._first_audio_s = now_s
        self._num_made_samples += len(pcm)
        played = self._noted(self._speed_changer.feed(pcm))
        if self._playout is not None:
            return self._playout.add(self._response_id, self.item_id, played)
        return [*self._delta(self._encoder.encode(played), played)]

    def word(self, text: str, start_ms: int) -> None:
        """Remember where a word begins."""
        self._words.append(Word(text, start_ms))

    def closed(self, status: Status, *, is_cut: bool) -> list[ServerEvent | Sound]:
        """Close the part and the message.

        Args:
            status: that the message ends with.
            is_cut: True if nobody will hear the tail that the encoder holds; it is not sent.
        """
        self.is_open = False
        events: list[ServerEvent | Sound] = []
        if self.is_audio:
            events += self._last(is_cut=is_cut)
            events.append(OutputAudioDone(*self._place))
            events.append(OutputAudioTranscriptDone(*self._place, self._text))
        else:
            events.append(OutputTextDone(*self._place, self._text))
        part = self.part
        item = Message(self.item_id, "assistant", status, (part,))
        return [*events, ContentPartDone(*self._place, part), *self._outputs.closed(item)]

    @property
    def _place(self) -> tuple[str, str, int, int]:
        index = self._outputs.index(self.item_id)
        return self._response_id, self.item_id, index, _CONTENT_INDEX

    def _last(self, *, is_cut: bool) -> list[ServerEvent | Sound]:
        """Pass on what is held back of the audio, unless nobody will hear it."""
        if is_cut:
            return [] if self._playout is None else self._playout.finish(self.item_id)
        rest = self._noted(self._speed_changer.finish())
        if self._playout is None:
            return [*self._delta(self._encoder.encode(rest) + self._encoder.finish(), rest)]
        added = self._playout.add(self._response_id, self.item_id, rest)
        return [*added, *self._playout.finish(self.item_id)]

    def _noted(self, played: Pcm) -> Pcm:
        """Count and keep what the client is to play."""
        self._num_samples += len(played)
        if self._recordings is not None:
            self._recordings.add(self.item_id, played)
        return played

    def _delta(self, data: bytes, pcm: Pcm) -> list[ServerEvent]:
        if not data:
            return []
        return [OutputAudioDelta(*self._place, base64.b64encode(data).decode("ascii"), pcm)]
