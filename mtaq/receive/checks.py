"""Who sent this? Runs the checks of one message side by side.

What each check decides stands in ``mtaq.mailauth``; here it is bounded. All of them together have twenty seconds, the
questions to DNS and the spam filter a little less, so that a check that waits for them can say so itself. What is not
finished then, and what is broken, is ``temperror``, and the others keep their results: a check never costs a message.
Nothing here holds up the loop: large content is read in a thread, and only a few at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from mtaq.config.message_checks import CHECKS, Check
from mtaq.mailauth.arc import check_arc
from mtaq.mailauth.arc_chain import Chain, find_chain
from mtaq.mailauth.asking import answered
from mtaq.mailauth.dkim import DkimResult, Signatures, check_dkim, find_signatures
from mtaq.mailauth.dkim_message import SignedMessage, is_large
from mtaq.mailauth.dmarc import find_policy, judge, nobody
from mtaq.mailauth.dmarc_walk import DmarcTree
from mtaq.mailauth.from_field import authors
from mtaq.mailauth.iprev import check_iprev
from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spf import SpfResult, check_spf
from mtaq.mailauth.verdict import CheckResult
from mtaq.model.dns import Ask
from mtaq.receive.check_report import Report, Undecided
from mtaq.receive.ports import Inquirer, SpamFilter
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter, histogram

T = TypeVar("T")

#: No check outlasts it; nobody's mail server gives up on us in that time (RFC 5321 §4.5.3.2.6).
TIMEOUT_S = 20.0
#: Of that time; answers of DNS that come later do not count.
DNS_SHARE = 0.9
#: Contents that are read in threads at once; all else that needs threads must still find one.
LARGE_AT_ONCE = 2

#: They are about the client, so a message that no client handed over has none of them.
_OF_CLIENT = frozenset(("spf", "iprev", "dmarc"))
_WORDS = frozenset(
    ("none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror", "spam", "ham")
)  # fmt: skip

CHECKED = counter("mtaq_checks", "Results of checks, one per signature with DKIM.", ("check", "result"))
CHECK_SECONDS = histogram("mtaq_check_seconds", "Seconds that checks took, waiting for DNS included.", ("check",))

# Finding the number of a label takes as long as counting.
_counter = cache(CHECKED.labels)
_clock = cache(CHECK_SECONDS.labels)


class Checks:
    """Checks messages; one for all sessions of a process."""

    def __init__(self, resolver: Inquirer, *, events: EventLog, timeout_s: float = TIMEOUT_S) -> None:
        """Ask *resolver*, and tell *events* what could not be decided; all checks of a message have *timeout_s*."""
        self._resolver = resolver
        self._events = events
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(LARGE_AT_ONCE)

    async def run(
        self, content: bytes, origin: Origin, wanted: Collection[Check], *, spam: SpamFilter | None = None
    ) -> Report:
        """
        Check *content* as it came.

        DMARC has SPF and DKIM run as well; only what is *wanted* is reported. Never raises.

        Args:
            spam: Who is asked; without one nothing is said of spam.
        """
        inquire = partial(self._resolver.inquiry, timeout_s=self._timeout_s * DNS_SHARE)
        listed = [check for check in CHECKS if check in wanted and _has_object(check, origin, spam)]
        run = _Run(self, content, origin, inquire, spam)
        tasks = run.start({*listed, "spf", "dkim"} if "dmarc" in listed else {*listed})
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=self._timeout_s)
        finally:
            unfinished = [task for task in tasks.values() if not task.done() and task.cancel()]
        if unfinished:
            await asyncio.gather(*unfinished, return_exceptions=True)
        report = Report({check: self._result_of(check, tasks[check]) for check in listed})
        self._tell(report, origin)
        return report

    def _result_of(self, check: Check, task: asyncio.Task[CheckResult]) -> CheckResult:
        return Undecided(check, "not finished in time") if task.cancelled() else task.result()

    def _tell(self, report: Report, origin: Origin) -> None:
        for check, items in report.items.items():
            for item in items:
                word = item[check]
                _counter(check, word if word in _WORDS else "other").inc()
                if word == "temperror":
                    self._events.check_undecided(
                        check=check,
                        message_id=origin.queue_id,
                        peer_ip=origin.client_ip,
                        reason=item.get("reason") or item.get("explanation"),
                    )

    async def guarded(self, check: Check, origin: Origin, checking: Coroutine[Any, Any, CheckResult]) -> CheckResult:
        """Return the result of *check*; a bug in it is logged and costs nothing else."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            return await checking
        except Exception as error:  # the top of a check: what is broken in it says nothing of the message
            self._events.bug(error, message_id=origin.queue_id)
            return Undecided(check, "broken here")
        finally:
            _clock(check).observe(loop.time() - began_at)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, done beside the loop; when nobody waits any more it keeps its room to its end."""
        await self._room.acquire()
        working = asyncio.ensure_future(asyncio.to_thread(work))
        working.add_done_callback(lambda _: self._room.release())
        return await asyncio.shield(working)


def _has_object(check: Check, origin: Origin, spam: SpamFilter | None) -> bool:
    """Is there what *check* is about, or who to ask?"""
    return spam is not None if check == "spam" else origin.client_ip is not None or check not in _OF_CLIENT


class _Run:
    """The checks of one message, under way."""

    def __init__(
        self, checks: Checks, content: bytes, origin: Origin, inquire: Callable[[], Ask], spam: SpamFilter | None
    ) -> None:
        self._checks = checks
        self._content = content
        self._origin = origin
        self._inquire = inquire
        self._spam = spam
        self._tasks: dict[Check, asyncio.Task[CheckResult]] = {}
        self._reading: asyncio.Task[_Read] | None = None

    def start(self, needed: Collection[Check]) -> dict[Check, asyncio.Task[CheckResult]]:
        """Start *needed*; with DMARC, SPF and DKIM are among them."""
        starts: dict[Check, Callable[[], Coroutine[Any, Any, CheckResult]]] = {
            "spf": self._spf,
            "dkim": self._dkim,
            "arc": self._arc,
            "iprev": self._iprev,
            "spam": self._judge_spam,
            "dmarc": self._dmarc,
        }
        if "dkim" in needed or "arc" in needed:
            self._reading = asyncio.create_task(self._read("dkim" in needed, "arc" in needed))
        for check, begin in starts.items():
            if check in needed:
                self._tasks[check] = asyncio.create_task(self._checks.guarded(check, self._origin, begin()))
        return self._tasks

    async def _read(self, dkim: bool, arc: bool) -> _Read:
        work = partial(_read_signed, self._content, dkim=dkim, arc=arc)
        return await self._checks.in_thread(work) if is_large(self._content) else work()

    async def _spf(self) -> SpfResult:
        origin = self._origin
        steps = check_spf(
            client_ip=origin.client_ip or "",
            helo=origin.helo,
            envelope=origin.envelope,
            receiver=origin.receiver,
            now=origin.received_at,
        )
        return await answered(steps, self._inquire())

    async def _iprev(self) -> CheckResult:
        return await answered(check_iprev(self._origin.client_ip or ""), self._inquire())

    async def _dkim(self) -> DkimResult:
        ask = self._inquire()
        assert self._reading is not None
        signatures = (await self._reading).signatures
        return await answered(check_dkim(signatures, now=self._origin.received_at), ask)

    async def _arc(self) -> CheckResult:
        ask = self._inquire()
        assert self._reading is not None
        chain = (await self._reading).chain
        return await answered(check_arc(chain, now=self._origin.received_at), ask)

    async def _judge_spam(self) -> CheckResult:
        assert self._spam is not None
        return await self._spam.judge(self._content, self._origin)

    async def _dmarc(self) -> CheckResult:
        claimed = authors(self._content)
        if claimed.problem is not None:
            return nobody(claimed.problem)
        # Policies are asked for at once, those of each author apart: whoever sends the message chooses domains whose
        # servers are slow for all the rest, and must not gain by it that a policy is not known in time.
        ask = self._inquire()
        policies = await asyncio.gather(
            *(answered(find_policy(author, DmarcTree()), self._inquire()) for author in claimed.domains)
        )
        spf, dkim = self._tasks["spf"], self._tasks["dkim"]
        await asyncio.wait((spf, dkim))
        signed = dkim.result()
        if not isinstance(signed, DkimResult):
            return Undecided("dmarc", "DKIM came to no result")
        return await answered(judge(policies, spf=self._sender(spf.result()), dkim=signed.domains()), ask)

    def _sender(self, result: CheckResult) -> tuple[str, str]:
        """Return domain and word of the identity that SPF is about."""
        if isinstance(result, SpfResult):
            return result.domain, result.word
        envelope = self._origin.envelope
        return (self._origin.helo if envelope is None else envelope.domain), "temperror"


class _Read(NamedTuple):
    """What is read of the content once for all."""

    signatures: Signatures
    chain: Chain


def _read_signed(content: bytes, *, dkim: bool, arc: bool) -> _Read:
    message = SignedMessage(content)
    return _Read(find_signatures(message) if dkim else Signatures(), find_chain(message) if arc else Chain())
