"""Which notice does an outcome make (RFC 3461, RFC 3464), and what exactly is published for it?

``Notices.due`` decides when the outcome is known and puts everything the notice is made of into the journal's entry;
``parcel`` makes it of that alone, so after a crash the same notice is made, with the same ids, and a second one is
recognised. Nobody is told of a message with the null reverse-path or NOTIFY=NEVER, none is told twice of one event, and
of a success only when the peer cannot tell it itself: a host that announced DSN took that over with the message.
Composing is ``mtaq.reports``'.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple, cast

import orjson

from mtaq.config import DeliverOptions
from mtaq.deliver.classify import GIVEN_UP
from mtaq.deliver.ending import Ending
from mtaq.deliver.ports import DeliveryNames
from mtaq.model.codec import content_property
from mtaq.model.identity import recipient_id, transaction_id
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Outcome
from mtaq.model.times import format_time, parse_time
from mtaq.reports.dsn_compose import RETURN_BYTES, compose_notice, is_internationalised
from mtaq.reports.notice import Action, Kind, Original, RecipientStatus
from mtaq.smtp.grammar import parse_mailbox

_ACTIONS: Mapping[Kind, Action] = {"failure": "failed", "delay": "delayed", "success": "relayed"}
#: Where an attempt brought no status of the class that is told.
_STATUSES: Mapping[Kind, str] = {"failure": "5.0.0", "delay": "4.0.0", "success": "2.0.0"}
#: Of what a peer said, or we, a notice tells this much.
MAX_WORDS = 1000
#: RFC 3463 §3.5: delivery time expired.
_EXPIRED = "5.4.7"


class Life(NamedTuple):
    """What of a message's life a notice tells, or depends on."""

    seen_at: datetime
    expires_at: datetime


class Notice(NamedTuple):
    """A notice, ready to be published."""

    body: bytes
    message_id: str


class Notices:
    """Decides which notices are made.

    Attributes:
        options: May be replaced at any time.
    """

    def __init__(self, options: DeliverOptions, names: DeliveryNames) -> None:
        self.options = options
        self._names = names

    def due(
        self, outcome: Outcome, ending: Ending, message: OutboxMessage, life: Life, key: bytes
    ) -> dict[str, Any] | None:
        """
        Return what the notice of *outcome* is made of, for the journal; ``None`` when there is none.

        Args:
            message: As it came from the outbox.
            key: Names it; ids are derived from that.
        """
        queue = message.queues.get("dsn", self._names.dsn)
        kind = self._kind(outcome, ending, message, life)
        if queue is None or kind is None or not _is_address(message.envelope):
            return None
        now, hostname = outcome.result.time, self._names.ehlo_name(None)
        random = sha256(key + b"notice").digest()[:10]
        said = {
            "kind": kind,
            "queue": queue,
            "message-id": recipient_id(transaction_id(self._names.server_id, now=now, random=random), 1),
            "hostname": hostname,
            "from": self.options.dsn_from or f"MAILER-DAEMON@{hostname}",
            "ret": message.dsn.ret or self.options.dsn_ret,
            "until": format_time(life.expires_at),
            **_cause(kind, outcome, ending, message),
        }
        return {name: value[:MAX_WORDS] for name, value in said.items() if value is not None}

    def _kind(self, outcome: Outcome, ending: Ending, message: OutboxMessage, life: Life) -> Kind | None:
        if not message.envelope or ending.quiet:
            return None
        asked = message.dsn.notify or self.options.dsn_notify
        if isinstance(outcome, Delivered):
            takes_over = ending.peer is not None and ending.peer.dsn
            return "success" if "SUCCESS" in asked and not takes_over else None
        if not isinstance(outcome, Deferred):
            return "failure" if "FAILURE" in asked else None
        tried = outcome.result.time - life.seen_at
        is_late = tried >= timedelta(seconds=self.options.dsn_delay_after)
        return "delay" if "DELAY" in asked and is_late and not _was_told(message, "delay") else None


def _was_told(message: OutboxMessage, kind: Kind) -> bool:
    """Did an earlier attempt make such a notice?"""
    results = message.properties.get("results") or []
    return any(isinstance(item, Mapping) and item.get("notice") == kind for item in results)


def _is_address(envelope: str) -> bool:
    try:
        parse_mailbox(envelope, strict=False, smtputf8=True)
    except ValueError:
        return False
    return True


def _cause(kind: Kind, outcome: Outcome, ending: Ending, message: OutboxMessage) -> dict[str, str | None]:
    """Say why: in the peer's words, if it said any, else in ours."""
    peer = ending.peer
    words = " ".join(part for part in (str(ending.code), ending.status, ending.description) if part)
    status = ending.status or ""
    if not status.startswith(_STATUSES[kind][0]):
        status = _EXPIRED if kind == "failure" and not ending.final else _STATUSES[kind]
    return {
        "status": status,
        "remote-mta": peer.host if peer is not None and ending.replied else None,
        "diagnostic": words if ending.replied and kind != "success" else None,
        "explanation": None if kind == "success" else _explanation(kind, outcome, ending, message),
    }


def _explanation(kind: Kind, outcome: Outcome, ending: Ending, message: OutboxMessage) -> str | None:
    """Return what we say ourselves: why it was given up, or what went wrong where no peer said anything."""
    if kind == "failure" and not ending.final:
        given_up = (outcome.result.description or "").partition(GIVEN_UP)[0]
        return given_up if ending.replied else f"{given_up}; {ending.description}"
    if ending.replied:
        return None
    before = (message.properties.get("results") or [None])[-1]
    if ending.state == "process" and ending.result == "timeout" and isinstance(before, Mapping):
        return f"{ending.description}; the last attempt ended with: {before.get('description') or before.get('result')}"
    return ending.description


def make_notice(message: OutboxMessage, entry: Mapping[str, Any], *, with_content: bool = True) -> Notice:
    """
    Return the notice that *entry* of the journal tells of.

    Args:
        with_content: May the content come back with it? ``False`` where a larger one was refused.
    """
    said = entry["notice"]
    original = _original(message, said)
    recipient = _recipient(message, said, entry["result"])
    content = compose_notice(
        said["kind"],
        original,
        [recipient],
        hostname=said["hostname"],
        sender=said["from"],
        identity=said["message-id"],
        now=parse_time(entry["result"]["time"]),
        max_return_bytes=RETURN_BYTES if with_content else 0,
    )
    name, text = content_property(content)
    properties: dict[str, Any] = {
        "message-id": said["message-id"],
        "envelope": "",
        "recipient": message.envelope,
        "dsn": {"notify": "NEVER"},
        name: text,
    }
    if is_internationalised(original, [recipient]):
        properties["smtputf8"] = True
    return Notice(orjson.dumps(properties), said["message-id"])


def _original(message: OutboxMessage, said: Mapping[str, Any]) -> Original:
    connection = message.properties.get("connection")
    helo = connection.get("helo") if isinstance(connection, Mapping) else None
    return Original(
        envelope=message.envelope,
        content=message.content,
        ret=said["ret"],
        envelope_id=message.dsn.envid,
        arrived_at=_time(message.properties.get("received")),
        received_from=helo if isinstance(helo, str) else None,
        smtputf8=message.smtputf8,
    )


def _recipient(message: OutboxMessage, said: Mapping[str, Any], result: Mapping[str, Any]) -> RecipientStatus:
    kind = cast(Kind, said["kind"])
    return RecipientStatus(
        recipient=message.recipient,
        action=_ACTIONS[kind],
        status=said["status"],
        original_recipient=message.dsn.orcpt,
        diagnostic=said.get("diagnostic"),
        remote_mta=said.get("remote-mta"),
        explanation=said.get("explanation"),
        last_attempt_at=parse_time(result["time"]),
        will_retry_until=parse_time(said["until"]),
    )


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return parse_time(value)
    except ValueError:
        return None
