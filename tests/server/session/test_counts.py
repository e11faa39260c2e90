"""Sessions are counted as they go."""

import numpy as np
import pytest

from server.audio.silero import SileroModel
from server.protocol.settings.config import ServerVad
from server.session.counts import FIRST_AUDIO_BUCKETS_S, Counts
from tests.server.session.live import living
from tests.server.sounds import base64_pcm, silence, voice

pytestmark = pytest.mark.usefixtures("no_tasks_left")


async def test_a_session_leaves_its_marks() -> None:
    """Events both ways, errors, a reply that was begun in vain, responses and the end."""
    counts = Counts()
    detection = ServerVad(threshold=0.2, silence_duration_ms=500)
    spoken = (silence(0.5, 24_000), voice(1.0, 24_000), silence(0.2, 24_000), voice(0.8, 24_000))
    audio = base64_pcm(np.concatenate((*spoken, silence(0.9, 24_000))))
    async with living(SileroModel(), counts=counts, turn_detection=detection) as live:
        live.send(type="nonsense")
        await live.until("error")
        live.send(type="input_audio_buffer.append", audio=audio)
        await live.until("response.done")
        assert (counts.sessions_begun, counts.sessions_ended) == (1, {})
        live.transport.disconnect()
    assert counts.events_received == 2
    assert counts.events_sent > 10
    assert counts.errors == {"invalid_request_error": 1}
    assert counts.speculations == counts.speculations_withdrawn + 1 > 1
    assert counts.responses == {"completed": 1}
    assert sum(counts.first_audio_buckets) == 1
    assert counts.sessions_ended == {"client": 1}


def test_a_bound_belongs_to_its_bucket() -> None:
    """What took longer than all bounds is counted as well."""
    counts = Counts()
    for seconds in (FIRST_AUDIO_BUCKETS_S[0], FIRST_AUDIO_BUCKETS_S[-1] + 1):
        counts.count_first(seconds)
    assert counts.first_audio_buckets[0] == counts.first_audio_buckets[-1] == 1
    assert counts.first_audio_seconds == sum((FIRST_AUDIO_BUCKETS_S[0], 6.0))
