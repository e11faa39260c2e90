"""Many sessions on one thread, each on its own."""

from __future__ import annotations

import subprocess
import sys
from queue import Queue

from model.messages import (
    AppendAudio,
    AppendText,
    Close,
    CommitAudio,
    InputTranscript,
    Open,
    Output,
    Respond,
    ResponseAudio,
    ResponseDone,
    ResponseFailed,
    ResponseText,
    SessionFailed,
)
from model.scripted.script import parse_script
from server.names import ROOT
from tests.fakes.scripted import scripted_engine
from tests.model.scripted.stage import SESSION, make_stage, sound, text_of

SCRIPT = "{hear: [one, two], reply: [{say: 'you said {last_user}'}]}"
_WAIT_S = 20.0


def test_sessions_do_not_see_each_other() -> None:
    """Each has the script, the memory and the time to itself."""
    stage = make_stage(SCRIPT)
    stage.do(Open("other", "ash"))
    for session in (SESSION, "other"):
        stage.start(AppendAudio(session, sound(900)), CommitAudio(session, "u"))
    stage.start(Respond(SESSION, 1, "a"), Respond("other", 1, "a"))
    outputs = stage.run(1e9)
    for session in (SESSION, "other"):
        own = [output for output in outputs if output.session_id == session]
        assert text_of(own) == "you said one"
        assert isinstance(own[-1], ResponseDone)
    # They are made side by side, frame by frame.
    speakers = [output.session_id for output in outputs if isinstance(output, ResponseAudio)]
    assert speakers[:4] == [SESSION, "other"] * 2


def test_capacity_and_names_are_checked() -> None:
    """What cannot be opened fails by name; the others go on."""
    stage = make_stage(SCRIPT)
    (again,) = stage.do(Open(SESSION, "ash"))
    (voice,) = stage.do(Open("v", "nobody"))
    stage.do(Open("second", "ash"))
    (full,) = stage.do(Open("third", "ash"))
    for failed, reason in ((again, "open already"), (voice, "no voice 'nobody'"), (full, "taken")):
        assert isinstance(failed, SessionFailed)
        assert reason in failed.message
    assert stage.core.metrics.sessions == 2


def test_closed_session_is_silent_and_free() -> None:
    """Nothing of it comes any more, and its place can be taken."""
    stage = make_stage(SCRIPT)
    stage.do(Open("second", "ash"))
    stage.start(Respond(SESSION, 1, "a"), Close(SESSION))
    assert stage.run(1e9) == []
    assert stage.do(Open("third", "ash"), Close("nobody")) == []
    assert stage.do(AppendText(SESSION, "u", "user", "hi"), Respond(SESSION, 2, "a")) == []


def test_reopened_session_goes_on_in_the_script() -> None:
    """A conversation that is told anew does not hear the first turn again."""
    stage = make_stage(SCRIPT)
    stage.do(AppendAudio(SESSION, sound(900)), CommitAudio(SESSION, "u"))
    stage.do(Close(SESSION), Open(SESSION, "alloy"), AppendAudio(SESSION, sound(900)))
    assert stage.do(CommitAudio(SESSION, "u")) == [InputTranscript(SESSION, "u", "two")]


def test_script_that_does_not_fit_fails_the_response() -> None:
    """And nothing else: the next turn is answered."""
    stage = make_stage("reply: [{when: {user: a}, say: b}]")
    user = AppendText(SESSION, "u", "user", "x")
    (failed,) = stage.do(user, Respond(SESSION, 1, "a"))
    assert isinstance(failed, ResponseFailed)
    assert "no reply of the script fits 'x'" in failed.message
    assert text_of(stage.do(AppendText(SESSION, "u", "user", "a"), Respond(SESSION, 2, "b"))) == "b"


def test_thread_serves_a_turn() -> None:
    """In real time, from another thread."""
    script = parse_script("{pace: {first_output_ms: 0}, reply: [{say: hi}]}", "s")
    engine, outputs = scripted_engine(script, max_sessions=1, ahead_ms=1000), Queue[Output]()
    engine.start(outputs.put)
    try:
        engine.submit(Open("s", engine.info.voices[0]))
        engine.submit(Respond("s", 1, "a"))
        made = [outputs.get(timeout=_WAIT_S)]
        while not isinstance(made[-1], ResponseDone):
            made.append(outputs.get(timeout=_WAIT_S))
    finally:
        engine.stop()
    assert [output.text for output in made if isinstance(output, ResponseText)] == ["hi"]
    assert engine.metrics.frames_spoken == 5


def test_runs_without_torch() -> None:
    """A test environment of an application need not wait for it."""
    code = (
        "import sys, model.scripted.engine, model.scripted.script\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
