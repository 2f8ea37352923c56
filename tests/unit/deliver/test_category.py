"""The one word for a failure, and whom it concerns."""

from __future__ import annotations

import time

import pytest

from mtaq.cli.sink_texts import TEXTS
from mtaq.deliver.category import category, category_of_reply, concern, greylisted_from
from mtaq.deliver.ending import Ending, answered
from mtaq.model.outcome import ResultWord, State
from mtaq.model.reply import Reply
from mtaq.model.schema import CATEGORIES


def refusal(state: State, code: int, status: str | None = None, text: str = "") -> Ending:
    return answered(state, Reply(code, status, (text,)))


REPLIES = [
    (550, "5.1.1", "no such user here", "bad-mailbox"),
    (550, None, "User unknown", "bad-mailbox"),
    (550, "5.1.1", "", "bad-mailbox"),
    (551, "5.1.6", "not our customer", "bad-mailbox"),
    (550, "5.1.10", "", "bad-domain"),
    (550, "5.1.2", "", "bad-domain"),
    (554, "5.7.1", "<bob@example.com>: Relay access denied", "bad-domain"),
    (552, "5.2.2", "", "quota"),
    (452, "4.2.2", "over quota", "quota"),
    (452, None, "", "quota"),
    (450, "4.7.1", "Greylisted, try again in 300 seconds", "greylist"),
    (451, "4.7.1", "Graylisting in action", "greylist"),
    (450, None, "Please try again later", "greylist"),
    (550, None, "Please try again later", "other"),
    (451, "4.3.0", "Temporary system problem. Try again later.", "other"),
    (451, None, "Temporary local problem - please try later", "other"),
    (421, "4.7.0", "too many connections from your IP", "rate"),
    (451, "4.7.650", "temporarily rate limited due to IP reputation", "rate"),
    (554, "5.7.1", "listed at zen.spamhaus.org", "reputation"),
    (550, "5.7.1", "message looks like spam", "spam"),
    (550, "5.7.1", "This message is not RFC 5322 compliant. To reduce the amount of spam it is blocked", "content"),
    (552, "5.3.4", "", "content"),
    (554, "5.6.1", "", "content"),
    (550, "5.7.1", "not allowed", "policy"),
    (553, "5.1.8", "Domain of sender address ada@example.org does not exist", "policy"),
    (450, "4.7.25", "Client host rejected: cannot find your reverse hostname", "policy"),
    (530, "5.7.0", "authentication required", "auth"),
    (535, "5.7.8", "", "auth"),
    (550, "5.7.26", "", "auth"),
    (530, "5.7.0", "Must issue a STARTTLS command first", "tls"),
    (454, "4.7.4", "", "tls"),
    (554, "5.4.6", "Too many hops", "network"),
    (451, "4.4.2", "", "network"),
    (451, "4.3.0", "disk", "other"),
    (550, None, "no", "other"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "status", "text", "expected"), REPLIES)
def test_refusals_have_one_word(code: int, status: str | None, text: str, expected: str) -> None:
    """From the text where it says something, else from the enhanced status code, else from the code."""
    assert category(refusal("rcptto", code, status, text)) == expected


#: What the kinds of the sink's texts are called in results.
KINDS = {"unknown": "bad-mailbox", "connections": "rate"}
#: Texts that give a policy as the reason, where the receiver's own page says that it means spam.
BY_THEIR_PAGES = {"yahoo:spam": "policy", "gmx:spam": "policy"}


@pytest.mark.parametrize("name", TEXTS)
def test_what_large_receivers_say_is_understood(name: str) -> None:
    """The texts of the sink, by the kind it has them under."""
    kind = name.partition(":")[2]
    text = TEXTS[name].reply
    expected = BY_THEIR_PAGES.get(name, KINDS.get(kind, kind))
    assert category_of_reply(text.code, text.status, text.text) == expected


def test_every_word_is_used() -> None:
    """No word of the published list is there in vain."""
    assert {expected for *_, expected in REPLIES} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("state", "result", "expected"),
    [
        ("dns", "timeout", "network"),
        ("dns", "error", "bad-domain"),
        ("connect", "timeout", "network"),
        ("message", "lost", "network"),
        ("starttls", "error", "tls"),
        ("auth", "error", "auth"),
        ("process", "invalid", "bad-mailbox"),
        ("process", "timeout", "other"),
        ("bind", "error", "other"),
        ("suppression", "error", "policy"),
    ],
)
def test_what_nobody_said_has_a_word_as_well(state: State, result: ResultWord, expected: str) -> None:
    """From where it happened."""
    assert category(Ending(state=state, result=result, description="")) == expected


def test_success_has_none() -> None:
    """Nor does it concern anybody."""
    delivered = refusal("message", 250)
    assert (category(delivered), concern(delivered)) == (None, None)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        (refusal("intro", 421, "4.3.2", "shutting down"), "host"),
        (refusal("ehlo", 450, "4.7.0", "busy"), "host"),
        (refusal("mailfrom", 421, "4.3.2", "going down"), "host"),
        (refusal("mailfrom", 451, "4.3.2", ""), "host"),
        (Ending(state="connect", result="timeout", description=""), "host"),
        (Ending(state="data", result="lost", description=""), "host"),
        (refusal("intro", 421, "4.7.0", "too many connections from your IP"), "site"),
        (refusal("rcptto", 421, "4.7.28", "unusual rate of unsolicited mail"), "site"),
        (refusal("intro", 554, "5.7.1", "listed at zen.spamhaus.org"), "site"),
        (Ending(state="dns", result="error", description=""), "site"),
        (refusal("auth", 535, "5.7.8", ""), "site"),
        (refusal("rcptto", 550, "5.1.1", ""), "recipient"),
        (refusal("message", 552, "5.2.2", "over quota"), "recipient"),
        (refusal("rcptto", 450, "4.7.1", "greylisted"), "recipient"),
        (Ending(state="suppression", result="error", code=550, description="", final=True), "recipient"),
        (Ending(state="process", result="invalid", code=553, description="", final=True), "recipient"),
        (refusal("message", 554, "5.7.1", "looks like spam"), "message"),
        (refusal("mailfrom", 550, "5.1.8", "sender rejected"), "message"),
        (Ending(state="bind", result="error", description="", final=True), "here"),
        (Ending(state="process", result="timeout", code=554, description="", final=True), "here"),
    ],
)
def test_a_failure_concerns_somebody(ending: Ending, expected: str) -> None:
    """A message, its recipient, one host, the whole site, or only us."""
    assert concern(ending) == expected


def test_the_last_greylisting_says_where_from() -> None:
    """Whatever came behind it, and however spoilt the history is."""
    greylisted = {"category": "greylist", "from": "192.0.2.1"}
    assert greylisted_from([greylisted, {"category": "network", "from": "192.0.2.2"}]) == "192.0.2.1"
    assert greylisted_from([greylisted, greylisted | {"from": "192.0.2.3"}]) == "192.0.2.3"
    assert greylisted_from([{"category": "rate", "from": "192.0.2.2"}]) is None
    assert greylisted_from(["nonsense", {"category": "greylist"}, None]) is None


@pytest.mark.parametrize("word", ["sender ", "blocked ", "client host ", "try a", "tls ", "message too "])
def test_long_texts_take_no_time(word: str) -> None:
    """A peer cannot stop the loop by what it writes."""
    began = time.process_time()
    for _ in range(10):
        category_of_reply(450, None, word * 100_000)
    assert time.process_time() - began < 5
