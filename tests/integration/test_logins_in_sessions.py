"""Failed logins in a running reception: what they cost, whom they keep out, and that they hold up nothing."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.instance import ROOT, Relay, wait_until
from tests.support.wire import Wire

#: Says which files it has, and takes everybody.
LOOK_AROUND = """#!{python}
import json, os
files = {{}}
for name in os.listdir("/proc/self/fd"):
    try:
        files[name] = os.readlink("/proc/self/fd/" + name)
    except FileNotFoundError:
        pass  # the listing's own
with open("{folder}/files.new", "w") as out:
    json.dump(files, out)
os.rename("{folder}/files.new", "{folder}/files")
"""

HANG = "#!/bin/sh\ntouch {folder}/asked\nsleep 600\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    """Starts a reception with logins and a certificate."""
    both = tmp_path / "both.pem"
    trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(str(both))
    relays: list[Relay] = []

    def started(**options: object) -> Relay:
        defaults: dict[str, object] = {"smtp_auth": "hardcoded://ada:secret", "smtp_threads": 1}
        relay = Relay(
            tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_certificate=both, smtp_key=both,
            **(defaults | options),
        )  # fmt: skip
        relays.append(relay)
        relay.start()
        relay.wait_ready()
        return relay

    yield started
    for relay in relays:
        relay.cleanup()


def program(folder: Path, text: str) -> str:
    """Write a login program and return its form."""
    path = folder / "login"
    path.write_text(text.format(folder=folder, python=sys.executable))
    path.chmod(0o755)
    return f"exec://{path}"


def session(relay: Relay, source_ip: str = "127.0.0.1") -> Wire:
    """Connect and come to where a login can be tried."""
    wire = Wire(relay.port, source_ip=source_ip)
    wire.say("EHLO client.test")
    wire.start_tls()
    wire.say("EHLO client.test")
    return wire


def begin(wire: Wire, password: str) -> None:
    """Say AUTH and do not wait for the answer."""
    wire.send(b"AUTH PLAIN " + base64.b64encode(f"\0ada\0{password}".encode()) + b"\r\n")


def log_in(relay: Relay, password: str, source_ip: str = "127.0.0.1") -> str:
    """Try one login in a session of its own."""
    with session(relay, source_ip) as wire:
        begin(wire, password)
        return wire.reply()


def blocks(relay: Relay) -> list[dict[str, Any]]:
    """Return what ``mtaq block list`` shows."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
    done = subprocess.run(
        [sys.executable, "-m", "mtaq", "block", "list", "--json", "--config", str(relay.configuration)],
        capture_output=True, check=True, env=environment, timeout=60, cwd=ROOT,
    )  # fmt: skip
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_a_login_program_has_no_files_of_ours(start: Callable[..., Relay], tmp_path: Path) -> None:
    """It has its standard input, output and error: neither our listening sockets nor the line to the supervisor."""
    relay = start(smtp_auth=program(tmp_path, LOOK_AROUND))
    assert log_in(relay, "secret").startswith("235")
    files = json.loads((tmp_path / "files").read_text())
    assert files.keys() == {"0", "1", "2"}, files
    assert files["1"] == files["2"] == "/dev/null"


def test_clients_that_leave_during_a_failed_login_give_their_slots_back(start: Callable[..., Relay]) -> None:
    """Whoever does not wait for the answer of a failed login occupies no slot for long, and is counted all the same."""
    relay = start(smtp_connections_in=2, smtp_connections_wait=30)
    for _ in range(2):
        wires = [session(relay) for _ in range(2)]  # from the second time on they wait for the slots of the first
        for wire in wires:
            begin(wire, "wrong")
            wire.close()
    wait_until(lambda: len(relay.events("login.refused")) == 4, "the failures to be counted")
    assert log_in(relay, "wrong").startswith("421 4.7.0")
    assert relay.events("bug") == relay.events("library") == []


def test_stopping_during_a_failed_login(start: Callable[..., Relay]) -> None:
    """SIGTERM while a failed login is answered: the client hears the answer and goodbye; who has left is no matter."""
    relay = start()
    with session(relay) as stays, session(relay) as leaves:
        begin(leaves, "wrong")
        leaves.close()
        begin(stays, "wrong")
        wait_until(lambda: len(relay.events("login.refused")) == 2, "both logins to be judged")
        assert relay.process is not None
        relay.process.terminate()
        assert stays.reply().startswith("535 5.7.8")
        assert stays.reply().startswith("421 4.3.2")
        assert stays.reply() == ""
    assert relay.wait() == 0
    assert relay.events("bug") == relay.events("library") == []


def test_stopping_while_a_back_end_hangs(start: Callable[..., Relay], tmp_path: Path) -> None:
    """SIGTERM while nobody knows whether a login is right: the back end's own time is waited for, and no longer."""
    relay = start(smtp_auth=program(tmp_path, HANG))
    with session(relay) as wire:
        begin(wire, "secret")
        wait_until((tmp_path / "asked").exists, "the back end to be asked")
        assert relay.process is not None
        relay.process.terminate()
        assert wire.reply().startswith("454 4.7.0")
        assert wire.reply().startswith("421 4.3.2")
    assert relay.wait() == 0
    assert relay.events("worker.died") == []


def test_failures_block_a_client_in_every_process(start: Callable[..., Relay]) -> None:
    """The fifth failure, whichever processes the others met, ends its session and blocks the client for ten minutes."""
    relay = start(smtp_threads=2)
    assert {log_in(relay, "wrong")[:9] for _ in range(4)} == {"535 5.7.8"}
    assert log_in(relay, "secret", "127.0.0.2").startswith("235")
    assert log_in(relay, "wrong").startswith("421 4.7.0")
    wait_until(
        lambda: {relay.greeting()[:9] for _ in range(20)} == {"554 5.7.1"}, "both processes to refuse the client"
    )
    [block] = blocks(relay)
    assert (block["network"], block["automatic"]) == ("127.0.0.1/32", True)
    assert "5 failed logins" in block["reason"]
    lasts = datetime.fromisoformat(block["expires"]) - datetime.fromisoformat(block["added"])
    assert timedelta(0) <= lasts - timedelta(minutes=10) <= timedelta(seconds=1)
    assert log_in(relay, "secret", "127.0.0.2").startswith("235")
    [added] = relay.events("block.added")
    assert added["network"] == "127.0.0.1/32"


def test_failures_without_protection(start: Callable[..., Relay]) -> None:
    """With ``smtp-protection: false`` nobody is blocked, but too many failures end sessions, right passwords or not."""
    relay = start(smtp_protection="false", smtp_auth_failures=2)
    assert log_in(relay, "wrong").startswith("535 5.7.8")
    with session(relay) as wire:
        begin(wire, "wrong")
        assert wire.reply().startswith("421 4.7.0")
        assert wire.reply() == ""
    assert relay.greeting().startswith("220")
    assert log_in(relay, "secret").startswith("421 4.7.0")
    assert blocks(relay) == []
