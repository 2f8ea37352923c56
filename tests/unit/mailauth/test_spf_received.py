"""The Received-SPF field."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.spf import SpfResult
from mtaq.mailauth.spf_host import Identity
from mtaq.mailauth.spf_received import received_spf
from mtaq.model.address import Address

ALICE = Address("a", "x.test")


def result(
    *,
    helo: str = "mail.x.test",
    sender: Address | None = ALICE,
    reason: str = "why",
    ip: str = "192.0.2.1",
) -> SpfResult:
    mail_from = None if sender is None else Identity("pass", "x.test", "ip4:192.0.2.0/24", reason=reason)
    return SpfResult(ip, helo, sender, "mx.our.test", mail_from, Identity("none", "mail.x.test", reason=reason))


def test_the_whole_field() -> None:
    """Result, comment, and what is known, folded (RFC 7208 §9.1)."""
    assert received_spf(result()) == (
        b'Received-SPF: pass (mx.our.test: why)\r\n\tclient-ip=192.0.2.1;\r\n\tenvelope-from="a@x.test";\r\n'
        b'\thelo=mail.x.test;\r\n\treceiver=mx.our.test;\r\n\tidentity=mailfrom;\r\n\tmechanism="ip4:192.0.2.0/24"\r\n'
    )


def test_the_null_reverse_path() -> None:
    """HELO is the identity, and IPv6 addresses are quoted."""
    field = received_spf(result(sender=None, ip="2001:db8::1"))
    assert field.startswith(b"Received-SPF: none (")
    assert b'client-ip="2001:db8::1";\r\n\tenvelope-from="";' in field
    assert field.endswith(b"identity=helo\r\n")


HOSTILE = [
    "",
    '"; receiver=evil',
    "a\r\nX-Evil: y",
    "\\",
    "(((",
    "\x00\x7f\x85\u2028",
    "\ud800",
    "é" * 600,
    "x" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words(text: str) -> None:
    """Nothing that a client says ends the field, a line, the comment or a string."""
    is_one_field(received_spf(result(helo=text, sender=Address(text, "x.test"), reason=text)))


@given(text=st.text(max_size=80))
def test_any_words(text: str) -> None:
    """The same for any text."""
    is_one_field(received_spf(result(helo=text, sender=Address(text, text), reason=text)))


def is_one_field(field: bytes) -> None:
    lines = field.removesuffix(b"\r\n").split(b"\r\n")
    assert len(lines) == 7
    assert all(line.startswith(b"\t") and len(line) < 998 for line in lines[1:])
    assert not any((octet < 32 and octet != 9) or octet == 127 for line in lines for octet in line)
    assert lines[0].count(b"(") == lines[0].count(b")") == 1
    assert len(message_from_bytes(field + b"\r\n", policy=policy.compat32).keys()) == 1
    for line in lines[1:]:
        _, _, value = line.strip().removesuffix(b";").partition(b"=")
        if value.startswith(b'"'):
            inner = value[1:-1].replace(b"\\\\", b"").replace(b'\\"', b"")
            assert value.endswith(b'"')
            assert b'"' not in inner
            assert b"\\" not in inner
        else:
            assert b";" not in value
            assert b" " not in value
