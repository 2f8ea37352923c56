"""What does an ending mean for the message: delivered, deferred or failed?

4yz and everything without an answer is tried again while time and attempts last; 5yz and an unusable source address
are final. Also finds the one word (``category``) for the cause. Pure: time and chance are arguments.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mtaq.config import DeliverOptions
from mtaq.deliver.ending import Ending
from mtaq.limits.backoff import GiveUp, next_attempt
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Failed, Outcome, Result

#: Longest wait that a message can ask for; no message lives so long, and ``datetime`` holds it (31 years).
MAX_RETRY_S = 10**9
#: Peers write long explanations; a result keeps this much.
MAX_DESCRIPTION = 1000

# The text says more than the code: hosts agree on few codes. The first that matches counts.
_TEXTS: Sequence[tuple[str, re.Pattern[str]]] = tuple(
    (word, re.compile(pattern, re.IGNORECASE))
    for word, pattern in (
        ("greylist", r"gr[ea]y-?list"),
        ("rate", r"\brate\b|too many|too fast|throttl|deferred due to|unusual rate|connections? from your"),
        ("reputation", r"reputation|block-?list|black-?list|spamhaus|dnsbl|\brbl\b|spamcop|barracuda|is listed|banned"),
        ("spam", r"\bspam|\bjunk\b|unsolicited|\bbulk\b"),
        ("quota", r"quota|mailbox (?:is )?full|insufficient (?:disk|system)? ?storage"),
        ("content", r"virus|malware|attachment|message content|too (?:big|large)"),
        ("bad-domain", r"(?:domain|host) not found|relay(?:ing)? (?:access )?denied|no such domain"),
        (
            "bad-mailbox",
            r"user unknown|unknown user|no such (?:user|recipient|mailbox|address|person)|does ?n[o']t exist"
            r"|(?:recipient|mailbox|user|address)(?: address)? (?:rejected|unavailable|not found|invalid|disabled)"
            r"|invalid (?:recipient|mailbox|address)|account (?:\S+ )?(?:disabled|inactive)",
        ),
    )
)
_STATUSES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("bad-mailbox", ("1.0", "1.1", "1.3", "1.4", "1.6", "2.0", "2.1", "2.4")),
    ("bad-domain", ("1.2", "1.10", "4.3", "4.4", "4.6")),
    ("quota", ("2.2", "3.1")),
    ("content", ("2.3", "3.4", "3.3", "6.")),
    ("rate", ("4.5",)),
    ("network", ("4.",)),
    ("tls", ("7.4", "7.5", "7.10", "7.11")),
    ("auth", ("7.8", "7.9")),
    ("policy", ("7.", "5.")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What judging needs to know of an attempt beside its ending.

    Attributes:
        number: From 1.
        expires_at: When the message is given up.
        duration_ms: From consumption to the ending.
    """

    number: int
    expires_at: datetime
    duration_ms: int


def judge(
    ending: Ending,
    message: OutboxMessage,
    attempt: Attempt,
    *,
    now: datetime,
    options: DeliverOptions,
    rng: random.Random,
) -> Outcome:
    """Return what *ending* means for *message*."""
    result = _result(ending, attempt, now, "")
    if ending.state == "message" and ending.result == "accepted":
        return Delivered(result)
    if ending.final:
        return Failed(result)
    follows = next_attempt(
        attempt.number,
        now=now,
        deadline=attempt.expires_at,
        intervals=[timedelta(seconds=min(wait, MAX_RETRY_S)) for wait in message.retries_s or options.retry_interval],
        max_attempts=options.max_attempts if message.max_attempts is None else message.max_attempts,
        jitter=options.retry_jitter / 100,
        rng=rng,
    )
    if isinstance(follows, GiveUp):
        return Failed(_result(ending, attempt, now, follows.reason))
    return Deferred(result, follows.at)


def _result(ending: Ending, attempt: Attempt, now: datetime, given_up: str) -> Result:
    facts: dict[str, Any] = {}
    if (peer := ending.peer) is not None:
        facts = {
            "mta": peer.mta,
            "source": peer.source,
            "destination": peer.destination,
            "cipher": peer.cipher,
            "certificate": peer.certificate,
            "tls_policy": peer.tls_policy,
            "authentication": peer.authentication,
            "messages": peer.messages,
            "sent_connection": peer.sent_connection,
            "sent_data": peer.sent_data,
            "dsn": peer.dsn,
        }
    description = f"{given_up}; last: {ending.description}" if given_up else ending.description
    return Result(
        attempt=attempt.number,
        time=now,
        state=ending.state,
        result=ending.result,
        code=ending.code,
        status=ending.status,
        description=description[:MAX_DESCRIPTION],
        duration_ms=attempt.duration_ms,
        category=category(ending),
        **facts,
    )


def category(ending: Ending) -> str | None:
    """Return the word for what *ending* was caused by; ``None`` for success."""
    if ending.result == "accepted":
        return None
    if ending.state == "dns":
        return "network" if ending.result == "timeout" else "bad-domain"
    if ending.state == "starttls":
        return "tls"
    if ending.state == "auth":
        return "auth"
    if ending.state == "process":
        return "bad-mailbox" if ending.result == "invalid" else "other"
    if ending.code is None:
        return "network"
    return _category_of_reply(ending.status, ending.description)


def _category_of_reply(status: str | None, text: str) -> str:
    for word, pattern in _TEXTS:
        if pattern.search(text):
            return word
    detail = (status or "").partition(".")[2]
    for word, details in _STATUSES:
        if any(detail == known or (known.endswith(".") and detail.startswith(known)) for known in details):
            return word
    return "other"
