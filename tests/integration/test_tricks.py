"""What attackers try, each trick by its name, on a running instance.

Whatever is tried gets the right code, nothing of it leaks or ends a process, and the next honest message is taken.
Names that are meant to leave their place in an LDAP tree are tried on a real directory in ``test_smtpauth_servers.py``,
PROXY headers of every kind in ``test_proxy.py``, clients that break off and stall in ``test_reception_attacks.py``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.client.sync import connect
from tests.support.instance import Relay, free_port, wait_until
from tests.support.wire import Wire

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"
FORGED = "192.0.2.66"
PROBE = "double-bounce@relay.example"
PROXY = "127.0.0.8"
MARKER = "marker@example.net"

#: Ends lines, steers terminals, and looks like a line of the log.
INJECTION = '\r\n\x1b[31m{"event":"bug"}\x85\u2028INJECTED'

HOOK = r"""#!/usr/bin/env python3
import json, sys
asked = json.load(sys.stdin)
text = "no\r\n250 2.0.0 forged\r\n\x1b[31m{\"event\":\"bug\"}\x85\u2028INJECTED"
who = asked["envelope"].partition("@")[0]
if who == sys.argv[1] + "-text":
    print(json.dumps({"text": text}))
    sys.exit(77)
if who == sys.argv[1] + "-status":
    print(json.dumps({"code": 550, "status": "5.7.1 ok\r\n250", "text": text}))
if who == sys.argv[1] + "-garbage":
    print(text)
    print(text, file=sys.stderr)
    sys.exit(3)
if who == "message-tags" and sys.argv[1] == "message":
    print(json.dumps({"changes": {"tags": [text], "forged": text, "message-id": "forged"}}))
"""


class Site(Relay):
    """A reception of two processes, a port for each way of being generous.

    Attributes:
        trusted: Port that believes x-mq fields of one address and of who logged in.
        login: Port with logins.
        hooked: Port with a hook.
        secure: Port with TLS from the first byte.
        pids: Its workers.
    """

    def __init__(self, folder: Path, **options: object) -> None:
        both, hook = folder / "both.pem", folder / "hook"
        trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(str(both))
        hook.write_text(HOOK, encoding="utf-8")
        hook.chmod(0o755)
        self.address = f"embedded://{folder / 'queue'}"
        super().__init__(folder, self.address, verb="receive")
        self.trusted, self.login, self.hooked, self.secure = (free_port() for _ in range(4))
        self.pids: list[int] = []
        self.options |= {
            "smtp-port": f"{self.port},{self.trusted},{self.login},{self.hooked}", "smtp-secure-port": self.secure,
            "smtp-certificate": both, "smtp-key": both, "smtp-proxy": f"{PROXY}/32", "smtp-probe-senders": PROBE,
            f"smtp-extract@{self.trusted}": "trusted", f"smtp-extract-range@{self.trusted}": "127.0.0.9",
            f"smtp-auth@{self.login}": "hardcoded://ada:secret", f"smtp-relay@{self.login}": "range",
            f"smtp-hook@{self.hooked}": f"exec://{hook}", "smtp-hook-timeout": 30,
            "smtp-auth-failures": 1000, "smtp-protection": "false", "log-level": "debug", "log-format": "json",
        } | {key.replace("_", "-"): value for key, value in options.items()}  # fmt: skip

    def start(self) -> None:
        """Start, and wait until it takes mail."""
        super().start()
        self.wait_ready()
        self.pids = sorted(self.worker_pids("receive"))

    def session(self, port: int | None = None, **arguments: Any) -> Wire:
        """Connect, and say EHLO."""
        wire = Wire(port or self.port, **arguments)
        assert wire.greeting.startswith("220"), wire.greeting
        assert wire.say("EHLO client.test").startswith("250")
        return wire

    def taken(self) -> list[dict[str, Any]]:
        """Send an honest message, and return what stands in the inbox before it."""
        with self.session() as wire:
            assert sent(wire, CONTENT, recipient=MARKER).startswith("250-2.6.0 accepted")
        found: list[dict[str, Any]] = []
        with connect(self.address) as queues:
            for message in queues.consume("inbox"):
                message.ack()
                if message["recipient"] == MARKER:
                    return found
                found.append(dict(message))
        raise AssertionError("the honest message was not stored")

    def assert_unharmed(self) -> None:
        """No process ended, nothing was logged as a fault, every line is what it should be, honest mail is taken."""
        self.taken()
        assert sorted(self.worker_pids("receive")) == self.pids
        lines = self.log.read_bytes().removesuffix(b"\n").split(b"\n")
        for line in lines:
            assert not re.search(rb"[\x00-\x1f\x7f]", line)
            assert json.loads(line)["event"] not in ("bug", "library", "worker.died")


def sent(wire: Wire, content: bytes, *, sender: str = "ada@example.org", recipient: str = "grace@example.com") -> str:
    """Send a message and return the final reply, or the first refusal."""
    for command in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>"):
        answer = wire.say(command)
        if not answer.startswith("250"):
            return answer
    return wire.data(content)


def b64(text: str | bytes) -> str:
    """Return *text* as SASL sends it."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The instance that all tricks are tried on."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        site.start()
        yield site
    finally:
        site.cleanup()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """The same, looked at after each trick."""
    yield running
    running.assert_unharmed()


# Who somebody is.

V1 = f"PROXY TCP4 {FORGED} 127.0.0.1 4711 25\r\n".encode()
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H4s4sHH", 12, socket.inet_aton(FORGED), bytes(4), 4711, 25)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("is_first", [True, False])
def test_forged_proxy_header_from_an_untrusted_peer(site: Site, header: bytes, is_first: bool) -> None:
    """It is bad SMTP, before the greeting and after it, and the client stays who it is."""
    with Wire(site.port, begin=header if is_first else b"") as wire:
        if wire.greeting.startswith("554 5.5.1"):  # seen before the greeting was said
            assert wire.reply() == ""
            return
        wire.send(b"" if is_first else header)
        wire.send(b"\r\nEHLO client.test\r\n")
        answers = []
        while not (answer := wire.reply()).startswith("250"):
            answers.append(answer)
        assert {answer[:9] for answer in answers} <= {"500 5.5.1", "500 5.5.2", "554 5.5.1"}
        if answers[0].startswith("554"):
            return
        assert sent(wire, CONTENT).startswith("250")
    [message] = site.taken()
    assert message["connection"]["remote-ip"] == "127.0.0.1"
    assert "proxy" not in message["connection"]
    assert FORGED not in site.log.read_text()


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_forged_proxy_header_before_tls(site: Site, header: bytes) -> None:
    """On the secure port it is no handshake, and ends the connection."""
    with socket.create_connection(("127.0.0.1", site.secure), 30) as client, contextlib.suppress(ConnectionError):
        client.sendall(header + b"EHLO client.test\r\n")
        heard = b"".join(iter(lambda: client.recv(4096), b""))
        assert heard[:1] in (b"", b"\x15")  # nothing, or a TLS alert
    assert FORGED not in site.log.read_text()


@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
def test_xclient(site: Site, verb: str) -> None:
    """Nobody becomes somebody else by saying so."""
    with site.session() as wire:
        assert wire.say(f"{verb} ADDR={FORGED} NAME=trusted.test LOGIN=ada").startswith("500 5.5.1")
        assert sent(wire, CONTENT).startswith("250")
    [message] = site.taken()
    assert message["connection"]["remote-ip"] == "127.0.0.1"
    assert "user" not in message["connection"]


@pytest.mark.parametrize("verb", ["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT"])
def test_http_to_the_smtp_port(site: Site, verb: str) -> None:
    """A browser that was lured here sends no mail: the session ends with its first line."""
    with Wire(site.port) as wire:
        wire.send(f"{verb} / HTTP/1.1\r\nHost: relay.test\r\n\r\n".encode())
        wire.send(b"EHLO client.test\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n\r\n.\r\n")
        with contextlib.suppress(ConnectionError):
            assert wire.reply().startswith("502 5.7.0")
            assert wire.reply() == ""
    assert site.taken() == []


# Angle brackets.


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("MAIL FROM:<<ada@example.org>>", "501 5.5.4"),
        ("MAIL FROM:<ada@example.org><eve@example.org>", "501 5.5.4"),
        ("MAIL FROM:<ada@example.org", "501 5.5.4"),
        ("MAIL FROM:ada@example.org>", "501 5.5.4"),
        ("MAIL FROM:ada@example.org", "501 5.5.4"),
        ("MAIL FROM:<>>", "501 5.5.4"),
        ("MAIL FROM:<<>>", "501 5.5.4"),
        ("MAIL FROM:< >", "501 5.1.7"),
        ('MAIL FROM:<"<>"@example.org>', "501 5.5.4"),
        ("MAIL FROM:<>eve@example.org", "501 5.5.4"),
        ("MAIL FROM:<ada@example.org>SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<@a.example,@b.example:>", "501 5.1.7"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<<>>", "501 5.5.4"),
        ("RCPT TO:<<grace@example.com>>", "501 5.5.4"),
        ("RCPT TO:<grace@example.com>,<eve@example.com>", "501 5.5.4"),
        ("RCPT TO:<grace@example.com> <eve@example.com>", "501 5.5.4"),
        ("RCPT TO:<grace@example.com,eve@example.com>", "501 5.1.3"),
        ('RCPT TO:<"grace>"@example.com>', "501 5.5.4"),
        ("RCPT TO:<grace@example.com@eve.example>", "501 5.1.3"),
        ("RCPT TO:<|/bin/sh>", "501 5.1.3"),
    ],
)
def test_angle_brackets(site: Site, command: str, code: str) -> None:
    """A path is what stands in one pair of brackets, and nothing else is guessed to be one."""
    with site.session() as wire:
        if command.startswith("RCPT"):
            assert wire.say("MAIL FROM:<ada@example.org>").startswith("250")
        assert wire.say(command).startswith(code)
    assert site.taken() == []


@pytest.mark.parametrize(
    ("value", "envelope"),
    [("eve@example.org", "eve@example.org"), ("<eve@example.org>", "eve@example.org"), ("<>", ""), ("", "")],
)
def test_null_reverse_path_with_x_mq_envelope(site: Site, value: str, envelope: str) -> None:
    """The field wins over the null reverse-path, as it wins over any, and can be the null one itself."""
    with site.session() as wire:
        answer = sent(wire, f"x-mq-envelope: {value}\r\n".encode() + CONTENT, sender="")
        assert answer.startswith("250-2.6.0 accepted")
    [message] = site.taken()
    assert message["envelope"] == envelope
    assert "x-mq-" not in message["mime"].lower()


@pytest.mark.parametrize(
    "value", ["<<>>", "<<eve@example.org>>", "<eve@example.org", "eve", "a@b@c", "eve@example.org\r\n <x@y.example>"]
)
def test_angle_brackets_in_x_mq_envelope(site: Site, value: str) -> None:
    """What is no reverse-path refuses the message, and the reply names the field and not the value."""
    with site.session() as wire:
        answer = sent(wire, f"x-mq-envelope: {value}\r\n".encode() + CONTENT)
        assert answer.startswith("550 5.6.0 x-mq-envelope: ")
        assert value not in answer
    assert site.taken() == []


def test_probe_that_goes_on_to_data(site: Site) -> None:
    """Who only asks whether addresses exist is answered, and can send nothing; the null one is nobody's probe."""
    with site.session() as wire:
        assert wire.say(f"MAIL FROM:<{PROBE.upper()}>").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        assert wire.say("DATA").startswith("554 5.7.1")
        wire.say("RSET")
        assert wire.say(f"MAIL FROM:<{PROBE}>").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        assert wire.bdat(CONTENT).startswith("554 5.7.1")
        wire.say("RSET")
        assert sent(wire, CONTENT, sender="").startswith("250")
    assert [message["envelope"] for message in site.taken()] == [""]


# Header fields.


def test_ten_thousand_header_fields(site: Site) -> None:
    """They are taken byte for byte; of what is read of them there is a bound."""
    fields = b"".join(b"X-Field-%d: %d\r\n" % (number, number) for number in range(10_000))
    with site.session() as wire:
        assert sent(wire, fields + CONTENT).startswith("250")
    [message] = site.taken()
    assert message["mime"].endswith((fields + CONTENT).decode())
    assert len(message["extracted"]["headers"]) <= 1000


def test_ten_thousand_x_mq_fields(site: Site) -> None:
    """So many orders are refused, wherever they stand."""
    fields = b"".join(b"x-mq-a%d: %d\r\n" % (number, number) for number in range(10_000))
    with site.session() as wire:
        assert sent(wire, fields + CONTENT).startswith("550 5.6.0 x-mq-a100: more than")
    assert site.taken() == []


def test_ten_thousand_received_fields(site: Site) -> None:
    """That is a loop."""
    with site.session() as wire:
        assert sent(wire, b"Received: from a by b\r\n" * 10_000 + CONTENT).startswith("554 5.4.6")
    assert site.taken() == []


@pytest.mark.parametrize("name", ["Subject", "To", "X-Field", "Content-Type"])
def test_one_megabyte_header_field(site: Site, name: str) -> None:
    """Folded it is taken byte for byte; on one line it is longer than a line may be; as an order it is refused."""
    folded = f"{name}: start".encode() + b"\r\n aaaa@example.com," * 50_000 + b"\r\n"
    with site.session() as wire:
        assert sent(wire, folded + CONTENT).startswith("250")
        assert sent(wire, f"{name}: ".encode() + b"a" * 2**20 + b"\r\n" + CONTENT).startswith("550 5.6.0")
        assert sent(wire, b"x-mq-" + folded + CONTENT).startswith("550 5.6.0 x-mq-")
    [message] = site.taken()
    assert message["mime"].endswith((folded + CONTENT).decode())


RESERVED = ("mime", "mime-base64", "key", "recipient", "message-id", "connection", "size", "checks", "results", "dkim")


def test_x_mq_fields_of_reserved_names(site: Site) -> None:
    """``x-mq-mime``, ``x-mq-recipient`` and their like leave the content and change nothing."""
    fields = "".join(f"x-mq-{name}: forged\r\n" for name in RESERVED).encode()
    with site.session() as wire:
        assert sent(wire, fields + CONTENT).startswith("250")
    [message] = site.taken()
    assert message["mime"].startswith("Received: ")
    assert message["mime"].endswith(CONTENT.decode())
    assert (message["recipient"], message["size"]) == ("grace@example.com", len(fields + CONTENT))
    assert message["connection"]["helo"] == "client.test"
    assert message["message-id"].startswith("test.")
    assert "forged" not in json.dumps(message)


@pytest.mark.parametrize(
    ("fields", "pool"),
    [
        ("X-MQ-POOL: gold", "gold"),
        ("x-mq-pool:\r\n gold", "gold"),
        ("x-Mq-PoOl: go\r\n\tld", "go ld"),
        ("x-mq-pool : gold", "gold"),
        ("x-mq-pool: =?utf-8?q?gold?=", "gold"),
    ],
)
def test_x_mq_field_in_disguise(site: Site, fields: str, pool: str) -> None:
    """Case, folding, blanks and encoded-words hide no order; nothing of it stays in the content."""
    with site.session() as wire:
        assert sent(wire, fields.encode() + b"\r\n" + CONTENT).startswith("250")
    [message] = site.taken()
    assert message["pool"] == pool
    assert message["mime"].endswith("\r\n" + CONTENT.decode())
    assert "x-mq-" not in message["mime"].lower()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("x-mq-pool: a\r\nX-MQ-Pool: b", "x-mq-pool: given more than once"),
        ("x-mq-pool: =?utf-8?q?a=0D=0Ab?=", "x-mq-pool: control characters"),
        ("x-mq-pool: =?utf-8?q?a=00b?=", "x-mq-pool: control characters"),
        ("x-mq-\x1b[31m: a", "x-mq-??31m: not a header field"),
        ("x-mq-pool", "x-mq-pool: not a header field"),
        ("x-mq-: a", "x-mq-: expected a name"),
        ("x-mq-tags: a", "x-mq-tags: set by x-mq-tag"),
        ("x-mq-smarthost-password: secret", "x-mq-smarthost-password: needs x-mq-smarthost-hostname"),
    ],
)
def test_x_mq_field_of_the_wrong_form(site: Site, fields: str, why: str) -> None:
    """It refuses the message and is named; nothing of a value is in the reply."""
    with site.session() as wire:
        answer = sent(wire, fields.encode() + b"\r\n" + CONTENT)
        assert answer.startswith(f"550 5.6.0 {why}")
        assert "\x1b" not in answer
    assert site.taken() == []


def test_x_mq_fields_of_an_untrusted_client(site: Site) -> None:
    """Under ``trusted`` a stranger's orders are taken out and ignored, even wrong ones; a known client's count."""
    fields = b"x-mq-pool: gold\r\nx-mq-ip: nonsense\r\nx-mq-recipient: eve@example.com\r\n"
    with site.session(site.trusted) as stranger:
        assert sent(stranger, fields + CONTENT).startswith("250")
    with site.session(site.trusted, source_ip="127.0.0.9") as friend:
        assert sent(friend, fields + CONTENT).startswith("550 5.6.0 x-mq-ip")
        assert sent(friend, b"x-mq-pool: gold\r\n" + CONTENT).startswith("250")
    of_stranger, of_friend = site.taken()
    assert "pool" not in of_stranger
    assert of_friend["pool"] == "gold"
    for message in (of_stranger, of_friend):
        assert "x-mq-" not in message["mime"].lower()


@pytest.mark.parametrize(
    ("content", "pool"),
    [
        (b"x-mq-pool: gold", "gold"),
        (b"Subject: a\r\nx-mq-pool: gold\r\n", "gold"),
        (b"Subject: a\r\nx-mq-pool: gold\r\n\t", "gold"),
        (b"Subject: hel", None),
        (b"Subject", None),
        (b"\r\n", None),
        (b"", None),
    ],
)
def test_header_that_ends_in_the_middle(site: Site, content: bytes, pool: str | None) -> None:
    """Content that is over before its header section is has its orders obeyed and taken out like any other."""
    with site.session() as wire:
        assert wire.say("MAIL FROM:<ada@example.org>").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        assert wire.bdat(content).startswith("250-2.6.0 accepted")
    [message] = site.taken()
    assert message.get("pool") == pool
    assert "x-mq-" not in message["mime"].lower()
    assert message["mime"].startswith("Received: ")
    if pool is None:
        assert message["mime"].endswith(content.decode())


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n.", b"\r\n.\n", b"\n.\r\n"])
def test_client_that_leaves_in_the_middle_of_the_header(site: Site, end: bytes) -> None:
    """What was never finished is never mail."""
    with site.session() as wire:
        assert wire.say("MAIL FROM:<ada@example.org>").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        assert wire.say("DATA").startswith("354")
        wire.send(b"x-mq-pool: gold\r\nSubject: hel" + end)
    assert site.taken() == []


# Recipients.


def test_a_thousand_recipients_with_dsn_parameters(site: Site) -> None:
    """Each has its own parameters in its own JSON, the next one is for another transaction, the reply stays short."""
    orcpt = "rfc822;" + "+3D" * 100
    with site.session() as wire:
        assert wire.say("MAIL FROM:<ada@example.org> RET=FULL ENVID=" + "e" * 100).startswith("250")
        commands = [
            f"RCPT TO:<r{number}@example.com> NOTIFY=SUCCESS,DELAY,FAILURE ORCPT={orcpt}{number}\r\n"
            for number in range(1001)
        ]
        for start in range(0, 1001, 100):
            batch = commands[start : start + 100]
            wire.send("".join(batch).encode())
            answers = [wire.reply()[:9] for _ in batch]
            assert answers == (["250 2.1.5"] * 100 if start < 1000 else ["452 4.5.3"])
        answer = wire.data(CONTENT)
        assert re.fullmatch(r"250 2\.6\.0 test\.[0-9a-v]{26}\.1-1000 accepted", answer)
    messages = site.taken()
    assert sorted(message["recipient"] for message in messages) == sorted(f"r{n}@example.com" for n in range(1000))
    assert len({message["message-id"] for message in messages}) == 1000
    for message in messages:
        number = message["recipient"][1:].partition("@")[0]
        notify = message["dsn"].pop("notify").split(",")
        assert sorted(notify) == ["DELAY", "FAILURE", "SUCCESS"]
        assert message["dsn"] == {"ret": "FULL", "envid": "e" * 100, "orcpt": "rfc822;" + "=" * 100 + number}


@pytest.mark.parametrize(
    "parameters",
    ["NOTIFY=NEVER,SUCCESS", "NOTIFY=SUCCESS NOTIFY=DELAY", "ORCPT=rfc822;a+0Ab", "ORCPT=rfc822;a+00", "ORCPT=;a",
     "ORCPT=rfc822;" + "a" * 600, "NOTIFY="],
)  # fmt: skip
def test_dsn_parameters_of_the_wrong_form(site: Site, parameters: str) -> None:
    """They refuse the recipient, line ends that are hidden in xtext included."""
    with site.session() as wire:
        assert wire.say("MAIL FROM:<ada@example.org>").startswith("250")
        assert wire.say(f"RCPT TO:<grace@example.com> {parameters}").startswith("501 5.5.4")
    assert site.taken() == []


# Logins.


def test_auth_before_starttls(site: Site) -> None:
    """In clear nobody is offered a login, and whoever tries one all the same is not asked for anything."""
    with site.session(site.login) as wire:
        assert "AUTH" not in wire.say("EHLO client.test")
        for command in (f"AUTH PLAIN {b64(chr(0) + 'ada' + chr(0) + 'secret')}", "AUTH LOGIN", "AUTH SCRAM-SHA-256"):
            assert wire.say(command).startswith("538 5.7.11")
        assert sent(wire, CONTENT).startswith("250")
    [message] = site.taken()
    assert "user" not in message["connection"]


def test_auth_pipelined_behind_starttls(site: Site) -> None:
    """What was sent in clear behind STARTTLS is forgotten: nobody is logged in by somebody in the middle."""
    with site.session(site.login) as wire:
        wire.send(b"STARTTLS\r\nAUTH PLAIN " + b64("\0ada\0secret").encode() + b"\r\n")
        assert wire.reply().startswith("220")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(ssl.SSLError, ConnectionError), context.wrap_socket(wire._sock) as secured:
            secured.sendall(b"NOOP\r\n")
            assert secured.recv(100).startswith(b"250")
    assert [event for event in site.events("login.accepted") if event.get("user") == "ada"] == []


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ([f"AUTH PLAIN {b64(chr(0) + 'ada' + chr(0) + 'secret' + chr(0))}"], ["501 5.5.2"]),
        ([f"AUTH PLAIN {b64(chr(0) + 'a' + chr(0) + 'da' + chr(0) + 'secret')}"], ["501 5.5.2"]),
        ([f"AUTH PLAIN {b64(chr(0) * 3)}"], ["501 5.5.2"]),
        (["AUTH PLAIN \0"], ["500 5.5.2"]),
        (["AUTH LOGIN", b64("ada\0"), b64("secret")], ["334", "334", "501 5.5.2"]),
        (["AUTH LOGIN", b64("ada"), b64("sec\0ret")], ["334", "334", "501 5.5.2"]),
        (["AUTH LOGIN", "YWRh\0"], ["334", "501 5.5.2"]),
        (["AUTH SCRAM-SHA-256", b64("n,,n=ada\0,r=nonce")], ["334", "501 5.5.2"]),
    ],
)
def test_nul_in_auth(site: Site, lines: list[str], codes: list[str]) -> None:
    """NUL separates and ends what programs read: no name and no password holds one."""
    with site.session(site.login) as wire:
        wire.start_tls()
        assert "AUTH PLAIN LOGIN" in wire.say("EHLO client.test")
        for line, code in zip(lines, codes, strict=True):
            assert wire.say(line).startswith(code)
        assert wire.say(f"AUTH PLAIN {b64(chr(0) + 'ada' + chr(0) + 'secret')}").startswith("235 2.7.0")


def test_oversized_auth_lines(site: Site) -> None:
    """Too much is refused whether it ends or not, and the exchange is over."""
    with site.session(site.login) as wire:
        wire.start_tls()
        wire.say("EHLO client.test")
        assert wire.say("AUTH PLAIN " + "A" * 4000).startswith("500 5.5.2")
        assert wire.say("AUTH PLAIN").startswith("334")
        assert wire.say("A" * 13_000).startswith("500 5.5.6")
        assert wire.say("AUTH LOGIN").startswith("334")
        assert wire.say("A" * 2**20).startswith("500 5.5.6")
        assert wire.say(f"AUTH PLAIN {b64(chr(0) + 'a' * 9000 + chr(0) + 'x')}").startswith("500 5.5.2")
        assert wire.say("AUTH PLAIN").startswith("334")
        assert wire.say(b64("\0" + "a" * 9000 + "\0x")).startswith("535 5.7.8")
        assert wire.say("NOOP").startswith("250")


# Line ends and terminals in the log.


def test_hooks_that_answer_with_line_ends(site: Site) -> None:
    """A hook's text is one harmless line of one reply, wherever it is asked; what is no answer refuses for now."""
    with site.session(site.hooked) as wire:
        for point in ("sender", "recipient", "message"):
            assert sent(wire, CONTENT, sender=f"{point}-text@example.org").startswith("550 5.7.1 no 250 2.0.0 forged")
            assert wire.say("RSET").startswith("250 2.0.0 reset")
            for trick in ("status", "garbage"):
                assert sent(wire, CONTENT, sender=f"{point}-{trick}@example.org").startswith("451 4.7.1")
                assert wire.say("RSET").startswith("250 2.0.0 reset")
    assert site.taken() == []


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_log_injection(tmp_path: Path, log_format: str) -> None:
    """Whatever clients, proxies and hooks say, a line of the log stays one line, and steers no terminal."""
    site = Site(tmp_path, log_format=log_format, smtp_threads=1)
    site.start()
    try:
        inject_into(site)
        assert site.stop() == 0
    finally:
        site.cleanup()
    text = site.log.read_text(encoding="utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", text)
    if log_format == "json":
        records = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
        assert {record["node"] for record in records} == {"test"}
        events = [record["event"] for record in records]
    else:
        assert not re.search("[\x80-\x9f\u2028\u2029\u202e]", text)
        columns = re.compile(r"[0-9:]{8} (?:debug|info|warning|error) +([a-z_.]+)(?: .*)?")
        events = [match[1] for line in text.removesuffix("\n").split("\n") if (match := columns.fullmatch(line))]
        assert len(events) == text.count("\n")
    assert {"message.accepted", "message.refused", "hook.failed", "proxy.refused", "login.refused"} <= set(events)
    assert not {"bug", "library", "worker.died"} & set(events)


def inject_into(site: Site) -> None:
    """Say ``INJECTION`` wherever something is said."""
    line, name = INJECTION.strip().encode(), INJECTION.encode()
    for verb in (b"EHLO ", b"HELO ", b"NOOP ", b"VRFY ", b"", b"MAIL FROM:", b"MAIL FROM:<", b"AUTH "):
        with Wire(site.port) as wire:
            for said in (line, b"\x1b[31mred", b'{"event":"bug"}', b"a\nINJECTED", "\u202e\u2028\x85".encode()):
                wire.say(verb + said + b">")
    with site.session() as wire:
        for path in (
            '<"{\\"event\\":\\"bug\\"}"@example.org>', '<"\\\\\\" \\[31m"@example.org>',
            "<a\u202eb@example.org> SMTPUTF8", "<a\u2028b@example.org> SMTPUTF8", "<a\x85b@example.org> SMTPUTF8",
            "<a\x1b[31m@example.org>",
        ):  # fmt: skip
            for command in (f"MAIL FROM:{path}", f"RCPT TO:{path.removesuffix(' SMTPUTF8')}", "RSET"):
                wire.say(command)
    with site.session() as wire:
        for field in (
            "Subject: =?utf-8?b?" + b64(INJECTION) + "?=", "x-mq-\x1b[31m: a", "x-mq-tag: \u202e\\x1b",
            "x-mq-pool: =?utf-8?b?" + b64(INJECTION) + "?=", "X-\x1b[31m: \x1b[31m\u2028",
            'x-mq-envelope: "{\\"event\\":\\"bug\\"}\u202e"@example.org',
        ):  # fmt: skip
            assert sent(wire, field.encode() + b"\r\n" + CONTENT)[:3] in ("250", "550")
    with site.session(site.login) as wire:
        wire.start_tls()
        wire.say("EHLO client.test")
        for user in (INJECTION, "\x1b[31m", "a\u202eb", '"} {"event":"bug"'):
            assert wire.say(f"AUTH PLAIN {b64(chr(0) + user + chr(0) + user)}")[:3] in ("501", "535")
    with site.session(site.hooked) as wire:
        for sender in ("sender-text", "recipient-text", "message-status", "message-garbage", "message-tags"):
            sent(wire, CONTENT, sender=f"{sender}@example.org")
            wire.say("RSET")
    version = b"TLSv1.3"
    told = b"\x21" + struct.pack("!H", len(version)) + version + b"\x22" + struct.pack("!H", len(name)) + name
    tls = b"\x07" + bytes(4) + told
    block = bytes((127, 0, 0, 10)) + bytes((127, 0, 0, 1)) + struct.pack("!HH", 1, 25)
    block += b"\x20" + struct.pack("!H", len(tls)) + tls
    v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(block)) + block
    for header in (b"PROXY TCP4 " + name, b"PROXY TCP4 " + line + b"\r\n"):
        with contextlib.suppress(ConnectionResetError), Wire(site.port, source_ip=PROXY, begin=header) as wire:
            assert wire.greeting == ""
    for header in (b"PROXY UNKNOWN " + line + b"\r\n", v2):
        with site.session(source_ip=PROXY, begin=header) as wire:
            assert sent(wire, CONTENT).startswith("250")
    wait_until(lambda: site.log.read_bytes().count(b"proxy.refused") >= 2, "the proxies to be told of")
