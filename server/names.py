"""Refuse to run where something else answers to one of Parley's import names.

The top-level packages are called `server`, `model` and `kernels`, which other distributions use
too (`kernels` is one on the public index). Whichever comes first on the path wins, so the mixture
would run, and fail somewhere odd. `parley` therefore checks before it imports anything heavy.
"""

import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path

from server.errors import ConfigError

NAMES = ("server", "model", "kernels")
DISTRIBUTION = "parley"
ROOT = Path(__file__).resolve().parent.parent


def parley_version() -> str:
    """Return the version that is installed; `pyproject.toml` is the one place that says it."""
    return importlib.metadata.version(DISTRIBUTION)


def check_names(path: Iterable[str] | None = None) -> None:
    """Raise if any of our import names is also provided from outside this checkout.

    A bare folder of that name is no rival: Python prefers a real package wherever it comes on the
    path.

    Args:
        path: folders to search, in the form of `sys.path`, which is the default.

    Raises:
        ConfigError: naming each clash, who provides it, and what to do.
    """
    # The path without our checkout: what is found there belongs to another distribution.
    folders = [entry for entry in (sys.path if path is None else path) if not _is_ours(entry)]
    clashes = [
        f"  {name}: {origin}{_provided_by(name, folders)}"
        for name in NAMES
        if (origin := _origin(name, folders)) is not None
    ]
    if clashes:
        raise ConfigError(
            "something else provides an import name of Parley:\n"
            + "\n".join(clashes)
            + "\nUninstall it there, or run Parley from an environment of its own (make setup)."
        )


def _is_ours(entry: str) -> bool:
    return Path(entry or ".").resolve() == ROOT


def _origin(name: str, folders: list[str]) -> str | None:
    """Find the file that would be imported as `name` if our checkout were not there."""
    # It only looks; nothing of the other package is run.
    spec = importlib.machinery.PathFinder.find_spec(name, folders)
    return None if spec is None else spec.origin


def _provided_by(name: str, folders: list[str]) -> str:
    """Name the distributions that installed a top-level `name`, for the message."""
    owners = {
        distribution.metadata["Name"]
        for distribution in importlib.metadata.distributions(path=folders)
        if any(file.parts[0] in {name, f"{name}.py"} for file in distribution.files or ())
    } - {DISTRIBUTION}
    return f", installed by {', '.join(sorted(owners))}" if owners else ""


if __name__ == "__main__":
    try:
        check_names()
    except ConfigError as error:
        sys.exit(f"parley: {error}")
