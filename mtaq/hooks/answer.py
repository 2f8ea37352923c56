"""What did the operator's code decide? From what it said to a ``Decision`` that is safe to act on.

Pure. A clear decision stands: a text that could not be sent is made harmless, because a line end in it must neither
inject a reply nor turn a refusal into something else. Whatever is not clear is ``HookFailure``, which refuses for now:
never an accept, never a bounce.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mtaq.hooks.change import apply_changes, checked_message
from mtaq.hooks.objects import Message
from mtaq.hooks.ports import CONTENT_POINTS, HookFailure, Point, Said
from mtaq.model.decision import Action, Decision, accept, defer, drop, reject

#: RFC 5321 §4.5.3.1.5: a reply line has 512 octets, of which code, status, blanks and CRLF take up to 20.
LONGEST_TEXT = 400

_KEYS = {"action", "code", "status", "text", "message", "changes"}
_ACTIONS: tuple[Action, ...] = ("accept", "reject", "defer", "drop")
_STATUS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)


def judge(said: Said, point: Point, data: Mapping[str, Any]) -> Decision:
    """
    Return the decision in *said*, asked at *point* with *data*.

    Raises:
        HookFailure: It is none, or none that can be made at that point.
    """
    fields = _fields(said.value, point)
    action = _action(fields, said)
    if action == "drop" and point not in CONTENT_POINTS:
        raise HookFailure(f"only a message can be dropped, not a {point}")
    if action == "reject" and point == "pipeline":
        raise HookFailure("a step of a pipeline cannot reject: it changes, drops or defers")
    if action in ("reject", "defer"):
        return _refusal(action, fields)
    _expect_code(fields, range(250, 251))
    if action == "drop":
        _expect_unchanged(fields, action)
        return drop()
    return accept(_changed(fields, point, data))


def _fields(value: Any, point: Point) -> dict[str, Any]:
    """Return the answer as an object; what was given, echoed with or without changes, is a whole message."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"action": "accept" if value else "reject"}
    if isinstance(value, Decision):
        return _fields_of(value)
    if isinstance(value, Message) or (isinstance(value, dict) and value.get("hook") == point):
        return {"message": dict(value)} if point in CONTENT_POINTS else {}
    if not isinstance(value, dict):
        raise HookFailure(f"the answer is {type(value).__name__}, not an object, true or false")
    unknown = value.keys() - _KEYS
    if unknown:
        raise HookFailure(f"the answer has unknown properties: {', '.join(sorted(map(repr, unknown)))[:200]}")
    return {name: item for name, item in value.items() if item is not None}


def _fields_of(decision: Decision) -> dict[str, Any]:
    fields = {"action": decision.action, "code": decision.code, "text": decision.text, "message": decision.message}
    if decision.action in ("reject", "defer"):
        fields["status"] = decision.status
    return {name: item for name, item in fields.items() if item is not None}


def _action(fields: Mapping[str, Any], said: Said) -> Action:
    action = fields.get("action")
    if action is None:
        action = _implied(fields, said)
    elif action not in _ACTIONS:
        raise HookFailure("action is none of accept, reject, defer and drop")
    fits = {"accept": _ACTIONS, "reject": ("reject", "defer"), "drop": ("drop",)}[said.verdict]
    if action not in fits:
        raise HookFailure(f"the status says {said.verdict}, the answer says {action}")
    known: Action = action
    return known


def _implied(fields: Mapping[str, Any], said: Said) -> Action:
    """A refusal's code says whether it is for good."""
    code = fields.get("code")
    if isinstance(code, int) and code >= 400 and said.verdict != "drop":
        return "defer" if code < 500 else "reject"
    return said.verdict


def _refusal(action: Action, fields: Mapping[str, Any]) -> Decision:
    _expect_unchanged(fields, action)
    code = fields.get("code")
    if action == "reject" and isinstance(code, int) and 400 <= code < 500:
        action = "defer"
    usual = defer() if action == "defer" else reject()
    _expect_code(fields, range(400, 500) if action == "defer" else range(500, 600))
    code, status = fields.get("code", usual.code), fields.get("status", usual.status)
    if not isinstance(status, str) or not _STATUS.fullmatch(status) or status[0] != str(code)[0]:
        raise HookFailure(f"the enhanced status code does not fit the reply code {code}")
    return Decision(action, code, status, harmless(fields.get("text", "")) or usual.text)


def _expect_code(fields: Mapping[str, Any], codes: range) -> None:
    """RFC 5321 §4.2.1: the second digit is 0 to 5; 421 is kept for closing the session, which no hook can do."""
    code = fields.get("code", codes[0])
    if isinstance(code, bool) or not isinstance(code, int) or code not in codes or code % 100 > 59 or code == 421:
        raise HookFailure(f"the reply code fits no such decision; {codes[0]} to {codes[-1]} is expected, and not 421")


def _expect_unchanged(fields: Mapping[str, Any], action: Action) -> None:
    if "message" in fields or "changes" in fields:
        raise HookFailure(f"{action} and a changed message exclude each other")


def harmless(text: Any) -> str:
    """Return *text* as one line of printable ASCII (RFC 5321 §4.2), not longer than a reply may be."""
    if not isinstance(text, str):
        raise HookFailure("the text is not a string")
    line = " ".join(text[: 2 * LONGEST_TEXT].split())
    return re.sub(r"[^ -~]", "?", line)[:LONGEST_TEXT]


def _changed(fields: Mapping[str, Any], point: Point, data: Mapping[str, Any]) -> dict[str, Any] | None:
    whole, changes = fields.get("message"), fields.get("changes")
    if whole is None and changes is None:
        return None
    if point not in CONTENT_POINTS:
        raise HookFailure(f"there is no message to change at {point}")
    if whole is not None and changes is not None:
        raise HookFailure("message and changes exclude each other")
    if changes is not None:
        whole = apply_changes(data, changes)
    return checked_message(whole, data)
