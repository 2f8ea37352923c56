"""Hooks and pipelines as operators have them: real programs, web services and modules, and all that goes wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.config.hooks import hook, pipeline
from mtaq.hooks.call import CALLS, NOT_DECIDED
from mtaq.hooks.loading import Hooks
from mtaq.model.decision import Decision, accept, defer, drop, reject
from mtaq.model.errors import ConfigError
from mtaq.net.http import request
from mtaq.telemetry.events import EventLog

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "scripts" / "hooks"
GUIDE = (ROOT / "docs" / "guide" / "hooks.md").read_text(encoding="utf-8")

SENDER: dict[str, Any] = {
    "hook": "sender",
    "client": {"ip": "192.0.2.1", "port": 4711, "helo": "client.example", "secure": True, "user": "ada"},
    "envelope": "a@example.org",
}
RECIPIENT: dict[str, Any] = {**SENDER, "hook": "recipient", "recipient": "ada@example.com"}
MESSAGE: dict[str, Any] = {
    "message-id": "relay1.06eaih8a000020g30g2gc1o814",
    "envelope": "a@example.org",
    "recipients": ["b@example.net", "c@example.net"],
    "received": "2026-03-01 12:00:00",
    "hostname": "relay.example.org",
    "connection": {"remote-ip": "192.0.2.1", "local-ip": "192.0.2.10"},
    "size": 21,
    "mime": "Subject: x\r\n\r\nhello\r\n",
}


class Lines:
    """The log, as records."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, level: int, record: dict[str, Any]) -> None:
        self.records.append(record)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["event"] == event]


class World:
    """One worker's hooks, and its log."""

    def __init__(self, at_once: int = 32) -> None:
        self.lines = Lines()
        events = EventLog(self.lines, node="test", clock=lambda: datetime(2026, 3, 1, tzinfo=UTC))
        self.hooks = Hooks(request=request, events=events, at_once=at_once)

    def hook(self, text: str, timeout_s: float = 30) -> Any:
        return self.hooks.hook(hook(text), timeout_s=timeout_s)

    def pipeline(self, text: str, timeout_s: float = 30) -> Any:
        return self.hooks.pipeline(pipeline(text), timeout_s=timeout_s)

    def reason(self) -> str:
        """Why the last call failed."""
        return str(self.lines.of("hook.failed")[-1]["reason"])


@pytest.fixture
async def world() -> World:
    return World()


def program(folder: Path, script: str, name: str = "program") -> str:
    """Write a shell script and return the URL that names it."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return f"exec://{path}"


Answer = tuple[int, dict[str, str], bytes]


class Service:
    """A web service that notes what it is asked, and answers as told."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer], context: ssl.SSLContext | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service.headers.append({name.lower(): value for name, value in self.headers.items()})
                service.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, headers, body = answer(service.asked[-1])
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Tests say what they have to say themselves."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def serving(status: int, body: bytes = b"", media_type: str = "application/json") -> Iterator[Service]:
    service = Service(lambda _: (status, {"Content-Type": media_type}, body))
    try:
        yield service
    finally:
        service.close()


# Programs.


async def test_a_program_gets_the_json_of_each_point(world: World, tmp_path: Path) -> None:
    """Standard input is the JSON of the point, and the first argument names it."""
    asked = world.hook(program(tmp_path, f'cat > "{tmp_path}/$1"'))
    assert await asked.sender(SENDER) == accept()
    assert await asked.recipient(RECIPIENT) == accept()
    assert await asked.message(MESSAGE) == accept()
    assert json.loads((tmp_path / "sender").read_bytes()) == SENDER
    assert json.loads((tmp_path / "recipient").read_bytes()) == RECIPIENT
    assert json.loads((tmp_path / "message").read_bytes()) == {"hook": "message", **MESSAGE}
    assert await world.pipeline(f"exec://{tmp_path}/program").run(MESSAGE) == accept()
    assert json.loads((tmp_path / "pipeline").read_bytes()) == {"hook": "pipeline", **MESSAGE}


@pytest.mark.parametrize(
    ("script", "decision"),
    [
        ("exit 0", accept()),
        ("exit 77", reject()),
        ("exit 99", drop()),
        ("""echo '{"text": "no", "code": 553}'; exit 77""", reject("no", code=553)),
        ("""echo '{"action": "defer"}'""", defer()),
        ("""printf %s '{"text": "a\\r\\n250 2.0.0 ok"}'; exit 77""", reject("a 250 2.0.0 ok")),
        ("""echo '{"changes": {"tags": ["x"]}}'""", accept({**MESSAGE, "tags": ["x"]})),
        ("""jq '.tags = ["x"]'""", accept({**MESSAGE, "tags": ["x"]})),
        ("cat", accept()),
    ],
)
async def test_what_programs_answer(world: World, tmp_path: Path, script: str, decision: Decision) -> None:
    """The exit status decides, JSON on standard output says more."""
    assert await world.hook(program(tmp_path, script)).message(MESSAGE) == decision


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "exit status 1"),
        ("exit 126", "exit status 126"),
        ("kill -SEGV $$", "signal 11"),
        ("echo accept", "not JSON"),
        ("echo '{'; exit 77", "not JSON"),
        ("echo '[]'", "not an object"),
        ("""echo '{"action": "accept"}'; exit 77""", "accept"),
        ("""echo '{"action": "reject", "code": 250}'""", "code"),
        ("""echo '{"changes": {"recipients": ["nobody"]}}'""", "recipients"),
        ("""echo '{"changes": {"recipients": []}}'""", "recipients"),
        ("exec head -c 100000000 /dev/zero", "more than"),
        ("head -c 100000000 /dev/zero >&2; exit 3", "exit status 3"),
    ],
)
async def test_programs_that_fail(world: World, tmp_path: Path, script: str, reason: str) -> None:
    """Anything else is a transient refusal that says nothing; the log says why."""
    assert await world.hook(program(tmp_path, script)).message(MESSAGE) == NOT_DECIDED
    assert reason in world.reason()
    assert NOT_DECIDED.reply.is_transient


async def test_a_program_that_is_not_there(world: World, tmp_path: Path) -> None:
    """A program that cannot be started refuses for now."""
    assert await world.hook(f"exec://{tmp_path}/nothing").sender(SENDER) == NOT_DECIDED
    assert "No such file" in world.reason()


async def test_what_a_program_complains_of_is_in_the_log(world: World, tmp_path: Path) -> None:
    """The standard error of a program that fails stands in the log, and the client learns nothing of it."""
    assert await world.hook(program(tmp_path, "echo the database is away >&2; exit 1")).sender(SENDER) == NOT_DECIDED
    [line] = world.lines.of("hook.failed")
    assert line["error"] == "the database is away"
    assert (line["point"], line["peer_ip"], line["reverse_path"]) == ("sender", "192.0.2.1", "a@example.org")


def state_of(pid: int) -> str:
    """The kernel's letter for a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def test_a_hung_program_is_killed_with_its_children(world: World, tmp_path: Path) -> None:
    """When the time is up, the client is told so, and nothing of the program is left."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM\nsleep 600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}\nwhile :; do sleep 600; done"
    asked = world.hook(program(tmp_path, script), timeout_s=3600)
    asking = asyncio.create_task(asked.sender(SENDER))
    while not pids.exists():
        await asyncio.sleep(0.01)
    asking.cancel()  # as a time-out does, without waiting for one
    await asyncio.gather(asking, return_exceptions=True)
    for pid in map(int, pids.read_text(encoding="utf-8").split()):
        while state_of(pid) not in ("", "Z", "X"):
            await asyncio.sleep(0.01)


async def test_time_is_up(world: World, tmp_path: Path) -> None:
    """No answer within ``smtp-hook-timeout`` is a transient refusal."""
    assert await world.hook(program(tmp_path, "sleep 600"), timeout_s=0.05).sender(SENDER) == NOT_DECIDED
    assert world.reason() == "no answer within 0.05 s"


async def test_waiting_for_a_place_counts(tmp_path: Path) -> None:
    """Only so many programs run at once, and who waits for a place uses up its time."""
    world = World(at_once=2)
    go_on = tmp_path / "go-on"
    script = f'cd {tmp_path}; echo x >> "running"; while [ ! -e {go_on} ]; do sleep 0.02; done'
    asked = world.hook(program(tmp_path, script))
    running = [asyncio.create_task(asked.sender(SENDER)) for _ in range(4)]
    while not (tmp_path / "running").exists() or (tmp_path / "running").read_text(encoding="utf-8") != "x\nx\n":
        await asyncio.sleep(0.01)
    assert await world.hook(program(tmp_path, "exit 0", "other"), timeout_s=0.1).sender(SENDER) == NOT_DECIDED
    assert (tmp_path / "running").read_text(encoding="utf-8") == "x\nx\n"
    go_on.touch()
    assert await asyncio.gather(*running) == [accept()] * 4


async def test_a_large_message_through_a_program(world: World, tmp_path: Path) -> None:
    """Twenty megabytes go in and come back, and the event loop goes on meanwhile."""
    message = {**MESSAGE, "mime": "Subject: x\r\n\r\n" + "hello\r\n" * 3_000_000}
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    script = """exec sed 's/"hook"/"tags":["x"],"hook"/'"""
    decision = await world.hook(program(tmp_path, script)).message(message)
    ticking.cancel()
    assert decision.message == {**message, "tags": ["x"]}
    assert ticks > 100


# Web services.


async def test_a_web_service_gets_the_json_of_each_point(world: World) -> None:
    """The JSON of the point is posted, with the credentials of the URL."""
    with serving(204) as service:
        url = f"http://user:hunter2@127.0.0.1:{service.port}/hook?key=1"
        asked = world.hook(url)
        for point, data in ((asked.sender, SENDER), (asked.recipient, RECIPIENT), (asked.message, MESSAGE)):
            assert await point(data) == accept()
        assert await world.pipeline(url).run(MESSAGE) == accept()
    assert service.asked == [SENDER, RECIPIENT, {"hook": "message", **MESSAGE}, {"hook": "pipeline", **MESSAGE}]
    assert service.headers[0]["authorization"] == "Basic " + base64.b64encode(b"user:hunter2").decode()
    assert service.headers[0]["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "body", "media_type", "decision"),
    [
        (200, b"", "text/html", accept()),
        (200, b"{}", "application/json", accept()),
        (201, b"true", "application/json", accept()),
        (200, b"false", "text/plain", reject()),
        (403, b"", "application/json", reject()),
        (403, b"<html>Forbidden</html>", "text/html", reject()),
        (403, b'{"text": "no"}', "application/json; charset=utf-8", reject("no")),
        (200, b'{"action": "drop"}', "application/json", drop()),
        (200, b'{"changes": {"tags": ["x"]}}', "application/json", accept({**MESSAGE, "tags": ["x"]})),
        (200, b"<html>Welcome</html>", "text/html", NOT_DECIDED),
        (200, b"\xff", "application/json", NOT_DECIDED),
        (200, b'{"action": "maybe"}', "application/json", NOT_DECIDED),
        (200, b"x" * 8_000_000, "application/json", NOT_DECIDED),
        (403, b"{", "application/json", NOT_DECIDED),
        (403, b'{"action": "accept"}', "application/json", NOT_DECIDED),
        (302, b"", "text/html", NOT_DECIDED),
        (401, b"", "text/html", NOT_DECIDED),
        (404, b"", "text/html", NOT_DECIDED),
        (500, b"", "text/html", NOT_DECIDED),
        (503, b'{"action": "reject"}', "application/json", NOT_DECIDED),
    ],
)
async def test_what_web_services_answer(
    world: World, status: int, body: bytes, media_type: str, decision: Decision
) -> None:
    """2xx is what its JSON says, 403 rejects, anything else refuses for now."""
    with serving(status, body, media_type) as service:
        assert await world.hook(f"http://127.0.0.1:{service.port}/").message(MESSAGE) == decision


async def test_no_web_service(world: World) -> None:
    """A service that is away refuses for now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert await world.hook(f"http://127.0.0.1:{taken.getsockname()[1]}/").sender(SENDER) == NOT_DECIDED
    assert world.reason().startswith("no answer")


async def test_a_web_service_that_says_nothing(world: World) -> None:
    """A service that takes the connection and does not answer refuses for now when the time is up."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = world.hook(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.1)
        assert await asked.sender(SENDER) == NOT_DECIDED
    assert world.reason() == "no answer within 0.1 s"


async def test_a_certificate_must_be_valid(world: World, tmp_path: Path) -> None:
    """Mail is not shown to a service whose certificate nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    service = Service(lambda _: (204, {}, b""), context)
    try:
        assert await world.hook(f"https://127.0.0.1:{service.port}/").sender(SENDER) == NOT_DECIDED
    finally:
        service.close()
    assert service.asked == []


async def test_no_secret_is_logged(world: World) -> None:
    """Neither passwords nor queries of a URL stand in any line or metric, whatever goes wrong."""
    with serving(500) as service:
        secret = f"http://user:hunter2@127.0.0.1:{service.port}/x?key=hunter3"
        await world.hook(secret).sender(SENDER)
        await world.pipeline(secret).run(MESSAGE)
    with serving(200, b'{"action": "drop"}') as service:
        dropped = await world.pipeline(f"http://user:hunter2@127.0.0.1:{service.port}/x?key=hunter3").run(MESSAGE)
    await world.hook("http://user:hunter2@127.0.0.1:1/x?key=hunter3").sender(SENDER)
    assert len(world.lines.records) == 3
    assert "hunter" not in repr((world.lines.records, dropped))
    assert "user:***@" in dropped.decided_by
    assert "user:***@" in world.lines.records[0]["hook"]
    assert "hunter" not in repr([sample for metric in CALLS.collect() for sample in metric.samples])


# Modules.

MODULE = """
import asyncio, threading, time
from mtaq.hooks import accept, drop, reject

class Rules:
    def sender(self, sender):
        return sender.client.helo != "spam.example"
    async def recipient(self, recipient):
        return {"action": "reject", "text": recipient.recipient} if recipient.client.user is None else None

def blocks(kind, data):
    threading.Event().wait(30)

async def waits(kind, data):
    await asyncio.sleep(30)

def raises(kind, data):
    raise RuntimeError("out of order")

def leaves(kind, data):
    raise SystemExit(0)

async def leaves_async(kind, data):
    raise SystemExit(0)

def late(kind, data):
    raise TimeoutError("the database is slow")

def odd(kind, data):
    return "accept"

def forges(message):
    message["message-id"] = "forged"
    message["connection"]["remote-ip"] = "127.0.0.1"
    message.recipients.remove("b@example.net")

def nonsense(message):
    message["tags"] = object()

class Closes:
    def __init__(self):
        self.count = 0
    def message(self, message):
        self.count += 1
        message["count"] = self.count
    def close(self):
        raise RuntimeError("cannot close")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the operator's own."""
    name = "operator_" + re.sub(r"\W", "_", tmp_path.name)
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


async def test_a_module_decides(world: World, module: str) -> None:
    """Methods answer at their points; a method that is missing accepts."""
    asked = world.hook(f"python://{module}:Rules")
    assert asked.points == {"sender", "recipient"}
    assert await asked.sender(SENDER) == accept()
    assert await asked.sender({**SENDER, "client": {**SENDER["client"], "helo": "spam.example"}}) == reject()
    assert await asked.recipient(RECIPIENT) == accept()
    stranger = {name: value for name, value in SENDER["client"].items() if name != "user"}
    assert await asked.recipient({**RECIPIENT, "client": stranger}) == reject("ada@example.com")
    assert await asked.message(MESSAGE) == accept()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "exception"),
        ("late", "exception"),
        ("leaves", "SystemExit"),
        ("leaves_async", "SystemExit"),
        ("odd", "str"),
    ],
)
async def test_modules_that_fail(world: World, module: str, name: str, reason: str) -> None:
    """An exception or an odd answer is a transient refusal, and the worker goes on."""
    assert await world.hook(f"python://{module}:{name}").message(MESSAGE) == NOT_DECIDED
    assert reason in world.reason()


async def test_an_exception_is_explained_in_the_log(world: World, module: str) -> None:
    """The operator reads what his code raised, and where."""
    await world.hook(f"python://{module}:raises").sender(SENDER)
    [line] = world.lines.of("hook.failed")
    assert line["error"] == "RuntimeError: out of order"
    assert "in raises" in line["traceback"]


@pytest.mark.parametrize("name", ["blocks", "waits"])
async def test_modules_that_hang(world: World, module: str, name: str) -> None:
    """A function that blocks or waits too long refuses for now, and holds nobody else up."""
    asked = world.hook(f"python://{module}:{name}", timeout_s=0.05)
    assert await asyncio.gather(*(asked.sender(SENDER) for _ in range(5))) == [NOT_DECIDED] * 5


async def test_what_a_module_may_not_change(world: World, module: str) -> None:
    """Facts are put back, the rest of the change stays, and the original is untouched."""
    before = json.dumps(MESSAGE)
    decision = await world.pipeline(f"python://{module}:forges").run(MESSAGE)
    assert decision == accept({**MESSAGE, "recipients": ["c@example.net"]})
    assert json.dumps(MESSAGE) == before
    assert await world.pipeline(f"python://{module}:nonsense").run(MESSAGE) == NOT_DECIDED


async def test_one_object_for_all_ports(world: World, module: str) -> None:
    """The same URL is the same object, also after a reload; its ``close`` is called at the end, and may fail."""
    for number in (1, 2):
        decision = await world.pipeline(f"python://{module}:Closes").run(MESSAGE)
        assert decision.message is not None
        assert decision.message["count"] == number
    await world.hooks.close()
    assert "cannot close" in world.reason()


async def test_a_module_that_is_not_there(world: World) -> None:
    """What cannot be imported is told at the start, as a mistake in the configuration."""
    with pytest.raises(ConfigError, match="no_such_module"):
        world.hook("python://no_such_module:x")
    with pytest.raises(ConfigError, match="no_such_module"):
        world.pipeline("parse-full,python://no_such_module:x")


# Pipelines.


async def test_steps_run_in_order_on_what_the_one_before_made(world: World, tmp_path: Path) -> None:
    """Each step sees the message as the one before left it; each change is logged and counted."""
    urls = [program(tmp_path, f"exec jq -c '.tags += [\"{name}\"]'", name) for name in ("one", "two")]
    decision = await world.pipeline(",".join([*urls, program(tmp_path, "cat", "same")])).run(MESSAGE)
    assert decision == accept({**MESSAGE, "tags": ["one", "two"]})
    assert [line["hook"] for line in world.lines.of("message.changed")] == urls
    assert CALLS.labels(urls[0], "pipeline", "changed")._value.get() == 1
    assert CALLS.labels(f"exec://{tmp_path}/same", "pipeline", "accepted")._value.get() == 1


@pytest.mark.parametrize(
    ("script", "decision"), [("exit 99", drop()), ("exit 1", NOT_DECIDED), ("exit 77", NOT_DECIDED)]
)
async def test_the_first_step_that_does_not_pass_it_on_ends_it(
    world: World, tmp_path: Path, script: str, decision: Decision
) -> None:
    """A drop ends the pipeline, and so does a failure, which refuses for now; a step cannot reject."""
    ends, never = program(tmp_path, script), program(tmp_path, f"touch {tmp_path}/mark", "never")
    decided = await world.pipeline(f"{ends},{never}").run(MESSAGE)
    assert (decided, decided.decided_by) == (decision, ends)
    assert not (tmp_path / "mark").exists()
    failures = [(line["event"], line["hook"], line["message_id"]) for line in world.lines.records]
    assert failures == ([] if decision.action == "drop" else [("hook.failed", ends, MESSAGE["message-id"])])


HTML = "Content-Type: text/html\r\n\r\n<p>hello <img src='https://x.example/a.png'><script>act()</script></p>\r\n"


@pytest.mark.parametrize("padding", ["", "<p>more</p>\r\n" * 5000])
async def test_built_in_steps(world: World, padding: str) -> None:
    """HTML becomes harmless and the message is described, in a thread when it is large; other steps see both."""
    message = {**MESSAGE, "mime": HTML + padding, "extracted": {"own": 1}}
    decision = await world.pipeline("sanitize-html,parse-full").run(message)
    assert decision.message is not None
    changed = decision.message
    assert "hello" in changed["mime"]
    assert "act()" not in changed["mime"]
    assert "x.example" not in changed["mime"]
    assert "act()" not in changed["extracted"]["html"]
    assert changed["extracted"]["own"] == 1
    assert {name: changed[name] for name in MESSAGE if name != "mime"} == {
        name: MESSAGE[name] for name in MESSAGE if name != "mime"
    }
    assert [line["hook"] for line in world.lines.of("message.changed")] == ["sanitize-html=basic", "parse-full"]


async def test_nothing_to_sanitize(world: World) -> None:
    """A message without HTML is not changed."""
    assert await world.pipeline("sanitize-html=strict").run(MESSAGE) == accept()
    binary = {**{name: value for name, value in MESSAGE.items() if name != "mime"}, "mime-base64": "/w=="}
    assert await world.pipeline("sanitize-html=strict").run(binary) == accept()


@pytest.mark.parametrize(("level", "kept"), [("strict", False), ("basic", False), ("relaxed", True)])
async def test_levels_of_sanitizing(world: World, level: str, kept: bool) -> None:
    """Images from elsewhere stay at the level ``relaxed`` only."""
    decision = await world.pipeline(f"sanitize-html={level}").run({**MESSAGE, "mime": HTML})
    assert decision.message is not None
    assert ("x.example" in decision.message["mime"]) == kept


async def test_no_hook_and_no_pipeline(world: World) -> None:
    """Where nothing is configured there is nothing to ask."""
    assert world.hooks.hook(None, timeout_s=1) is None
    assert world.hooks.pipeline((), timeout_s=1) is None


# What comes with mtaq, and what the guide shows.


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the examples, where modules are found."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return EXAMPLES


async def test_example_python_hook(world: World, examples: Path) -> None:
    """``scripts/hooks/python_hook.py`` knows senders, recipients and dangerous attachments."""
    asked = world.hook("python://python_hook:Rules")
    assert await asked.sender(SENDER) == accept()
    assert await asked.sender({**SENDER, "envelope": "a@spam.example"}) == reject()
    assert await asked.recipient(RECIPIENT) == accept()
    stranger = {**RECIPIENT, "recipient": "x@example.com", "client": {**SENDER["client"], "user": None}}
    assert await asked.recipient(stranger) == reject("no such mailbox", status="5.1.1")
    assert await asked.message(MESSAGE) == accept({**MESSAGE, "tags": ["checked"]})
    attached = "Content-Type: text/plain\r\nContent-Disposition: attachment; filename=x.EXE\r\n\r\nx"
    mime = f"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n{attached}\r\n--b--\r\n"
    assert (await asked.message({**MESSAGE, "mime": mime})).status == "5.7.0"


async def test_example_python_pipeline(world: World, examples: Path) -> None:
    """``scripts/hooks/python_pipeline.py`` drops out-of-office notices and marks the rest."""
    steps = world.pipeline("python://python_pipeline:drop_out_of_office,python://python_pipeline:mark")
    assert await steps.run({**MESSAGE, "mime": "Auto-Submitted: auto-replied\r\n\r\n"}) == drop()
    assert await steps.run(MESSAGE) == accept({**MESSAGE, "mime": "X-Passed: mark\r\n" + MESSAGE["mime"]})


async def test_example_exec_hook(world: World) -> None:
    """``scripts/hooks/exec_hook.sh`` answers at all three points."""
    asked = world.hook(f"exec://{EXAMPLES}/exec_hook.sh")
    assert await asked.sender(SENDER) == accept()
    spam = {**SENDER, "client": {**SENDER["client"], "helo": "spam.example"}}
    assert await asked.sender(spam) == reject("not from there")
    assert await asked.recipient(RECIPIENT) == accept()
    moved = {**RECIPIENT, "recipient": "x@moved.example"}
    assert await asked.recipient(moved) == reject("moved, ask the postmaster", code=551, status="5.1.6")
    assert await asked.message(MESSAGE) == accept({**MESSAGE, "tags": ["seen by a shell script"]})


async def test_example_exec_pipeline(world: World) -> None:
    """``scripts/hooks/exec_pipeline.py`` drops what nobody reads and numbers the rest."""
    steps = world.pipeline(f"exec://{EXAMPLES}/exec_pipeline.py")
    assert await steps.run({**MESSAGE, "envelope": "noreply-7@example.org"}) == drop()
    assert await steps.run(MESSAGE) == accept({**MESSAGE, "order": 2})


async def test_example_http_server(world: World) -> None:
    """``scripts/hooks/http_server.py`` serves a hook and a pipeline."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / "http_server.py", "--port", "0", stdout=-1, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int((await process.stdout.readline()).split()[-1])}/"
        asked, steps = world.hook(url), world.pipeline(url)
        assert await asked.sender(SENDER) == accept()
        assert await asked.sender({**SENDER, "envelope": ""}) == reject("no bounces here")
        full = {**RECIPIENT, "recipient": "full@example.com"}
        assert await asked.recipient(full) == defer("mailbox full", code=452, status="4.2.2")
        assert await asked.message(MESSAGE) == accept()
        assert await steps.run({**MESSAGE, "tags": ["unwanted"]}) == drop()
        assert await steps.run(MESSAGE) == accept({**MESSAGE, "priority": 5})
    finally:
        process.kill()
        await process.wait()


def blocks(language: str) -> list[str]:
    """The guide's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


def test_the_guide_shows_what_is_given() -> None:
    """The JSON of the three points in the guide is what these tests see arrive."""
    sender, recipient, message = map(json.loads, blocks("json")[:3])
    assert (sender, recipient, message) == (SENDER, RECIPIENT, {"hook": "message", **MESSAGE})


@pytest.mark.parametrize("answer", blocks("json")[3:])
async def test_answers_of_the_guide(world: World, tmp_path: Path, answer: str) -> None:
    """Each answer that the guide shows is understood."""
    decision = await world.hook(program(tmp_path, f"printf %s '{answer.strip()}'")).message(MESSAGE)
    said = json.loads(answer)
    if "changes" in said:
        assert decision == accept({**MESSAGE, **said["changes"]})
    else:
        assert decision == reject(said["text"], code=said["code"], status=said["status"])


def guide_module(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write one of the guide's examples in Python as a module and return its URL."""
    name = f"guide_{number}_" + re.sub(r"\W", "_", folder.name)
    (folder / f"{name}.py").write_text(blocks("python")[number], encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return f"python://{name}:" + ("Rules" if number == 0 else "rules")


async def test_python_of_the_guide(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's class, its function for all points and its step do what the guide says."""
    stranger = {**RECIPIENT, "recipient": "x@example.net", "client": {**SENDER["client"], "user": None}}
    rules, function, step = (guide_module(number, tmp_path, monkeypatch) for number in range(3))
    asked = world.hook(rules)
    assert await asked.sender(SENDER) == accept()
    assert await asked.recipient(RECIPIENT) == accept()
    assert await asked.recipient(stranger) == reject("no such mailbox", status="5.1.1")
    assert await asked.message(MESSAGE) == accept({**MESSAGE, "tags": ["checked"]})
    assert await asked.message({**MESSAGE, "tags": ["unwanted"]}) == drop()
    assert await world.hook(function).sender(SENDER) == accept()
    assert await world.hook(function).recipient(stranger) == reject()
    assert await world.pipeline(step).run(MESSAGE) == accept({**MESSAGE, "mime": "X-Seen: yes\r\n" + MESSAGE["mime"]})
    assert len(blocks("python")) == 3


async def test_program_of_the_guide(world: World, tmp_path: Path) -> None:
    """The guide's shell script does what the guide says."""
    [script] = blocks("sh")
    asked = world.hook(program(tmp_path, script))
    assert await asked.sender(SENDER) == accept()
    assert await asked.recipient(RECIPIENT) == accept()
    unknown = {**RECIPIENT, "recipient": "x@example.com"}
    assert await asked.recipient(unknown) == reject("no such mailbox", status="5.1.1")
    assert await asked.message(MESSAGE) == accept({**MESSAGE, "tags": ["checked"]})
