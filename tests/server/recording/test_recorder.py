"""Recordings are written off the loop, bounded, readable after a crash, and kept as was asked."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import soundfile
from moto.server import ThreadedMotoServer

from model.engine.log import read_log
from model.messages import Cancel
from server.config.records import RecordingSettings, S3Settings
from server.names import ROOT
from server.recording.files import read_about
from server.recording.recorder import Recorder
from server.recording.store import FolderStore, Kept, S3Store, Store, enforce
from server.session.counts import Counts

HZ = 16_000
TIMEOUT_S = 30.0


def settings(folder: Path, **changes: Any) -> RecordingSettings:
    """Return settings with a folder of the test's own."""
    return RecordingSettings(enabled=True, dir=folder, **changes)


def block(seconds: float = 1.0) -> np.ndarray:
    """Return sound, both tracks different."""
    samples = np.arange(round(seconds * HZ), dtype=np.int16) % 1000
    return np.stack((samples, -samples), axis=1)


def record(recorder: Recorder, session_id: str = "sess_1", seconds: int = 3) -> str:
    """Make a recording; returns its name."""
    take = recorder.begin(session_id, "echo", HZ, {})
    for second in range(seconds):
        recorder.sound(take, second * HZ, block())
    recorder.event(take, {"at_ms": 5, "from": "client", "event": {"type": "response.create"}})
    recorder.message(take, Cancel("sess_1", 1))
    recorder.finish(take, (seconds + 1) * HZ, {"seconds": seconds + 1, "ended": "client"})
    return take.name


@contextmanager
def recording(
    made: RecordingSettings, store: Store | None = None, counts: Counts | None = None
) -> Iterator[Recorder]:
    """Hold a recorder, and let it write all that waits."""
    recorder = Recorder(made, counts or Counts(), lambda: {"echo": {"model": "echo"}}, store)
    try:
        yield recorder
    finally:
        close(recorder)


def close(recorder: Recorder) -> None:
    """Close a recorder, on a machine that may be slower than that waits."""
    recorder.close()
    recorder._writing.join(TIMEOUT_S)
    recorder._keeping.join(TIMEOUT_S)


def test_a_recording_is_a_folder_that_anybody_can_read(tmp_path: Path) -> None:
    """Sound, timeline, the engine's log, and what it is."""
    with recording(settings(tmp_path)) as recorder:
        name = record(recorder)
    folder = tmp_path / name
    assert sorted(file.name for file in folder.iterdir()) == [
        "audio.flac",
        "engine.log",
        "events.jsonl",
        "recording.json",
    ]
    sound, rate_hz = soundfile.read(folder / "audio.flac", dtype="int16")
    assert rate_hz == HZ
    assert np.array_equal(sound[: 3 * HZ], np.concatenate([block()] * 3))
    assert not sound[3 * HZ :].any()
    assert len(sound) == 4 * HZ
    line = json.loads((folder / "events.jsonl").read_text())
    assert line["event"]["type"] == "response.create"
    assert read_log(folder / "engine.log").entries == (Cancel("sess_1", 1),)
    about = read_about(folder)
    assert (about["is_complete"], about["session_id"]) == (True, "sess_1")
    assert about["channels"] == {"left": "user", "right": "assistant"}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not [*(tmp_path / "open").iterdir(), *(tmp_path / "ready").iterdir()]


def test_wav_stays_wav(tmp_path: Path) -> None:
    """For who wants it."""
    with recording(settings(tmp_path, format="wav")) as recorder:
        name = record(recorder)
    with wave.open(str(tmp_path / name / "audio.wav")) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getnframes()) == (2, HZ, 4 * HZ)


CRASH = """
import os, signal, sys, time
from pathlib import Path
from server.recording.recorder import Recorder
from server.session.counts import Counts
sys.path.insert(0, {root!r})
from tests.server.recording.test_recorder import HZ, block, settings
recorder = Recorder(settings(Path({folder!r})), Counts(), lambda: {{"echo": {{}}}})
take = recorder.begin("sess_1", "echo", HZ, {{}})
for second in range(3):
    recorder.sound(take, second * HZ, block())
    recorder.event(take, {{"at_ms": second}})
while recorder._num_waiting_bytes:
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_crash_leaves_a_file_that_can_be_read_and_the_next_start_finishes_it(
    tmp_path: Path,
) -> None:
    """SIGKILL, which nothing can be done about."""
    code = CRASH.format(root=str(ROOT), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "open").iterdir()
    sound, _ = soundfile.read(folder / "audio.wav", dtype="int16")
    assert np.array_equal(sound, np.concatenate([block()] * 3))
    assert len((folder / "events.jsonl").read_text().splitlines()) == 3
    with recording(settings(tmp_path)):
        pass
    sound, _ = soundfile.read(tmp_path / folder.name / "audio.flac", dtype="int16")
    assert len(sound) == 3 * HZ
    assert read_about(tmp_path / folder.name)["is_complete"] is False


def test_a_recording_that_another_server_writes_is_left_alone(tmp_path: Path) -> None:
    """Two may share a folder."""
    with recording(settings(tmp_path)) as recorder:
        take = recorder.begin("sess_1", "echo", HZ, {})
        recorder.sound(take, 0, block())
        until(lambda: not recorder._num_waiting_bytes)
        with recording(settings(tmp_path)):
            pass
        assert (tmp_path / "open" / take.name).exists()
        recorder.finish(take, HZ, {})
    assert (tmp_path / take.name / "audio.flac").exists()


class HeldStore(FolderStore):
    """A store that hangs until it may go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()

    def put(self, folder: Path) -> None:
        """Hang."""
        self.is_asked.set()
        self.may_go_on.wait(TIMEOUT_S)
        super().put(folder)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    end_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < end_s, "it never comes"
        threading.Event().wait(0.002)


def test_a_store_that_hangs_holds_up_no_recording(tmp_path: Path) -> None:
    """What is finished waits on the disk."""
    store = HeldStore(tmp_path)
    with recording(settings(tmp_path), store) as recorder:
        names = [record(recorder, f"sess_{number}") for number in range(3)]
        assert store.is_asked.wait(TIMEOUT_S)
        until(lambda: len([*(tmp_path / "ready").iterdir()]) == 3)
        store.may_go_on.set()
    assert {each.name for each in store.kept()} == set(names)


def test_what_a_disk_does_not_take_in_time_is_left_out_and_counted(tmp_path: Path) -> None:
    """The memory is bounded, the event loop never waits, and the sound keeps its place."""
    counts = Counts()
    may_write = threading.Event()

    def describe() -> dict[str, Any]:
        may_write.wait(TIMEOUT_S)
        return {"echo": {}}

    made = settings(tmp_path, max_waiting_bytes=1 << 20)
    recorder = Recorder(made, counts, describe)
    take = recorder.begin("sess_1", "echo", HZ, {})
    for second in range(40):
        recorder.sound(take, second * HZ, block())
    assert recorder._num_waiting_bytes <= 1 << 20
    assert counts.recording_pieces_missed == take.num_missed == 24
    may_write.set()
    until(lambda: not recorder._num_waiting_bytes)
    recorder.sound(take, 50 * HZ, block())
    recorder.finish(take, 51 * HZ, {})
    close(recorder)
    sound, _ = soundfile.read(tmp_path / take.name / "audio.flac", dtype="int16")
    assert np.array_equal(sound[50 * HZ :], block())
    assert not sound[16 * HZ : 50 * HZ].any()
    about = read_about(tmp_path / take.name)
    assert (about["is_complete"], about["pieces_missed"]) == (False, 24)


def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written stays."""
    counts = Counts()
    with recording(settings(tmp_path), counts=counts) as recorder:
        take = recorder.begin("sess_1", "echo", HZ, {})
        recorder.sound(take, 0, block())
        until(lambda: not recorder._num_waiting_bytes)
        assert take.files is not None

        def full(*_: object) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(take.files, "event", full)
        recorder.event(take, {})
        recorder.sound(take, HZ, block())
        recorder.finish(take, 2 * HZ, {})
        other = record(recorder, "sess_2")
    assert counts.recordings_failed == 1
    assert read_about(tmp_path / take.name)["is_complete"] is False
    assert read_about(tmp_path / other)["is_complete"] is True
    sound, _ = soundfile.read(tmp_path / take.name / "audio.flac", dtype="int16")
    assert np.array_equal(sound[:HZ], block())


class ListStore:
    """A store that only knows what it has."""

    def __init__(self, *kept: Kept) -> None:
        self.all = [*kept]

    def put(self, folder: Path) -> None:
        """Take nothing."""

    def kept(self) -> list[Kept]:
        """List them."""
        return [*self.all]

    def delete(self, name: str) -> None:
        """Delete one."""
        self.all = [each for each in self.all if each.name != name]


DAY_S = 24 * 3600


@pytest.mark.parametrize(
    ("keep_days", "max_bytes", "gone"),
    [
        (0, 0, []),
        (30, 0, ["a"]),
        (1, 0, ["a", "b"]),
        (0, 9, ["a"]),
        (0, 8, ["a"]),
        (0, 7, ["a", "b"]),
        (0, 4, ["a", "b", "c"]),
        (30, 7, ["a", "b"]),
    ],
)
def test_the_oldest_goes_first(
    tmp_path: Path, keep_days: float, max_bytes: int, gone: list[str]
) -> None:
    """By age, and by what all of them take."""
    store = ListStore(
        Kept("c", 5, 99.5 * DAY_S), Kept("a", 4, 50 * DAY_S), Kept("b", 3, 98 * DAY_S)
    )
    made = settings(tmp_path, keep_days=keep_days, max_bytes=max_bytes)
    assert enforce(store, made, lambda: 100 * DAY_S) == gone
    assert {each.name for each in store.all} == {"a", "b", "c"} - set(gone)


def test_old_recordings_are_deleted_when_a_new_one_comes(tmp_path: Path) -> None:
    """Only recordings: what else is in the folder stays."""
    (tmp_path / "notes_of_mine").mkdir()
    counts = Counts()
    with recording(settings(tmp_path, max_bytes=30_000), counts=counts) as recorder:
        names = [record(recorder, f"sess_{number}") for number in range(4)]
        until(lambda: counts.recordings_deleted > 0 and not (tmp_path / names[0]).exists())
    assert (tmp_path / "notes_of_mine").exists()
    assert (tmp_path / names[3]).exists()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run a store on this machine; returns its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Settings]:
    """Make a bucket with somebody else's object in it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1")
    client.create_bucket(Bucket="calls")
    client.put_object(Bucket="calls", Key="other.txt", Body=b"not ours")
    yield S3Settings(bucket="calls", prefix="voice/", endpoint_url=s3, region="us-east-1")
    for each in client.list_objects_v2(Bucket="calls").get("Contents", ()):
        client.delete_object(Bucket="calls", Key=each["Key"])
    client.delete_bucket(Bucket="calls")
    client.close()


def keys(bucket: S3Settings) -> list[str]:
    """Return the keys of what is in the bucket."""
    client = boto3.client("s3", endpoint_url=bucket.endpoint_url, region_name="us-east-1")
    listed = client.list_objects_v2(Bucket="calls").get("Contents", ())
    client.close()
    return [each["Key"] for each in listed]


def test_recordings_go_to_a_bucket(tmp_path: Path, bucket: S3Settings) -> None:
    """And are gone here."""
    with recording(settings(tmp_path, s3=bucket)) as recorder:
        name = record(recorder)
    files = ("audio.flac", "engine.log", "events.jsonl", "recording.json")
    assert keys(bucket) == ["other.txt", *(f"voice/{name}/{file}" for file in files)]
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]
    (kept,) = S3Store(bucket).kept()
    assert kept.name == name
    assert kept.num_bytes > 1000


def test_a_bucket_keeps_no_more_than_it_may(tmp_path: Path, bucket: S3Settings) -> None:
    """What is somebody else's stays."""
    counts = Counts()
    made = settings(tmp_path, s3=bucket, max_bytes=30_000)
    with recording(made, counts=counts) as recorder:
        for number in range(4):
            record(recorder, f"sess_{number}")
    assert counts.recordings_deleted >= 1
    assert len(S3Store(bucket).kept()) <= 3
    assert "other.txt" in keys(bucket)


def test_a_bucket_that_is_not_there_loses_nothing(tmp_path: Path, bucket: S3Settings) -> None:
    """What could not be stored is there at the next start, and goes then."""
    counts = Counts()
    wrong = bucket.model_copy(update={"bucket": "wrong"})
    with recording(settings(tmp_path, s3=wrong), counts=counts) as recorder:
        name = record(recorder)
        until(lambda: counts.recordings_failed > 0)
    assert (tmp_path / "ready" / name / "audio.flac").exists()
    with recording(settings(tmp_path, s3=bucket)):
        pass
    assert f"voice/{name}/audio.flac" in keys(bucket)
