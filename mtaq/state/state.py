"""The runtime state in the memory of one process, kept up to date by itself.

Look-ups are plain calls and never wait. A task compares the database's counters every ``poll_s`` and at every notice
(``notice``), and reads what changed; at least every ``ttl_s`` it reads everything. Reading happens in a thread.

When the database is away, what was known last stays in force and mail goes on; the log says so once. What this process
adds meanwhile holds here at once and is written when the database is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from mtaq.config.ranges import plain_address
from mtaq.model.address import Address
from mtaq.model.errors import BrokerError
from mtaq.state.aside import begin_aside
from mtaq.state.block_list import BlockList
from mtaq.state.control import LiveControl, Prepared, prepare
from mtaq.state.control_database import ControlDatabase
from mtaq.state.database import MOST_AUTOMATIC, Database, StateUnavailable, Versions
from mtaq.state.engine import sqlite_path
from mtaq.state.entries import Block, client_network, end_after
from mtaq.state.local_addresses import LocalAddresses
from mtaq.state.rows import KINDS
from mtaq.state.suppression_reader import SuppressionReader
from mtaq.telemetry.events import EventLog

T = TypeVar("T")

#: How often the counters are looked at; a change must be seen everywhere within two seconds.
SQLITE_POLL_S = 0.5
POSTGRESQL_POLL_S = 1.5

#: Least and longest time between two rounds, however many notices come; in between, this many times what a round took.
_PAUSE_S, _LONGEST_PAUSE_S, _PAUSES = 0.2, 1.0, 5
_RETRY_S = 1.0
_CLOSE_TIMEOUT_S = 2.0

#: Longest wait for one piece of work on the database; what is bounded in itself takes less.
ANSWER_TIMEOUT_S = 20.0


class _Loaded(NamedTuple):
    """What one reading brought; ``None`` stays as it is."""

    versions: Versions
    local_addresses: LocalAddresses | None
    blocks: BlockList | None
    ehlo_names: Mapping[str, str] | None
    control: Mapping[str, Prepared]


class State:
    """The runtime state, seen from one process.

    Attributes:
        control: What operators said about delivery.
    """

    def __init__(
        self,
        database: Database,
        *,
        events: EventLog,
        clock: Callable[[], datetime],
        ttl_s: float,
        poll_s: float,
        announce: Callable[[bytes], Awaitable[None]] | None = None,
        for_delivery: bool = True,
    ) -> None:
        """Prepare; everything is empty until ``start``.

        Args:
            database: Where it is kept; used by this object alone.
            events: The log.
            clock: The time of day, timezone-aware: entries end by it.
            ttl_s: Everything is read again at least this often.
            poll_s: Changes are looked for this often.
            announce: Tells the other processes that something changed; may fail with ``BrokerError``.
            for_delivery: Is ``control`` asked? Otherwise it stays empty, because a million suppressions take memory.
        """
        self._database = database
        self._events = events
        self._clock = clock
        self._ttl_s = ttl_s
        self._poll_s = poll_s
        self._announce = announce
        self._kinds = tuple(KINDS) if for_delivery else ()
        self._local_addresses = LocalAddresses()
        self._blocks = BlockList()
        self._ehlo_names: Mapping[str, str] = {}
        self._known: Versions = {}
        self._read_all_at = 0.0
        self._unwritten: dict[str, Block] = {}
        self._lost = False
        self._wake = asyncio.Event()
        self.control = LiveControl(clock, self._wake.set)
        self._suppressions = SuppressionReader(self.control)
        self._task: asyncio.Task[None] | None = None
        self._working: asyncio.Future[Any] | None = None

    def is_local(self, address: Address) -> bool:
        """Is mail to *address* for us?"""
        return self._local_addresses.find(address) is not None

    def block_for(self, ip: str) -> Block | None:
        """Return why the client at *ip* may not connect, or ``None`` when it may."""
        return self._blocks.find(ip, self._clock())

    def ehlo_name(self, ip: str) -> str | None:
        """Return the name that operators gave to our address *ip*, or ``None``."""
        name = self._ehlo_names.get(ip)
        if name is None and ":" in ip and self._ehlo_names:
            with contextlib.suppress(ValueError):
                name = self._ehlo_names.get(str(plain_address(ip)))
        return name

    async def add_block(self, network: str, *, reason: str, duration_s: float, automatic: bool = True) -> None:
        """Block *network* for *duration_s* seconds: here at once, elsewhere when it is written, soon.

        An automatic entry about a single IPv6 address holds its /64. Does not wait for the database.

        Raises:
            ValueError: Neither an address nor a network.
        """
        now = self._clock()
        block = Block(
            network=str(client_network(network)),
            reason=reason,
            expires_at=end_after(now, duration_s),
            automatic=automatic,
            created_at=now,
        )
        if len(self._unwritten) < MOST_AUTOMATIC:
            self._unwritten[block.network] = block
            self._blocks.add(block)
            self._events.block_added(network=block.network, reason=reason)
            self._wake.set()

    def notice(self, _body: bytes = b"") -> None:
        """Somebody changed something, or may have: look soon."""
        self._wake.set()

    async def start(self) -> None:
        """Open the database and read everything, waiting for it as long as it takes; then stay up to date.

        Raises:
            ConfigError: The database cannot be used.
        """
        while True:
            if await self._round(is_first=True):
                break
            await asyncio.sleep(_RETRY_S)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is not written, if that goes quickly, and let go of the database. Twice is harmless."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        with contextlib.suppress(TimeoutError, StateUnavailable):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                if self._working is not None:
                    await asyncio.wait([self._working])
                await self._write()
                await self._do(self._database.close)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            began_s = clock()
            self._wake.clear()
            try:
                await self._round()
            except Exception as error:  # the top of a task: whatever it is, the next round may work
                self._events.bug(error)
            pause_s = min(max(_PAUSE_S, _PAUSES * (clock() - began_s)), _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s - pause_s):
                    await self._wake.wait()

    async def _round(self, *, is_first: bool = False) -> bool:
        """Write and read once; did it work?"""
        try:
            if is_first:
                await self._do(self._database.open)
            await self._write()
            await self._read()
        except StateUnavailable as error:
            if not self._lost:
                self._lost = True
                self._events.state_lost(reason=str(error))
            return False
        if self._lost:
            self._lost = False
            self._events.state_restored()
        return True

    async def _write(self) -> None:
        now = self._clock()
        entries = [block for block in self._unwritten.values() if not block.is_over(now)]
        control = [entry for entry in self.control.unwritten.values() if not entry.is_over(now)]
        if entries:
            await self._do(lambda: self._database.set_blocks(entries, now=now))
        if control:
            await self._do(lambda: ControlDatabase(self._database).put(control, now=now))
        self.control.forget_written(control, now)
        written = {block.network: block for block in entries}
        self._unwritten = {
            network: block
            for network, block in self._unwritten.items()
            if block is not written.get(network) and not block.is_over(now)
        }
        if (entries or control) and self._announce is not None:
            with contextlib.suppress(BrokerError):  # others find out by looking
                await self._announce(b"changed")

    async def _read(self) -> None:
        now_s = asyncio.get_running_loop().time()
        is_stale = self._lost or now_s - self._read_all_at >= self._ttl_s
        known: Versions = {} if is_stale else self._known
        loaded = await self._do(lambda: _load(self._database, known, self._kinds))
        if is_stale:
            self._read_all_at = now_s
        changed = {name for name, version in loaded.versions.items() if self._known.get(name) != version}
        self._known = loaded.versions
        if loaded.local_addresses is not None:
            self._local_addresses = loaded.local_addresses
        if loaded.ehlo_names is not None:
            self._ehlo_names = loaded.ehlo_names
        if loaded.blocks is not None:
            self._blocks = loaded.blocks
            for block in self._unwritten.values():
                self._blocks.add(block)
        for kind, prepared in loaded.control.items():
            self.control.replace(kind, prepared)
        if self._kinds:
            self.control.tell(changed - {"suppressions"})
            await self._read_suppressions(is_stale=is_stale)
            self.control.tell(changed & {"suppressions"})

    async def _read_suppressions(self, *, is_stale: bool) -> None:
        reader = self._suppressions
        is_last = reader.known == self._known.get("suppressions", 0)
        while not is_last:
            page = await self._do(
                lambda: ControlDatabase(self._database).read_suppressions(reader.known, is_begun=reader.is_begun)
            )
            is_last = await self._do(functools.partial(reader.take, page))
        if is_stale:
            now = self._clock()
            number = await self._do(lambda: ControlDatabase(self._database).count_suppressions(now))
            await self._do(lambda: reader.check(number, now))

    async def _do(self, work: Callable[[], T]) -> T:
        """Have *work* done on the database, one piece at a time."""
        self._working = working = begin_aside(work)
        await asyncio.wait([working], timeout=ANSWER_TIMEOUT_S)
        if not working.done():  # whoever hangs there is left alone with the old connection
            self._database = self._database.renewed()
            raise StateUnavailable(f"{self._database}: no answer within {ANSWER_TIMEOUT_S:g} s")
        return working.result()


def _load(database: Database, known: Versions, kinds: Sequence[str]) -> _Loaded:
    """Read and prepare the look-ups, of entries about delivery those of some *kinds*; blocks."""
    contents = database.read(known, kinds=kinds)
    sources = contents.sources
    return _Loaded(
        contents.versions,
        None if contents.local_addresses is None else LocalAddresses(contents.local_addresses),
        None if contents.blocks is None else BlockList(contents.blocks),
        None if sources is None else {source.ip: source.ehlo_name for source in sources},
        {kind: prepare(kind, entries) for kind, entries in contents.control.items()},
    )


def open_state(
    address: str,
    *,
    events: EventLog,
    clock: Callable[[], datetime],
    ttl_s: float,
    announce: Callable[[bytes], Awaitable[None]] | None = None,
    for_delivery: bool = True,
) -> State:
    """Return the state kept at *address*, a value of ``database-address``, not started; see ``State``."""
    poll_s = SQLITE_POLL_S if sqlite_path(address) else POSTGRESQL_POLL_S
    return State(
        Database(address),
        events=events,
        clock=clock,
        ttl_s=ttl_s,
        poll_s=poll_s,
        announce=announce,
        for_delivery=for_delivery,
    )
