"""What an ending means for the message."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from mtaq.deliver.classify import Attempt, judge
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
