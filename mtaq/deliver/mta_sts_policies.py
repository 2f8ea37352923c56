"""Which MTA-STS policy is in force for a domain (RFC 8461 §3, §5)?

A policy is fetched when the domain's TXT record names one that is not known here, and again before it ends. What was
fetched holds until then, whatever becomes of record and web server: that is its purpose. When there is none and none
can be had, the domain is as without (RFC 8461 §3.3), and its owner is told. Nothing here raises.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

from mtaq.deliver.mta_sts import StsPolicy, parse_policy, policy_id
from mtaq.deliver.mta_sts_store import Kept, PolicyStore
from mtaq.deliver.tls_ports import FetchPolicy, PolicyUnavailable
from mtaq.deliver.tls_session import ResultType
from mtaq.model.dns import Ask, Question
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter

#: RFC 8461 §3.3: how long a message waits for a policy at most.
FETCH_TIMEOUT_S = 60.0
#: RFC 8461 §3.3: a policy that could not be had is not asked for again so soon.
AGAIN_AFTER = timedelta(minutes=5)
#: RFC 8461 §10.2: a policy in use is fetched anew once a day, that nobody can wait for its end.
REFRESH_AFTER = timedelta(days=1)
#: How long it may go unnoticed that another process has fetched a policy of a domain whose record is gone.
LOOK_AGAIN_AFTER = timedelta(minutes=1)
#: Domains remembered, and fetches at a time.
MAX_DOMAINS = 5_000
MAX_FETCHES = 50

FETCHES = counter("mtaq_mta_sts_fetches", "MTA-STS policies asked for, by what came of it.", ("outcome",))


class StsPolicies:
    """The policies that one process knows.

    Args:
        store: Shared with the others.
        tell: Called with domain, what is wrong and why, for each policy that cannot be had.
    """

    def __init__(
        self,
        *,
        ask: Ask,
        fetch: FetchPolicy,
        store: PolicyStore,
        clock: Callable[[], datetime],
        events: EventLog,
        tell: Callable[[str, ResultType, str], None] = lambda domain, kind, reason: None,
    ) -> None:
        self._ask = ask
        self._fetch = fetch
        self._store = store
        self._clock = clock
        self._events = events
        self._tell = tell
        self._known: OrderedDict[str, tuple[Kept | None, datetime]] = OrderedDict()
        self._failed: OrderedDict[str, tuple[str, datetime]] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[Kept | None]] = {}

    async def find(self, domain: str) -> StsPolicy | None:
        """Return the policy that mail to *domain* (A-labels) must keep to now, ``None`` without one."""
        kept = await self._kept(domain)
        identity = policy_id(await self._ask(Question(f"_mta-sts.{domain}", "TXT")))
        if identity is not None and (kept is None or kept.id != identity):
            kept = await self._renewed(domain, identity)
        elif kept is not None and identity is not None and self._should_refresh(kept):
            self._begin(domain, identity)
        if kept is None or not kept.holds(self._clock()) or kept.policy.mode == "none":
            return None
        return kept.policy

    async def keep_fresh(self) -> None:
        """Fetch anew what would end within a day, and remove what has ended; for one process, now and then."""
        now = self._clock()
        for kept in await asyncio.to_thread(lambda: list(self._store.all())):
            if kept.holds(now) and kept.ends_at - now < REFRESH_AFTER and self._should_refresh(kept):
                identity = policy_id(await self._ask(Question(f"_mta-sts.{kept.domain}", "TXT")))
                if identity is not None:
                    await self._renewed(kept.domain, identity)
        await asyncio.to_thread(self._store.prune, now)

    async def stop(self) -> None:
        """End what is under way."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _should_refresh(self, kept: Kept) -> bool:
        half = timedelta(seconds=kept.policy.max_age_s / 2)
        return self._clock() - kept.fetched_at > min(REFRESH_AFTER, half)

    async def _kept(self, domain: str) -> Kept | None:
        now = self._clock()
        kept, looked_at = self._known.get(domain, (None, None))
        if looked_at is not None and (kept is not None or now - looked_at < LOOK_AGAIN_AFTER):
            self._known.move_to_end(domain)
            return kept
        return await self._read(domain)

    async def _read(self, domain: str) -> Kept | None:
        kept = await asyncio.to_thread(self._store.read, domain)
        self._remember(domain, kept)
        return kept

    def _remember(self, domain: str, kept: Kept | None) -> None:
        self._known[domain] = (kept, self._clock())
        self._known.move_to_end(domain)
        if len(self._known) > MAX_DOMAINS:
            self._known.popitem(last=False)

    async def _renewed(self, domain: str, identity: str) -> Kept | None:
        """Return the policy called *identity*, or the one before when that cannot be had."""
        kept = await self._read(domain)
        if kept is not None and kept.id == identity and not self._should_refresh(kept):
            return kept  # another process was first
        task = self._begin(domain, identity)
        return kept if task is None else await asyncio.shield(task)

    def _begin(self, domain: str, identity: str) -> asyncio.Task[Kept | None] | None:
        """Fetch, unless that is under way or has just failed."""
        task = self._fetching.get(domain)
        if task is None and not self._has_failed(domain, identity) and len(self._fetching) < MAX_FETCHES:
            task = self._fetching[domain] = asyncio.create_task(self._fetched(domain, identity))
            task.add_done_callback(lambda _: self._fetching.pop(domain, None))
        return task

    def _has_failed(self, domain: str, identity: str) -> bool:
        before, until = self._failed.get(domain, ("", None))
        return until is not None and before == identity and self._clock() < until

    async def _fetched(self, domain: str, identity: str) -> Kept | None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                text = await self._fetch(domain)
            kept = Kept(domain, parse_policy(text), identity, self._clock())
        except PolicyUnavailable as error:
            return self._unavailable(domain, identity, error.kind, str(error))
        except TimeoutError:
            return self._unavailable(domain, identity, "sts-policy-fetch-error", "no answer in time")
        except ValueError as error:
            return self._unavailable(domain, identity, "sts-policy-invalid", str(error))
        FETCHES.labels("ok").inc()
        self._failed.pop(domain, None)
        self._remember(domain, kept)
        try:
            await asyncio.to_thread(self._store.write, kept)
        except OSError as error:
            self._events.mta_sts_unavailable(domain=domain, reason=f"not kept over a restart: {error}")
        return kept

    def _unavailable(self, domain: str, identity: str, kind: ResultType, reason: str) -> Kept | None:
        FETCHES.labels(kind).inc()
        self._failed[domain] = (identity, self._clock() + AGAIN_AFTER)
        self._failed.move_to_end(domain)
        if len(self._failed) > MAX_DOMAINS:
            self._failed.popitem(last=False)
        self._events.mta_sts_unavailable(domain=domain, reason=f"{kind}: {reason}")
        self._tell(domain, kind, reason)
        kept, _ = self._known.get(domain, (None, None))
        return kept
