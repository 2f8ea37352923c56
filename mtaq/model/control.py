"""What operators change about delivery while it runs: throttles, pauses, suppressions, rules, pools, keys, encryption.

Nouns only, already in their one spelling; what may be written into them is decided by ``mtaq.state.control_entries``,
which of them holds for a message by ``mtaq.state.control``. A domain is spelled as in an ``Address``; ``*.example.com``
is every domain below ``example.com`` and not that one itself.

Each entry has an ``id``, made of what the entry is about, so the same one added again takes the place of the old one,
whoever adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import Any, Literal

PatternKind = Literal["exact", "wildcard", "regex"]
"""``exact``: an address, or a domain for all of its addresses. ``wildcard``: ``*`` and ``?``. ``regex``: RE2's."""

ResponseAction = Literal["retry", "fail", "other-source"]

DemandedSecurity = Literal["optional", "opportunistic", "required", "verified", "dane-only"]
"""What can be demanded of a connection to a mail host, the weakest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What every entry has.

    Attributes:
        id: Its name.
        reason: The operator's words, or what mtaq noticed; may be empty.
        expires_at: When it ends by itself; ``None`` for never.
        automatic: Did mtaq add it by itself?
        created_at: When it was added, or last changed.
    """

    id: str
    reason: str = ""
    expires_at: datetime | None = None
    automatic: bool = False
    created_at: datetime

    def is_over(self, now: datetime) -> bool:
        """Has it ended by itself?"""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class Scope:
    """From where to where. ``None`` is any; of source and pool, and of domain and site, one is ``None``.

    Attributes:
        source: One of our IP addresses.
        pool: All source addresses of this pool.
        domain: Of the forward-path; may be ``*.example.com``.
        site: The name of a site, of one of its mail hosts, or ``*.example.com`` for any mail host below that.
    """

    source: str | None = None
    pool: str | None = None
    domain: str | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a throttle says. ``None`` says nothing, 0 says that there is no limit.

    Attributes:
        messages_per_minute: Messages begun.
        messages_burst: How many of them may go at once after a silence; nothing said is 1.
        bytes_per_minute: Bytes of content.
        connections_per_minute: Connections opened.
        connections: Connections open at once.
        messages_per_connection: After as many a connection is closed.
        ready_messages: Messages held ready in memory, for each process.
    """

    messages_per_minute: float | None = None
    messages_burst: int | None = None
    bytes_per_minute: int | None = None
    connections_per_minute: float | None = None
    connections: int | None = None
    messages_per_connection: int | None = None
    ready_messages: int | None = None


LIMITS = tuple(each.name for each in fields(Limits))
"""The names of all limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle(Entry):
    """Limits for a scope. Of several that hold, the most specific one that says something wins, limit by limit.

    Attributes:
        scope: Where they hold.
        limits: What holds.
        one_for_sources: Are all source addresses of the scope counted as one? Otherwise each by itself.
        one_for_sites: Are all destinations of the scope counted as one? Otherwise each by itself: each domain when the
            scope names domains, each site when it does not.
    """

    scope: Scope
    limits: Limits
    one_for_sources: bool = False
    one_for_sites: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as it holds for a message.

    Attributes:
        amount: Per minute, or at once; 0 is no limit.
        counter: Whatever shares this limit has the same key, in every process, at most 100 bytes.
    """

    amount: float
    counter: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsInForce:
    """What holds from one source address to one destination; ``None`` where no throttle says anything."""

    messages_per_minute: Limit | None = None
    messages_burst: Limit | None = None
    bytes_per_minute: Limit | None = None
    connections_per_minute: Limit | None = None
    connections: Limit | None = None
    messages_per_connection: Limit | None = None
    ready_messages: Limit | None = None


NO_LIMITS = LimitsInForce()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Entry):
    """What is not delivered for now.

    Attributes:
        scope: From where to where.
        tag: Only messages with this tag; ``None`` for any.
        sender_domain: Only messages whose reverse-path has this domain; ``""`` is the null reverse-path, ``None`` any.
    """

    scope: Scope
    tag: str | None = None
    sender_domain: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Recipients that get nothing. There may be millions, so they have no ``id`` and are not an ``Entry``.

    Attributes:
        pattern: An address, a domain, or a wildcard.
        sender_domain: Only mail from this domain; ``""`` is the null reverse-path, ``None`` any.
        tag: Only messages with this tag; ``None`` for any.
        reason: The operator's words; may be empty.
        expires_at: When it ends by itself; ``None`` for never.
        created_at: When it was added; ``None`` where memory was spared.
    """

    pattern: str
    sender_domain: str | None = None
    tag: str | None = None
    reason: str = ""
    expires_at: datetime | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedError(Entry):
    """What is answered in the place of a mail host.

    Attributes:
        pattern: An address, a domain, or a wildcard of recipients.
        sender_domain: As with ``Suppression``.
        tag: As with ``Suppression``.
        code: 400-599; 4yz is tried again.
        status: Enhanced status code of the same class.
        text: One line.
    """

    pattern: str
    sender_domain: str | None = None
    tag: str | None = None
    code: int
    status: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteRule(Entry):
    """A change of messages before they are delivered. All conditions must hold; one of the patterns is there.

    Attributes:
        position: Rules are applied in ascending order, each at most once.
        kind: How both patterns are read; they must match the whole address, whatever the case of letters.
        recipient: Pattern of forward-paths; ``None`` for any.
        envelope: Pattern of reverse-paths; ``None`` for any; the null reverse-path is the empty text.
        tag: The tag that messages must have; ``None`` for none.
        new_recipient: The new forward-path, ``\\1`` … for what the ``*``, ``?`` or groups of *recipient* matched;
            ``None`` leaves it.
        new_envelope: The new reverse-path, likewise with *envelope*, or with *recipient* when there is no pattern of
            reverse-paths.
        properties: Property → its new value; ``None`` takes it out.
        add_tags: Tags put on.
        remove_tags: Tags taken off.
        is_last: No further rule is looked at after it.
    """

    position: int
    kind: PatternKind
    recipient: str | None = None
    envelope: str | None = None
    tag: str | None = None
    new_recipient: str | None = None
    new_envelope: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A message after the rules.

    Attributes:
        envelope: Reverse-path as text; empty for the null one.
        recipient: Forward-path as text.
        tags: All of its tags.
        properties: Property → its new value; ``None`` takes it out.
        rules: The ids of the rules that were applied, in order.
    """

    envelope: str
    recipient: str
    tags: tuple[str, ...]
    properties: Mapping[str, Any]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplyPattern:
    """Which replies are meant; all that is not ``None`` must match.

    Attributes:
        code: ``421``, or its beginning: ``4``, ``42``.
        status: ``4.7.0``, or its beginning: ``4``, ``4.7``.
        text: Regular expression of RE2 that matches somewhere in the text, whatever the case of letters.
    """

    code: str | None = None
    status: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodPattern(Entry):
    """What follows from a reply for all that goes the same way.

    Attributes:
        position: The first pattern that matches, in ascending order, is the one.
        reply: Which replies.
        scope: Where.
        pause_s: Nothing goes there for so many seconds; 0 for no pause.
        limits: What holds after the pause; ``None`` for no limits.
        limits_s: For so many seconds.
        one_for_sources: Does that hold for all source addresses? Otherwise for the one that heard the reply.
    """

    position: int
    reply: ReplyPattern
    scope: Scope = Scope()
    pause_s: int = 0
    limits: Limits | None = None
    limits_s: int = 0
    one_for_sources: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePattern(Entry):
    """What follows from a reply for the message.

    Attributes:
        position: The first pattern that matches, in ascending order, is the one.
        reply: Which replies.
        scope: Where.
        state: Where in the session, as in a result; ``None`` for anywhere.
        tag: Only messages with this tag; ``None`` for any.
        action: ``None`` leaves what the reply says.
        delay_s: With ``retry``: when; ``None`` as usual.
        add_tags: Tags put on the message.
        properties: Property of the message → its new value; ``None`` takes it out.
    """

    position: int
    reply: ReplyPattern
    scope: Scope = Scope()
    state: str | None = None
    tag: str | None = None
    action: ResponseAction | None = None
    delay_s: int | None = None
    add_tags: tuple[str, ...] = ()
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp(Entry):
    """How many messages a day from addresses that nobody knows yet.

    Attributes:
        scope: The source or pool, and the domain or site when it is about one; each source address is counted by
            itself, and all that the destination covers together.
        starts_on: The first day, in UTC; before it nothing is said.
        steps: Messages on the first day, the second, …; the last repeats, and 0 is no cap.
    """

    scope: Scope
    starts_on: date
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DailyCap:
    """How many messages may go today.

    Attributes:
        messages: At least 1.
        counter: As in ``Limit``; another one each day.
    """

    messages: int
    counter: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimKey(Entry):
    """A key to sign with. Its end (``expires_at``) is when it is used no longer.

    Attributes:
        domain: ``d=`` of the signature.
        selector: ``s=``.
        pem: The private key. Secret.
        algorithm: What it is good for.
        signs: Domains in ``From:`` that it signs for; may hold ``*.example.com``.
        headers: Further fields to sign.
        starts_at: Not used before; ``None`` for at once.
    """

    domain: str
    selector: str
    pem: str = field(repr=False)
    algorithm: Literal["rsa-sha256", "ed25519-sha256"]
    signs: tuple[str, ...]
    headers: tuple[str, ...] = ()
    starts_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A source address in a pool, and its share of the mail among the others' weights (≥ 1)."""

    ip: str
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(Entry):
    """A weighted set of source addresses.

    Attributes:
        name: As messages name it.
        members: At least one, each once.
    """

    name: str
    members: tuple[PoolMember, ...]


@dataclass(frozen=True, slots=True)
class OverrideHost:
    """A mail host that an operator names: a name or an IP address, and a port where it is not the usual one."""

    host: str
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsOverride(Entry):
    """Where mail for a domain goes, whatever DNS says.

    Attributes:
        domain: May be ``*.example.com``.
        hosts: In the order to try them.
    """

    domain: str
    hosts: tuple[OverrideHost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsLevel(Entry):
    """How connections to a destination are encrypted. Of several that hold, the most specific one counts.

    Attributes:
        scope: The destination; source and pool are not said.
        level: ``dane-only``: only to hosts that prove themselves by DANE.
    """

    scope: Scope
    level: DemandedSecurity
