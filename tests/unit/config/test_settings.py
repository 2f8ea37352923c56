"""Settings as the program uses them: per port, across processes, across a reload."""

from __future__ import annotations

import json
import os

import pytest

from mtaq.config import ConfigErrors, Settings, changed_keys, check_merged, load, merge_live
from mtaq.config.table import SECTION_OPTIONS


def loaded(*overrides: str) -> Settings:
    """Load defaults and a command line."""
    return load(path=os.devnull, environ={}, overrides=[f"--{override}" for override in overrides])


def test_a_port_without_overrides_has_the_plain_options():
    """Any port can be asked for; what is not overridden is the plain value."""
    settings = loaded("smtp-port=25,587", "smtp-maxsize=1MB", "smtp-maxsize@587=2MB", "smtp-timeout@587=9")
    assert settings.receive(25) is settings.reception
    assert settings.receive(587).smtp_maxsize == 2 * 1024 * 1024
    assert settings.receive(587).smtp_timeout == 9
    assert settings.receive(587).smtp_max_recipients == settings.reception.smtp_max_recipients


def test_worker_processes_get_the_same_settings_through_json():
    """What is handed down a pipe as JSON is equal on the other side, origins, secrets and warnings included."""
    settings = loaded(
        "smtp-port=25,587", "smtp-range@587=10.0.0.0/8", "rabbitmq-address=amqp://u:p@h/", "delivery-timeouts=dot=9",
        "smtp-defaultips=192.0.2.1",
    )  # fmt: skip
    again = Settings.from_raw(json.loads(json.dumps(settings.to_raw())))
    assert again == settings
    assert again.origins == settings.origins
    assert again.warnings


def test_no_change_is_no_change():
    """Two readings of the same configuration differ in nothing, wherever the values stand."""
    assert changed_keys(loaded(), loaded("smtp-timeout=300", "smtp-port=25")) == ((), ())
    assert changed_keys(loaded(), loaded("smtp-timeout@25=300")) == ((), ())


def test_changed_keys_are_split_by_what_they_need():
    """Keys that take effect at once are told apart from those that need a restart."""
    new = loaded("smtp-range=10.0.0.0/8", "smtp-port=26", "smtp-timeout@26=5", "log-level=debug", "max-attempts=3")
    changed = changed_keys(loaded(), new)
    assert changed.live == ("smtp-range", "max-attempts", "log-level", "smtp-timeout@26")
    assert changed.restart == ("smtp-port",)


def test_an_override_taken_away_is_a_change():
    """A port's own value that is gone is named."""
    assert changed_keys(loaded("smtp-timeout@25=5"), loaded()).live == ("smtp-timeout@25",)


def test_a_running_instance_takes_what_it_can():
    """After a reload live keys have their new values, the others keep what is running until the restart."""
    running = loaded("smtp-port=25,26", "smtp-timeout@26=5", "smtp-timeout=10", "data-directory=/srv/old")
    new = loaded("smtp-port=25,27", "smtp-timeout=20", "smtp-range=10.0.0.0/8", "data-directory=/srv/new")
    merged = merge_live(running, new)
    assert merged.receive(26).smtp_timeout == 20
    assert merged.receive(25).smtp_range.contains("10.0.0.1")
    assert merged.listen.smtp_port == (25, 26)
    assert merged.process.data_directory == "/srv/old"
    assert changed_keys(merged, new) == ((), ("smtp-port", "data-directory"))
    assert changed_keys(running, merged).restart == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["rabbitmq-inbox=outbox", "smtp-range=10.0.0.0/8"], ["rabbitmq-inbox=inbox", "smtp-range=0.0.0.0/0"]),
        (["rabbitmq-inbox=outbox", "smtp-port=25"], ["rabbitmq-inbox=outbox", "smtp-port=26", "smtp-range=::/0",
                                                     "smtp-relay@26=none"]),
        (["rabbitmq-inbox=outbox"], ["rabbitmq-inbox=outbox", "smtp-enabled=false", "smtp-range=0.0.0.0/0"]),
    ],
    ids=["another inbox", "another port", "a closed port"],
)  # fmt: skip
def test_a_reload_makes_no_open_relay(before, after):
    """Both files are right; what is live of the second must not open what only a restart would close."""
    merged = merge_live(loaded(*before), loaded(*after))
    with pytest.raises(ConfigErrors, match="open relay on port 25"):
        check_merged(merged)
    check_merged(merge_live(loaded(*before), loaded(*before)))


def test_reception_and_delivery_change_live():
    """All options of reception and delivery change at once, but for certificates' paths, closed ports, new queues."""
    rows = (*SECTION_OPTIONS["reception"], *SECTION_OPTIONS["deliver"])
    assert {row.key for row in rows if not row.reload} == {
        "smtp-certificate", "smtp-key", "smtp-enabled", "smtp-archive",
    }  # fmt: skip
