"""Requests and replies of RADIUS, forged ones above all."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from mtaq.smtpauth import Verdict
from mtaq.smtpauth.radius import AccessRequest, Radius, hidden

SECRET = b"shared"
ACCEPT, REJECT, CHALLENGE = 2, 3, 11


def request(password: str = "secret") -> AccessRequest:
    """A request of Ada's."""
    return AccessRequest("ada", password, SECRET, identifier="mtaq", client_ip="192.0.2.1")


def reply_to(packet: bytes, code: int = ACCEPT, *, attributes: bytes = b"", signed: bool = True,
             secret: bytes = SECRET, number: int | None = None) -> bytes:  # fmt: skip
    """A server's reply (RFC 2865 §3, RFC 3579 §3.2)."""
    body = (b"\x50\x12" + bytes(16) if signed else b"") + attributes
    head = bytes((code, packet[1] if number is None else number)) + (20 + len(body)).to_bytes(2)
    if signed:
        signature = hmac.digest(secret, head + packet[4:20] + body, "md5")
        body = b"\x50\x12" + signature + attributes
    return head + hashlib.md5(head + packet[4:20] + body + secret).digest() + body


def attributes_of(packet: bytes) -> list[tuple[int, bytes]]:
    """Kinds and values."""
    found, rest = [], packet[20:]
    while rest:
        found.append((rest[0], rest[2 : rest[1]]))
        rest = rest[rest[1] :]
    return found


def test_the_request():
    """The request is signed, its signature comes first, and the password cannot be read from it."""
    packet = request().packet
    assert packet[0] == 1
    assert int.from_bytes(packet[2:4]) == len(packet)
    found = attributes_of(packet)
    assert [kind for kind, _ in found] == [80, 1, 2, 6, 32, 31]
    assert dict(found)[1] == b"ada"
    assert dict(found)[31] == b"192.0.2.1"
    assert b"secret" not in packet
    unsigned = packet[:22] + bytes(16) + packet[38:]
    assert found[0][1] == hmac.digest(SECRET, unsigned, "md5")


def test_requests_differ():
    """No two requests have the same authenticator, so that a reply fits one only."""
    assert request().packet[4:20] != request().packet[4:20]


def test_hiding_a_password():
    """The example of RFC 2865 §7.1."""
    authenticator = bytes.fromhex("0f403f9473978057bd83d5cb98f4227a")
    assert hidden(b"arctangent", b"xyzzy5461", authenticator).hex() == "0dbe708d93d413ce3196e43f782a0aee"


def test_hiding_a_long_password():
    """Each block is hidden under the one before it (RFC 2865 §5.2)."""
    authenticator = bytes(range(16))
    whole = hidden(b"x" * 40, SECRET, authenticator)
    assert len(whole) == 48
    assert whole[:16] == hidden(b"x" * 16, SECRET, authenticator)
    assert whole[16:32] == hidden(b"x" * 16, SECRET, whole[:16])


@pytest.mark.parametrize("code", [ACCEPT, REJECT, CHALLENGE])
def test_a_signed_reply(code):
    """A reply with a valid signature is taken, whatever else it tells, and padding behind it does not count."""
    asked = request()
    assert asked.is_answered_by(reply_to(asked.packet, code))
    assert asked.is_answered_by(reply_to(asked.packet, code, attributes=b"\x12\x07hello"))
    assert asked.is_answered_by(reply_to(asked.packet, code) + b"padding")


def test_a_reply_without_message_authenticator():
    """A reply that has only the old authenticator may be forged (CVE-2024-3596), and is dropped."""
    asked = request()
    assert not asked.is_answered_by(reply_to(asked.packet, signed=False))
    assert not asked.is_answered_by(reply_to(asked.packet, signed=False, attributes=b"\x12\x12" + bytes(16)))


def test_forged_replies():
    """Another secret, another request's reply, other codes, a changed byte anywhere: all dropped."""
    asked, other = request(), request()
    good = reply_to(asked.packet, attributes=b"\x12\x07hello")
    assert not asked.is_answered_by(reply_to(asked.packet, secret=b"guessed"))
    assert not asked.is_answered_by(reply_to(other.packet, number=asked.packet[1]))
    assert not asked.is_answered_by(reply_to(asked.packet, number=asked.packet[1] ^ 1))
    assert not any(asked.is_answered_by(reply_to(asked.packet, code)) for code in (0, 1, 4, 5, 12, 255))
    for position in range(len(good)):
        changed = bytes((*good[:position], good[position] ^ 1, *good[position + 1 :]))
        assert not asked.is_answered_by(changed), position


def test_reject_turned_into_accept():
    """The code is signed: a no that is made a yes on its way is dropped."""
    asked = request()
    assert not asked.is_answered_by(b"\x02" + reply_to(asked.packet, REJECT)[1:])


@pytest.mark.parametrize("attributes", [b"\x12", b"\x12\x00", b"\x12\x01", b"\x12\x09hello", b"\x50\x12" + bytes(16),
                                        b"\x50\x03x"])  # fmt: skip
def test_malformed_attributes(attributes):
    """Attributes that do not fill the reply, and a second signature, make it no reply at all."""
    asked = request()
    if attributes == b"\x50\x03x":
        assert not asked.is_answered_by(reply_to(asked.packet, signed=False, attributes=attributes))
    else:
        assert not asked.is_answered_by(reply_to(asked.packet, attributes=attributes))


def test_half_a_reply():
    """No beginning of a reply is a reply."""
    asked = request()
    good = reply_to(asked.packet)
    assert not any(asked.is_answered_by(good[:length]) for length in range(len(good)))


@pytest.mark.parametrize(
    ("code", "verdict"), [(ACCEPT, Verdict.ACCEPTED), (REJECT, Verdict.REFUSED), (CHALLENGE, Verdict.REFUSED)]
)
async def test_verdicts(code, verdict):
    """Only Access-Accept accepts; a challenge is a no to who cannot answer it. A forged reply changes nothing."""

    async def exchange(host, port, datagram, *, is_answer, again_after_s, timeout_s):
        assert not is_answer(reply_to(datagram, ACCEPT, signed=False))
        reply = reply_to(datagram, code)
        assert is_answer(reply)
        return reply

    server = Radius("host", 1812, "mtaq", SECRET.decode(), exchange=exchange)
    assert await server.check("ada", "secret", "192.0.2.1") is verdict
    assert server.name == "radius://mtaq@host:1812"


async def test_the_reason_for_silence():
    """When there were replies and none of them was signed, the operator is told so; else that nobody answered."""

    async def forged(host, port, datagram, *, is_answer, again_after_s, timeout_s):
        is_answer(reply_to(datagram, signed=False))
        raise TimeoutError

    async def silent(host, port, datagram, *, is_answer, again_after_s, timeout_s):
        raise TimeoutError

    with pytest.raises(OSError, match="Message-Authenticator"):
        await Radius("host", 1812, "mtaq", "s", exchange=forged).check("ada", "secret", "192.0.2.1")
    with pytest.raises(TimeoutError):
        await Radius("host", 1812, "mtaq", "s", exchange=silent).check("ada", "secret", "192.0.2.1")


@pytest.mark.parametrize(("user", "password"), [("a" * 254, "x"), ("ada", "x" * 129)])
async def test_what_does_not_fit(user, password):
    """A name or password that the protocol has no room for is refused without asking."""
    server = Radius("host", 1812, "mtaq", "s", exchange=None)
    assert await server.check(user, password, "192.0.2.1") is Verdict.REFUSED
