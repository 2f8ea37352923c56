"""``mtaq config`` as the operator sees it."""

from __future__ import annotations

import os

import pytest

from mtaq.cli import exits
from mtaq.cli.main import main
from mtaq.config.render import render_example, render_reference


@pytest.fixture(autouse=True)
def no_settings_of_the_operator(monkeypatch):
    """The environment of whoever runs the tests does not count."""
    for name in [name for name in os.environ if name.startswith("MTAQ_")]:
        monkeypatch.delenv(name)


def test_check_of_a_right_configuration(capsys):
    """A configuration without mistakes exits with 0."""
    assert main(["config", "check", "--config", os.devnull]) == exits.OK
    assert capsys.readouterr().err == ""


def test_check_prints_every_mistake_and_exits_with_78(capsys, tmp_path):
    """Mistakes of file, environment and command line are printed together, one per line."""
    path = tmp_path / "mtaq.conf"
    path.write_text("smtp-prot: 25\nsmtp-timeout: x\n")
    status = main(["config", "check", "--config", str(path), "--smtp-rnge=10.0.0.0/8", "--smtp-maxsize"])
    assert status == exits.CONFIG == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{path}:1: smtp-prot: unknown key")
    assert "nearest known key: smtp-range" in "".join(lines)


def test_warnings_are_printed(capsys, monkeypatch):
    """What is accepted but should be changed is said on standard error."""
    monkeypatch.setenv("MTAQ_LICENSE", "x")
    assert main(["config", "check", "--config", os.devnull]) == exits.OK
    assert "warning: environment: MTAQ_LICENSE: has no effect" in capsys.readouterr().err


def test_show(capsys):
    """Effective values are printed with their origins, passwords masked, overrides of ports included."""
    arguments = ["--rabbitmq-address=amqp://u:hunter2@h/", "--smtp-range@25=10.0.0.0/8", "--delivery-allow-private"]
    assert main(["config", "show", "--config", os.devnull, *arguments]) == exits.OK
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert "amqp://u:***@h/" in out
    assert "smtp-range@25: 10.0.0.0/8" in out
    assert "delivery-allow-private: true" in out


def test_example_and_docs(capsys):
    """The generated files can be printed."""
    assert main(["config", "example"]) == exits.OK
    assert capsys.readouterr().out == render_example()
    assert main(["config", "docs"]) == exits.OK
    assert capsys.readouterr().out == render_reference()
