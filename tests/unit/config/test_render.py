"""The example file, the reference and the effective values."""

from __future__ import annotations

import os
import re

from mtaq.config import load
from mtaq.config.render import render_effective, render_example, render_reference
from mtaq.config.table import OPTIONS, WITHOUT_EFFECT


def test_example_names_every_key_that_has_an_effect():
    """The example file has one commented-out line for each key that has an effect."""
    keys = re.findall(r"^#([a-z0-9-]+):", render_example(), re.MULTILINE)
    assert keys == [row.key for row in OPTIONS.values() if not row.obsolete]


def test_example_as_it_stands_changes_nothing(tmp_path):
    """The example file installed as it is gives the defaults."""
    path = tmp_path / "mtaq.conf"
    path.write_text(render_example())
    assert load(path=str(path), environ={}, overrides=()).given == {}


def test_example_is_right_in_every_line(tmp_path):
    """Every line of the example can be switched on, but for files and users that exist elsewhere."""
    text = re.sub(r"^#(?=[a-z0-9-]+:)", "", render_example(), flags=re.MULTILINE)
    elsewhere = (
        "smtp-cert", "smtp-key", "smtp-secure", "user", "smtp-tls-client-ca", "smtp-auth:", "smtp-hook:", "spool-dir",
        "spool-fail",
    )  # fmt: skip
    kept = [line for line in text.splitlines() if not line.startswith(elsewhere)]
    path = tmp_path / "mtaq.conf"
    path.write_text("\n".join(kept))
    settings = load(path=str(path), environ={}, overrides=())
    assert settings.reception.smtp_range.contains("192.168.1.1")


def test_reference_names_every_key():
    """The reference has a row for each key, each deprecated spelling and each key without effect."""
    text = render_reference()
    for row in OPTIONS.values():
        assert re.search(rf"^\| (@ )?`{row.key}` \|", text, re.MULTILINE)
        assert all(f"`{alias}`" in text for alias in row.aliases)
    assert all(f"| `{key}` |" in text for key in WITHOUT_EFFECT)


def test_reference_is_the_same_on_every_machine(monkeypatch):
    """Defaults that the machine decides are described in words."""
    before = render_reference(), render_example()
    monkeypatch.setattr("mtaq.config.process.cpu_count", lambda: 128)
    monkeypatch.setattr("os.uname", lambda: type("Uname", (), {"nodename": "another"}))
    assert (render_reference(), render_example()) == before


def test_effective_values_mask_passwords_and_name_origins():
    """``config show`` never prints a password, and says where each value came from."""
    settings = load(
        path=os.devnull,
        environ={"MTAQ_RABBITMQ_ADDRESS": "amqp://mtaq:hunter2@host/"},
        overrides=["--smtp-timeout@25=5"],
    )
    text = render_effective(settings)
    assert "hunter2" not in text
    assert re.search(r"^rabbitmq-address: amqp://mtaq:\*\*\*@host/ +# environment$", text, re.MULTILINE)
    assert re.search(r"^smtp-timeout: 300 +# default$", text, re.MULTILINE)
    assert re.search(r"^smtp-timeout@25: 5 +# command line$", text, re.MULTILINE)
    assert re.search(r"^smtp-threads: [0-9]+ +# default$", text, re.MULTILINE)


def test_effective_values_can_be_read_again(tmp_path):
    """What ``config show`` prints is a configuration file with the same meaning, passwords aside."""
    settings = load(path=os.devnull, environ={}, overrides=["--rabbitmq-inbox=", "--smtp-range@25=10.0.0.0/8"])
    path = tmp_path / "mtaq.conf"
    path.write_text(render_effective(settings).replace("***", "guest"))
    again = load(path=str(path), environ={}, overrides=())
    assert again.ports == settings.ports
    assert again.queues == settings.queues
