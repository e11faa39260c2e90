"""Follow what a transport plays by itself: `output_audio_buffer` events, and what was heard."""

from dataclasses import dataclass

from model.messages import Pcm
from server.protocol.server_events import (
    OutputAudioBufferCleared,
    OutputAudioBufferStarted,
    OutputAudioBufferStopped,
    ServerEvent,
)
from server.protocol.sound import EndOfAudio, PlayAudio, Played, Sound, StopAudio

# A worked example, one item at 16 kHz:
#
#     add 1,280 samples       PlayAudio
#     played 320              output_audio_buffer.started: the first that is really heard
#     finish                  EndOfAudio; the item is whole, and not over
#     played 1,280            output_audio_buffer.stopped, and the item is forgotten
#
# Cut after 640 instead, it is StopAudio and output_audio_buffer.cleared, and `heard_ms` was 40.
# Source: Realtime API reference, server events, output_audio_buffer.started, .stopped, .cleared.


@dataclass(slots=True)
class _Track:
    """One item's audio.

    Attributes:
        num_samples: given to the transport.
        num_played: of these.
        is_whole: nothing more comes.
        is_cut: nothing more of it is played.
    """

    response_id: str
    item_id: str
    num_samples: int = 0
    num_played: int = 0
    is_whole: bool = False
    is_cut: bool = False

    @property
    def is_over(self) -> bool:
        """Say whether there is nothing left to follow."""
        return self.is_whole and (self.is_cut or self.num_played >= self.num_samples)


class Playout:
    """Hold the items that wait to be played or are being played, in order.

    Args:
        rate_hz: of the engine's audio.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._tracks: dict[str, _Track] = {}  # by item

    def add(self, response_id: str, item_id: str, pcm: Pcm) -> list[ServerEvent | Sound]:
        """Play more of an item."""
        if not len(pcm):
            return []
        track = self._tracks.setdefault(item_id, _Track(response_id, item_id))
        if track.is_cut:
            return []
        track.num_samples += len(pcm)
        return [PlayAudio(response_id, item_id, pcm)]

    def finish(self, item_id: str) -> list[ServerEvent | Sound]:
        """Note that an item is whole."""
        track = self._tracks.get(item_id)
        if track is None:
            return []
        track.is_whole = True
        told: list[ServerEvent | Sound] = [] if track.is_cut else [EndOfAudio(item_id)]
        return [*told, *self._over(track)]

    def played(self, report: Played) -> list[ServerEvent | Sound]:
        """Take note of how far the transport is."""
        track = self._tracks.get(report.item_id)
        if track is None or track.is_cut:
            return []
        started = [] if track.num_played else [OutputAudioBufferStarted(track.response_id)]
        track.num_played = report.num_samples
        return [*started, *self._over(track)]

    def heard_ms(self, item_id: str) -> int | None:
        """Return how much of an item was played; None if it is not being played (any more)."""
        track = self._tracks.get(item_id)
        return None if track is None else track.num_played * 1000 // self._rate_hz

    @property
    def waiting(self) -> list[str]:
        """Return the items that have not been played to their ends, in order."""
        return [track.item_id for track in self._tracks.values() if not track.is_cut]

    def cut(self, item_id: str) -> list[ServerEvent | Sound]:
        """Play no more of an item."""
        track = self._tracks[item_id]
        track.is_cut = True
        if track.is_whole:
            del self._tracks[item_id]
        # Each `started` has one `cleared` or `stopped`, and what did not start has neither.
        cleared = [OutputAudioBufferCleared(track.response_id)] if track.num_played else []
        return [StopAudio(item_id), *cleared]

    def _over(self, track: _Track) -> list[ServerEvent]:
        if not track.is_over:
            return []
        del self._tracks[track.item_id]
        is_told = track.num_played and not track.is_cut
        return [OutputAudioBufferStopped(track.response_id)] if is_told else []
