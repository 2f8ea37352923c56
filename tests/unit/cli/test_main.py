"""The command line as a whole: verbs, exit statuses, what is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mtaq.cli import exits, main
from mtaq.cli.main import VERBS, build_full_parser
from mtaq.version import __version__


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(capsys, arguments):
    """``mtaq version`` and ``mtaq --version`` say what is installed."""
    assert main.main(arguments) == 0
    assert capsys.readouterr().out.startswith(f"mtaq {__version__}")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nosuchverb"],
        ["config"],
        ["config", "nosuchverb"],
        ["version", "--smtp-port=25"],
        ["version", "extra"],
        ["config", "check", "extra"],
        ["config", "check", "--smtp-port", "25"],
        ["config", "check", "--conf=/x", "--"],
        ["config", "example", "--smtp-port=25"],
    ],
)
def test_wrong_usage_exits_with_64(capsys, arguments):
    """Wrong usage is said on standard error, with exit status 64."""
    assert main.main(arguments) == exits.USAGE == 64
    assert "usage:" in capsys.readouterr().err


def test_values_on_the_command_line_are_not_repeated(capsys):
    """A value that may be a password does not come back in the message about its option."""
    assert main.main(["version", "--rabbitmq-address=amqp://u:hunter2@h/"]) == exits.USAGE
    assert "hunter2" not in capsys.readouterr().err


def test_help_exits_with_0(capsys):
    """Help is what was asked for."""
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_every_verb_is_where_the_table_says():
    """Each verb of the table is added by its module, and no module adds a verb that is not in the table."""
    actions = [action for action in build_full_parser()._actions if action.choices]
    assert set(actions[0].choices) == set(VERBS)


def test_version_imports_nothing_it_does_not_need():
    """``mtaq version`` does not load the option table, the event loop or the metrics."""
    program = (
        "import sys; from mtaq.cli.main import main; main(['version']);"
        "print([name for name in ('mtaq.config', 'asyncio', 'prometheus_client', 'ssl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_and_script_are_the_same():
    """``python -m mtaq`` is ``mtaq``."""
    done = subprocess.run([sys.executable, "-m", "mtaq", "nosuchverb"], capture_output=True, check=False)
    assert done.returncode == exits.USAGE


def test_reader_that_goes_away_is_no_error():
    """``mtaq config docs | head -1`` ends quietly."""
    command = f"{sys.executable} -m mtaq config docs | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"
