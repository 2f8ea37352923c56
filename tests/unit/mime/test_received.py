"""The `Received` field."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.headers import fields
from mtaq.mime.received import protocol_name, received_field
from mtaq.model.address import Address
from mtaq.model.message import TlsFacts

FACTS: dict[str, Any] = {
    "helo": "client.test",
    "remote_ip": "192.0.2.1",
    "remote_name": "real.test",
    "hostname": "mx.test",
    "protocol": "ESMTP",
    "tls": None,
    "transaction_id": "mx.abc",
    "recipient": Address("a", "b.test"),
    "now": datetime(2026, 11, 21, 9, 0, tzinfo=UTC),
}


def test_received() -> None:
    """The field has the clauses of RFC 5321 §4.4, folded."""
    assert received_field(**FACTS) == (
        b"Received: from client.test (real.test [192.0.2.1])\r\n"
        b"\tby mx.test with ESMTP\r\n"
        b"\tid mx.abc\r\n"
        b"\tfor <a@b.test>;\r\n"
        b"\tSat, 21 Nov 2026 09:00:00 +0000\r\n"
    )


def test_received_under_tls() -> None:
    """TLS is told by version and cipher (RFC 8314 §4.3); without a single recipient there is no `for`."""
    tls = TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")
    facts = FACTS | {
        "tls": tls,
        "recipient": None,
        "remote_name": None,
        "remote_ip": "2001:db8::1",
        "protocol": "ESMTPS",
    }
    assert received_field(**facts) == (
        b"Received: from client.test ([IPv6:2001:db8::1])\r\n"
        b"\tby mx.test with ESMTPS (TLSv1.3)\r\n"
        b"\tid mx.abc\r\n"
        b"\ttls TLS_AES_256_GCM_SHA384;\r\n"
        b"\tSat, 21 Nov 2026 09:00:00 +0000\r\n"
    )


def test_utf8_recipient() -> None:
    """A recipient that is not ASCII stands there only under SMTPUTF8."""
    facts = FACTS | {"recipient": Address("jörg", "bücher.test")}
    assert b"for <" not in received_field(**facts)
    assert "for <jörg@bücher.test>".encode() in received_field(**facts | {"protocol": "UTF8SMTPS"})


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ((False, False, False, False), "SMTP"),
        ((False, True, False, False), "SMTP"),
        ((True, False, False, False), "ESMTP"),
        ((True, True, False, False), "ESMTPS"),
        ((True, False, True, False), "ESMTPA"),
        ((True, True, True, False), "ESMTPSA"),
        ((True, False, False, True), "UTF8SMTP"),
        ((True, True, True, True), "UTF8SMTPSA"),
    ],
)
def test_protocol_name(facts: tuple[bool, bool, bool, bool], word: str) -> None:
    """The protocol's name is one that is registered (RFC 3848, RFC 6531)."""
    esmtp, tls, authenticated, smtputf8 = facts
    assert protocol_name(esmtp=esmtp, tls=tls, authenticated=authenticated, smtputf8=smtputf8) == word


hostile = st.text(st.sampled_from('a.()<>;\r\n\t \x00"\\:[]ü\u2028@'), max_size=40)


@given(hostile, hostile, hostile, hostile, hostile)
def test_peers_words_cannot_leave_their_place(helo: str, name: str, ip: str, local_part: str, domain: str) -> None:
    """Whatever a peer calls itself, there is one field, with the structure of ours."""
    facts = FACTS | {"helo": helo, "remote_name": name, "remote_ip": ip, "recipient": Address(local_part, domain)}
    raw = received_field(**facts)
    [field] = fields(raw + b"\r\nbody")
    assert field.value.count(b";") - str(facts["recipient"]).count(";") <= 1
    assert field.value.startswith(b"from ")
    assert field.value.endswith(b"Sat, 21 Nov 2026 09:00:00 +0000")
    assert raw.count(b"\n") == raw.count(b"\r\n\t") + 1
    assert max(map(len, raw.split(b"\r\n"))) <= 998
