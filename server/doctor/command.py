"""`parley doctor`: run every check, and say what was found."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import ifaddr

from server.capacity.admission import session_bound, with_bounds
from server.capacity.record import this_machine
from server.config.settings import Settings
from server.doctor.configuration import check_exposure, check_keys
from server.doctor.device import (
    Placed,
    ask_torch,
    check_devices,
    found_compiler,
    found_driver,
    found_nodes,
)
from server.doctor.finding import Finding, error
from server.doctor.host import this_host
from server.doctor.model import look_at_model
from server.doctor.ports import check_ports, check_reach
from server.doctor.resources import (
    check_clock,
    check_descriptors,
    check_disk,
    check_memory,
    check_shared_memory,
    newest_file,
    num_places,
    written_folders,
)
from server.doctor.tls import check_tls, trusted_roots
from server.errors import ConfigError
from server.names import parley_version

EXIT_OK, EXIT_FOUND = 0, 1


def run_doctor(settings: Settings, config: Path, *, is_json: bool) -> int:
    """Look at everything, print what was found, and return the exit code: 1 if there is an error.

    Args:
        settings: of the server that is to be started.
        config: file that they are from.
        is_json: print one JSON object in place of lines.
    """
    findings: list[Finding] = []
    for finding in examine(settings, config):
        findings.append(finding)
        if not is_json:
            print(as_text(finding))  # as it is found: hashing takes its time
    counts = Counter(finding.status for finding in findings)
    if is_json:
        print(
            json.dumps(
                {
                    "parley": parley_version(),
                    "errors": counts["error"],
                    "warnings": counts["warning"],
                    "findings": [asdict(finding) for finding in findings],
                }
            )
        )
    else:
        print(f"\n{_number(counts['error'], 'error')}, {_number(counts['warning'], 'warning')}")
    return EXIT_FOUND if counts["error"] else EXIT_OK


def examine(settings: Settings, config: Path) -> Iterator[Finding]:
    """Run every check; arguments as `run_doctor`."""
    host = this_host()
    yield from check_keys(settings.server)
    guessed: dict[str, int] = {}
    try:
        machine = this_machine()
        bounds = {each.model.name: session_bound(each, machine) for each in settings.each_model}
    except ConfigError as problem:
        yield error("config.capacity", str(problem), "remove the file; run `parley capacity`")
    else:
        settings = with_bounds(settings, {name: each.sessions for name, each in bounds.items()})
        guessed = {
            name: each.sessions
            for name, each in bounds.items()
            if each.reason.startswith("the default")
        }
    yield from check_exposure(settings, host, config=config, guessed=guessed)
    yield from check_tls(settings.server, host.now, trusted_roots())
    yield from check_clock(host, newest_file())
    sessions = num_places(settings)
    yield from check_ports(settings, sessions)
    addresses = [
        ip.ip if isinstance(ip.ip, str) else ip.ip[0]
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    ]
    yield from check_reach(settings, addresses)
    yield from check_descriptors(settings, sessions, host)
    yield from check_disk(written_folders(settings))
    if any(each.engine.placement == "process" for each in settings.each_model):
        yield from check_shared_memory()
    placed: list[Placed] = []
    for each in settings.each_model:
        model = look_at_model(each)
        for finding in model.findings:
            yield _of_model(finding, each.model.name) if settings.models else finding
        placed += [Placed(model.kind, device, model.num_bytes) for device in each.engine.places]
    on_cpu = [engine.num_bytes for engine in placed if engine.gpu is None]
    yield from check_memory(settings, sessions, host, sum(on_cpu), num_engines=len(placed))
    yield from check_devices(
        placed,
        nodes=found_nodes(),
        driver=found_driver(),
        compiler=found_compiler(),
        probe=ask_torch,
    )


def _of_model(finding: Finding, name: str) -> Finding:
    """Say of which model of several a finding is."""
    return replace(finding, found=f"{name}: {finding.found}")


def as_text(finding: Finding) -> str:
    """Write a finding for a person: one line, and one more for what to do."""
    line = f"{finding.status:8} {finding.check:18} {finding.found}"
    return f"{line}\n{'':27} → {finding.mend}" if finding.mend else line


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
