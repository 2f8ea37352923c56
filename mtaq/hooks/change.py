"""May the message become what the operator's code made of it?

Everything may change but the facts of reception, which are put back. What cannot be understood again, by the split by
recipient or later by delivery, is ``HookFailure``: better a transient refusal than a message in the dead queue. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from mtaq.hooks.ports import HookFailure
from mtaq.model.codec import CONTENT_PROPERTIES, content_of, content_property, decode_outbox
from mtaq.model.decision import FACTS
from mtaq.model.errors import BadMessage
from mtaq.smtp.data import normalise_line_ends
from mtaq.smtp.grammar import parse_mailbox

#: Recipients that a message may always have; more only when it came with more.
MOST_RECIPIENTS = 1000

#: Put back as they were, there or not there: facts, and what later steps write.
_RESTORED = (*FACTS, "hook", "recipient", "refused", "report", "results")


def apply_changes(original: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    """
    Return *original* with the properties of *changes* set; ``null`` takes one away.

    Raises:
        HookFailure: *changes* is not an object.
    """
    if not isinstance(changes, dict):
        raise HookFailure("changes is not an object")
    return {name: value for name, value in {**original, **changes}.items() if value is not None or name not in changes}


def checked_message(changed: Any, original: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Return the message that *changed* is to be, or ``None`` when it is what it was.

    Args:
        changed: The whole JSON; without content it keeps its content.
        original: The JSON that was given.

    Raises:
        HookFailure: It is no message.
    """
    if changed == original:
        return None
    if not isinstance(changed, dict) or not all(isinstance(name, str) for name in changed):
        raise HookFailure("the changed message is not an object")
    properties = {name: value for name, value in changed.items() if name not in (*_RESTORED, *CONTENT_PROPERTIES)}
    properties |= {name: original[name] for name in _RESTORED if name in original}
    properties = _plain(properties)
    smtputf8 = original.get("smtputf8") is True
    properties["envelope"] = _envelope(properties.get("envelope"), original, smtputf8)
    properties["recipients"] = _recipients(properties.get("recipients"), original, smtputf8)
    _check_understood(properties)
    result = properties | _content(changed, original)
    return None if result == original else result


def _plain(properties: dict[str, Any]) -> dict[str, Any]:
    """Return a copy made of JSON alone: Python's code may have put anything there."""
    try:
        plain: dict[str, Any] = orjson.loads(orjson.dumps(properties))
    except (TypeError, ValueError, RecursionError) as error:
        raise HookFailure(f"the changed message is no JSON: {error}") from error
    return plain


def _envelope(text: Any, original: Mapping[str, Any], smtputf8: bool) -> str:
    if text in ("", original["envelope"]):
        return str(text)
    return _address(text, "envelope", smtputf8)


def _recipients(texts: Any, original: Mapping[str, Any], smtputf8: bool) -> list[str]:
    known = original["recipients"]
    if not isinstance(texts, list) or not 1 <= len(texts) <= max(MOST_RECIPIENTS, len(known)):
        raise HookFailure("recipients is not an array of some addresses")
    kept = set(known)
    found = (
        text if isinstance(text, str) and text in kept else _address(text, "recipients", smtputf8) for text in texts
    )
    return list(dict.fromkeys(found))


def _address(text: Any, name: str, smtputf8: bool) -> str:
    """A domain may be in U-labels whether or not SMTPUTF8 was asked for, because the JSON has them so."""
    if not isinstance(text, str):
        raise HookFailure(f"{name}: an address is not a string")
    try:
        address = parse_mailbox(text, strict=False, smtputf8=True)
    except ValueError as error:
        raise HookFailure(f"{name}: {error}") from error
    if not smtputf8 and not address.local_part.isascii():
        raise HookFailure(f"{name}: a local-part that is not ASCII, in a message without SMTPUTF8")
    return str(address)


def _check_understood(properties: Mapping[str, Any]) -> None:
    """What delivery could not read would be refused there, long after the sender was told 250."""
    try:
        decode_outbox(orjson.dumps({**properties, "recipient": properties["recipients"][0], "mime": ""}))
    except BadMessage as error:
        raise HookFailure(f"the changed message cannot be understood: {error}") from error


def _content(changed: Mapping[str, Any], original: Mapping[str, Any]) -> dict[str, str]:
    """Return the property that carries the content. Of two the one counts that is not as it was."""
    there = {name: changed[name] for name in CONTENT_PROPERTIES if changed.get(name) is not None}
    new = {name: value for name, value in there.items() if value is not original.get(name)}
    new = {name: value for name, value in new.items() if value != original.get(name)}
    if not new:
        return {name: original[name] for name in CONTENT_PROPERTIES if name in original}
    if len(new) > 1:
        raise HookFailure("both mime and mime-base64 are new: only one of them can be the content")
    try:
        content = content_of(new)
    except (BadMessage, UnicodeEncodeError) as error:
        raise HookFailure(f"the new content cannot be used: {error}") from error
    if original.get("body") != "binarymime":
        content = normalise_line_ends(content)
    name, text = content_property(content)
    return {name: text}
