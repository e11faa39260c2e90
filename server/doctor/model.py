"""Whether the model's files are whole, and how much memory it needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from model.errors import WeightsError
from server.config.settings import Settings
from server.doctor.finding import Finding, error, ok, skipped, warning
from server.engine import is_starter
from server.errors import ConfigError, ParleyError
from server.names import ROOT

Kind: TypeAlias = Literal["script", "starter", "twin", "kyutai"]

# What the starter's file of NF4 weights becomes in memory, by `engine.linears`.
_GROWTH = {"nf4": 1, "bitsandbytes": 1, "int8": 2, "dense": 8}
_LINEARS: dict[str, Literal["bf16", "int8", "nf4"]] = {
    "dense": "bf16", "int8": "int8", "nf4": "nf4", "bitsandbytes": "nf4",
}  # fmt: skip
_PULL = "run `parley pull` with the name of the model again: it fetches what is missing or changed"


@dataclass(frozen=True, slots=True)
class Model:
    """What there is to know of the model before it is loaded.

    Attributes:
        kind: of engine.
        num_bytes: in memory of each of its engines, with what its sessions remember; 0 where
            nothing is known.
        findings: on its files.
    """

    kind: Kind
    num_bytes: int
    findings: tuple[Finding, ...]


def look_at_model(settings: Settings) -> Model:
    """Read the model's files and compare them with their hashes, which takes time.

    Args:
        settings: of the server, as if this were its only model (`Settings.each_model`).
    """
    model = settings.model
    if model.script is not None:
        return Model("script", 0, tuple(_script(ROOT / model.script)))
    if model.twin is not None:
        return Model("twin", 0, (skipped("weights", "a twin's are random"),))
    directory = ROOT / model.dir
    try:
        starter = is_starter(directory)
    except ConfigError as problem:
        return Model("kyutai", 0, (error("weights", str(problem), _PULL),))
    if starter:
        return _starter(directory, settings)
    return _kyutai(directory, settings)


def _script(path: Path) -> Iterator[Finding]:
    from model.scripted.script import load_script  # noqa: PLC0415 - only where there is one

    try:
        load_script(path)
    except ParleyError as problem:
        yield error("weights", str(problem), "mend the script; docs/scripted.md has the form")
    else:
        yield ok("weights", f"the script {path.name} can be read")


def _starter(directory: Path, settings: Settings) -> Model:
    # Loaded with PyTorch, which takes seconds: only where there is something to read.
    from model.assemble.weights import check_starter  # noqa: PLC0415

    try:
        check_starter(directory)
    except WeightsError as problem:
        mend = "restore the file: `git checkout model/starter`, or the image again"
        return Model("starter", 0, (error("weights", str(problem), mend),))
    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    found = ok("weights", f"the files of {directory.name} have the hashes that they should have")
    return Model("starter", stored * _GROWTH[settings.engine.linears], (found,))


def _kyutai(directory: Path, settings: Settings) -> Model:
    from model.kyutai.check import check_directory  # noqa: PLC0415 - as above

    checkpoint = check_directory(directory)
    findings = [error("weights", problem, _PULL) for problem in checkpoint.problems]
    num_bytes = 0
    if checkpoint.memory is not None:
        bits = 8 if settings.engine.kv == "int8" else 16
        linears = _LINEARS[settings.engine.linears]
        num_bytes = checkpoint.memory.total(linears, settings.engine.max_sessions, None, bits)
    if not findings:
        findings.append(_hashes(directory))
    return Model("kyutai", num_bytes, tuple(findings))


def _hashes(directory: Path) -> Finding:
    from model.kyutai.pull import check_pulled  # noqa: PLC0415 - as above

    try:
        count = check_pulled(directory)
    except WeightsError as problem:
        return error("weights", str(problem), _PULL)
    if not count:
        return warning(
            "weights",
            f"{directory.name} can be served; nothing says which hashes its files should have",
            "nothing, if you made them; `parley pull` writes down what it fetched",
        )
    return ok("weights", f"all {count} files of {directory.name} are as they were pulled")
