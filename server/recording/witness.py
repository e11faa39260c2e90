"""Record one session, for as long as its client consents."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from model.messages import Command, Open, Output, Pcm, Taken
from server.protocol.dialects.ga import GaDialect
from server.protocol.server_events import (
    ItemTruncated,
    OutputAudioDelta,
    ServerEvent,
    SessionCreated,
    SessionUpdated,
    SpeechStarted,
)
from server.protocol.settings.config import SessionConfig
from server.protocol.wire.checks import JsonObject
from server.protocol.wire.client_events import InputAudioBufferAppend
from server.recording.recorder import Recorder, Take
from server.recording.tracks import HOLD_S, Tracks
from server.session.witness import Witness

# Sound that is final is handed over for writing once in this time.
_WRITE_S = 1.0
# Of a text in the timeline; of a longer one only the length is written.
_MAX_CHARS = 65_536
# Fields that hold sound and pictures, and fields that hold credentials.
_DATA = frozenset({"audio", "image_url", "file_data"})
_SECRET = frozenset({"authorization", "headers", "client_secret"})


class SessionRecording(Witness):
    """Record a session.

    Args:
        recorder: writes.
        config: what the session begins with.
        rate_hz: of the engine's sound.
        model: that the session has, by its own name.
        is_played: whether the transport plays replies and says when; else the client does.
        about: what is known of the session; JSON.
    """

    wants_sound: ClassVar[bool] = True

    def __init__(
        self,
        recorder: Recorder,
        config: SessionConfig,
        rate_hz: int,
        *,
        model: str,
        is_played: bool,
        about: Mapping[str, Any],
    ) -> None:
        self._recorder = recorder
        self._config = config
        self._rate_hz = rate_hz
        self._model = model
        self._is_played = is_played
        self._about = about
        self._writes = GaDialect()
        self._take: Take | None = None
        self._tracks = Tracks(rate_hz, 0.0)
        self._start_s = self._written_s = self._end_s = 0.0

    def received(self, event: JsonObject, now_s: float) -> None:
        """Put a client's event on the timeline."""
        if event.get("type") != InputAudioBufferAppend.type:
            self._line("client", event, now_s)

    def sent(self, event: ServerEvent, event_id: str, now_s: float) -> None:
        """Follow the client's consent, and put an event on the timeline."""
        if isinstance(event, SessionCreated | SessionUpdated):
            self._follow(event.session, now_s)
        if self._take is None:
            return
        if not self._is_played:
            self._played(event, now_s)
        if isinstance(event, OutputAudioDelta):
            # Its sound is on the right track.
            told: JsonObject = {
                "type": event.type,
                "event_id": event_id,
                "response_id": event.response_id,
                "item_id": event.item_id,
                "samples": len(event.pcm),
            }
        else:
            written = self._writes.write(event, event_id)
            if written is None:
                return
            told = written
        self._line("server", told, now_s)

    def told(self, command: Command, now_s: float) -> None:
        """Keep what the engine is told."""
        if self._take is None and isinstance(command, Open) and command.is_noted:
            # Of a session that begins with consent: the engine is told first.
            self._follow(self._config, now_s)
        if self._is_going_on(now_s) and self._take is not None:
            self._recorder.message(self._take, command)

    def made(self, output: Output, now_s: float) -> None:
        """Keep what the engine made."""
        if isinstance(output, Taken) or self._take is None or not self._is_going_on(now_s):
            return
        self._recorder.message(self._take, output)

    def heard(self, pcm: Pcm, now_s: float) -> None:
        """Keep sound of the user."""
        if self._is_going_on(now_s):
            self._tracks.hear(pcm, now_s)

    def sounded(self, pcm: Pcm, at_s: float) -> None:
        """Keep sound that the transport plays."""
        if self._is_going_on(at_s):
            self._tracks.sound(pcm, at_s)

    def hushed(self, now_s: float) -> None:
        """Leave out what the transport was given to play and does not."""
        if self._is_going_on(now_s):
            self._tracks.hush(now_s)

    def ended(self, why: str, now_s: float) -> None:
        """End the recording with its session."""
        self._finish(now_s, why)

    # Consent.

    def _follow(self, config: SessionConfig, now_s: float) -> None:
        if config.is_recorded and self._take is None:
            self._start_s = self._written_s = now_s
            self._end_s = now_s + self._recorder.settings.max_minutes * 60
            self._tracks = Tracks(self._rate_hz, now_s)
            about = {"voice": config.voice, **self._about}
            self._take = self._recorder.begin(config.id, self._model, self._rate_hz, about)
        elif not config.is_recorded and self._take is not None:
            self._finish(now_s, "consent withdrawn")

    def _finish(self, now_s: float, why: str) -> None:
        if self._take is None:
            return
        take, end_s = self._take, min(now_s, self._end_s)
        self._write(end_s)
        self._take = None
        seconds = round(end_s - self._start_s, 3)
        about = {"seconds": seconds, "ended": why}
        self._recorder.finish(take, self._tracks.place(end_s), about)

    def _is_going_on(self, now_s: float) -> bool:
        """Say whether there is anything to keep, and let what is final be written."""
        if self._take is None:
            return False
        if now_s - self._written_s >= HOLD_S + _WRITE_S:
            self._write(min(now_s, self._end_s) - HOLD_S)
        return now_s < self._end_s

    def _write(self, until_s: float) -> None:
        assert self._take is not None
        for start, block in self._tracks.take(until_s):
            self._recorder.sound(self._take, start, block)
        self._written_s = until_s

    # What is kept.

    def _played(self, event: ServerEvent, now_s: float) -> None:
        """Follow what a client plays that plays by itself."""
        match event:
            case OutputAudioDelta():
                self._tracks.play(event.item_id, event.pcm, now_s)
            case SpeechStarted():
                # Clients stop playing when they are told of speech.
                self._tracks.stop(now_s)
            case ItemTruncated():
                self._tracks.cut(event.item_id, event.audio_end_ms)
            case _:
                pass

    def _line(self, whose: str, event: JsonObject, now_s: float) -> None:
        if self._take is None or not self._is_going_on(now_s):
            return
        at_ms = max(0, math.floor((now_s - self._start_s) * 1000))
        line = {"at_ms": at_ms, "from": whose, "event": _kept(event)}
        self._recorder.event(self._take, line)


def _kept(value: Any) -> Any:
    """Return what the timeline has of an event: no sound, no pictures, and no secrets."""
    match value:
        case dict():
            return {key: _kept_field(key, each) for key, each in value.items()}
        case list():
            return [_kept(each) for each in value]
        case str() if len(value) > _MAX_CHARS:
            return {"chars": len(value)}
        case _:
            return value


def _kept_field(key: str, value: Any) -> Any:
    if key in _SECRET and value:
        return "…"
    if key in _DATA and isinstance(value, str):
        return {"chars": len(value)}
    return _kept(value)
