"""What an operator may write into the entries about delivery.

Each function makes one entry of values that ``control_values`` has read, checks that they make sense together, and
names the entry after what it is about. A mistake is a ``ValueError`` that says what is expected.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from datetime import date, datetime
from typing import Any, TypedDict

from mtaq.model.control import (
    DemandedSecurity,
    DnsOverride,
    FloodPattern,
    ForcedError,
    Limits,
    OverrideHost,
    PatternKind,
    Pause,
    Pool,
    PoolMember,
    ReplyPattern,
    ResponseAction,
    ResponsePattern,
    RewriteRule,
    Scope,
    Suppression,
    Throttle,
    TlsLevel,
    WarmUp,
)
from mtaq.state.entries import parse_note, parse_pattern
from mtaq.state.patterns import compiled
from mtaq.state.rewriting import LONGEST_PATH, check_template

#: Most things of one list in an entry: tags, properties, members, steps, hosts.
MOST_ITEMS = 1000
_WHOLE_STATUS = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)


class About(TypedDict):
    """What every entry says of itself; see ``mtaq.model.control.Entry``."""

    reason: str
    expires_at: datetime | None
    automatic: bool
    created_at: datetime


def scope(
    *, source: str | None = None, pool: str | None = None, domain: str | None = None, site: str | None = None
) -> Scope:
    """Make a scope.

    Raises:
        ValueError: Source and pool, or domain and site, are both there.
    """
    if source is not None and pool is not None:
        raise ValueError("a source address and a pool; expected one of them")
    if domain is not None and site is not None:
        raise ValueError("a domain and a site; expected one of them")
    return Scope(source, pool, domain, site)


def throttle(
    scope: Scope, limits: Limits, *, one_for_sources: bool = False, one_for_sites: bool = False, about: About
) -> Throttle:
    """Make a throttle.

    Raises:
        ValueError: It limits nothing, or a burst goes with no rate.
    """
    _check_limits(limits)
    return Throttle(
        id=_id("throttle", astuple(scope), about["automatic"]),
        scope=scope,
        limits=limits,
        one_for_sources=one_for_sources,
        one_for_sites=one_for_sites,
        **about,
    )


def pause(scope: Scope, *, tag: str | None = None, sender_domain: str | None = None, about: About) -> Pause:
    """Make a pause."""
    name = _id("pause", astuple(scope), tag, sender_domain, about["automatic"])
    return Pause(id=name, scope=scope, tag=tag, sender_domain=sender_domain, **about)


def suppression(pattern: str, *, sender_domain: str | None = None, tag: str | None = None, about: About) -> Suppression:
    """Make a suppression."""
    return Suppression(
        pattern=pattern,
        sender_domain=sender_domain,
        tag=tag,
        reason=about["reason"],
        expires_at=about["expires_at"],
        created_at=about["created_at"],
    )


def forced_error(
    pattern: str,
    *,
    code: int,
    status: str | None = None,
    text: str,
    sender_domain: str | None = None,
    tag: str | None = None,
    about: About,
) -> ForcedError:
    """Make a forced error; without *status* it is the class of *code* and ``.0.0``.

    Raises:
        ValueError: Neither a transient nor a permanent failure, or code and status are of two classes.
    """
    if not 400 <= code <= 599:
        raise ValueError(f"{code} is no failure; expected a reply code from 400 to 599")
    status = status or f"{code // 100}.0.0"
    if not _WHOLE_STATUS.fullmatch(status) or status[0] != str(code)[0]:
        raise ValueError(f"{status!r} does not go with {code}; expected an enhanced status code like {code // 100}.7.1")
    return ForcedError(
        id=_id("forced-error", pattern, sender_domain, tag),
        pattern=pattern,
        sender_domain=sender_domain,
        tag=tag,
        code=code,
        status=status,
        text=parse_note(text, "the text"),
        **about,
    )


def rewrite_rule(
    *,
    position: int,
    kind: PatternKind | None = None,
    recipient: str | None = None,
    envelope: str | None = None,
    tag: str | None = None,
    new_recipient: str | None = None,
    new_envelope: str | None = None,
    properties: Mapping[str, Any] | None = None,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
    is_last: bool = False,
    about: About,
) -> RewriteRule:
    """Make a rewrite rule; without *kind* its patterns are wildcards.

    Raises:
        ValueError: No pattern, a pattern that is none, no change, or a new path that asks for what no pattern holds.
    """
    kind = kind or "wildcard"
    if recipient is None and envelope is None:
        raise ValueError("no pattern; expected one for recipients, one for reverse-paths, or both")
    if not (properties or add_tags or remove_tags or is_last) and new_recipient is None and new_envelope is None:
        raise ValueError("nothing is changed; expected a new path, a property, a tag, or that no further rule follows")
    recipient, to_recipient = _checked(recipient, kind)
    envelope, to_envelope = _checked(envelope, kind)
    if new_recipient is not None and recipient is None:
        raise ValueError("a new recipient goes with a pattern of recipients")
    for template, groups in ((new_recipient, to_recipient), (new_envelope, to_envelope or to_recipient)):
        if template is not None:
            parse_note(template, "the new path")
            check_template(template, groups)
    return RewriteRule(
        id=_id("rewrite", kind, recipient, envelope, tag),
        position=position,
        kind=kind,
        recipient=recipient,
        envelope=envelope,
        tag=tag,
        new_recipient=new_recipient,
        new_envelope=new_envelope,
        properties=dict(properties or {}),
        add_tags=tuple(add_tags),
        remove_tags=tuple(remove_tags),
        is_last=is_last,
        **about,
    )


def _checked(pattern: str | None, kind: PatternKind) -> tuple[str | None, int]:
    """Return a pattern in its one spelling, and how many parts a new path may take from it."""
    if pattern is None:
        return None, 0
    if len(pattern) > LONGEST_PATH:
        raise ValueError(f"the pattern has {len(pattern)} characters; expected at most {LONGEST_PATH}")
    if kind != "regex" and "@" in pattern:
        pattern, _ = parse_pattern(pattern, kind)
    elif kind == "wildcard" and pattern == "*":
        pattern = "*@*"
    elif kind != "regex" and pattern:
        raise ValueError(f"{pattern!r} has no @; expected a pattern of whole addresses like *@example.com")
    else:
        parse_note(pattern, "the pattern")
    return pattern, compiled(pattern, kind, captures=True).groups


def flood_pattern(
    *,
    position: int,
    reply: ReplyPattern,
    scope: Scope,
    pause_s: int = 0,
    limits: Limits | None = None,
    limits_s: int = 0,
    one_for_sources: bool = False,
    about: About,
) -> FloodPattern:
    """Make a flood pattern.

    Raises:
        ValueError: It matches everything, nothing follows from it, or limits and their duration do not come together.
    """
    _check_reply(reply)
    if limits is not None:
        _check_limits(limits)
    if (limits is None) != (limits_s == 0):
        raise ValueError("limits go with how long they hold; expected both or none")
    if not pause_s and limits is None:
        raise ValueError("nothing follows; expected a pause, limits, or both")
    return FloodPattern(
        id=_id("flood", astuple(reply), astuple(scope)),
        position=position,
        reply=reply,
        scope=scope,
        pause_s=pause_s,
        limits=limits,
        limits_s=limits_s,
        one_for_sources=one_for_sources,
        **about,
    )


def response_pattern(
    *,
    position: int,
    reply: ReplyPattern,
    scope: Scope,
    state: str | None = None,
    tag: str | None = None,
    action: ResponseAction | None = None,
    delay_s: int | None = None,
    add_tags: Sequence[str] = (),
    properties: Mapping[str, Any] | None = None,
    about: About,
) -> ResponsePattern:
    """Make a response pattern.

    Raises:
        ValueError: It matches everything, nothing follows from it, or a delay goes with no retry.
    """
    if state is None:
        _check_reply(reply)
    if action is None and not add_tags and not properties:
        raise ValueError("nothing follows; expected an action, a tag or a property")
    if delay_s is not None and action != "retry":
        raise ValueError("a delay goes with the action retry")
    return ResponsePattern(
        id=_id("response", astuple(reply), astuple(scope), state, tag),
        position=position,
        reply=reply,
        scope=scope,
        state=state,
        tag=tag,
        action=action,
        delay_s=delay_s,
        add_tags=tuple(add_tags),
        properties=dict(properties or {}),
        **about,
    )


def warm_up(scope: Scope, *, starts_on: date, steps: Sequence[int], about: About) -> WarmUp:
    """Make a warm-up.

    Raises:
        ValueError: It is about no source, or has no steps or too many, or one of them but the last is 0.
    """
    if scope.source is None and scope.pool is None:
        raise ValueError("no source; expected a source address or a pool that is new")
    if not 1 <= len(steps) <= MOST_ITEMS or any(step < 1 for step in steps[:-1]) or steps[-1] < 0:
        raise ValueError(f"expected 1 to {MOST_ITEMS} numbers of messages above 0, of which the last may be 0: no cap")
    return WarmUp(id=_id("warm-up", astuple(scope)), scope=scope, starts_on=starts_on, steps=tuple(steps), **about)


def growth(first: int, factor: float, most: int) -> tuple[int, ...]:
    """Return steps that begin with *first*, grow by *factor* a day, and end with the first that is not below *most*.

    Raises:
        ValueError: They do not grow, or take more than ``MOST_ITEMS`` days.
    """
    steps = [first]
    while steps[-1] < most and len(steps) <= MOST_ITEMS:
        steps.append(min(int(steps[-1] * factor), most))
        if steps[-1] <= steps[-2]:
            break
    if first < 1 or steps[-1] < most or len(steps) > MOST_ITEMS:
        raise ValueError(f"{first} does not grow to {most} by {factor:g} a day; expected that within {MOST_ITEMS} days")
    return tuple(steps)


def pool(name: str, members: Sequence[PoolMember], *, about: About) -> Pool:
    """Make a pool.

    Raises:
        ValueError: No members, too many, or one of them twice.
    """
    if not 1 <= len(members) <= MOST_ITEMS:
        raise ValueError(f"{len(members)} members; expected 1 to {MOST_ITEMS} source addresses")
    if len({member.ip for member in members}) < len(members):
        raise ValueError("an address is there twice; expected each once, with its weight")
    return Pool(id=name, name=name, members=tuple(members), **about)


def dns_override(domain: str, hosts: Sequence[OverrideHost], *, about: About) -> DnsOverride:
    """Make a DNS override.

    Raises:
        ValueError: No host, or too many.
    """
    if not 1 <= len(hosts) <= MOST_ITEMS:
        raise ValueError(f"{len(hosts)} mail hosts; expected 1 to {MOST_ITEMS}")
    return DnsOverride(id=domain, domain=domain, hosts=tuple(hosts), **about)


def tls_level(scope: Scope, level: DemandedSecurity, *, about: About) -> TlsLevel:
    """Make a level of encryption.

    Raises:
        ValueError: It is about a source.
    """
    if scope.source is not None or scope.pool is not None:
        raise ValueError("a source; expected a domain, a site, or neither")
    return TlsLevel(id=_id("tls", astuple(scope)), scope=scope, level=level, **about)


def _check_limits(limits: Limits) -> None:
    if all(getattr(limits, each.name) is None for each in fields(limits)):
        raise ValueError("nothing is limited; expected at least one limit")
    if limits.messages_burst is not None and limits.messages_burst < 1:
        raise ValueError("a burst of 0 lets nothing go; expected at least 1")


def _check_reply(reply: ReplyPattern) -> None:
    if reply == ReplyPattern():
        raise ValueError("every reply would match; expected a code, a status or a text")


def _id(kind: str, *parts: object) -> str:
    """Return the name of an entry, the same for the same parts in every program."""
    return hashlib.blake2b(json.dumps([kind, *parts]).encode(), digest_size=5).hexdigest()
