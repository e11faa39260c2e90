"""Count what the gateway does. Written and read in the event loop."""

from dataclasses import dataclass, field
from typing import Annotated

from model.metrics import PART, Shown, bucket, counter, counter_by, no_counts

# Upper bounds in seconds, closest around what a caller does not notice.
FIRST_AUDIO_BUCKETS_S = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
# Parts of a turn may be much shorter than the whole.
PART_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class Counts:
    """Hold what is counted since the gateway started.

    What a field counts is said once, where it is declared, and shown by the server at `/metrics`.
    """

    connections: Annotated[int, counter("WebSocket requests, refused ones included.")] = 0
    refused: Annotated[
        dict[str, int],
        counter_by(
            "code",
            "WebSocket requests that became no session, by the code that the client was told.",
        ),
    ] = field(default_factory=dict)
    sessions_begun: Annotated[int, counter("Sessions that were opened.")] = 0
    sessions_by_transport: Annotated[
        dict[str, int],
        counter_by("transport", "Sessions that were made, by what they came by."),
    ] = field(default_factory=dict)
    failed_keys: Annotated[
        int, counter("Requests with a wrong key, over HTTP and for WebSockets.")
    ] = 0
    sessions_ended: Annotated[
        dict[str, int],
        counter_by(
            "close",
            "Sessions that ended, by close code, or 'client' if the client left, 'ping_timeout' if "
            "it answered no ping, 'stopping' if the server was stopped.",
        ),
    ] = field(default_factory=dict)
    calls: Annotated[int, counter("WebRTC calls whose offers were answered.")] = 0
    calls_ended: Annotated[
        dict[str, int], counter_by("reason", "WebRTC calls that ended, by why.")
    ] = field(default_factory=dict)
    call_packets: Annotated[
        int, counter("RTP packets received in WebRTC calls that have ended.")
    ] = 0
    call_frames_concealed: Annotated[
        int, counter("Frames of 20 ms lost or late in WebRTC calls that have ended.")
    ] = 0
    phone_calls: Annotated[
        dict[str, int], counter_by("provider", "Telephone calls whose streams began.")
    ] = field(default_factory=dict)
    phone_calls_refused: Annotated[
        dict[str, int],
        counter_by("code", "Webhooks and streams of telephone calls that were refused, by why."),
    ] = field(default_factory=dict)
    phone_calls_ended: Annotated[
        dict[str, int], counter_by("reason", "Telephone calls that ended, by why.")
    ] = field(default_factory=dict)
    sessions_resumed: Annotated[int, counter("Times that a client came back to its session.")] = 0
    sessions_parked: Annotated[
        int, counter("Times that a session gave its slot back while its client was away.")
    ] = 0
    slow_readers: Annotated[
        int, counter("Sessions that ended because their clients did not take what they were sent.")
    ] = 0
    events_received: Annotated[int, counter("Events received from clients.")] = 0
    events_sent: Annotated[int, counter("Events made for clients.")] = 0
    errors: Annotated[
        dict[str, int], counter_by("type", "Error events made for clients, by type.")
    ] = field(default_factory=dict)
    responses: Annotated[
        dict[str, int], counter_by("status", "Responses that ended, by status.")
    ] = field(default_factory=dict)
    speculations: Annotated[
        int, counter("Replies that were begun before it was certain that the user had finished.")
    ] = 0
    speculations_withdrawn: Annotated[
        int, counter("Replies begun before their time that were taken back.")
    ] = 0
    first_audio_seconds: Annotated[float, PART] = 0.0
    first_audio_buckets: Annotated[
        list[int],
        Shown(
            "histogram",
            "Time from the end of the user's turn, or from the response's creation where there was "
            "none, to its first audio or text.",
            name="first_audio_seconds",
            bounds=FIRST_AUDIO_BUCKETS_S,
            sum_field="first_audio_seconds",
        ),
    ] = field(default_factory=lambda: no_counts(FIRST_AUDIO_BUCKETS_S))

    turn_part_sums: Annotated[dict[str, float], PART] = field(default_factory=dict)
    turn_part_buckets: Annotated[
        dict[str, list[int]],
        Shown(
            "histogram",
            "Time from the user's last sound to the first audio or text of the reply, in parts.",
            name="turn_part_seconds",
            label="part",
            bounds=PART_BUCKETS_S,
            sum_field="turn_part_sums",
        ),
    ] = field(default_factory=dict)
    spans_dropped: Annotated[
        int, counter("Spans of traces that were dropped because too many waited.")
    ] = 0
    spans_failed: Annotated[int, counter("Spans of traces that the collector did not take.")] = 0

    recordings: Annotated[int, counter("Recordings that were begun.")] = 0
    recordings_failed: Annotated[
        int, counter("Times that a recording could not be written, or not be kept yet.")
    ] = 0
    recording_pieces_missed: Annotated[
        int, counter("Pieces of recordings that were left out because too much waited.")
    ] = 0
    recordings_deleted: Annotated[
        int, counter("Recordings that were deleted because they were old or too many.")
    ] = 0

    def count_part(self, part: str, seconds: float) -> None:
        """Count a part of what a user waited for."""
        self.turn_part_sums[part] = self.turn_part_sums.get(part, 0.0) + seconds
        buckets = self.turn_part_buckets.setdefault(part, no_counts(PART_BUCKETS_S))
        buckets[bucket(PART_BUCKETS_S, seconds)] += 1

    def count_first(self, seconds: float) -> None:
        """Count the first audio, or text, of a response."""
        self.first_audio_seconds += seconds
        self.first_audio_buckets[bucket(FIRST_AUDIO_BUCKETS_S, seconds)] += 1


def count_in(counts: dict[str, int], key: str) -> None:
    """Count one more of a kind."""
    counts[key] = counts.get(key, 0) + 1
