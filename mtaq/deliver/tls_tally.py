"""Counts handshakes for the owners of domains who want to know (RFC 8460 §4): one process's part of each day.

What is counted lies in a file of the process's own, written anew now and then, and read again when the process is
started again; a process that is killed loses what it counted since. Only domains that publish where reports go are
kept. Numbers are bounded; what goes beyond is dropped, and counted as that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from mtaq.deliver.tls_session import Judged, ResultType, TlsSession
from mtaq.model.dns import Ask, Found, Question
from mtaq.reports.tlsrpt_compose import MAX_TEXT, Failing, PolicyCount, destinations
from mtaq.telemetry.metrics import counter

_FORMAT = 1
#: Policies of domains that one process counts in a day, and ways in which sessions fail by each.
MAX_POLICIES = 20_000
MAX_FAILURES = 100
#: Bytes of one file that are read; it is never written so large.
MAX_BYTES = 256 * 1024 * 1024
#: How long a day that is over is kept for domains of which DNS says nothing; its reports are written after that.
KEPT_FOR = timedelta(minutes=10)
#: Domains whose records are looked up at a time.
AT_ONCE = 20

DROPPED = counter(
    "mtaq_tls_reports_dropped", "Handshakes that are missing in reports, because there were too many kinds."
)

Counts = dict[str, dict[Judged, PolicyCount]]
"""By domain and policy."""


class TlsTally:
    """What one process counts.

    Args:
        folder: Shared with the other processes.
        process: Which of them this is; the same after a restart.
        ask: Finds out who wants reports.
    """

    def __init__(self, folder: Path, process: str, *, ask: Ask, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._process = process
        self._ask = ask
        self._clock = clock
        self._days: dict[date, Counts] = {}
        self._sizes: dict[date, int] = {}
        self._wanted: set[str] = set()
        self._changed: set[date] = set()

    def count(self, domain: str, session: TlsSession) -> None:
        """Count *session* for *domain*."""
        if session.failure is None:
            self._count(domain, session.judged, None)
            return
        failing = Failing(
            session.failure,
            session.local_ip,
            session.mx_host,
            session.mx_helo[:MAX_TEXT],
            session.remote_ip,
            session.reason[:MAX_TEXT],
        )
        self._count(domain, session.judged, failing)

    def count_policy(self, domain: str, kind: ResultType, reason: str) -> None:
        """Count that the MTA-STS policy of *domain* cannot be had."""
        self._count(domain, Judged("sts"), Failing(kind, reason=reason[:MAX_TEXT]))

    def _count(self, domain: str, judged: Judged, failing: Failing | None) -> None:
        day = self._clock().astimezone(UTC).date()
        policies = self._days.setdefault(day, {}).setdefault(domain, {})
        count = policies.get(judged)
        if count is None:
            if self._sizes.get(day, 0) >= MAX_POLICIES:
                DROPPED.inc()
                return
            self._sizes[day] = self._sizes.get(day, 0) + 1
            count = policies[judged] = PolicyCount(*judged)
        if failing is None:
            count.successes += 1
        elif failing in count.failures or len(count.failures) < MAX_FAILURES:
            count.failures[failing] = count.failures.get(failing, 0) + 1
        else:
            DROPPED.inc()
        self._changed.add(day)

    async def load(self) -> None:
        """Go on where this process was stopped today."""
        today = self._clock().astimezone(UTC).date()
        known = await asyncio.to_thread(read_counts, [self._path(today)])
        if known:
            self._wanted.update(known)
            self._days[today] = _merged([known, self._days.get(today, {})])
            self._sizes[today] = sum(map(len, self._days[today].values()))

    async def flush(self) -> None:
        """
        Write what was counted since, for domains that want to know; forget the others, and days that are over.

        Raises:
            OSError: It cannot be written; it is kept for the next time.
        """
        now = self._clock().astimezone(UTC)
        for day in sorted(self._changed):
            self._changed.discard(day)  # what is counted from now on may not be in these rows
            try:
                if not await self._forget_who_wants_nothing(day):
                    self._changed.add(day)
                rows = list(_rows(self._days[day], self._wanted))
                if rows:
                    await asyncio.to_thread(_write, self._path(day), rows)
            except BaseException:
                self._changed.add(day)
                raise
        for day in [day for day in self._days if day < now.date()]:
            if day not in self._changed or day < (now - KEPT_FOR).date():
                self._forget(day)

    def _forget(self, day: date) -> None:
        del self._days[day]
        self._sizes.pop(day, None)
        self._changed.discard(day)
        self._wanted.intersection_update(domain for counts in self._days.values() for domain in counts)

    async def _forget_who_wants_nothing(self, day: date) -> bool:
        """Return whether DNS could say of everybody."""
        unknown = [domain for domain in self._days[day] if domain not in self._wanted]
        for start in range(0, len(unknown), AT_ONCE):
            some = unknown[start : start + AT_ONCE]
            answers = await asyncio.gather(*(self._ask(Question(f"_smtp._tls.{domain}", "TXT")) for domain in some))
            for domain, answer in zip(some, answers, strict=True):
                if destinations(answer.records if answer.found is Found.RECORDS else ()):
                    self._wanted.add(domain)
                elif answer.found is not Found.FAILED:
                    self._sizes[day] -= len(self._days[day].pop(domain))
        return all(domain in self._wanted or domain not in self._days[day] for domain in unknown)

    def _path(self, day: date) -> Path:
        return self._folder / f"{day.isoformat()}.{self._process}.json"


def read_counts(paths: Iterable[Path]) -> Counts:
    """Return what all the files of a day say together; one that cannot be read says nothing. Waits for the disk."""
    return _merged(_read(path) for path in paths)


def _merged(parts: Iterable[Mapping[str, Mapping[Judged, PolicyCount]]]) -> Counts:
    merged: Counts = {}
    for part in parts:
        for domain, policies in part.items():
            known = merged.setdefault(domain, {})
            for judged, count in policies.items():
                total = known.setdefault(judged, PolicyCount(*judged))
                total.successes += count.successes
                for failing, times in count.failures.items():
                    total.failures[failing] = total.failures.get(failing, 0) + times
    return merged


def _write(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"format": _FORMAT}) + "\n")
        for row in rows:
            file.write(json.dumps(row) + "\n")
    os.replace(unfinished, path)


def _rows(counts: Counts, wanted: Container[str]) -> Iterator[list[Any]]:
    for domain, policies in counts.items():
        if domain not in wanted:
            continue
        for judged, count in policies.items():
            failures = [[*failing, times] for failing, times in count.failures.items()]
            yield [domain, judged.type, judged.strings, judged.patterns, count.successes, failures]


def _read(path: Path) -> Counts:
    counts: Counts = {}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError), path.open(encoding="utf-8") as file:
        lines = file.read(MAX_BYTES).splitlines()
        if not lines or json.loads(lines[0])["format"] != _FORMAT:
            return {}
        for line in lines[1:]:
            domain, kind, strings, patterns, successes, failures = json.loads(line)
            judged = Judged(kind, tuple(strings), tuple(patterns))
            by_kind = {Failing(*row[:-1]): int(row[-1]) for row in failures}
            counts.setdefault(domain, {})[judged] = PolicyCount(*judged, int(successes), by_kind)
    return counts
