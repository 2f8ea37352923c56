"""Notices: whatever a message holds, one can be made of it, and it says the same every time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.deliver.ending import Ending, PeerFacts, answered
from mtaq.deliver.notices import Life, Notices, make_notice
from mtaq.deliver.results import make_entry
from mtaq.model.codec import decode_outbox
from mtaq.model.errors import BadMessage
from mtaq.model.outcome import Failed, Outcome, Result
from mtaq.model.reply import Reply
from mtaq.reports import recognise
from tests.support.delivery import NAMES, START, options, outbox_json

LIFE = Life(START, START + timedelta(days=1))
KEY = b"k" * 32


def entry_of(message: dict[str, Any], ending: Ending, outcome: Outcome | None = None, **changes: Any) -> dict[str, Any]:
    """Return what the journal gets of *ending*, as it comes out of it."""
    result = Result(
        attempt=1, time=START, state=ending.state, result=ending.result, code=ending.code, status=ending.status,
        description=ending.description,
    )  # fmt: skip
    outcome = outcome or Failed(result)
    understood = decode_outbox(orjson.dumps(message))
    notices = Notices(options(**changes), NAMES)
    entry = make_entry(outcome, START, None, notices.due(outcome, ending, understood, LIFE, KEY))
    read: dict[str, Any] = orjson.loads(orjson.dumps(entry))
    return read


def refusal(text: str = "no such user", code: int = 550, status: str | None = "5.1.1") -> Ending:
    """Return what a peer made."""
    return answered("rcptto", Reply(code, status, (text,)), PeerFacts(host="mx.example.com"))


def asked(**properties: Any) -> dict[str, Any]:
    """Return a message whose notice goes to a queue."""
    return outbox_json(queues={"dsn": "dsn"}, **properties)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=5,
)


@given(
    mime=st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    received=JSON,
    helo=JSON,
    results=JSON,
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    ret=st.sampled_from(["FULL", "HDRS", None]),
)
def test_whatever_a_message_holds(
    mime: str, received: Any, helo: Any, results: Any, text: str, ret: str | None
) -> None:
    """Nobody's words break a notice, for then it would be tried again for ever."""
    message = asked(mime=mime, received=received, connection={"helo": helo}, results=results, dsn={"ret": ret})
    try:
        understood = decode_outbox(orjson.dumps(message))
    except BadMessage:
        return
    expired = Ending(state="process", result="timeout", code=554, status="5.4.7", description=text, final=True)
    for ending in (refusal(text), expired):
        made = make_notice(understood, entry_of(message, ending))
        content = orjson.loads(made.body)
        report = recognise(content.get("mime", "").encode(), envelope="")
        assert "mime-base64" in content or (report is not None and report.to_json()["type"] == "dsn")


def test_the_same_entry_makes_the_same_notice() -> None:
    """Whatever the configuration says by then."""
    message = asked(dsn={"envid": "q-1"})
    entry = entry_of(message, refusal(), dsn_from="a@example.com")
    understood = decode_outbox(orjson.dumps(message))
    assert make_notice(understood, entry) == make_notice(understood, entry)
    assert entry["notice"]["message-id"] == orjson.loads(make_notice(understood, entry).body)["message-id"]


def test_a_large_message_comes_back_as_its_header_section() -> None:
    """However much RET asks for; a notice stays small."""
    message = asked(mime="Subject: big\r\n\r\n" + "x\r\n" * 2**20, dsn={"ret": "FULL"})
    made = make_notice(decode_outbox(orjson.dumps(message)), entry_of(message, refusal()))
    assert len(made.body) < 10_000


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (refusal(), "5.1.1"),
        (refusal("busy", 450, "4.2.1"), "5.4.7"),
        (refusal("no", 550, None), "5.0.0"),
        (Ending(state="connect", result="timeout", status="4.4.1", description=""), "5.4.7"),
        (Ending(state="bind", result="error", status="5.3.5", description="", final=True), "5.3.5"),
    ],
)
def test_the_status_is_of_the_class_that_is_told(ending: Ending, status: str) -> None:
    """What was transient until it was given up is "delivery time expired" (RFC 3463 §3.5)."""
    assert entry_of(asked(), ending)["notice"]["status"] == status


def test_a_long_text_is_told_shorter() -> None:
    """The journal's entry is no place for it."""
    before = [{"description": "x" * 10_000_0}]
    expired = Ending(state="process", result="timeout", code=554, status="5.4.7", description="late", final=True)
    for message, ending in [(asked(), refusal("y" * 100_000)), (asked(results=before), expired)]:
        assert len(orjson.dumps(entry_of(message, ending)["notice"])) < 4000
