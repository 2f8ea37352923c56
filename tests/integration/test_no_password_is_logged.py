"""No password and no secret of the configuration is found anywhere that an instance writes, at any level.

Whoever logs in does so by every mechanism, right and wrong; back ends, hooks, broker and database are down or answer
with what they were told. Then everything is searched for each secret as it is, percent-encoded, in base64 and in hex:
logs, standard output and error of all verbs, process lists, environments, metrics, and every file that was written.
What back ends raise and tell is searched in ``test_no_password_is_told.py``.
"""

from __future__ import annotations

import base64
import os
import socket
import socketserver
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import trustme

from tests.support.instance import ROOT, Relay, free_port, wait_until
from tests.support.wire import Wire
from tests.unit.smtp.test_scram import client_final

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"

#: What each is for → the secret; all of them look different when they are encoded.
SECRETS = {
    word: f"{word}@Zeph1r/2wells+{number}?"
    for number, word in enumerate(
        ("right", "wrong", "radius", "query", "hook", "hookkey", "step", "broker", "database", "typed", "content")
    )
}
RIGHT, WRONG = SECRETS["right"], SECRETS["wrong"]


def spellings(secret: str) -> Iterator[bytes]:
    """Yield how *secret* may be written."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield quote(secret).encode()
    yield quote_plus(secret).encode()
    yield raw.hex().encode()
    for before in range(3):  # inside of a longer text it may begin at any of three places
        encoded = base64.b64encode(b"\0" * before + raw)
        whole = encoded[4 * -(-before // 3) : 4 * ((before + len(raw)) // 3)]
        yield whole
        yield whole.replace(b"+", b"-").replace(b"/", b"_")


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_spellings_are_found(secret: str) -> None:
    """The search finds a secret wherever it stands, or it would prove nothing."""
    texts = [f"x{secret}".encode(), quote(secret, safe="").encode(), f"\0ada\0{secret}".encode().hex().encode()]
    texts += [base64.b64encode(f"{before}{secret} after".encode()) for before in ("", "a", "ab", "\0ada\0")]
    for text in texts:
        assert found_in(text) == {secret}


def found_in(text: bytes) -> set[str]:
    """Return the secrets that stand in *text*."""
    return {secret for secret in SECRETS.values() if any(spelling in text for spelling in spellings(secret))}


class Echo(socketserver.BaseRequestHandler):
    """Answers with what it heard; to HTTP with an error that quotes it."""

    def handle(self) -> None:
        """See the class."""
        if isinstance(self.request, tuple):
            data, sock = self.request
            sock.sendto(data, self.client_address)
            return
        data = self.request.recv(65_536)
        if data[:4] in (b"GET ", b"POST"):
            data = b"HTTP/1.1 599 " + data.replace(b"\r\n", b" ") + b"\r\n\r\n" + data
        self.request.sendall(data)


@contextmanager
def echoing() -> Iterator[int]:
    """Run ``Echo`` on one port of TCP and UDP."""
    with ExitStack() as stack:
        tcp = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo))
        port = tcp.server_address[1]
        udp = stack.enter_context(socketserver.ThreadingUDPServer(("127.0.0.1", port), Echo))
        for server in (tcp, udp):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        yield port


LOGIN = "#!/bin/sh\ncat; cat >&2; read x; kill -9 $$\n"


def options(folder: Path, port: int, relay: Relay, others: list[int], log_format: str) -> dict[str, object]:
    """Return a configuration with a secret wherever there can be one; *port* is where back ends are looked for."""
    both, login, secret = (
        folder / "both.pem",
        folder / "login",
        {name: quote(s, safe="") for name, s in SECRETS.items()},
    )
    trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(str(both))
    login.write_text(LOGIN)
    login.chmod(0o755)
    (folder / "users").write_bytes(b"ada\n\xff:\xff\nada:$6$x\n")
    own, asking, secure = others
    return {
        "smtp-port": f"{relay.port},{own},{asking}", "smtp-secure-port": secure,
        "smtp-certificate": both, "smtp-key": both, "log-level": "debug", "log-format": log_format,
        "smtp-auth-failures": 1000, "smtp-protection": "false", "rabbitmq-refused": "refused",
        f"smtp-auth@{own}": f"hardcoded://ada:{secret['right']}",
        f"smtp-auth@{secure}": f"hardcoded://ada:{secret['right']}",
        f"smtp-auth@{asking}": " ".join((
            f"ldap://127.0.0.1:{port}/dc=example", f"ldaps://127.0.0.1:{port}/dc=example",
            f"radius://mtaq:{secret['radius']}@127.0.0.1:{port}", f"http://127.0.0.1:{port}/?key={secret['query']}",
            f"https://127.0.0.1:{port}/", f"file://{folder}/users", f"exec://{login}", "users://nobody-known",
        )),
        f"smtp-relay@{own}": "range", f"smtp-relay@{secure}": "range", f"smtp-relay@{asking}": "range",
        f"smtp-hook@{asking}": f"http://hook:{secret['hook']}@127.0.0.1:{port}/?key={secret['hookkey']}",
        f"smtp-pipeline@{relay.port}": f"http://step:{secret['step']}@127.0.0.1:{port}/",
    }  # fmt: skip


def log_in(wire: Wire, password: str) -> list[str]:
    """Try every mechanism with *password*; return the last replies."""
    plain, ada, coded = (base64.b64encode(text.encode()).decode() for text in (f"\0ada\0{password}", "ada", password))
    answers = [wire.say(f"AUTH PLAIN {plain}")]
    if answers[0].startswith("235"):
        return answers
    wire.say("AUTH PLAIN")
    answers.append(wire.say(plain))
    wire.say("AUTH LOGIN")
    wire.say(ada)
    answers.append(wire.say(coded))
    wire.say("AUTH LOGIN")  # the password in place of the user, as people do
    wire.say(coded)
    answers.append(wire.say(coded))
    wire.say(f"AUTH PLAIN {plain[:-2]}!")
    wire.say(f"AUTH {coded}")
    wire.say(coded)
    return answers


def log_in_by_scram(wire: Wire, password: str) -> str:
    """Try SCRAM with *password*; return the last reply."""
    first = "n,,n=ada,r=fyko+d2lbbFgONRv9qkxdawL"
    challenge = wire.say("AUTH SCRAM-SHA-256 " + base64.b64encode(first.encode()).decode())
    final = client_final(password, first, base64.b64decode(challenge.removeprefix("334 ")))
    answer = wire.say(base64.b64encode(final))
    return wire.say("") if answer.startswith("334") else answer


def secured(port: int) -> Wire:
    """Connect, begin TLS and say EHLO."""
    wire = Wire(port)
    wire.say("EHLO client.test")
    wire.start_tls()
    wire.say("EHLO client.test")
    return wire


def send(wire: Wire, content: bytes = CONTENT) -> str:
    """Send a message; return the last reply."""
    for command in ("MAIL FROM:<ada@example.org>", "RCPT TO:<grace@example.com>"):
        answer = wire.say(command)
        if not answer.startswith("250"):
            return answer
    return wire.data(content)


def mtaq(*arguments: str, given: str = "") -> bytes:
    """Run a verb and return all it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
    done = subprocess.run(
        [sys.executable, "-m", "mtaq", *arguments],
        input=given.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=120, cwd=ROOT,
    )  # fmt: skip
    return done.stdout


def processes_of(relay: Relay) -> list[int]:
    """Return the supervisor and all that it started."""
    assert relay.process is not None
    children = Path(f"/proc/{relay.process.pid}/task/{relay.process.pid}/children").read_text().split()
    return [relay.process.pid, *map(int, children)]


def told_by_processes(relay: Relay) -> bytes:
    """Return what anybody, or the user itself, can read of them."""
    files = [Path(f"/proc/{pid}/{name}") for pid in processes_of(relay) for name in ("cmdline", "environ", "comm")]
    return b"\n".join(path.read_bytes() for path in files)


def told_by_metrics(relay: Relay) -> bytes:
    """Return every page of ``metrics-port``."""
    pages = b""
    for page in ("metrics", "ready", "live"):
        with urllib.request.urlopen(f"http://127.0.0.1:{relay.metrics_port}/{page}", timeout=30) as answer:
            pages += answer.read()
    return pages


def written_in(folder: Path, relay: Relay) -> dict[Path, bytes]:
    """Return the content of every file that an instance wrote: logs, queues, state, counters, metrics."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path != relay.configuration}


@pytest.mark.parametrize(("log_format", "are_there"), [("json", True), ("console", False)])
def test_no_password_is_logged(tmp_path: Path, log_format: str, are_there: bool) -> None:
    """Logins by every mechanism, back ends and hooks that fail: no secret is written or shown anywhere."""
    with ExitStack() as stack:
        port = stack.enter_context(echoing()) if are_there else free_port()
        relay = Relay(tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_threads=1)
        stack.callback(relay.cleanup)
        own, asking, secure = others = [free_port() for _ in range(3)]
        relay.options |= options(tmp_path, port, relay, others, log_format)
        relay.start()
        relay.wait_ready()
        with secured(own) as wire, secured(asking) as other:
            assert {answer[:3] for answer in log_in(wire, WRONG)} == {"535"}
            assert log_in_by_scram(wire, WRONG).startswith("535")
            assert log_in_by_scram(wire, RIGHT).startswith("235")
            plain = base64.b64encode(f"\0ada\0{RIGHT}".encode()).decode()
            assert other.say(f"AUTH PLAIN {plain}").startswith("454 4.7.0")
            assert send(other).startswith("451 4.7.1")  # the hook
        with secured(own) as wire:
            assert log_in(wire, RIGHT)[0].startswith("235 2.7.0")
            assert send(wire).startswith("250")
            assert send(wire, b"x-mq-tags: a\r\n" + CONTENT).startswith("550")
        with Wire(relay.port) as clear:  # says everything before it knows better
            clear.say("EHLO client.test")
            log_in(clear, SECRETS["typed"])
            assert send(clear, f"Subject: {SECRETS['content']}\r\n\r\n".encode() + CONTENT).startswith("451 4.7.1")
        with socket.create_connection(("127.0.0.1", secure), 30) as nonsense:
            nonsense.sendall(f"EHLO a\r\nAUTH PLAIN {SECRETS['typed']}\r\n".encode())
        shown = [told_by_processes(relay), told_by_metrics(relay)]
        configuration = ("--config", str(relay.configuration))
        shown += [mtaq("config", verb, *configuration) for verb in ("show", "check")]
        for number, password in ((own, RIGHT), (own, WRONG), (asking, WRONG)):
            verb = ("check-auth", "ada", "--password-stdin", "--port", str(number))
            shown.append(mtaq(*verb, *configuration, given=f"{password}\n"))
        relay.options["smtp-maxsize"] = "1MB"
        relay.write_configuration()
        shown.append(mtaq("reload", *configuration))
        wait_until(lambda: b"smtp-maxsize" in relay.log.read_bytes(), "the reload")
        assert relay.stop() == 0
        assert b": accepted" in b"".join(shown)
        assert b"login.back_end_lost" in relay.log.read_bytes()
        assert b"hook.failed" in relay.log.read_bytes()
        assert found_in(b"\n".join(shown)) == set()
        for path, written in written_in(tmp_path, relay).items():
            assert found_in(written) == set(), path


@pytest.mark.parametrize("part", ["broker", "database"])
@pytest.mark.parametrize(("log_format", "are_there"), [("json", True), ("console", False)])
def test_no_password_of_broker_and_database_is_logged(
    tmp_path: Path, part: str, log_format: str, are_there: bool
) -> None:
    """A broker and a database that are down, or are no such thing, are told of without their passwords."""
    with ExitStack() as stack:
        port = stack.enter_context(echoing()) if are_there else free_port()
        relay = Relay(
            tmp_path, f"embedded://{tmp_path}/queue", smtp_threads=1, log_level="debug", log_format=log_format
        )
        place = f"mtaq:{quote(SECRETS[part], safe='')}@127.0.0.1:{port}/mtaq"
        if part == "broker":
            relay.options["rabbitmq-address"] = f"amqp://{place}"
        else:
            relay.options["database-address"] = f"postgresql://{place}"
        stack.callback(relay.cleanup)
        relay.start()
        wait_until(lambda: relay.greeting().startswith("421"), "the relay to answer")
        lost = b"broker.lost" if part == "broker" else b"state.lost"
        wait_until(lambda: lost in relay.log.read_bytes(), "it to be missed")
        configuration = ("--config", str(relay.configuration))
        shown = [told_by_processes(relay)] + [mtaq("config", verb, *configuration) for verb in ("show", "check")]
        shown.append(mtaq("block", "list", *configuration))
        assert relay.stop() == 0
        assert b"mtaq:***@" in b"".join(shown)
        assert found_in(b"\n".join(shown)) == set()
        for path, written in written_in(tmp_path, relay).items():
            assert found_in(written) == set(), path


SECRET = SECRETS["typed"]
MISTAKES = [
    f"smtp-auth: hardcoded://ada{SECRET}",
    f"smtp-auth: hardcoded://ada:{SECRET}:x",
    f"smtp-auth: radius://mtaq:{SECRET}@",
    f"smtp-auth: ldap://ada:{quote(SECRET, safe='')}@127.0.0.1/dc=x",
    f"smtp-auth: http://ada:{quote(SECRET, safe='')}@127.0.0.1/",
    f"smtp-auth: {SECRET}",
    f"smtp-auth: hardcoded://ada:{SECRET}%",
    f"rabbitmq-address: amqp://mtaq:{quote(SECRET, safe='')}@127.0.0.1:port/",
    f"rabbitmq-address: amqpx://mtaq:{quote(SECRET, safe='')}@127.0.0.1/",
    f"rabbitmq-address: {SECRET}",
    f"database-address: mysql://mtaq:{quote(SECRET, safe='')}@127.0.0.1/x",
    f"database-address: {SECRET}",
    f"smtp-hook: http://hook:{quote(SECRET, safe='')}@127.0.0.1:port/",
    f"smtp-hook: ftp://hook:{quote(SECRET, safe='')}@127.0.0.1/",
    f"smtp-pipeline: parse-full,http://hook:{quote(SECRET, safe='')}@:0/,what",
]


@pytest.mark.parametrize("line", MISTAKES, ids=range(len(MISTAKES)))
def test_no_password_is_quoted_from_a_line_with_a_mistake(tmp_path: Path, line: str) -> None:
    """What is wrong with a line is told without its secret."""
    path = tmp_path / "mtaq.conf"
    path.write_text(f"smtp-port: 2525\n{line}\n")
    for verb in (("config", "check"), ("config", "show"), ("receive",)):
        shown = mtaq(*verb, "--config", str(path))
        assert f"{path}:2: {line.partition(':')[0]}: ".encode() in shown
        assert found_in(shown) == set()
