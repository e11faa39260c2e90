"""A limited process works on schemas; what it does not survive is refused, and nothing else is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import GrammarError, OverloadedError
from model.schemas.results import Verdict
from model.schemas.service import MAX_WAITING_EACH, SchemaService
from model.schemas.spelling import spelled
from model.schemas.worker import Bounds
from tests.model.turns.conftest import VOCABULARY

GOOD = '{"type": "object", "properties": {"a": {"type": "string"}}}'
# Each in reach of the bound on `multipleOf`, but the compiler has to follow both at once.
ENDLESS = json.dumps(
    {"properties": {"a": {"type": "integer", "allOf": [{"multipleOf": 499}, {"multipleOf": 503}]}}}
)
PANIC = json.dumps({"required": "ы" * 60})
TIMEOUT_S = 60.0


@pytest.fixture
def service() -> Iterator[SchemaService]:
    """Return a service whose jobs may take a tenth of a second."""
    made = SchemaService(spelled(VOCABULARY), Bounds(cpu_s=0.1))
    yield made
    made.close()


def _verdict(service: SchemaService, schema: str, owner: str = "a") -> Verdict:
    return service.check(owner, schema).result(TIMEOUT_S)


def _process(service: SchemaService) -> int:
    assert service._worker is not None
    return service._worker._process.pid


def test_nothing_runs_before_it_is_needed(service: SchemaService) -> None:
    """One process serves all, and a verdict is remembered."""
    assert service.num_starts == 0
    assert _verdict(service, GOOD) == Verdict()
    assert _verdict(service, '{"properties": []}').refused == "properties must be an object"
    assert service.num_starts == 1
    assert service.check("b", GOOD).done()


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (ENDLESS, "it takes more time or memory than a schema may take"),
        (PANIC, "the schema compiler cannot cope with it"),
    ],
)
def test_what_the_process_does_not_survive_is_refused(
    service: SchemaService, schema: str, reason: str
) -> None:
    """Whoever comes next finds another process."""
    assert _verdict(service, schema).refused == reason
    assert _verdict(service, GOOD) == Verdict()
    num_starts = service.num_starts
    assert _verdict(service, schema).refused == reason
    assert service.num_starts == num_starts, "it is not tried again"


def test_too_much_memory_is_refused() -> None:
    """By the limit of the process, long before the machine has none left."""
    service = SchemaService(bounds=Bounds(memory_bytes=4 << 20, cpu_s=20.0))
    try:
        assert "memory" in str(_verdict(service, ENDLESS).refused)
    finally:
        service.close()


def test_process_that_was_killed_is_nobodys_fault(service: SchemaService) -> None:
    """What it was working on is done by the next one."""
    _verdict(service, GOOD)
    os.kill(_process(service), signal.SIGKILL)
    assert _verdict(service, '{"properties": {"b": {}}}') == Verdict()
    assert service.num_starts == 2


def test_owners_take_turns(service: SchemaService) -> None:
    """Who brings one schema waits for one of somebody who brings a hundred."""
    _verdict(service, GOOD)
    process = _process(service)
    os.kill(process, signal.SIGSTOP)
    order: list[str] = []

    def note(owner: str) -> Any:
        return lambda _: order.append(owner)

    many = [f'{{"title": "{number}"}}' for number in range(20)]
    asked = [service.check("many", schema) for schema in many]
    for each in asked:
        each.add_done_callback(note("many"))
    one = service.check("one", '{"title": "mine"}')
    one.add_done_callback(note("one"))
    os.kill(process, signal.SIGCONT)
    for each in (*asked, one):
        each.result(TIMEOUT_S)
    # One may have been begun before the other came.
    assert order.index("one") <= 2


def test_queue_of_each_owner_is_bounded(service: SchemaService) -> None:
    """Others still have room."""
    _verdict(service, GOOD)
    process = _process(service)
    os.kill(process, signal.SIGSTOP)
    many = [f'{{"title": "{number}"}}' for number in range(MAX_WAITING_EACH + 2)]
    asked = [service.check("many", schema) for schema in many]
    other = service.check("other", '{"title": "mine"}')
    with pytest.raises(OverloadedError):
        asked[-1].result(TIMEOUT_S)
    os.kill(process, signal.SIGCONT)
    assert other.result(TIMEOUT_S) == Verdict()


def test_call_is_written_from_its_choices_alone(service: SchemaService) -> None:
    """A process that has never heard of a call writes it up to the same place."""
    schema = '{"properties": {"name": {"type": "string"}}, "required": ["name"]}'
    first = service.write("s", "s/1", schema, ()).result(TIMEOUT_S)
    assert first.text == '{"name":"'
    chosen = first.choices[:1]
    second = service.write("s", "s/1", schema, chosen).result(TIMEOUT_S)
    os.kill(_process(service), signal.SIGKILL)
    assert service.write("s", "s/1", schema, chosen).result(TIMEOUT_S) == second
    closed = service.write("s", "s/1", schema, chosen, closes=True).result(TIMEOUT_S)
    assert closed.is_complete
    assert isinstance(json.loads(closed.text)["name"], str)
    with pytest.raises(GrammarError, match="not among the choices"):
        service.write("s", "s/1", schema, (-5,)).result(TIMEOUT_S)


def test_calls_that_nobody_goes_on_with_are_let_go() -> None:
    """What their grammars hold is given back; one that is gone on with later is the same."""
    service = SchemaService(spelled(VOCABULARY), Bounds(cpu_s=10.0))
    try:
        name = {"properties": {"name": {"type": "string"}}, "required": ["name"]}
        first = service.write("s", "s/1", json.dumps(name), ()).result(TIMEOUT_S)
        chosen = first.choices[:1]
        expected = service.write("s", "s/1", json.dumps(name), chosen).result(TIMEOUT_S)
        process = _process(service)
        before = _resident_mb(process)
        # Each grammar takes 3.5 MB, and stops at its second property, which is for the model.
        both = {"a": {"const": "a" * 8_000}, "b": {"type": "string"}}
        long = {"properties": both, "required": ["a", "b"]}
        for number in range(40):
            service.write("s", f"long/{number}", json.dumps(long), ()).result(TIMEOUT_S)
        assert service.write("s", "s/1", json.dumps(name), chosen).result(TIMEOUT_S) == expected
        assert _resident_mb(process) < before + 90
        assert service.num_starts == 1
    finally:
        service.close()


def _resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_pattern_that_backtracks_for_ever_costs_nobody(service: SchemaService) -> None:
    """The check after a call has the same bounds."""
    schema = json.dumps({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    with pytest.raises(GrammarError, match="more time or memory"):
        service.misfit("s", schema, json.dumps({"a": "a" * 40 + "b"})).result(TIMEOUT_S)
    assert service.misfit("s", schema, '{"a": "aa"}').result(TIMEOUT_S) is None


def test_gateway_loads_no_compiler() -> None:
    """Neither that nor what models run on: its process only hands schemas over."""
    script = "import sys, server.app; sys.exit(bool({'torch', 'llguidance'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_who_goes_away_stops_nobody(service: SchemaService) -> None:
    """A question that nobody waits for any more is answered, and so is the next."""
    asked = [service.check("gone", f'{{"title": "{number}"}}') for number in range(8)]
    misfit = service.misfit("gone", GOOD, "{}")
    assert not any(question.cancel() for question in asked)
    assert not misfit.cancel()
    assert _verdict(service, GOOD) == Verdict()
    assert [question.result(TIMEOUT_S) for question in asked] == [Verdict()] * 8
    misfit.result(TIMEOUT_S)
