"""Bounces of no standard, and return addresses that name a recipient."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import pytest

from mtaq.model.address import Address
from mtaq.reports import may_be_report, odd
from mtaq.reports.verp import verp_recipient
from tests.unit.reports.mails import dsn_mail, read

QMAIL = (
    b"From: MAILER-DAEMON@mx.remote.example\r\nTo: bounces@local.example\r\nSubject: failure notice\r\n\r\n"
    b"Hi. This is the qmail-send program at mx.remote.example.\r\nI'm afraid I wasn't able to deliver.\r\n\r\n"
    b"<gone@remote.example>:\r\nThis address no longer accepts mail.\r\n\r\n--- Below this line\r\n"
)
IN_WORDS = b"From: Mail Delivery <postmaster@remote.example>\r\nSubject: Oh\r\n\r\nIt did not work.\r\n"
VERP = Address("bounces+gone+list=remote.example", "local.example")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Look for the package anew in each test."""
    odd._scan.cache_clear()
    yield
    odd._scan.cache_clear()


def test_a_bounce_of_no_standard() -> None:
    """flufl.bounce says who it is about, and the report that it was it."""
    assert read(QMAIL, "") == {
        "type": "dsn",
        "recipients": [{"final-recipient": "gone@remote.example", "action": "failed"}],
        "recognised-by": "flufl.bounce",
    }


def test_only_what_a_mail_system_sends_is_looked_at() -> None:
    """The same words from somebody with a reverse-path and a name of his own are ordinary mail."""
    content = QMAIL.replace(b"MAILER-DAEMON@", b"joe@")
    assert not may_be_report(content, "joe@remote.example")
    assert read(content, "joe@remote.example") is None
    assert read(QMAIL, "joe@remote.example") is not None


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional: without it, such a bounce is ordinary mail unless its recipient says more."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("flufl"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert read(QMAIL, "") is None
    report = read(QMAIL, "", recipient=VERP)
    assert report is not None
    assert report["recognised-by"] == "verp"


def test_the_return_address_names_the_recipient() -> None:
    """A bounce that nobody can read is about whom the address was made for; what happened is not known."""
    assert read(IN_WORDS, "") is None
    assert read(IN_WORDS, "", recipient=Address("bounces", "local.example")) is None
    assert read(IN_WORDS, "", recipient=VERP) == {
        "type": "dsn",
        "recipients": [{"final-recipient": "gone+list@remote.example"}],
        "recognised-by": "verp",
        "verp": "gone+list@remote.example",
    }


def test_answers_of_absent_people_are_no_bounces() -> None:
    """They come with the null reverse-path too, and are about nobody's address."""
    absent = b"From: joe@remote.example\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n"
    assert read(absent, "", recipient=VERP) is None
    assert read(absent.replace(b"joe@", b"postmaster@"), "", recipient=VERP) is None


def test_a_notice_by_the_standard_tells_the_return_address_as_well() -> None:
    """``verp`` stands beside what the notice says."""
    report = read(dsn_mail(), "", recipient=VERP)
    assert report is not None
    assert report["verp"] == "gone+list@remote.example"
    assert report["recipients"][0]["final-recipient"] == "gone@remote.example"


@pytest.mark.parametrize(
    ("local_part", "recipient"),
    [
        ("bounces+ada=example.com", "ada@example.com"),
        ("b+a.d-a+x=mail.example.co.uk", "a.d-a+x@mail.example.co.uk"),
        ("list-return-17-ada=example.com", "ada@example.com"),
        ("LIST-RETURN-17-ada=example.com", "ada@example.com"),
        ("bounces+ada", None),
        ("ada=example.com", None),
        ("bounces+ada=localhost", None),
        ("bounces+a=b=example.com", None),
        ("bounces+=example.com", None),
        ("+ada=example.com", None),
        ("bounces+" + "a" * 70 + "=example.com", None),
    ],
)
def test_variable_return_paths(local_part: str, recipient: str | None) -> None:
    """The two common forms are understood, and nothing that only resembles them."""
    assert verp_recipient(Address(local_part, "local.example")) == recipient


def test_hostile_bounces(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever its patterns meet is an answer or none, never an error, and no line of a log."""
    for text in (b"\xff\xfe" * 3000, b"<" * 40_000, b"Your message\r\n" * 3000, b"=?x?q?" * 900, b"\0" * 9000):
        for head in (b"", b"From: MAILER-DAEMON@x\r\nContent-Type: multipart/mixed; boundary=\xff\r\n\r\n"):
            read(head + QMAIL[:60] + b"\r\n\r\n" + text, "")
            read(head + text, "")
    assert caplog.records == []
