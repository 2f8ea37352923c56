"""``mtaq.smtp.extensions``: EHLO keywords and parameters."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp.extensions import (
    BadParameter,
    MailParameters,
    ehlo_reply,
    parse_mail_parameters,
    parse_rcpt_parameters,
)


def test_starttls_is_announced_only_when_offered() -> None:
    """EHLO's answer names the host first, then what is kept, and has no enhanced status code."""
    answer = ehlo_reply("mx.test", max_size_bytes=5, starttls=False)
    assert answer.lines[0] == "mx.test"
    assert answer.status is None
    assert "SIZE 5" in answer.lines
    assert "STARTTLS" not in answer.lines
    assert ehlo_reply("mx.test", max_size_bytes=5, starttls=True).lines[-1] == "STARTTLS"


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (b"", MailParameters()),
        (b"SIZE=0", MailParameters(size_bytes=0)),
        (b"size=12  Body=8bitmime", MailParameters(size_bytes=12, body="8bitmime")),
        (b"BODY=BINARYMIME SMTPUTF8", MailParameters(body="binarymime", smtputf8=True)),
    ],
)
def test_mail_parameters(text: bytes, parameters: MailParameters) -> None:
    """Keywords are read in any case and order."""
    assert parse_mail_parameters(text) == parameters


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(
            (text, 501)
            for text in (b"SIZE", b"SIZE=", b"SIZE=-1", b"SIZE=1x", b"BODY", b"BODY=x", b"SMTPUTF8=1", b"=1")
        ),
        *((text, 501) for text in (b"SIZE=1 SIZE=1", b"SIZE=1=2", b"-A=1", b"SIZE=" + b"1" * 21)),
        *((text, 555) for text in (b"FOO", b"FOO=bar", b"SIZE=1 RET=HDRS", b"MT-PRIORITY=3", b"AUTH=<>")),
    ],
)
def test_bad_mail_parameters(text: bytes, code: int) -> None:
    """A malformed or repeated parameter gets 501, an unknown one 555."""
    with pytest.raises(BadParameter) as caught:
        parse_mail_parameters(text)
    assert (caught.value.reply.code, caught.value.reply.status) == (code, "5.5.4")


@given(st.binary(max_size=60))
def test_any_octets_are_parameters_or_a_refusal(text: bytes) -> None:
    """Nothing but ``BadParameter`` comes out."""
    for parse in (parse_mail_parameters, parse_rcpt_parameters):
        with contextlib.suppress(BadParameter):
            parse(text)
