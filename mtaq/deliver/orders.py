"""What operators ordered at run time, applied to one message: rewrite rules, suppressions, forced errors, pauses, and
what they want done about replies.

The entries and which of them hold are ``deliver.ports.Control``'s. A rule that makes something of a message that cannot
be sent delays it: the mistake is the operator's, and no reason to return mail.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.parking import NotYet
from mtaq.deliver.ports import Control
from mtaq.model.address import Address
from mtaq.model.codec import change_outbox
from mtaq.model.control import Pause, ResponsePattern
from mtaq.model.errors import BadMessage
from mtaq.model.message import OutboxMessage
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter

#: What is paused without an end is looked at again so often; whoever ends the pause sends it forward.
PAUSE_LOOK_S = 600.0
#: Paused mail comes back spread over this share of its wait, and no longer than the time after it.
SPREAD, LONGEST_SPREAD_S = 0.1, 60.0

FLOODS = counter("mtaq_delivery_floods", "Replies that matched a flood pattern.")


class Way(NamedTuple):
    """From where to where a message goes, as entries are looked up by it. ``None`` is not known yet."""

    domain: str
    site: str | None = None
    source: str | None = None


class Heard(NamedTuple):
    """What follows from a reply.

    Attributes:
        ending: With its finality changed, if a pattern says so.
        changes: Properties of the message → their new values, from now on; ``None`` takes one out.
        delay_s: When it is tried again; ``None`` as usual.
        other_source: Another source address shall try now.
    """

    ending: Ending
    changes: Mapping[str, Any] = MappingProxyType({})
    delay_s: int | None = None
    other_source: bool = False


class Orders:
    """The orders that hold.

    Attributes:
        control: Where they are found.
    """

    def __init__(self, control: Control, *, events: EventLog, rng: random.Random, on_flood: Callable[[], None]) -> None:
        """Use *control*; *on_flood* is called when a flood pattern took effect."""
        self.control = control
        self._on_flood = on_flood
        self._events = events
        self._rng = rng

    def rewritten(self, message: OutboxMessage) -> OutboxMessage:
        """
        Return *message* as the rewrite rules have it, for one attempt.

        Raises:
            HostFailure: They made something of it that cannot be sent.
        """
        rewritten = self.control.rewrite(message.envelope, message.recipient, tags=message.tags)
        if rewritten is None:
            return message
        properties = {**rewritten.properties, "tags": list(rewritten.tags)}
        try:
            return change_outbox(message, properties, envelope=rewritten.envelope, recipient=rewritten.recipient)
        except BadMessage as error:
            rules = ", ".join(rewritten.rules)
            raise HostFailure(_not_rewritten(f"{error} (by rule {rules})")) from error

    def refusal(self, recipient: Address, sender: Address | None, message: OutboxMessage) -> Ending | None:
        """Return why *recipient* gets nothing now: it is suppressed, or an error is forced."""
        sender_domain = _domain_of(sender)
        suppression = self.control.suppression_for(recipient, sender_domain=sender_domain, tags=message.tags)
        if suppression is not None:
            text = suppression.reason or "the recipient is on the suppression list"
            return Ending(state="suppression", result="error", code=550, status="5.7.1", description=text, final=True)
        forced = self.control.forced_error_for(recipient, sender_domain=sender_domain, tags=message.tags)
        if forced is None:
            return None
        return Ending(
            state="process",
            result="error",
            code=forced.code,
            status=forced.status,
            description=forced.text,
            final=forced.code >= 500,
        )

    def pause(self, way: Way, sender: Address | None, message: OutboxMessage, now: datetime) -> NotYet | None:
        """Return how long *message* has to wait because of a pause; ``None`` when it need not."""
        control = self.control
        pause = control.pause_for(
            source=way.source,
            pools=control.pools_of(way.source),
            domain=way.domain,
            site=way.site,
            tags=message.tags,
            sender_domain=_domain_of(sender),
        )
        if pause is None:
            return None
        return NotYet(self._pause_s(pause, now), "pause", site=way.site or way.domain, source=way.source)

    def _pause_s(self, pause: Pause, now: datetime) -> float:
        if pause.expires_at is None or pause.expires_at - now > timedelta(days=1):
            return PAUSE_LOOK_S * self._rng.uniform(0.9, 1.1)
        left_s = max(0.0, (pause.expires_at - now).total_seconds())
        # To the second, as the queues are, and behind its end.
        return left_s + 1.0 + self._rng.uniform(0.0, min(left_s * SPREAD, LONGEST_SPREAD_S))

    def hear(self, ending: Ending, way: Way, message: OutboxMessage) -> Heard:
        """Return what follows from *ending*; a flood pattern that matches takes effect."""
        if ending.result == "accepted" or (ending.peer is None and ending.state != "connect"):
            return Heard(ending)
        self._flood(ending, way, message)
        control = self.control
        pattern = control.response_for(
            code=ending.code,
            status=ending.status,
            text=ending.description,
            state=ending.state,
            source=way.source,
            pools=control.pools_of(way.source),
            domain=way.domain,
            site=way.site,
            tags=message.tags,
        )
        return Heard(ending) if pattern is None else _heard(ending, pattern, message)

    def _flood(self, ending: Ending, way: Way, message: OutboxMessage) -> None:
        control = self.control
        pattern = control.flood_pattern_for(
            code=ending.code,
            status=ending.status,
            text=ending.description,
            source=way.source,
            pools=control.pools_of(way.source),
            domain=way.domain,
            site=way.site,
        )
        if pattern is None or way.site is None:
            return
        FLOODS.inc()
        if control.react_to_flood(pattern, source=way.source, site=way.site):
            self._on_flood()
        self._events.delivery_flood(
            pattern=pattern.id,
            message_id=message.message_id,
            site=way.site,
            egress_source=way.source,
            reply_code=ending.code,
            enhanced_code=ending.status,
            reply_text=ending.description,
        )


def _heard(ending: Ending, pattern: ResponsePattern, message: OutboxMessage) -> Heard:
    changes = dict(pattern.properties)
    if pattern.add_tags:
        changes["tags"] = list(dict.fromkeys((*message.tags, *pattern.add_tags)))
    action = pattern.action
    if action in ("retry", "fail"):
        ending = replace(ending, final=action == "fail")
    return Heard(ending, changes, pattern.delay_s if action == "retry" else None, action == "other-source")


def blamed_on_rules(ending: Ending) -> Ending:
    """Return *ending*, an address that is none, as what it is when the rewrite rules made that address."""
    return replace(ending, state="rewrite", code=451, status="4.3.5", final=False)


def _not_rewritten(description: str) -> Ending:
    return Ending(state="rewrite", result="error", code=451, status="4.3.5", description=description)


def _domain_of(sender: Address | None) -> str:
    return "" if sender is None else sender.domain
