"""A running relay behind a real haproxy, and behind proxies that lie, stall and stammer."""

from __future__ import annotations

import contextlib
import json
import re
import smtplib
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from jsonschema import Draft202012Validator

from mtaq.client.sync import connect
from tests.conformance.vectors import cases
from tests.support.haproxy import DEFAULTS, PROGRAM, Haproxy
from tests.support.instance import ROOT, Relay, free_port, wait_until

needs_haproxy = [
    pytest.mark.peers,
    pytest.mark.skipif(PROGRAM is None, reason="install haproxy (Debian package) to run this"),
]

#: Who connects to the relay, where the proxy is reached, and who its client is.
PROXY, FRONT, CLIENT = "127.0.0.1", "127.0.0.4", "127.0.0.3"
V1 = f"PROXY TCP4 {CLIENT} {FRONT} 40112 25\r\n".encode()
V2 = bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes([127, 0, 0, 3, 127, 0, 0, 4]) + b"\x9c\xb0\x00\x19"
LOCAL = bytes.fromhex("0d0a0d0a000d0a515549540a20000000")
MESSAGE = b"EHLO client.test\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<grace@example.com>\r\nDATA\r\n"
INBOX_SCHEMA = json.loads((ROOT / "docs" / "schema" / "inbox.json").read_text(encoding="utf-8"))


class Target(Relay):
    """A reception with a plain and a secure port that believes what ``PROXY`` says of its clients.

    Attributes:
        secure_port: TLS from the first byte.
        pem: Certificate and key of relay.test.
        trust: A client's context that trusts it.
    """

    def __init__(self, folder: Path, **options: object) -> None:
        authority = trustme.CA()
        self.pem = folder / "relay.pem"
        authority.issue_cert("relay.test", FRONT).private_key_and_cert_chain_pem.write_to_path(str(self.pem))
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        self.secure_port = free_port()
        self.queue = f"embedded://{folder / 'queue'}"
        defaults: dict[str, object] = {
            "smtp_secure_port": self.secure_port, "smtp_certificate": self.pem, "smtp_key": self.pem,
            "smtp_threads": 1, "smtp_range": CLIENT, "smtp_proxy": PROXY, "smtp_mappable_ips": FRONT,
        }  # fmt: skip
        super().__init__(folder, self.queue, verb="receive")
        self.options |= {key.replace("_", "-"): value for key, value in (defaults | options).items()}


class Inbox:
    """What the relay has published."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages

    def next(self) -> dict[str, Any]:
        """Wait for the next message, and return its JSON, which is valid."""
        message = next(self._messages)
        message.ack()
        properties = {name: value for name, value in message.items() if name != "mime"}
        assert [error.message for error in Draft202012Validator(INBOX_SCHEMA).iter_errors(dict(message))] == []
        return properties


@contextlib.contextmanager
def running(target: Target) -> Iterator[tuple[Target, Inbox]]:
    """Run *target* and consume its inbox."""
    try:
        target.start()
        target.wait_ready()
        with connect(target.queue) as queues:
            yield target, Inbox(queues.consume("inbox"))
    finally:
        target.cleanup()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, Inbox]]:
    """A relay that all tests share."""
    with running(Target(tmp_path_factory.mktemp("relay"))) as both:
        yield both


@pytest.fixture(scope="module")
def open_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, Inbox]]:
    """One that takes mail from everywhere."""
    with running(Target(tmp_path_factory.mktemp("open"), smtp_range="0.0.0.0/0;::/0")) as both:
        yield both


class Talk:
    """A client that begins with what it likes."""

    def __init__(self, port: int, begin: bytes, *, source: str = PROXY, by_byte: bool = False) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 60, source_address=(source, 0))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._sock.getsockname()[1]
        for block in [begin[at : at + 1] for at in range(len(begin))] if by_byte else [begin]:
            self._sock.sendall(block)
        self._file = self._sock.makefile("rb")

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._sock.close()

    def reply(self) -> str:
        """Return the next reply's first three characters; empty when the server has closed."""
        with contextlib.suppress(ConnectionResetError):
            while line := self._file.readline():
                if line[3:4] != b"-":
                    return line[:3].decode()
        return ""

    def send(self, data: bytes) -> None:
        """Send."""
        self._sock.sendall(data)

    def send_message(self) -> None:
        """Send one whole message, after the greeting."""
        for line in MESSAGE.splitlines(keepends=True):
            self.send(line)
            assert self.reply() in ("250", "354")
        self.send(b"Subject: hello\r\n\r\nit works\r\n.\r\n")
        assert self.reply() == "250"


# A proxy made by hand.


@pytest.mark.parametrize("case", cases("proxy/proxy"), ids=lambda case: str(case["id"]))
def test_a_vector_is_what_the_json_says(open_relay: tuple[Target, Inbox], case: dict[str, Any]) -> None:
    """After a right header a message is taken and has its addresses; after a wrong one the connection is closed."""
    target, inbox = open_relay
    expect, begin = case["expect"], bytes.fromhex(case["hex"])
    with Talk(target.port, begin, by_byte="send" in case) as talk:
        assert talk.reply() == ("220" if expect["ok"] else "")
        if not expect["ok"]:
            return
        if begin.endswith(b"EHLO x.test\r\n"):
            assert talk.reply() == "250"
        talk.send_message()
        found = inbox.next()["connection"]
        if expect["src"] is None:
            wanted: tuple[object, ...] = (PROXY, talk.port, "127.0.0.1", target.port)
        else:
            wanted = (expect["src"], expect["src_port"], expect["dst"], expect["dst_port"])
        assert (found["remote-ip"], found["remote-port"], found["local-ip"], found["local-port"]) == wanted
        assert found["proxy"] == {"ip": PROXY, "port": talk.port}
        assert found["secure"] is (case["id"] == "v2-tcp4-tlvs")


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_header_and_client_hello_in_one_segment(relay: tuple[Target, Inbox], header: bytes) -> None:
    """On the secure port TLS begins with the byte behind the header, though both came at once."""
    target, inbox = relay
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = target.trust.wrap_bio(incoming, outgoing, server_hostname="relay.test")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    with Talk(target.secure_port, header + outgoing.read()) as talk:

        def until_done(step: Any, *arguments: Any) -> Any:
            while True:
                try:
                    result = step(*arguments)
                except ssl.SSLWantReadError:
                    incoming.write(talk._sock.recv(65536))
                else:
                    talk.send(outgoing.read())
                    return result

        until_done(session.do_handshake)
        said = b""
        for line in [b"", *MESSAGE.splitlines(keepends=True), b"Subject: hello\r\n\r\nhello\r\n.\r\n"]:
            if line:
                until_done(session.write, line)
            said = until_done(session.read, 65536)
        assert said.startswith(b"250")
    found = inbox.next()
    assert found["connection"]["remote-ip"] == CLIENT
    assert found["connection"]["secure"] is True
    assert found["ips"] == [FRONT]


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_forged_header_is_bad_smtp(relay: tuple[Target, Inbox], header: bytes) -> None:
    """From who is no trusted proxy a header is an unknown command, and the JSON has the true addresses."""
    target, inbox = relay
    with Talk(target.port, b"", source=CLIENT) as talk:
        assert talk.reply() == "220"
        forged = header.replace(b"127.0.0.3", b"192.0.2.66").replace(bytes([127, 0, 0, 3]), bytes([192, 0, 2, 66]))
        talk.send(forged + b"\r\n")
        talk.send(b"NOOP\r\n")
        replies = []
        while (reply := talk.reply()) != "250":
            replies.append(reply)
        assert set(replies) == {"500"}
        talk.send_message()
        found = inbox.next()["connection"]
        assert (found["remote-ip"], found["remote-port"], found["local-ip"]) == (CLIENT, talk.port, "127.0.0.1")
        assert "proxy" not in found


def test_the_range_is_for_clients_and_not_for_proxies(relay: tuple[Target, Inbox]) -> None:
    """A client outside of it is refused behind a proxy, too; the proxy is let in to see how we are."""
    target, inbox = relay
    with Talk(target.port, V1.replace(b"127.0.0.3", b"127.0.0.9")) as talk:
        assert talk.reply() == "554"
    with Talk(target.port, b"PROXY UNKNOWN\r\n") as talk:
        assert talk.reply() == "554"
    with Talk(target.secure_port, V1.replace(b"127.0.0.3", b"127.0.0.9")) as talk:
        assert talk.reply() == ""
    with Talk(target.port, LOCAL) as talk:
        assert talk.reply() == "220"
        talk.send_message()
        assert inbox.next()["connection"]["remote-ip"] == PROXY
    refused = wait_until(
        lambda: [event for event in target.events("session.refused") if event["peer_ip"] == "127.0.0.9"],
        "the refusal's line",
    )
    assert (refused[0]["proxy_ip"], refused[0]["reply_code"]) == (PROXY, 554)


def is_full_of_slow_ones(target: Target) -> bool:
    """Is there no room for a third while two proxies have not said all of their header? They have five seconds."""
    with Talk(target.port, b"PROXY"), Talk(target.secure_port, b""), Talk(target.port, V2) as third:
        return third.reply() == "421"


def is_greeted(target: Target) -> bool:
    """Is there room for a client?"""
    with Talk(target.port, V2) as talk:
        return talk.reply() == "220"


def test_proxies_that_stall_and_lie_give_their_slots_back(tmp_path: Path) -> None:
    """Each wrong header is a line and a number, and afterwards all slots are free; slow proxies count meanwhile."""
    with running(Target(tmp_path, smtp_connections_in=2, smtp_connections_wait=0)) as (target, _):
        for begin in (b"EHLO x.test\r\n", b"PROXY \r\n", b"\r\n\r\nEHLO", LOCAL[:12] + b"\x11\x00\x00\x00"):
            for port in (target.port, target.secure_port):
                with Talk(port, begin) as talk:
                    assert talk.reply() == ""
        wait_until(lambda: len(target.events("proxy.refused")) == 8, "a line for each")
        assert {event["peer_ip"] for event in target.events("proxy.refused")} == {PROXY}
        with Talk(target.secure_port, b"") as slow:
            assert slow.reply() == ""  # closed in time
        wait_until(lambda: is_full_of_slow_ones(target), "a client beyond two slow proxies to be told 421")
        wait_until(lambda: is_greeted(target), "a client to be greeted again")
        with urllib.request.urlopen(f"http://127.0.0.1:{target.metrics_port}/metrics", timeout=30) as page:
            assert re.search(rb"mtaq_proxy_headers_refused_total (9|[1-9][0-9]+)\.0", page.read())


# A real one.


class Fronts:
    """The ports of a haproxy before *target*, one for each way to speak to it."""

    def __init__(self, target: Target) -> None:
        self.configuration = DEFAULTS
        self.listens: dict[str, tuple[str, int]] = {}
        ssl_bind = f"ssl crt {target.pem}"
        for name, bind, port, options in (
            ("v1", "", target.port, "send-proxy"),
            ("v2", "", target.port, "send-proxy-v2"),
            ("v1-tls", "", target.secure_port, "send-proxy"),
            ("v2-tls", "", target.secure_port, "send-proxy-v2"),
            ("ssl-cn", ssl_bind, target.port, "send-proxy-v2-ssl-cn"),
            ("ssl-cipher", ssl_bind, target.port, "send-proxy-v2 proxy-v2-options ssl,ssl-cipher,crc32c,unique-id"),
        ):
            self.listens[name] = (FRONT, free_port(FRONT))
            self.configuration += (
                f"listen {name}\n    bind {FRONT}:{self.listens[name][1]} {bind}\n"
                f"    unique-id-format %{{+X}}o%ci:%cp\n    server mtaq 127.0.0.1:{port} {options}\n"
            )


@pytest.fixture(scope="module")
def fronts(relay: tuple[Target, Inbox], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    """A haproxy before the shared relay."""
    found = Fronts(relay[0])
    with Haproxy(tmp_path_factory.mktemp("haproxy"), found.configuration, listens=tuple(found.listens.values())):
        yield found


class Sent:
    """One message sent to a front, in one of three ways: ``plain``, ``starttls`` or ``tls``."""

    def __init__(self, target: Target, address: tuple[str, int], way: str) -> None:
        source = (CLIENT, 0)
        if way == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                *address, timeout=60, source_address=source, context=target.trust, local_hostname="client.test"
            )
        else:
            client = smtplib.SMTP(*address, timeout=60, source_address=source, local_hostname="client.test")
        with client:
            client.ehlo()
            if way == "starttls":
                client.starttls(context=target.trust)
                client.ehlo()
            assert client.sock is not None
            self.port = client.sock.getsockname()[1]
            self.offers_starttls = client.has_extn("starttls")
            client.sendmail("ada@example.org", ["grace@example.com"], b"Subject: hello\r\n\r\nit works\r\n")


@pytest.mark.parametrize(
    ("front", "way"),
    [("v1", "plain"), ("v2", "plain"), ("v1", "starttls"), ("v2", "starttls"), ("v1-tls", "tls"), ("v2-tls", "tls")],
)
@pytest.mark.usefixtures("fronts")
class TestBehindHaproxy:
    """Mail through a haproxy that passes TCP on."""

    pytestmark = needs_haproxy

    def test_the_client_and_its_port_are_known(
        self, relay: tuple[Target, Inbox], fronts: Fronts, front: str, way: str
    ) -> None:
        """The JSON has client, haproxy and the address the client connected to, in clear and in TLS that ends here."""
        target, inbox = relay
        sent = Sent(target, fronts.listens[front], way)
        found = inbox.next()
        connection = found["connection"]
        assert (connection["remote-ip"], connection["remote-port"]) == (CLIENT, sent.port)
        assert (connection["local-ip"], connection["local-port"]) == fronts.listens[front]
        assert connection["proxy"]["ip"] == PROXY
        assert connection["secure"] is (way != "plain")
        assert sent.offers_starttls is (way == "plain")
        assert found["ips"] == [FRONT]


@pytest.mark.parametrize(("front", "cipher"), [("ssl-cn", ""), ("ssl-cipher", "TLS_AES_256_GCM_SHA384")])
class TestBehindHaproxyThatSpeaksTls:
    """Mail through a haproxy where TLS ends."""

    pytestmark = needs_haproxy

    def test_its_tls_counts(self, relay: tuple[Target, Inbox], fronts: Fronts, front: str, cipher: str) -> None:
        """The session is secure, with the version and what else haproxy tells; STARTTLS is not offered again."""
        target, inbox = relay
        sent = Sent(target, fronts.listens[front], "tls")
        connection = inbox.next()["connection"]
        assert connection["secure"] is True
        assert connection["tls"] == {"version": "TLSv1.3", "cipher": cipher}
        assert connection["remote-ip"] == CLIENT
        assert not sent.offers_starttls


# The guide.

GUIDE = (ROOT / "docs" / "guide" / "receiving.md").read_text(encoding="utf-8")
SECTION = GUIDE.partition("## Behind a proxy\n")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    """Return the section's blocks in *language*."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


class TestTheGuide:
    """The examples of the guide are run as they stand, on other addresses."""

    pytestmark = needs_haproxy

    def test_its_examples_work(self, tmp_path: Path) -> None:
        """haproxy and mtaq, configured as the guide has it, take mail on each port; the health check finds us well."""
        target = Target(tmp_path)
        [configuration] = blocks("")
        ports = {name: free_port(FRONT) for name in ("smtp", "smtps", "terminated")}
        for old, new in (
            ("smtp-port: 25\n", f"smtp-port: {target.port}\n"),
            ("smtp-secure-port: 465\n", f"smtp-secure-port: {target.secure_port}\n"),
            ("10.0.0.5", PROXY),
            ("198.51.100.0/24", CLIENT),
            ("192.0.2.10", FRONT),
        ):
            assert old in configuration
            configuration = configuration.replace(old, new)
        for line in configuration.splitlines():
            key, _, value = line.partition(": ")
            target.options[key] = value
        passing, ending = blocks("haproxy")
        passing, ending = (
            text.replace("10.0.0.11:25", f"127.0.0.1:{target.port}")
            .replace("10.0.0.11:465", f"127.0.0.1:{target.secure_port}")
            .replace("192.0.2.10:25", f"{FRONT}:{ports['smtp']}")
            .replace("/etc/haproxy/mail.example.com.pem", str(target.pem))
            for text in (passing, ending)
        )
        passing = passing.replace("192.0.2.10:465", f"{FRONT}:{ports['smtps']}")
        ending = ending.replace("192.0.2.10:465", f"{FRONT}:{ports['terminated']}").replace("smtps", "terminated")
        with running(target) as (_, inbox):
            listens = tuple((FRONT, port) for port in ports.values())
            with Haproxy(tmp_path, passing + ending, listens=listens):
                for name, way in (("smtp", "starttls"), ("smtps", "tls"), ("terminated", "tls")):
                    Sent(target, (FRONT, ports[name]), way)
                    found = inbox.next()
                    assert found["connection"]["remote-ip"] == CLIENT
                    assert found["connection"]["secure"] is True
                    assert "ips" not in found  # unmappable
                checks = wait_until(
                    lambda: [e for e in target.events("session.closed") if e.get("helo") == "haproxy.example.com"],
                    "a health check",
                )
                assert (checks[0]["peer_ip"], checks[0]["proxy_ip"]) == (PROXY, PROXY)
