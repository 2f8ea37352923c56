"""Publishes each day's reports on TLS, one for each domain whose owner wants it, as messages (RFC 8460 §4.1, §5).

Every process counts (``tls_tally``); one of them, whichever holds the lock, puts the files of a day together some time
after its end. A message is outbox JSON: in the outbox it is sent, elsewhere a script finds the report beside it. A
domain is noted when its reports are confirmed, so a crash or an absent broker costs neither a report nor, but for the
one under way, brings it twice. What could not be published for three days is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import random
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import orjson

from mtaq.deliver.ports import Queues
from mtaq.deliver.tls_session import Judged
from mtaq.deliver.tls_tally import TlsTally, read_counts
from mtaq.model.dns import Ask, Found, Question
from mtaq.model.errors import BrokerError
from mtaq.model.identity import recipient_id, transaction_id
from mtaq.model.parcel import OUTBOX_TYPE, Parcel
from mtaq.reports.tlsrpt_compose import PolicyCount, Submitter, compose_mail, compose_report, destinations
from mtaq.telemetry.events import EventLog

#: How often ``work`` is called.
FLUSH_S = 300.0
#: The others have written what they counted by then; and RFC 8460 §4.1 wants reports spread over some hours.
FIRST_AFTER_S, LAST_AFTER_S = 900.0, 4 * 3600.0
GIVE_UP_AFTER = timedelta(days=3)
PUBLISH_TIMEOUT_S = 30.0
#: For the last look-ups when stopping.
STOP_S = 3.0

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.[^.]+\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where reports go.

    Attributes:
        queue: As messages.
        sends: That queue is the outbox: what cannot be delivered as mail is not for it.
        submitter: Who reports.
        server_id: For ids.
    """

    queue: str
    sends: bool
    submitter: Submitter
    server_id: str


class TlsReports:
    """Counts into *tally*, and publishes what all processes have counted.

    Args:
        folder: The tally's.
        where: May be replaced at any time.
    """

    def __init__(
        self,
        folder: Path,
        tally: TlsTally,
        where: Destination,
        *,
        queues: Queues,
        ask: Ask,
        events: EventLog,
        clock: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self.tally = tally
        self.where = where
        self._folder = folder
        self._queues = queues
        self._ask = ask
        self._events = events
        self._clock = clock
        self._after_s = rng.uniform(FIRST_AFTER_S, LAST_AFTER_S)

    async def work(self) -> None:
        """Write what was counted, and publish what is due. What cannot be done now is done the next time."""
        try:
            await self.tally.flush()
            await self._publish_due()
        except OSError as error:
            self._events.tls_report_held(reason=str(error))

    async def stop(self) -> None:
        """Write what was counted, for who comes after."""
        try:
            async with asyncio.timeout(STOP_S):
                await self.tally.flush()
        except OSError as error:  # TimeoutError is one
            self._events.tls_report_held(reason=str(error) or "no time left")

    async def _publish_due(self) -> None:
        due = [day for day in self._days() if self._clock() >= _begin(day) + timedelta(days=1, seconds=self._after_s)]
        if not due:
            return
        with _locked(self._folder / "lock") as is_ours:
            for day in due if is_ours else ():
                await self._publish(day)

    def _days(self) -> list[date]:
        try:
            names = [_FILE.fullmatch(each.name) for each in self._folder.iterdir()]
            return sorted({date.fromisoformat(name[1]) for name in names if name is not None})
        except (OSError, ValueError):
            return []

    async def _publish(self, day: date) -> None:
        files = sorted(self._folder.glob(f"{day}.*.json"))
        note = self._folder / f"{day}.sent"
        counts = await asyncio.to_thread(read_counts, files)
        sent = set(note.read_text("utf-8").split("\n")) if note.exists() else set()
        held = False
        for domain in sorted(set(counts) - sent):
            if await self._publish_for(domain, day, counts[domain]):
                with note.open("a", encoding="utf-8") as file:
                    file.write(f"{domain}\n")
            else:
                held = True
        if not held or self._clock() > _begin(day) + GIVE_UP_AFTER:
            for path in (*files, note):
                path.unlink(missing_ok=True)

    async def _publish_for(self, domain: str, day: date, policies: dict[Judged, PolicyCount]) -> bool:
        """Publish the reports about *day* for *domain*; is nothing left to do?"""
        answer = await self._ask(Question(f"_smtp._tls.{domain}", "TXT"))
        if answer.found is Found.FAILED:
            return False
        where, begin = self.where, _begin(day)
        identity = _identity(where.server_id, domain, day)
        report = compose_report(
            domain, begin, policies.values(), submitter=where.submitter, report_id=f"{day}.{identity}"
        )
        wanted = destinations(answer.records)
        try:
            for recipient in wanted:
                properties = self._properties(report, domain, recipient, begin)
                if properties is not None:
                    await self._publish_message(properties, f"{identity} {recipient}")
        except BrokerError as error:
            self._events.tls_report_held(domain=domain, queue=where.queue, reason=str(error))
            return False
        if wanted:
            self._events.tls_reported(domain=domain, queue=where.queue)
        return True

    def _properties(self, report: dict[str, Any], domain: str, recipient: str, day: datetime) -> dict[str, Any] | None:
        """Return the message for one destination; ``None`` when the outbox could do nothing with it."""
        where, now = self.where, day + timedelta(days=1)  # the same whenever it is made
        beside = {} if where.sends else {"tls-report": report}
        if "://" in recipient:
            return {"rua": recipient, **beside} if beside else None
        mime = compose_mail(report, domain, recipient, day=day, now=now, submitter=where.submitter)
        entropy = hashlib.sha256(f"{report['report-id']} {recipient}".encode()).digest()[:10]
        return {
            "message-id": recipient_id(transaction_id(where.server_id, now=now, random=entropy), 1),
            "envelope": "",  # a report that comes back must not be reported on
            "recipient": recipient,
            "mime": mime.decode("ascii"),
            "tags": ["tls-report"],
            **beside,
        }

    async def _publish_message(self, properties: dict[str, Any], key: str) -> None:
        parcel = Parcel(
            body=orjson.dumps(properties),
            type=OUTBOX_TYPE,
            correlation_id=properties.get("message-id", ""),
            message_id=str(uuid.UUID(bytes=hashlib.sha256(key.encode()).digest()[:16], version=4)),
        )
        await self._queues.publish(self.where.queue, parcel, timeout_s=PUBLISH_TIMEOUT_S)


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _identity(server_id: str, domain: str, day: date) -> str:
    return hashlib.sha256(f"{server_id} {domain} {day}".encode()).hexdigest()[:20]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold the lock *path*, if nobody else does; the kernel frees that of a process that dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
