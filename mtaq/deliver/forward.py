"""Which of the mail that waits is meant, and how it is sent forward: to be attempted now, whatever it waits for.

Mail waits in the delay queues for a reason: delivery parked it (``deliver.parking``), it failed and is tried again, or
its sender scheduled it. What is sent forward keeps body and ``message_id``, so journal and claims know it; a header
says that its time counts for nothing this once. Limits and pauses hold as ever: where they are what they were, it is
parked again, with the place that it had. Decides only; never fails on what somebody else published.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from mtaq.deliver.intake import REDELIVERED_HEADER
from mtaq.deliver.parking import REASON_HEADER, REASONS, SITE_HEADER, SOURCE_HEADER
from mtaq.model.parcel import OUTBOX_TYPE, Parcel, Waiting
from mtaq.smtp.grammar import parse_mailbox

#: AMQP header: attempt it now, whatever ``nextattempt`` says.
FORWARD_HEADER = "forward"
#: Headers of what has to be published again on the way, and is not meant.
AGAIN = {REDELIVERED_HEADER: True}

Cause = Literal["throttle", "full", "pause", "warm-up", "retry", "scheduled", "other"]
CAUSES: tuple[Cause, ...] = (*REASONS, "retry", "scheduled", "other")
"""Why mail waits. ``scheduled``: its sender wants it sent later. ``other``: somebody else had it in hand."""

#: What is meant when nothing is said of causes: the sender's wishes are left alone.
USUAL: frozenset[Cause] = frozenset((*REASONS, "retry", "other"))


class Lying:
    """What is known of a message that waits. The body is read when it is asked for, and once."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.headers = waiting.headers

    @functools.cached_property
    def properties(self) -> Mapping[str, Any]:
        """Its JSON object; empty when it is none."""
        try:
            found = orjson.loads(self.waiting.body)
        except orjson.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}

    @functools.cached_property
    def cause(self) -> Cause:
        """Why it waits."""
        reason = self.headers.get(REASON_HEADER)
        for known in REASONS:
            if reason == known:
                return known
        if self.properties.get("results"):
            return "retry"
        return "scheduled" if "nextattempt" in self.properties or "delayed" in self.properties else "other"

    @property
    def site(self) -> str:
        """Where it was to go, the names of all mail hosts; empty when it never came so far."""
        return str(self.headers.get(SITE_HEADER, ""))

    @property
    def source(self) -> str | None:
        """From which address it was to go; ``None`` when that was open."""
        return str(self.headers[SOURCE_HEADER]) if SOURCE_HEADER in self.headers else None

    @property
    def recipient(self) -> str:
        """Its forward-path as written; empty when it has none."""
        found = self.properties.get("recipient")
        return found if isinstance(found, str) else ""

    @property
    def domain(self) -> str:
        """Of the forward-path, in A-labels; empty when it has none."""
        return domain_of(self.recipient)

    @property
    def id(self) -> str:
        """Our message-id, or empty."""
        found = self.properties.get("message-id")
        return found if isinstance(found, str) else self.waiting.correlation_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Conditions; what is ``None`` or empty says nothing, and all others must hold.

    Attributes:
        site: Name of a site, of one of its mail hosts, or ``*.example.com`` for any host below that.
        domain: Of the forward-path, in A-labels; ``*.example.com`` for any below that.
        source: One of our addresses.
        causes: Why it waits.
        ids: Our message-ids.
    """

    site: str | None = None
    domain: str | None = None
    source: str | None = None
    causes: frozenset[Cause] = USUAL
    ids: frozenset[str] = frozenset()

    def covers(self, lying: Lying) -> bool:
        """Is *lying* meant?"""
        if self.site is not None and not names_site(self.site, lying.site):
            return False
        if self.source is not None and self.source != lying.source:
            return False
        if lying.cause not in self.causes:
            return False
        if self.domain is not None and not covers_name(self.domain, lying.domain):
            return False
        return not self.ids or lying.id in self.ids

    def choose(self, waiting: Waiting) -> Parcel | None:
        """Return what is published in the place of *waiting*; for ``Broker.sift``."""
        return forwarded(waiting) if self.covers(Lying(waiting)) else None


def forwarded(waiting: Waiting) -> Parcel:
    """Return *waiting* as it is sent forward."""
    return Parcel(
        body=waiting.body,
        type=waiting.type or OUTBOX_TYPE,
        correlation_id=waiting.correlation_id,
        message_id=waiting.message_id or None,
        priority=waiting.priority,
        headers={**waiting.headers, REDELIVERED_HEADER: True, FORWARD_HEADER: True},
    )


def names_site(name: str, site: str) -> bool:
    """Does *name* (of a site, of a host, or a wildcard) mean *site*?"""
    name, site = name.lower(), site.lower()
    return bool(site) and (name == site or any(covers_name(name, host) for host in site.split(",")))


def covers_name(pattern: str, name: str) -> bool:
    """Is *name* the domain *pattern*, or below it when it begins with ``*.``?"""
    return name.endswith(pattern[1:]) and len(name) >= len(pattern) if pattern.startswith("*.") else name == pattern


def domain_of(recipient: str) -> str:
    """Return the domain of a forward-path as written; empty when it is none."""
    return _domain_of(recipient.rpartition("@")[2])


@functools.lru_cache(maxsize=4096)
def _domain_of(text: str) -> str:
    try:
        return parse_mailbox(f"x@{text}", strict=False, smtputf8=True).domain
    except ValueError:
        return text.lower()
