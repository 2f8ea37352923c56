"""What an ending means for the message."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from mtaq.deliver.classify import Attempt, category, judge
from mtaq.deliver.ending import Ending, PeerFacts, answered
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Failed
from mtaq.model.reply import Reply
from tests.support.delivery import START, options

MESSAGE = OutboxMessage(properties={}, message_id="", envelope="", recipient="", content=b"")


def outcome(ending: Ending, *, number: int = 1, life_s: int = 86400, **changes):
    attempt = Attempt(number=number, expires_at=START + timedelta(seconds=life_s), duration_ms=5)
    return judge(ending, MESSAGE, attempt, now=START, options=options(**changes), rng=random.Random(1))


def refusal(state, code, status=None, text="") -> Ending:
    return answered(state, Reply(code, status, (text,)))


@pytest.mark.parametrize("code", [250, 251, 252])
def test_2yz_behind_the_content_is_delivered(code):
    """And only there."""
    assert isinstance(outcome(refusal("message", code)), Delivered)
    for state in ("intro", "ehlo", "mailfrom", "rcptto", "data"):
        assert isinstance(outcome(refusal(state, code)), Deferred)


@pytest.mark.parametrize("state", ["intro", "ehlo", "starttls", "mailfrom", "rcptto", "data", "message"])
def test_4yz_is_deferred_and_5yz_fails(state):
    """Wherever it was said."""
    assert isinstance(outcome(refusal(state, 450)), Deferred)
    assert isinstance(outcome(refusal(state, 550)), Failed)


@pytest.mark.parametrize("result", ["timeout", "lost", "invalid", "error"])
def test_without_an_answer_it_is_deferred(result):
    """Also behind the final dot, where nobody knows."""
    for state in ("connect", "starttls", "message"):
        deferred = outcome(Ending(state=state, result=result, description=""))
        assert isinstance(deferred, Deferred)
        assert deferred.next_attempt_at == START + timedelta(seconds=600)


def test_waits_beyond_all_time_are_no_bug():
    """``retries`` may hold any number; the message is given up instead of being tried for ever."""
    message = replace(MESSAGE, retries_s=(10**30,))
    attempt = Attempt(number=1, expires_at=START + timedelta(days=400), duration_ms=5)
    assert isinstance(
        judge(refusal("rcptto", 450), message, attempt, now=START, options=options(), rng=random.Random(1)), Failed
    )


def test_final_endings_fail():
    """``bind`` and what DNS says for good."""
    assert isinstance(outcome(Ending(state="bind", result="error", description="", final=True)), Failed)


def test_the_last_attempt_fails_with_both_reasons():
    """Why it was given up, and what was said last."""
    failed = outcome(refusal("rcptto", 450, "4.2.0", "later"), life_s=599)
    assert isinstance(failed, Failed)
    assert failed.result.code == 450
    assert "later" in (failed.result.description or "")
    assert len(failed.result.description or "") > len("later")
    assert isinstance(outcome(refusal("rcptto", 450), number=3, max_attempts=3), Failed)
    assert isinstance(outcome(refusal("rcptto", 450), number=2, max_attempts=3), Deferred)


def test_the_result_has_what_is_known():
    """Facts of the connection and of the attempt."""
    peer = PeerFacts(host="mx", mta="mx.test", source="192.0.2.1", destination="192.0.2.2", messages=3)
    result = outcome(answered("message", Reply(250, "2.0.0", ("x" * 2000,)), peer), number=4).result
    assert (result.attempt, result.duration_ms, result.mta, result.messages) == (4, 5, "mx.test", 3)
    assert len(result.description or "") == 1000
    assert result.category is None


CATEGORIES = [
    (550, "5.1.1", "no such user here", "bad-mailbox"),
    (550, None, "User unknown", "bad-mailbox"),
    (550, "5.1.1", "", "bad-mailbox"),
    (550, "5.1.10", "", "bad-domain"),
    (550, "5.1.2", "", "bad-domain"),
    (552, "5.2.2", "", "quota"),
    (452, "4.2.2", "over quota", "quota"),
    (450, "4.7.1", "Greylisted, try again in 300 seconds", "greylist"),
    (451, "4.7.1", "Graylisting in action", "greylist"),
    (421, "4.7.0", "too many connections from your IP", "rate"),
    (554, "5.7.1", "listed at zen.spamhaus.org", "reputation"),
    (550, "5.7.1", "message looks like spam", "spam"),
    (552, "5.3.4", "", "content"),
    (554, "5.6.1", "", "content"),
    (550, "5.7.1", "not allowed", "policy"),
    (530, "5.7.0", "authentication required", "policy"),
    (535, "5.7.8", "", "auth"),
    (454, "4.7.4", "", "tls"),
    (451, "4.4.2", "", "network"),
    (451, "4.3.0", "disk", "other"),
    (550, None, "no", "other"),
]


@pytest.mark.parametrize(("code", "status", "text", "expected"), CATEGORIES)
def test_refusals_have_one_word(code, status, text, expected):
    """From the text where it says something, else from the enhanced status code."""
    assert category(refusal("rcptto", code, status, text)) == expected


@pytest.mark.parametrize(
    ("state", "result", "expected"),
    [
        ("dns", "timeout", "network"),
        ("dns", "error", "bad-domain"),
        ("connect", "timeout", "network"),
        ("message", "lost", "network"),
        ("starttls", "error", "tls"),
        ("process", "invalid", "bad-mailbox"),
        ("process", "timeout", "other"),
    ],
)
def test_what_nobody_said_has_a_word_as_well(state, result, expected):
    """From where it happened."""
    assert category(Ending(state=state, result=result, description="")) == expected
