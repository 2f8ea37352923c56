"""What the operator's code may make of a message."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mtaq.hooks.change import MOST_RECIPIENTS, checked_message
from mtaq.hooks.ports import HookFailure
from mtaq.model.decision import FACTS

MESSAGE: dict[str, Any] = {
    "message-id": "relay1.06eaih8a000020g30g2gc1o814",
    "envelope": "a@example.org",
    "recipients": ["b@example.net", "c@example.net"],
    "received": "2026-03-01 12:00:00",
    "hostname": "relay.example.org",
    "connection": {"remote-ip": "192.0.2.1", "local-ip": "192.0.2.10"},
    "size": 21,
    "body": "8bitmime",
    "checks": [{"spf": "pass"}],
    "mime": "Subject: x\r\n\r\nhello\r\n",
}


def changed(**properties: Any) -> dict[str, Any]:
    """The message with some properties changed, ``_`` in a name standing for a dash."""
    return {**MESSAGE, **{name.replace("_", "-"): value for name, value in properties.items()}}


@pytest.mark.parametrize(
    "properties",
    [
        {"tags": ["x"]},
        {"envelope": ""},
        {"envelope": "other@example.org"},
        {"recipients": ["c@example.net"]},
        {"recipients": ["new@example.com", "b@example.net"]},
        {"mime": "Subject: y\r\n\r\nnew\r\n"},
        {"priority": 5},
        {"ips": ["192.0.2.11"]},
        {"maxattempts": 3, "retries": [60, 120]},
        {"queues": {"results": None}},
        {"headers": {"prepend": {"X-Seen": "yes"}}},
        {"order": {"number": 4711, "lines": [1, 2.5, None]}},
        {"extracted": {"subject": "y"}},
        {"recipients": ["user@bücher.example"]},
    ],
)
def test_what_may_change(properties):
    """Addresses, content, delivery orders and properties of one's own may change, and nothing else does."""
    assert checked_message(changed(**properties), MESSAGE) == changed(**properties)


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_put_back(name):
    """What the client did, and what was found, stays what it was, whether changed, removed or invented."""
    original = {**MESSAGE, "tags": []}
    without = {key: value for key, value in original.items() if key != name}
    forged = "7bit" if name == "body" else "forged"
    assert checked_message({**original, name: forged, "tags": ["x"]}, original) == {**original, "tags": ["x"]}
    assert checked_message({**without, "tags": ["x"]}, original) == {**original, "tags": ["x"]}
    assert checked_message({**original, "tags": ["x"]}, without) == {**without, "tags": ["x"]}


@pytest.mark.parametrize("name", ["recipient", "refused", "report", "results"])
def test_what_later_steps_write_cannot_be_set(name):
    """A property that reception or delivery writes later is taken out."""
    assert checked_message({**changed(tags=["x"]), name: "forged"}, MESSAGE) == changed(tags=["x"])


def test_a_header_field_called_x_mq_hook_survives():
    """The property ``hook`` of a message gives way to ours on the way, and is there again afterwards."""
    original = {**MESSAGE, "hook": "line"}
    assert checked_message({**original, "hook": "message", "tags": ["x"]}, original) == {**original, "tags": ["x"]}


def test_the_null_reverse_path_stays():
    """A bounce keeps its empty envelope."""
    original = {**MESSAGE, "envelope": ""}
    assert checked_message({**original, "tags": ["x"]}, original) == {**original, "tags": ["x"]}


@pytest.mark.parametrize(
    "properties",
    [
        {"recipients": []},
        {"recipients": "b@example.net"},
        {"recipients": None},
        {"recipients": ["not an address"]},
        {"recipients": ["b@example.net", 5]},
        {"recipients": ["<b@example.net>"]},
        {"recipients": ["b@example.net\r\nRCPT TO:<x@example.org>"]},
        {"recipients": ["müller@example.net"]},
        {"recipients": [["b@example.net"]]},
        {"recipients": [f"u{number}@example.net" for number in range(MOST_RECIPIENTS + 1)]},
        {"envelope": None},
        {"envelope": 5},
        {"envelope": "nobody"},
        {"envelope": "a@example.org\n"},
        {"mime": 5},
        {"mime": ["Subject: x"]},
        {"mime": "\ud800"},
        {"mime": "new", "mime_base64": "bmV3"},
        {"mime_base64": "not base64!"},
        {"priority": "high"},
        {"tags": object()},
        {"tags": {1, 2}},
        {"order": {5: "x"}},
        {"order": 2**70},
        {"order": "\ud800"},
        {"retries": "60"},
        {"maxdelivertime": "tomorrow"},
        {"nextattempt": {"time": "tomorrow"}},
        {"security": "secret"},
        {"queues": {"results": "amq.direct"}},
        {"smarthost": {"hostname": "bad host"}},
    ],
)
def test_what_cannot_be_understood(properties):
    """A change that reception or delivery could not read is no answer."""
    with pytest.raises(HookFailure):
        checked_message(changed(**properties), MESSAGE)


@pytest.mark.parametrize("value", [None, [], "x", 5, {5: "x"}])
def test_what_is_no_message(value):
    """A message is an object with names."""
    with pytest.raises(HookFailure):
        checked_message(value, MESSAGE)


def test_missing_properties():
    """Recipients and envelope cannot be left out; content can, and stays."""
    for name in ("recipients", "envelope"):
        with pytest.raises(HookFailure):
            checked_message({key: value for key, value in MESSAGE.items() if key != name}, MESSAGE)
    without = {key: value for key, value in MESSAGE.items() if key != "mime"}
    assert checked_message({**without, "tags": ["x"]}, MESSAGE) == changed(tags=["x"])
    assert checked_message({**without, "mime": None, "tags": ["x"]}, MESSAGE) == changed(tags=["x"])


def test_recipients_come_once_and_in_order():
    """A recipient that is listed twice is one; domains are in lower case."""
    found = checked_message(changed(recipients=["N@EXAMPLE.com", "c@example.net", "N@example.com"]), MESSAGE)
    assert found is not None
    assert found["recipients"] == ["N@example.com", "c@example.net"]


def test_recipients_that_were_given_are_not_judged_again():
    """The bare postmaster of RFC 5321 §4.1.1.3 may stay, although it is no mailbox."""
    original = {**MESSAGE, "recipients": ["postmaster", "b@example.net"]}
    found = checked_message({**original, "recipients": ["postmaster"]}, original)
    assert found == {**original, "recipients": ["postmaster"]}


def test_as_many_recipients_as_there_were():
    """A message that came with many recipients may keep them."""
    many = [f"u{number}@example.net" for number in range(MOST_RECIPIENTS + 1)]
    original = {**MESSAGE, "recipients": many}
    assert checked_message({**original, "tags": ["x"]}, original) == {**original, "tags": ["x"]}


def test_smtputf8_recipients():
    """A local-part beyond ASCII may be added where the client asked for SMTPUTF8."""
    original = {**MESSAGE, "smtputf8": True}
    found = checked_message({**original, "recipients": ["müller@example.net"]}, original)
    assert found == {**original, "recipients": ["müller@example.net"]}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"mime": "a\nb\r\nc\rd"}, {"mime": "a\r\nb\r\nc\r\nd"}),
        ({"mime-base64": "/w=="}, {"mime-base64": "/w=="}),
        ({"mime-base64": "YQpi"}, {"mime": "a\r\nb"}),
        ({"mime": MESSAGE["mime"], "mime-base64": "/w=="}, {"mime-base64": "/w=="}),
    ],
)
def test_new_content(given, kept):
    """New content gets CRLF line ends and the property it belongs into; of two properties the new one counts."""
    without = {key: value for key, value in MESSAGE.items() if key != "mime"}
    assert checked_message({**without, **given}, MESSAGE) == {**without, **kept}


def test_binary_content_keeps_its_line_ends():
    """Line ends of BINARYMIME are content (RFC 3030 §3)."""
    original = {**MESSAGE, "body": "binarymime"}
    found = checked_message({**original, "mime": "a\nb"}, original)
    assert found == {**original, "mime": "a\nb"}


def test_nothing_changed():
    """An equal message is no change, and neither is one whose facts alone were touched."""
    assert checked_message(dict(MESSAGE), MESSAGE) is None
    assert checked_message(changed(size=1, hook="message"), MESSAGE) is None


def test_objects_of_python_become_json():
    """What Python's code put into a message is what its JSON will be."""
    found = checked_message(changed(when=datetime(2026, 3, 1, tzinfo=UTC), pair=(1, 2)), MESSAGE)
    assert found is not None
    assert found["pair"] == [1, 2]
    assert isinstance(found["when"], str)
