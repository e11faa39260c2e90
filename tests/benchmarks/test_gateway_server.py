"""The engine that notes when it hands frames over."""

from queue import Queue

from benchmarks.gateway_server import NotingEngine
from model.messages import News, Open, Output, Respond, ResponseAudio, ResponseDone
from model.scripted.script import parse_script
from tests.fakes.scripted import scripted_engine

_WAIT_S = 20.0


def test_frames_are_noted_and_nothing_is_changed() -> None:
    """One time a frame, in order, and every output is passed on."""
    script = parse_script("{pace: {first_output_ms: 0}, reply: [{say: hi}]}", "s")
    engine = NotingEngine(scripted_engine(script, max_sessions=1, ahead_ms=1000))
    outputs: Queue[Output | News] = Queue()
    engine.start(outputs.put)
    try:
        engine.submit(Open("s", engine.info.voices[0]))
        engine.submit(Respond("s", 1, "a"))
        made = [outputs.get(timeout=_WAIT_S)]
        while not isinstance(made[-1], ResponseDone):
            made.append(outputs.get(timeout=_WAIT_S))
    finally:
        engine.stop()
    times = engine.handed_over_s["s"]
    assert len(times) == sum(isinstance(output, ResponseAudio) for output in made) == 5
    assert times == sorted(times)
