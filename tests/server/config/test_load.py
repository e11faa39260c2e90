"""Settings: strict, layered, and clear about what is wrong and where."""

import re
from pathlib import Path

import pytest

from server.config.load import load_settings
from server.config.models import ModelSettings
from server.config.server import ServerSettings, is_loopback
from server.config.settings import Settings
from server.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a small configuration file."""
    path = tmp_path / "some.yaml"
    path.write_text("server:\n  port: 8001\nvoices:\n  alloy: amber\n")
    return path


def _error(path: Path, overrides: tuple[str, ...] = (), **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, overrides, env)
    return str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    """An empty file is a whole configuration."""
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_settings(path, env={}) == Settings()


def test_an_empty_section_is_fine(tmp_path: Path) -> None:
    """A section with its content commented out means the defaults."""
    path = tmp_path / "empty.yaml"
    path.write_text("server:\n  # port: 1\nvoices: {}\n")
    assert load_settings(path, env={}) == Settings()


def test_later_sources_win(file: Path) -> None:
    """File, then environment, then command line."""
    env = {"PARLEY_SERVER__PORT": "8002", "OTHER": "x"}
    assert load_settings(file, env={}).server.port == 8001
    assert load_settings(file, env=env).server.port == 8002
    assert load_settings(file, ["server.port=8003"], env).server.port == 8003


def test_values_are_read_as_yaml(file: Path) -> None:
    """Lists and free-form names work from everywhere."""
    settings = load_settings(
        file,
        ["voices.echo=birch"],
        {"PARLEY_SERVER__API_KEYS": "[a-key-of-sixteen-1, a-key-of-sixteen-2]"},
    )
    assert settings.server.api_keys == ("a-key-of-sixteen-1", "a-key-of-sixteen-2")
    assert settings.voices == {"alloy": "amber", "echo": "birch"}


def test_an_unknown_key_names_itself_its_place_and_what_was_meant(tmp_path: Path) -> None:
    """The key, the file and the close match are in the message."""
    path = tmp_path / "typo.yaml"
    path.write_text("server:\n  prot: 1\n")
    message = _error(path)
    assert str(path) in message
    assert "'server.prot'" in message
    assert "'server.port'" in message


def test_unknown_keys_elsewhere(file: Path) -> None:
    """The environment and the command line are as strict as the file."""
    assert _error(file, PARLEY_SERVER__PROT="1").startswith("PARLEY_SERVER__PROT: unknown key")
    message = _error(file, ("port=1",))
    assert message.startswith("--set port=1: unknown key 'port'")
    assert "'server.port'" in message
    assert "has no key 'x'" in _error(file, ("server.port.x=1",))
    assert "is a section" in _error(file, ("server=1",))
    assert "expected a.b=c" in _error(file, ("server.port",))


def test_a_wrong_value_names_its_source(file: Path) -> None:
    """Where the value stood, its key, and what is wrong with it."""
    message = _error(file, ("server.port=hello",))
    assert message.startswith("--set server.port=hello: server.port: ")
    assert "'hello'" in message
    assert str(file) in _error(_with(file, "server:\n  port: 70000\n"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, bad YAML and a list are told apart."""
    assert "cannot be read" in _error(tmp_path / "missing.yaml")
    assert "not valid YAML" in _error(_with(tmp_path / "a.yaml", "a: [1\n"))
    assert "expected keys and values" in _error(_with(tmp_path / "b.yaml", "- 1\n"))


def test_without_keys_only_loopback(file: Path) -> None:
    """An open address needs API keys."""
    message = _error(file, ("server.host=0.0.0.0",))
    assert "server.api_keys" in message
    assert "--set server.host=0.0.0.0" in message or str(file) in message
    overrides = ["server.host=0.0.0.0", "server.api_keys=[a-key-of-sixteen-1]"]
    assert load_settings(file, overrides, {}).server.host == "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize(
    "setting",
    [
        "server.max_message_bytes=1",
        "server.max_body_bytes=1",
        "server.max_ephemeral_keys=0",
        "server.max_items=0",
        "server.max_tools=-1",
        "server.max_session_s=-1",
    ],
)
def test_limits_have_limits(file: Path, setting: str) -> None:
    """A limit that lets nothing through is a slip."""
    assert _error(file, (setting,)).startswith(f"--set {setting}: ")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_loopback_is(host: str, expected: bool) -> None:
    """Only addresses that no other machine can reach count."""
    assert is_loopback(host) is expected


def _with(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "value", ["abc-secret", "[short-secret]", "[clé-secret-0123456789]", "[1234567890123456]"]
)
def test_bad_keys_are_refused_and_not_shown(file: Path, value: str) -> None:
    """A plain string, a short one, one that no header carries, a number."""
    message = _error(file, (f"server.api_keys={value}",))
    assert "server.api_keys" in message
    assert value.strip("[]") not in message


@pytest.mark.parametrize(
    "value", ["a-secret-of-some-length-and-more", "[a-short-secret]", "[12345678901234567890]"]
)
def test_bad_secrets_are_refused_and_not_shown(file: Path, value: str) -> None:
    """A plain string, a short one, a number."""
    message = _error(file, (f"server.key_secrets={value}",))
    assert "server.key_secrets" in message
    assert value.strip("[]") not in message


def test_limits_that_hold_where_keys_are_set() -> None:
    """An hour in all and ten minutes idle, unless something else is said."""
    keys = ("a-key-of-sixteen-1",)
    for server, limits in (
        (ServerSettings(), (0, 0)),
        (ServerSettings(api_keys=keys), (3_600, 600)),
        (ServerSettings(api_keys=keys, max_session_s=0, idle_session_s=5), (0, 5)),
    ):
        assert (server.session_limit_s, server.idle_limit_s) == limits


def _several(tmp_path: Path, text: str, *overrides: str, **env: str) -> Settings:
    path = tmp_path / "several.yaml"
    path.write_text(text)
    return load_settings(path, overrides, env)


def test_several_models_are_each_the_only_one(tmp_path: Path) -> None:
    """To whoever makes their engines; what is not said of one is as everywhere."""
    text = """
    server: { max_items: 7 }
    models:
      small: { aliases: [gpt-realtime], engine: { max_sessions: 3 }, voices: { alloy: slt } }
      large: { dir: models/large, guidance: 2, engine: { devices: ["cuda:0", "cuda:1"] } }
      plain:
    """
    small, large, plain = _several(tmp_path, text).each_model
    assert (small.model.name, small.model.aliases) == ("small", ("gpt-realtime",))
    assert (small.engine.max_sessions, dict(small.voices)) == (3, {"alloy": "slt"})
    assert (large.model.guidance, large.engine.places) == (2, ("cuda:0", "cuda:1"))
    assert plain.model.dir == ModelSettings().dir
    assert plain.engine.places == ("cpu",)
    for each in (small, large, plain):
        assert each.model.other_names == "refuse"
        assert each.server.max_items == 7
        assert each.each_model == (each,)


def test_a_setting_of_one_of_several_models_can_be_changed_alone(tmp_path: Path) -> None:
    """From the command line and the environment, as any other."""
    text = "models: { small: { engine: { max_sessions: 3 } }, large: { dir: models/large } }"
    settings = _several(
        tmp_path,
        text,
        "models.small.engine.seed=5",
        "models.third={dir: models/third}",
        PARLEY_MODELS__LARGE__ENGINE__MAX_SESSIONS="9",
    )
    small, large, third = settings.each_model
    assert (small.engine.max_sessions, small.engine.seed) == (3, 5)
    assert (large.model.dir, large.engine.max_sessions) == (Path("models/large"), 9)
    assert third.model.dir == Path("models/third")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {name: a}\nmodels: {a: }", "model is for a server with one model"),
        ("engine: {seed: 1}\nmodels: {a: }", "engine is for a server with one model"),
        ("models: {a: {aliases: [b]}, b: }", "'b' is the name of two"),
        ("models: {a: {aliases: [c, c]}}", "'c' is the name of two"),
        (
            "models: {a: {other_names: serve}, b: {other_names: serve}}",
            "a, b: only one can have other_names: serve",
        ),
        ("models: {a: {engin: {seed: 1}}}", "unknown key 'models.a.engin'; did you mean"),
        ("models: {a: {engine: {sed: 1}}}", "did you mean 'models.a.engine.seed'"),
        ("models: {a: {engine: {device: cpu, devices: [cpu]}}}", "device and devices are two ways"),
        ("models: {a b: }", "models.a b"),
        ("models: [a]", "models: Input should be"),
    ],
)
def test_several_models_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    """Say what is wrong, and with which."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        _several(tmp_path, text)


@pytest.mark.parametrize(
    "key", ["delegate.authorization=1234567890", "delegate.headers={x-key: [1234567890]}"]
)
def test_a_text_models_token_is_not_shown(file: Path, key: str) -> None:
    """Neither where it stood, nor what it was."""
    message = _error(file, (key,))
    assert "delegate." in message
    assert "1234567890" not in message


def test_a_prompt_without_the_version_that_it_names(file: Path) -> None:
    """The server does not start, and says why."""
    message = _error(file, ('prompts={guide: {versions: {"1": hi}, default: "2"}}',))
    assert "default '2' is none of the versions" in message


@pytest.mark.parametrize("url", ["ftp://a/v1", "http://user@a/v1", "http://a/v1?key=x", "a/v1"])
def test_a_text_models_url_is_plain_http(file: Path, url: str) -> None:
    """No secrets in it, and no other scheme."""
    assert "delegate.url" in _error(file, (f"delegate.url={url}",))
