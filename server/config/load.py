"""Settings: a YAML file, then `PARLEY_*` of the environment, then `--set a.b=c`.

    server:
      port: 9000              # the file
    PARLEY_SERVER__PORT=9000  # the environment: `__` between the levels
    --set server.port=9000    # the command line

Later ones win. Values from the environment and the command line are read as YAML, so lists and
numbers work. A key that does not exist is an error that names the key, where it stood and what
may have been meant. Nothing else in Parley reads the environment.
"""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from server.config.settings import Settings
from server.errors import ConfigError

ENV_PREFIX = "PARLEY_"
_LEVEL_SEPARATOR = "__"
# What must not be shown in an error.
_SECRETS = (
    ("server", "api_keys"),
    ("server", "key_secrets"),
    ("mcp", "servers"),
    ("telephony", "twilio"),
    ("telephony", "telnyx"),
    ("delegate", "authorization"),
    ("delegate", "headers"),
    ("filters", "checks"),
    ("telemetry", "headers"),
)
# Free-form: read from YAML, checked by pydantic afterwards.
_Tree: TypeAlias = dict[str, Any]
_KeyPath: TypeAlias = tuple[str, ...]


def load_settings(
    path: Path, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Settings:
    """Read settings from all their sources.

    Args:
        path: the YAML file.
        overrides: `a.b=c` each, from the command line.
        env: the environment; the process's own if None.

    Raises:
        ConfigError: naming the key and where it stood.
    """
    # An example. The file has `server: {port: 8000}`, the environment PARLEY_SERVER__PORT=9000.
    # Both put a leaf at ("server", "port"); the later one stays, and `origins` says that it came
    # from PARLEY_SERVER__PORT. So if 9000 were wrong, the error would name the variable and not the
    # file.
    tree: _Tree = {}
    origins: dict[_KeyPath, str] = {}
    for source, keys, value in _entries(path, overrides, os.environ if env is None else env):
        _check_key(keys, source)
        _put(tree, keys, value)
        origins[keys] = source
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_first_problem(error, origins, str(path))) from None


def _entries(
    path: Path, overrides: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple[str, _KeyPath, Any]]:
    """Yield (where it stood, key path, value), the strongest last."""
    for keys, value in _leaves((), _read_file(path)):
        yield str(path), keys, value
    # Sorted, or the order of the environment would decide between two that contradict each other.
    for name, text in sorted(env.items()):
        if name.startswith(ENV_PREFIX):
            keys = tuple(name.removeprefix(ENV_PREFIX).lower().split(_LEVEL_SEPARATOR))
            yield name, keys, _read_value(text, name)
    for override in overrides:
        key, separator, text = override.partition("=")
        # Also where the name is mistaken: `api_key`, `apikeys`.
        is_secret = "key" in key and ("api" in key or "secret" in key)
        is_secret = is_secret or "authorization" in key or "headers" in key
        # What stands here may be printed and logged.
        source = f"--set {key}=…" if is_secret else f"--set {override}"
        if not separator or not key:
            raise ConfigError(f"{source}: expected a.b=c")
        yield source, tuple(key.split(".")), _read_value(text, source)


def _read_file(path: Path) -> _Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error's text quotes the file, which may hold keys.
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place else ""
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{path}: is not valid YAML{where}: {reason}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(tree).__name__}")
    return tree


def _read_value(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{source}: the value is not valid YAML") from None


def _leaves(prefix: _KeyPath, tree: _Tree) -> Iterator[tuple[_KeyPath, Any]]:
    """Yield the settings of a tree; free-form mappings are leaves themselves."""
    for key, value in tree.items():
        keys = (*prefix, str(key))
        if isinstance(value, dict) and value and _has_keys(_kind(keys)):
            yield from _leaves(keys, value)
        elif value is None and _is_entry(keys):
            # As YAML writes `models: {starter: }`: the model is there, without settings of its own.
            yield keys, {}
        elif value is not None or not _has_keys(_kind(keys)):
            # A section without content, as YAML writes `server:`, is no setting.
            yield keys, value


# What stands at a key path: a section's class, a mapping of names to sections, the type of a value,
# or None for nothing. For example, of ("models",), ("models", "a") and ("models", "a", "dir") it is
# a mapping, a section and a value; `a` is an entry of the mapping.
def _kind(keys: _KeyPath) -> Any:
    kind: Any = Settings
    for key in keys:
        kind = _below(kind, key)
    return kind


def _below(kind: Any, key: str) -> Any:
    if _is_section(kind):
        field = kind.model_fields.get(key)
        return None if field is None else field.annotation
    return get_args(kind)[1] if get_origin(kind) is Mapping else None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _has_keys(kind: Any) -> bool:
    """Say whether what is below it are settings of their own."""
    return _is_section(kind) or (get_origin(kind) is Mapping and _is_section(get_args(kind)[1]))


def _is_entry(keys: _KeyPath) -> bool:
    return _is_section(_kind(keys)) and get_origin(_kind(keys[:-1])) is Mapping


def _check_key(keys: _KeyPath, source: str) -> None:
    """Refuse a key that does not exist, and say which may have been meant."""
    for depth, key in enumerate(keys):
        kind = _kind(keys[:depth])
        if _is_section(kind) and key not in kind.model_fields:
            raise ConfigError(f"{source}: unknown key {'.'.join(keys)!r}{_meant(keys)}")
        # Below a mapping, such as `voices`, any key is fine.
        if not _is_section(kind) and get_origin(kind) is not Mapping:
            raise ConfigError(
                f"{source}: {'.'.join(keys[:depth])!r} is a value and has no key {key!r}"
            )
    if _is_section(_kind(keys)) and not _is_entry(keys):
        raise ConfigError(f"{source}: {'.'.join(keys)!r} is a section and takes no value itself")


def _all_keys(prefix: _KeyPath = ()) -> Iterator[str]:
    kind = _kind(prefix)
    if not _is_section(kind):
        yield ".".join(prefix)
        return
    for key in kind.model_fields:
        yield from _all_keys((*prefix, key))


def _meant(keys: _KeyPath) -> str:
    # Of a model of several, what may stand there; else everything.
    entry = next((keys[:depth] for depth in range(len(keys)) if _is_entry(keys[:depth])), ())
    known = list(_all_keys(entry))
    # For example, `server.prot` is answered with `did you mean 'server.port'?`.
    close = difflib.get_close_matches(".".join(keys), known, n=3, cutoff=0.6)
    # A right name in the wrong place is a common slip too.
    close += [key for key in known if key.endswith(f".{keys[-1]}") and key not in close]
    if close:
        return f"; did you mean {' or '.join(repr(key) for key in close)}?"
    return f"; known keys are {', '.join(known)}"


def _put(tree: _Tree, keys: _KeyPath, value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        assert isinstance(tree, dict), "the key path was checked"
    tree[keys[-1]] = value


def _first_problem(error: ValidationError, origins: Mapping[_KeyPath, str], path: str) -> str:
    """Write the first problem in one line: where it stood, which key, what is wrong."""
    problem = error.errors()[0]
    keys = tuple(str(part) for part in problem["loc"])
    # The problem may lie deeper than a setting (in a list) or be about a whole section.
    source = next(
        (origins[keys[:depth]] for depth in range(len(keys), 0, -1) if keys[:depth] in origins),
        None,
    )
    if source is None:
        related = [origin for key, origin in origins.items() if key[: len(keys)] == keys]
        source = related[-1] if related else path
    message = problem["msg"].removeprefix("Value error, ")
    # Our own messages say what was got; pydantic's do not, and a secret is never shown.
    is_told = problem["type"] == "value_error" or keys[:2] in _SECRETS
    got = "" if is_told else f", got {problem['input']!r}"
    return f"{source}: {'.'.join(keys) or 'settings'}: {message}{got}"
