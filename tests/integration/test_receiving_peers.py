"""Mail servers of others take what delivery sends, octet by octet, and what they refuse comes out as they mean it.

The delivery service is the real one, over real sockets; queues and DNS are in memory.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.postfix import can_run_postfix
from tests.support.delivery import World, options, outbox_json
from tests.support.peers_haraka import Haraka, can_run_haraka
from tests.support.peers_mail import DOMAIN, LATER, MOST_BYTES, NOBODY, Peer
from tests.support.peers_postfix import GREYLISTED, PostfixReceiver

pytestmark = pytest.mark.peers

PEERS: dict[str, tuple[Callable[[], bool], Callable[[Path], Peer], str]] = {
    "postfix": (can_run_postfix, PostfixReceiver, "install postfix (Debian package) and be root to run this"),
    "haraka": (can_run_haraka, Haraka, "./scripts/test installs Haraka, which this needs"),
}
"""Whether it is here, how it is made, and what to do when it is not here."""

HEAD = b"From: Ada <ada@example.org>\r\nTo: bob@example.com\r\nMIME-Version: 1.0\r\n"
EIGHT_BIT = b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
MULTIPART = (
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\npreamble\r\n--b\r\n\r\n.\r\n--b\r\n'
    b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n//79\r\n--b--\r\nepilogue\r\n"
)
BODIES: dict[str, bytes] = {
    "plain": b"\r\nhello\r\n",
    "dots": b"\r\n.\r\n..\r\n.hello\r\n...\r\n\r\n.\r\nMAIL FROM:<>\r\n.",
    "dot-in-header": b"X-Fold: a\r\n .\r\n b\r\n\r\nhello\r\n",
    "latin-1": EIGHT_BIT + b"\r\nGr\xfc\xdfe \x80\xff\xfe\r\n",
    "utf-8": "Content-Type: text/plain; charset=utf-8\r\n\r\nGrüße 🙂 \u2028\r\n".encode(),
    "utf-8-in-header": "X-Greeting: Grüße\r\n\r\nhello\r\n".encode(),
    "long-lines": b"X-Long: " + b"h" * 990 + b"\r\n\r\n" + (b"b" * 998 + b"\r\n") * 50 + b"." + b"d" * 997 + b"\r\n",
    "empty-body": b"\r\n",
    "no-body": b"",
    "no-line-end": b"\r\nhello",
    "blank-lines-and-blanks": b"\r\n\r\n \r\n\t\r\nhello \t\r\n\r\n\r\n",
    "multipart": MULTIPART,
    "controls": b"\r\n\x01\x08\x0b\x0c\x1b\x7f\r\n",
    "large": b"\r\n" + b"0123456789abcdef" * 4 + b"\r\n.\r\n" + (b"." + b"x" * 75 + b"\r\n") * 64_000,
}
"""What follows the first fields, by its name."""

#: RFC 5321 §4.5.3.1: 64 octets before the sign, 256 with the brackets.
LONGEST = f"{'l' * 64}@{'d' * 63}.{'d' * 63}.{'d' * 49}.example.org"

Result = dict[str, Any]


@pytest.fixture(scope="module", params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A server that all tests share."""
    can_run, make, otherwise = PEERS[request.param]
    if not can_run():
        pytest.skip(otherwise)
    folder = tmp_path_factory.mktemp("peer")
    for parent in [folder, *list(folder.parents)[:3]]:
        parent.chmod(parent.stat().st_mode | 0o055)
    server = make(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postfix(peer: Peer) -> PostfixReceiver:
    """What only Postfix is asked."""
    assert isinstance(peer, PostfixReceiver)
    return peer


of_postfix = pytest.mark.parametrize("peer", ["postfix"], indirect=True)


class Sender(World):
    """A delivery service, all of whose mail goes to one peer."""

    async def send(self, name: str, rest: bytes, recipient: str = f"bob@{DOMAIN}", **properties: Any) -> Result:
        """Deliver a message whose content begins with ``mark(name)``, and return its result."""
        content = b64encode(mark(name) + HEAD + rest).decode()
        message = outbox_json(recipient, message_id=name, mime_base64=content, **properties)
        del message["mime"]
        return await self.attempt(message)

    async def attempt(self, message: dict[str, Any]) -> Result:
        """Deliver *message* and return the result of that."""
        assert await self.deliver(message) == "ack"
        results: list[Result] = [
            stored.json["results"][-1]
            for queue in ("success", "failure", "retry")
            for stored in self.queues.stored[queue]
            if stored.json["message-id"] == message["message-id"]
        ]
        return max(results, key=lambda result: int(result["attempt"]))


@asynccontextmanager
async def sending_to(port: int, **changes: Any) -> AsyncIterator[Sender]:
    """Run a delivery service."""
    async with Sender(options=options(delivery_port=port, **changes)) as sender:
        for domain in (DOMAIN, "xn--bcher-kva.example"):
            sender.resolver.add(domain, (10, f"mx.{DOMAIN}", "127.0.0.1"))
        yield sender


def mark(name: str) -> bytes:
    """Return the first field of a test's message."""
    return f"X-Mark: {name}\r\n".encode()


async def arrived(peer: Peer, name: str) -> tuple[str, bytes]:
    """Return what the peer wrote above the message, and the content as it arrived, with CRLF as line end."""
    wanted = mark(name).replace(b"\r\n", peer.line_end)
    above, content = await asyncio.to_thread(peer.wait_kept, wanted)
    return above.decode("utf-8", "replace"), content.replace(peer.line_end, b"\r\n")


def met(result: Result) -> tuple[Any, ...]:
    """Return where it ended, how, and the reply code."""
    return result["state"], result["result"], result.get("code")


def without_end(content: bytes) -> bytes:
    """Return *content* as it is compared: servers end a last line, and a header section that has no body."""
    return content.rstrip(b"\r\n")


# What is accepted.


@pytest.mark.parametrize("body", BODIES)
async def test_content_arrives(peer: Peer, body: str) -> None:
    """Whatever the content is, it is taken, and not an octet of it is another."""
    async with sending_to(peer.port) as sender:
        result = await sender.send(body, BODIES[body])
    assert met(result) == ("message", "accepted", 250)
    _, content = await arrived(peer, body)
    expected = mark(body) + HEAD + BODIES[body]
    assert without_end(content) == without_end(expected)


async def test_tls_is_used_where_it_is_offered(peer: Peer) -> None:
    """STARTTLS succeeds, and both sides tell of the same cipher."""
    async with sending_to(peer.port) as sender:
        result = await sender.send("tls", BODIES["plain"])
    above, _ = await arrived(peer, "tls")
    assert result["cipher"]["version"] == "TLSv1.3"
    assert result["cipher"]["name"] in above
    assert "from out.test (" in above


async def test_plain_text(peer: Peer) -> None:
    """Without STARTTLS the same content arrives."""
    async with sending_to(peer.port, delivery_security="optional") as sender:
        result = await sender.send("no-tls", BODIES["dots"])
    assert met(result) == ("message", "accepted", 250)
    above, content = await arrived(peer, "no-tls")
    assert "with ESMTP " in above
    assert without_end(content) == without_end(mark("no-tls") + HEAD + BODIES["dots"])


async def test_addresses_in_utf_8(peer: Peer) -> None:
    """Local-parts on both sides and the header section are UTF-8."""
    rest = "Subject: Grüße\r\n\r\nhello\r\n".encode()
    async with sending_to(peer.port) as sender:
        result = await sender.send("utf8", rest, f"jürgen@{DOMAIN}", envelope="grüße@example.org", smtputf8=True)
    assert met(result) == ("message", "accepted", 250)
    above, content = await arrived(peer, "utf8")
    assert content.endswith(rest)
    assert "grüße@example.org" in above


@pytest.mark.parametrize("reverse_path", ["", LONGEST, '"a b"@example.org'])
async def test_a_reverse_path(peer: Peer, reverse_path: str) -> None:
    """The null one, the longest and a quoted one are taken."""
    async with sending_to(peer.port) as sender:
        result = await sender.send("path", BODIES["plain"], envelope=reverse_path)
    assert met(result) == ("message", "accepted", 250)


async def test_binary_content(peer: Peer) -> None:
    """A server without BINARYMIME is given base64, and what that holds are the same octets."""
    octets = b"\n.\n\x00\r\r\n.\r\n\xff"
    rest = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets
    async with sending_to(peer.port) as sender:
        assert met(await sender.send("binary", rest, body="binarymime")) == ("message", "accepted", 250)
    _, content = await arrived(peer, "binary")
    assert message_from_bytes(content).get_payload(decode=True) == octets


async def test_one_connection_serves_many(peer: Peer) -> None:
    """What is refused between does not disturb what follows, and each message has its own result."""
    recipients = [f"{local}@{DOMAIN}" for local in ("a", NOBODY, "b", LATER, "c", NOBODY, "d")]
    async with sending_to(peer.port, delivery_connections_per_site=1) as sender:
        sent = (sender.send(f"one-{number}", BODIES["dots"], to) for number, to in enumerate(recipients))
        results = await asyncio.gather(*sent)
    assert [result["code"] for result in results] == [250, 550, 250, 450, 250, 550, 250]
    assert sorted(result["messages"] for result in results) == [1, 2, 3, 4, 5, 6, 7]
    for number, result in enumerate(results):
        if result["code"] == 250:
            _, content = await arrived(peer, f"one-{number}")
            assert without_end(content) == without_end(mark(f"one-{number}") + HEAD + BODIES["dots"])


# What is refused.


async def test_an_unknown_user(peer: Peer) -> None:
    """That is final, at RCPT."""
    async with sending_to(peer.port) as sender:
        result = await sender.send("unknown", BODIES["plain"], f"{NOBODY}@{DOMAIN}")
        assert sender.queues.stored["outbox"] == []
    assert met(result) == ("rcptto", "error", 550)
    assert result["category"] == "bad-mailbox"


async def test_a_recipient_for_later(peer: Peer) -> None:
    """The message goes back to the outbox for its next attempt."""
    async with sending_to(peer.port) as sender:
        result = await sender.send("later", BODIES["plain"], f"{LATER}@{DOMAIN}")
        [again] = sender.queues.stored["outbox"]
    assert met(result) == ("rcptto", "error", 450)
    assert "nextattempt" in again.json


async def test_too_much(peer: Peer) -> None:
    """What is larger than the server's SIZE is not sent at all."""
    async with sending_to(peer.port) as sender:
        result = await sender.send("too-much", b"\r\n" + b"x\r\n" * (MOST_BYTES // 3))
    assert (result["code"], result["status"]) == (552, "5.3.4")
    assert result["sent"]["data"] is None


# Postfix alone.


@of_postfix
async def test_greylisting(postfix: PostfixReceiver) -> None:
    """It is deferred as greylisted, and taken when its next attempt comes from the same address."""
    async with sending_to(postfix.port) as sender:
        first = await sender.send("grey", BODIES["plain"], f"{GREYLISTED}@{DOMAIN}")
        [again] = sender.queues.stored["outbox"]
        sender.clock.forward(3600)
        second = await sender.attempt(again.json)
    assert met(first) == ("rcptto", "error", 450)
    assert first["category"] == "greylist"
    assert met(second) == ("message", "accepted", 250)
    assert second["attempt"] == 2
    assert first["from"] == second["from"]
    await arrived(postfix, "grey")


@of_postfix
async def test_tls_is_demanded(postfix: PostfixReceiver) -> None:
    """Where Postfix says nothing in plain text, mail arrives by TLS, and without it is refused at MAIL."""
    async with sending_to(postfix.encrypted_port) as sender:
        assert met(await sender.send("demanded", BODIES["plain"])) == ("message", "accepted", 250)
    async with sending_to(postfix.encrypted_port, delivery_security="optional") as sender:
        assert met(await sender.send("plain-text", BODIES["plain"])) == ("mailfrom", "error", 530)
    above, _ = await arrived(postfix, "demanded")
    assert "with ESMTPS" in above


@of_postfix
async def test_what_was_asked_of_notices(postfix: PostfixReceiver) -> None:
    """Postfix tells the sender of the delivery, with the ENVID and the ORCPT that the message came with."""
    dsn = {"notify": "SUCCESS", "ret": "HDRS", "envid": "env+1=x y", "orcpt": "rfc822;First@example.net"}
    async with sending_to(postfix.port) as sender:
        result = await sender.send("dsn", BODIES["plain"], dsn=dsn)
    assert met(result) == ("message", "accepted", 250)
    assert result["dsn"] is True
    notice = await asyncio.to_thread(postfix.wait_kept, b"Original-Envelope-Id: ")
    told = notice[1].decode()
    assert told.splitlines()[0] == "Original-Envelope-Id: env+1=x y"
    assert "Original-Recipient: rfc822;First@example.net" in told
    assert "Action: delivered" in told


@of_postfix
async def test_nul(postfix: PostfixReceiver) -> None:
    """Content with NUL, which Postfix is told to refuse, fails for good."""
    async with sending_to(postfix.port) as sender:
        result = await sender.send("nul", b"\r\na\x00b\r\n")
    assert met(result) == ("message", "error", 550)
