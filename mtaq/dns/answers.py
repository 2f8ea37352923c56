"""Answers, out of the cache or from the name servers.

Answers are kept for their time to live, raised to the operator's floor and cut at a ceiling; negative answers too
(RFC 2308), and failures for some seconds (RFC 9520 §3.2), so that a dead domain's messages do not queue for the name
servers. Equal questions in flight are asked once. When no server answers, an answer whose time ran out at most five
minutes ago stands in, and the question goes on (RFC 8767). Nothing here raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import dns.name

from mtaq.dns.cache import Cache, memory_of
from mtaq.dns.question import NameServers, Published
from mtaq.dns.records import TYPES, name_of
from mtaq.model.dns import DnsAnswer, Found, Question
from mtaq.telemetry.metrics import counter

#: Answers are asked again after a day, whatever their owner says.
MAX_TTL_S = 86_400
#: One to three hours is what RFC 2308 §5 found to work for negative answers.
MAX_NEGATIVE_TTL_S = 3_600
#: RFC 9520 §3.2: failures are kept for at least 1 s and at most 5 minutes.
FAILURE_TTL_S = 5
#: How long an answer may stand in after its time ran out.
STALE_S = 300
#: RFC 8767 §5 (client response timer): how long a server may keep us waiting when there is such an answer.
STALE_AFTER_S = 1.8
#: Entries kept.
CACHE_SIZE = 20_000
#: Memory that they take. A common answer takes about 700 bytes; 500 of the largest that fit into DNS fill it.
CACHE_BYTES = 32 * 1024 * 1024
#: What an entry takes beside its records.
ENTRY_BYTES = 500
#: Questions known here that wait for an answer; further ones fail at once.
MAX_OPEN = 10_000

QUESTIONS = counter(
    "mtaq_dns_questions", "Questions to the name servers, by type and by what came of them.", ("type", "outcome")
)
HITS = counter("mtaq_dns_cache_hits", "Questions answered out of the cache.")
STALE = counter("mtaq_dns_stale_answers", "Times that an answer whose time was over stood in for silent name servers.")

_COUNT = {(kind, found): QUESTIONS.labels(kind, found.name.lower()) for kind in TYPES for found in Found}


class Answers:
    """The cache, and the questions in flight.

    Args:
        min_ttl_s: The floor; 0 keeps answers as long as published.
        clock: Seconds for the times to live; never going back.
    """

    def __init__(self, servers: NameServers, *, min_ttl_s: int, clock: Callable[[], float]) -> None:
        self._servers = servers
        self._min_ttl_s = min_ttl_s
        self._cache: Cache[Question, DnsAnswer] = Cache(CACHE_SIZE, CACHE_BYTES, clock)
        self._open: dict[Question, asyncio.Task[DnsAnswer]] = {}

    async def ask(self, question: Question) -> DnsAnswer:
        """Return the answer to *question*."""
        key = Question(question.name.lower().removesuffix("."), question.kind)
        answer = self._cache.get(key)
        if answer is not None:
            HITS.inc()
            return answer
        task = self._open.get(key)
        if task is None:
            if len(self._open) >= MAX_OPEN:
                return DnsAnswer(Found.FAILED, reason="too many questions at a time")
            try:
                name = name_of(key.name)
            except ValueError as error:
                return DnsAnswer(Found.NO_NAME, reason=str(error))
            task = self._open[key] = asyncio.create_task(self._look_up(key, name))
            task.add_done_callback(lambda _: self._open.pop(key, None))
        stale = self._cache.get_stale(key)
        if stale is not None and not (await asyncio.wait((task,), timeout=STALE_AFTER_S))[0]:
            return self._stand_in(key, stale)
        return await asyncio.shield(task)  # one who stops waiting must not take the answer from the others

    async def _look_up(self, key: Question, name: dns.name.Name) -> DnsAnswer:
        published = await self._servers.ask(name, key.kind)
        answer = published.answer
        _COUNT[key.kind, answer.found].inc()
        stale = self._cache.get_stale(key) if published.silent else None
        if stale is not None:
            return self._stand_in(key, stale)
        failed = answer.found is Found.FAILED
        self._cache.put(
            key,
            answer,
            FAILURE_TTL_S if failed else self._keep_s(published),
            size_bytes=ENTRY_BYTES + memory_of(answer.records),
            stale_s=0 if failed else STALE_S,
        )
        return answer

    def _stand_in(self, key: Question, stale: DnsAnswer) -> DnsAnswer:
        STALE.inc()
        self._cache.revive(key, FAILURE_TTL_S)
        return stale

    def _keep_s(self, published: Published) -> float:
        ceiling_s = MAX_TTL_S if published.answer.found is Found.RECORDS else MAX_NEGATIVE_TTL_S
        return max(self._min_ttl_s, min(published.ttl_s, ceiling_s))
