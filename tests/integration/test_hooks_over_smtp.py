"""Hooks and pipelines in a running relay: what clients are told, and what comes into the inbox."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mtaq.client.sync import connect
from tests.support.instance import ROOT, Relay, free_port, wait_until
from tests.support.wire import Wire

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"

HOOK = """#!/usr/bin/env python3
import json, sys, time
asked = json.load(sys.stdin)
if sys.argv[1] == "sender" and asked["envelope"] == "":
    print(json.dumps({"text": "no bounces\\r\\n250 2.0.0 forged\\r\\n"}))
    sys.exit(77)
if sys.argv[1] == "sender" and asked["envelope"].startswith("slow@"):
    time.sleep(600)
if sys.argv[1] == "recipient" and asked["recipient"].startswith("nobody@"):
    print(json.dumps({"code": 550, "status": "5.1.1", "text": f"no mailbox for {asked['client']['helo']}"}))
    sys.exit(77)
if sys.argv[1] == "message" and asked["envelope"].startswith("drop@"):
    sys.exit(99)
if sys.argv[1] == "message" and asked["envelope"].startswith("crash@"):
    sys.exit(1)
if sys.argv[1] == "message":
    asked["message-id"] = "forged"
    asked["tags"] = [sys.argv[1], *asked["recipients"]]
    asked["recipients"] = asked["recipients"][:1] + ["added@example.com"]
    asked["mime"] = asked["mime"].replace("hello", "changed")
    json.dump(asked, sys.stdout)
"""

STEP = """#!/bin/sh
echo '{"changes": {"step": "was here"}}'
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    """Starts a relay that only receives, with two ports; the second has neither hook nor pipeline."""
    relays = []

    def started(**options: object) -> Relay:
        relay = Relay(tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_threads=1, **options)
        relays.append(relay)
        relay.options["smtp-port"] = f"{relay.port},{free_port()}"
        relay.start()
        return relay

    yield started
    for relay in relays:
        relay.cleanup()


def program(folder: Path, name: str, text: str) -> str:
    """Write a program and return its URL."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return f"exec://{path}"


def other_port(relay: Relay) -> int:
    return int(str(relay.options["smtp-port"]).partition(",")[2])


def sent(client: Wire, envelope: str, *recipients: str) -> str:
    """Send a message and return the last reply."""
    for command in (f"MAIL FROM:<{envelope}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients)):
        reply = client.say(command)
        if not reply.startswith("250"):
            return reply
    return client.data(CONTENT)


def inbox(folder: Path, count: int) -> list[dict[str, Any]]:
    """Take so many messages out of the inbox."""
    taken: list[dict[str, Any]] = []
    with connect(f"embedded://{folder / 'queue'}") as queues:
        for message in queues.consume("inbox"):
            with message:
                taken.append(dict(message))
            if len(taken) == count:
                break
    return taken


def test_a_hook_decides_and_a_pipeline_follows(start: Callable[..., Relay], tmp_path: Path) -> None:
    """A hook refuses senders and recipients, changes and drops messages; the pipeline works on what it left."""
    hook, step = program(tmp_path, "hook", HOOK), program(tmp_path, "step", STEP)
    relay = start(smtp_hook=hook, smtp_pipeline=step, smtp_hook_timeout=30)
    relay.wait_ready()
    with Wire(relay.port) as client:
        client.say("EHLO client.test")
        assert client.say("MAIL FROM:<>") == "550 5.7.1 no bounces 250 2.0.0 forged"
        assert client.say("MAIL FROM:<ada@example.org>").startswith("250 2.1.0")
        assert client.say("RCPT TO:<nobody@example.com>") == "550 5.1.1 no mailbox for client.test"
        assert client.say("RCPT TO:<one@example.com>").startswith("250 2.1.5")
        assert client.say("RCPT TO:<two@example.com>").startswith("250 2.1.5")
        assert client.data(CONTENT).startswith("250")
        assert sent(client, "drop@example.org", "one@example.com").startswith("250-2.6.0")
        assert sent(client, "crash@example.org", "one@example.com").startswith("451 4.7.1")
        client.say("RSET")
        assert sent(client, "last@example.org", "one@example.com").startswith("250")
    *messages, last, added = inbox(tmp_path, 4)
    assert last["envelope"] == added["envelope"] == "last@example.org"  # nothing of what was dropped or deferred
    assert [message["recipient"] for message in messages] == ["one@example.com", "added@example.com"]
    for message in messages:
        assert message["tags"] == ["message", "one@example.com", "two@example.com"]
        assert message["step"] == "was here"
        assert message["mime"].startswith("Received: ")
        assert message["mime"].endswith("Subject: changed\r\n\r\nchanged\r\n")
        assert re.fullmatch(r"test\.[0-9a-v]{26}\.[0-9]+", message["message-id"])
    assert len({message["message-id"] for message in messages}) == 2
    assert [event["hook"] for event in relay.events("hook.failed")] == [hook]
    assert {event["hook"] for event in relay.events("message.changed")} == {hook, step}
    [dropped] = relay.events("message.dropped")
    session_id = relay.events("message.accepted")[0]["session_id"]
    assert (dropped["hook"], dropped["point"], dropped["session_id"]) == (hook, "message", session_id)


def test_ports_of_their_own_and_a_reload(start: Callable[..., Relay], tmp_path: Path) -> None:
    """A hook for one port is asked there alone; a reload brings it and takes it; a missing module changes nothing."""
    hook = program(tmp_path, "hook", "#!/bin/sh\nexit 77\n")
    relay = start(smtp_hook_timeout=30)
    relay.wait_ready()
    assert relay.process is not None
    relay.options[f"smtp-hook@{relay.port}"] = hook

    def reply(port: int) -> str:
        with Wire(port) as client:
            client.say("EHLO client.test")
            return client.say("MAIL FROM:<ada@example.org>")

    def reload() -> None:
        assert relay.process is not None
        relay.write_configuration()
        relay.process.send_signal(1)

    assert reply(relay.port).startswith("250")
    reload()
    wait_until(lambda: reply(relay.port) == "550 5.7.1 not accepted here", "the hook to be asked")
    assert reply(other_port(relay)).startswith("250")
    relay.options[f"smtp-hook@{relay.port}"] = "python://no_such_module:x"
    reload()
    wait_until(lambda: "no_such_module" in str(relay.events("config.refused")), "the module to be missed")
    assert reply(relay.port).startswith("550 5.7.1")
    for pid in relay.worker_pids("receive"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: relay.events("worker.died"), "the worker to be missed")
    wait_until(lambda: relay.greeting().startswith("220"), "a worker that knows nothing of the broken file")
    assert reply(relay.port).startswith("550 5.7.1")
    del relay.options[f"smtp-hook@{relay.port}"]
    reload()
    wait_until(lambda: reply(relay.port).startswith("250"), "the hook to be gone")


def test_a_program_that_hangs_holds_up_nobody_else(start: Callable[..., Relay], tmp_path: Path) -> None:
    """While one client waits for its answer others are served, and then it is told to try again."""
    relay = start(smtp_hook=program(tmp_path, "hook", HOOK), smtp_hook_timeout=2)
    relay.wait_ready()
    with Wire(relay.port) as slow, Wire(relay.port) as other:
        slow.say("EHLO client.test")
        slow.send(b"MAIL FROM:<slow@example.org>\r\nNOOP\r\n")
        other.say("EHLO client.test")
        assert other.say("MAIL FROM:<ada@example.org>").startswith("250 2.1.0")
        assert slow.reply().startswith("451 4.7.1")
        assert slow.reply().startswith("250")
    assert "no answer within 2 s" in str(relay.events("hook.failed"))


@pytest.mark.parametrize("module", ["no_such_module:x", "json:no_such_object", "string:ascii_letters"])
def test_a_hook_that_cannot_be_loaded_ends_the_start(start: Callable[..., Relay], module: str) -> None:
    """A module or an object that is not there is told, and the exit status is 78."""
    relay = start(smtp_hook=f"python://{module}")
    assert relay.wait() == 78
    assert f"python://{module}" in relay.log.read_text()
    assert "Traceback" not in relay.log.read_text()


def test_a_module_of_the_operator(start: Callable[..., Relay], tmp_path: Path) -> None:
    """A module in a folder of ``PYTHONPATH`` decides, and its steps run."""
    (tmp_path / "rules.py").write_text(
        "from mtaq.hooks import drop\n"
        "class Rules:\n"
        "    async def recipient(self, recipient): return recipient.recipient != 'x@example.com'\n"
        "def step(message): message['size-seen'] = len(message.content)\n",
        encoding="utf-8",
    )
    steps = "sanitize-html,parse-full,python://rules:step"
    relay = Relay(
        tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_threads=1,
        smtp_hook="python://rules:Rules", smtp_pipeline=steps,
    )  # fmt: skip
    relay.environment["PYTHONPATH"] = str(tmp_path)
    try:
        relay.start()
        relay.wait_ready()
        with Wire(relay.port) as client:
            client.say("EHLO client.test")
            assert sent(client, "ada@example.org", "x@example.com") == "550 5.7.1 not accepted here"
            client.say("RSET")
            assert sent(client, "ada@example.org", "y@example.com", "postmaster").startswith("250")
        message, postmasters = inbox(tmp_path, 2)
        assert postmasters["recipient"] == "postmaster"
        assert message["size-seen"] == len(CONTENT)
        assert message["extracted"]["text"] == "hello\r\n"
    finally:
        relay.cleanup()


def test_no_secret_of_a_hook_is_shown(start: Callable[..., Relay], tmp_path: Path) -> None:
    """The password of a hook's URL is neither in the log, nor in ``mtaq config show``, nor in a process list."""
    url = f"http://user:hunter2@127.0.0.1:{free_port()}/?key=hunter3"
    relay = start(smtp_hook=url, smtp_pipeline=url)
    relay.wait_ready()
    with Wire(relay.port) as client:
        client.say("EHLO client.test")
        assert client.say("MAIL FROM:<ada@example.org>").startswith("451 4.7.1")
    wait_until(lambda: relay.events("hook.failed"), "the line")
    pids = [*relay.worker_pids("receive")]
    assert not [pid for pid in pids if b"hunter" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    shown = subprocess.run(
        [sys.executable, "-m", "mtaq", "config", "show", "--config", str(relay.configuration)],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")},
    )  # fmt: skip
    assert "user:***@" in shown.stdout
    for text in (shown.stdout, shown.stderr, relay.log.read_text(), json.dumps(relay.events())):
        assert "hunter" not in text
