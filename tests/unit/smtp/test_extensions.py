"""``mtaq.smtp.extensions``: EHLO keywords and parameters."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp.dsn import RecipientDsn
from mtaq.smtp.extensions import (
    BadParameter,
    MailParameters,
    ehlo_reply,
    parse_mail_parameters,
    parse_rcpt_parameters,
)
from tests.support.dialog import DEFAULT_OPTIONS

PLAIN = replace(DEFAULT_OPTIONS, max_size_bytes=5)
ALL = replace(PLAIN, auth_mechanisms=("PLAIN", "LOGIN"), dsn=True, requiretls=True, limits=True)


def test_what_is_always_kept_is_always_announced() -> None:
    """EHLO's answer names the host first, then what is kept, and has no enhanced status code."""
    answer = ehlo_reply(PLAIN, secure=True)
    assert answer.status is None
    assert answer.lines == (
        *("mx.test", "PIPELINING", "SIZE 5", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "ENHANCEDSTATUSCODES"),
    )


def test_what_is_offered_only_in_clear_or_only_inside_tls() -> None:
    """STARTTLS is announced in clear; AUTH and REQUIRETLS inside TLS; DSN and LIMITS in both."""
    clear, secure = (ehlo_reply(ALL, secure=secure).lines[8:] for secure in (False, True))
    assert clear == ("DSN", "LIMITS RCPTMAX=100", "STARTTLS")
    assert secure == ("DSN", "LIMITS RCPTMAX=100", "REQUIRETLS", "AUTH PLAIN LOGIN")


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (b"", MailParameters()),
        (b"SIZE=0", MailParameters(size_bytes=0)),
        (b"size=12  Body=8bitmime", MailParameters(size_bytes=12, body="8bitmime")),
        (b"BODY=BINARYMIME SMTPUTF8", MailParameters(body="binarymime", smtputf8=True)),
        (b"ret=hdrs ENVID=QQ+2B314159", MailParameters(ret="HDRS", envid="QQ+314159")),
        (b"REQUIRETLS RET=FULL", MailParameters(ret="FULL", requiretls=True)),
        (b"AUTH=<>", MailParameters()),
        (b"AUTH=e+3Dmc2@example.com SIZE=1", MailParameters(size_bytes=1)),
    ],
)
def test_mail_parameters(text: bytes, parameters: MailParameters) -> None:
    """Keywords are read in any case and order."""
    assert parse_mail_parameters(text, ALL, secure=True) == parameters


@pytest.mark.parametrize(
    "text",
    [
        *(b"SIZE", b"SIZE=", b"SIZE=-1", b"SIZE=1x", b"BODY", b"BODY=x", b"SMTPUTF8=1", b"=1"),
        *(b"SIZE=1 SIZE=1", b"SIZE=1=2", b"-A=1", b"SIZE=" + b"1" * 21),
        *(b"RET", b"RET=BODY", b"ENVID", b"ENVID=+0A", b"RET=FULL RET=FULL", b"REQUIRETLS=YES"),
        *(b"AUTH", b"AUTH=+", b"AUTH=+FF"),
    ],
)
def test_malformed_mail_parameters(text: bytes) -> None:
    """A malformed or repeated parameter gets 501."""
    assert refusal(text) == (501, "5.5.4")


@pytest.mark.parametrize("text", [b"FOO", b"FOO=bar", b"SIZE=1 FOO", b"MT-PRIORITY=3", b"NOTIFY=NEVER"])
def test_unknown_mail_parameters(text: bytes) -> None:
    """An unknown parameter gets 555."""
    assert refusal(text) == (555, "5.5.4")


@pytest.mark.parametrize("text", [b"RET=FULL", b"ENVID=x", b"REQUIRETLS", b"AUTH=<>", b"RET=nonsense"])
def test_parameters_of_what_is_not_offered_are_unknown(text: bytes) -> None:
    """What EHLO does not announce is not known in MAIL either."""
    with pytest.raises(BadParameter) as caught:
        parse_mail_parameters(text, PLAIN, secure=True)
    assert caught.value.reply.code == 555


def test_the_parameter_auth_is_unknown_in_clear() -> None:
    """AUTH= belongs to an extension that is announced inside TLS only."""
    with pytest.raises(BadParameter) as caught:
        parse_mail_parameters(b"AUTH=<>", ALL, secure=False)
    assert caught.value.reply.code == 555


def test_requiretls_in_clear_is_told_what_it_needs() -> None:
    """REQUIRETLS in clear gets 530: it would be possible after STARTTLS."""
    with pytest.raises(BadParameter) as caught:
        parse_mail_parameters(b"REQUIRETLS", ALL, secure=False)
    assert (caught.value.reply.code, caught.value.reply.status) == (530, "5.7.0")


def test_rcpt_parameters() -> None:
    """NOTIFY and ORCPT are read where DSN is offered, and unknown elsewhere."""
    text = b"ORCPT=rfc822;Bob@b.test NOTIFY=success,delay"
    assert parse_rcpt_parameters(text, ALL) == RecipientDsn(("SUCCESS", "DELAY"), "rfc822;Bob@b.test")
    assert parse_rcpt_parameters(b"", ALL) == RecipientDsn(None, None)
    for options, code in ((PLAIN, 555), (ALL, 501)):
        with pytest.raises(BadParameter) as caught:
            parse_rcpt_parameters(b"NOTIFY=NEVER NOTIFY=NEVER" if options is ALL else text, options)
        assert caught.value.reply.code == code


def refusal(text: bytes) -> tuple[int, str | None]:
    with pytest.raises(BadParameter) as caught:
        parse_mail_parameters(text, ALL, secure=True)
    return caught.value.reply.code, caught.value.reply.status


_WORDS = [b"RET=", b"ENVID=", b"NOTIFY=", b"ORCPT=", b"AUTH=", b"REQUIRETLS", b"utf-8;", b"+4", b"\\x{", b"}", b" "]


@given(st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(_WORDS) | st.binary(max_size=3)).map(b"".join)))
def test_any_octets_are_parameters_or_a_refusal(text: bytes) -> None:
    """Nothing but ``BadParameter`` comes out."""
    with contextlib.suppress(BadParameter):
        parse_mail_parameters(text, ALL, secure=True)
    with contextlib.suppress(BadParameter):
        parse_rcpt_parameters(text, ALL)
