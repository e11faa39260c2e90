"""The command's exit codes and its one line for every error."""

import tomllib
from pathlib import Path

import pytest

from server.cli import main
from server.commands.common import EXIT_CONFIG, EXIT_RUNTIME
from server.names import parley_version

ASSETS = Path(__file__).parents[1] / "assets"
STARTER = Path(__file__).parents[2] / "configs" / "starter.yaml"


def test_check_says_that_the_shipped_configuration_is_good(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`serve --check` reads the settings and starts nothing."""
    assert main(["serve", "--config", str(STARTER), "--check"]) == 0
    assert capsys.readouterr().out == f"{STARTER}: ok\n"


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    """`parley --version` prints it and nothing else; `pyproject.toml` is where it stands."""
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"parley {parley_version()}\n"
    project = tomllib.loads((STARTER.parents[1] / "pyproject.toml").read_text())["project"]
    assert parley_version() == project["version"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--set", "server.prot=1", "--check"], "server.prot"),
        (["serve", "--set", "server.port=high", "--check"], "server.port"),
        (["serve", "--set", "server.host=0.0.0.0", "--check"], "server.api_keys"),
        (["serve", "--config", "no/such.yaml", "--check"], "no/such.yaml"),
        (["serve", "--set", "model.script=configs/starter.yaml", "--check"], "starter.yaml: reply"),
        (["talk", "no/such.wav"], "no/such.wav"),
        (["talk", str(ASSETS / "two_plus_two.wav"), "--set", "nonsense"], "nonsense"),
        (["eval", "--condition", "underwater"], "underwater"),
        (["eval", "--against", "no/such"], "no/such"),
        (["pull", "moshica"], "did you mean moshika?"),
        (["pull"], "expected the name of a checkpoint"),
    ],
)
def test_wrong_settings_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the user can mend exits with 2 and one line that names it, without a traceback."""
    assert main(arguments) == EXIT_CONFIG
    error = capsys.readouterr().err
    assert error.startswith("parley: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_what_goes_wrong_later_has_another_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody at the address: not a matter of settings."""
    question = str(ASSETS / "two_plus_two.wav")
    arguments = ["talk", question, "--url", "ws://127.0.0.1:1", "--out", str(tmp_path)]
    assert main(arguments) == EXIT_RUNTIME
    error = capsys.readouterr().err
    assert "cannot connect to ws://127.0.0.1:1" in error
    assert len(error.splitlines()) == 1


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback is there for who asks."""
    assert main(["--debug", "serve", "--config", "no/such.yaml"]) == EXIT_CONFIG
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["serve", "--port", "1"], ["talk"]])
def test_wrong_command_lines_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown command or option shows the usage and exits with 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == EXIT_CONFIG
    assert "usage: parley" in capsys.readouterr().err


def test_a_folder_that_cannot_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` describes it and exits with 1; its options are its own."""
    assert main(["check", str(tmp_path), "--sessions", "3"]) == EXIT_RUNTIME
    out = capsys.readouterr().out
    assert "3 sessions" in out
    assert "cannot be served:" in out


@pytest.mark.parametrize("command", ["serve", "talk", "eval", "train", "pull", "check", "quantize"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of each command works; some have command lines of their own."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"parley {command}" in capsys.readouterr().out


def test_help_has_examples_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    """Every example of `parley --help` is a command line that is understood."""
    with pytest.raises(SystemExit):
        main(["--help"])
    examples = [
        line.split()[1:]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  parley ")
    ]
    assert len(examples) >= 5
    for arguments in examples:
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--help"])
        assert caught.value.code == 0


def test_a_certificate_of_our_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made once, and clients are told which to trust; with one configured it is refused."""
    monkeypatch.setattr("server.commands.serve._TLS_DIR", tmp_path / "tls")
    arguments = ["serve", "--config", str(STARTER), "--tls-self-signed", "--check"]
    assert main(arguments) == 0
    certificate = tmp_path / "tls" / "certificate.pem"
    assert f"trust this certificate in the client: {certificate}" in capsys.readouterr().err
    before = certificate.read_bytes()
    assert main(arguments) == 0
    assert certificate.read_bytes() == before

    key = tmp_path / "tls" / "key.pem"
    given = ["--set", f"server.tls_certificate={certificate}", "--set", f"server.tls_key={key}"]
    assert main([*arguments, *given]) == EXIT_CONFIG
    assert "tls_certificate is set already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "goes with --ends or --doubt"),
        (["--ends"], "no head for ends of turns"),
        (["--doubt"], "not taught to ask again"),
    ],
)
def test_weights_are_calibrated_for_what_they_can(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the shipped weights cannot do is not written into their card."""
    assert main(["eval", "--calibrate", *options]) == 2
    assert message in capsys.readouterr().err
