"""What does an ending mean for the message: delivered, deferred or failed?

4yz and everything without an answer is tried again while time and attempts last; 5yz and an unusable source address
are final. What an ending was caused by is ``deliver.category``'s. Pure: time and chance are arguments.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mtaq.config import DeliverOptions
from mtaq.deliver.category import category
from mtaq.deliver.ending import Ending
from mtaq.limits.backoff import GiveUp, next_attempt
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Failed, Outcome, Result

#: Longest wait that a message can ask for; no message lives so long, and ``datetime`` holds it (31 years).
MAX_RETRY_S = 10**9
#: Peers write long explanations; a result keeps this much.
MAX_DESCRIPTION = 1000

#: Between why a message was given up and what was said last.
GIVEN_UP = "; last: "


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
    description = f"{given_up}{GIVEN_UP}{ending.description}" if given_up else ending.description
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
