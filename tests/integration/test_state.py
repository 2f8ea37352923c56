"""The runtime state on real databases: who sees what, and what happens while a database is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from mtaq.broker import BrokerOptions, open_broker
from mtaq.broker.address import parse_addresses
from mtaq.model.address import Address
from mtaq.model.errors import BrokerUnavailable, ConfigError
from mtaq.state import Block, Database, LocalAddress, Source, State, StateUnavailable
from mtaq.state.database import MOST_AUTOMATIC
from mtaq.state.entries import parse_pattern
from mtaq.state.tables import MIGRATIONS
from mtaq.telemetry.events import EventLog, Record
from tests.support.postgresql import PACKAGE, PASSWORD, PostgresServer, is_installed, running_server
from tests.support.queues import fresh_name

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN = Address("ann", "example.com")
PATIENCE_S = 20.0


class Clock:
    """A time of day that the test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Lines:
    """A log in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, level: int, record: Record) -> None:
        self.records.append(record)

    def named(self, event: str) -> list[Record]:
        return [record for record in self.records if record["event"] == event]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").create_database()
    return f"sqlite://{tmp_path}/state.db"


on_sqlite = pytest.mark.parametrize("address", ["sqlite"], indirect=True)


@pytest.fixture
def database(address: str) -> Iterator[Database]:
    """The operator's way to the database."""
    opened = Database(address)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> Lines:
    return Lines()


Open = Callable[..., State]


@pytest.fixture
async def build(address: str, clock: Clock, lines: Lines) -> AsyncIterator[Open]:
    """Builds states on the same database, as several processes would, and stops them at the end."""
    async with contextlib.AsyncExitStack() as stack:

        def build(address: str = address, **options: object) -> State:
            events = EventLog(lines, node="test", clock=clock)
            settings: dict[str, object] = {"ttl_s": 600, "poll_s": 0.25} | options
            state = State(Database(address), events=events, clock=clock, **settings)
            stack.push_async_callback(state.stop)
            return state

        yield build


@pytest.fixture
async def state(build: Open) -> State:
    state = build()
    await state.start()
    return state


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def local(pattern: str, comment: str = "") -> LocalAddress:
    canonical, kind = parse_pattern(pattern)
    return LocalAddress(pattern=canonical, kind=kind, comment=comment, created_at=START)


def block(network: str, *, duration_s: float | None = None, automatic: bool = False, reason: str = "") -> Block:
    return Block(
        network=network,
        reason=reason,
        expires_at=None if duration_s is None else START + timedelta(seconds=duration_s),
        automatic=automatic,
        created_at=START,
    )


def source(ip: str, name: str) -> Source:
    return Source(ip=ip, ehlo_name=name, created_at=START)


def test_what_is_written_is_read(database):
    """Every entry comes back as it went in."""
    addresses = [local("ann@example.com", "the first"), local("*@bücher.example")]
    blocks = [block("192.0.2.0/24", reason="größer"), block("2001:db8::/64", duration_s=60, automatic=True)]
    database.add_local_addresses(addresses)
    database.set_blocks(blocks, now=START)
    database.set_source(source("192.0.2.1", "mail.example.com"))
    contents = database.read()
    assert sorted(contents.local_addresses, key=lambda entry: entry.kind) == addresses
    assert sorted(contents.blocks, key=lambda entry: entry.network) == blocks
    assert contents.sources == [source("192.0.2.1", "mail.example.com")]


def test_only_what_changed_is_read(database):
    """A table whose counter is known is not read again."""
    before = database.read().versions
    database.set_source(source("192.0.2.1", "mail.example.com"))
    contents = database.read(before)
    assert (contents.local_addresses, contents.blocks) == (None, None)
    assert contents.sources == [source("192.0.2.1", "mail.example.com")]
    assert database.read(contents.versions).sources is None


def test_local_addresses(database):
    """Adding twice changes the comment; removing tells what was there."""
    assert database.add_local_addresses([local("ann@example.com")]) == [local("ann@example.com")]
    assert database.add_local_addresses([local("ann@example.com", "new"), local("b@example.com")]) == [
        local("b@example.com")
    ]
    assert database.remove_local_addresses([("exact", "b@example.com"), ("wildcard", "ann@example.com")]) == [
        ("exact", "b@example.com")
    ]
    assert database.read().local_addresses == [local("ann@example.com", "new")]


def test_sources(database):
    """An address has one name, the last one given."""
    for name in ("a.example", "b.example"):
        database.set_source(source("192.0.2.1", name))
    assert database.read().sources == [source("192.0.2.1", "b.example")]
    assert database.remove_sources(["192.0.2.1", "192.0.2.2"]) == ["192.0.2.1"]
    assert database.read().sources == []


@pytest.mark.parametrize(
    ("there", "new", "kept"),
    [
        (block("192.0.2.1/32"), block("192.0.2.1/32", duration_s=60), "new"),
        (block("192.0.2.1/32"), block("192.0.2.1/32", duration_s=60, automatic=True), "there"),
        (
            block("192.0.2.1/32", duration_s=30, automatic=True),
            block("192.0.2.1/32", duration_s=60, automatic=True),
            "new",
        ),
        (block("192.0.2.1/32", duration_s=90), block("192.0.2.1/32", duration_s=60, automatic=True), "there"),
    ],
)
def test_an_automatic_entry_only_prolongs(database, there, new, kept):
    """An operator's entry replaces any other; an automatic one never shortens what is there."""
    database.set_blocks([there], now=START)
    database.set_blocks([new], now=START)
    assert database.read().blocks == [new if kept == "new" else there]


def test_ended_entries_are_cleared_away(database):
    """What has ended goes with the next change, and is not there for whoever wants to remove it."""
    database.set_blocks([block("192.0.2.1/32", duration_s=60), block("192.0.2.2/32")], now=START)
    later = START + timedelta(seconds=60)
    assert database.remove_blocks(["192.0.2.1/32"], now=later) == []
    assert database.remove_blocks(["192.0.2.2/32"], now=later) == ["192.0.2.2/32"]
    assert database.read().blocks == []


def test_automatic_entries_are_bounded(database):
    """However many strangers misbehave, the list does not grow without end, and operators' entries stay."""
    ours = [block(f"192.0.2.{number}/32", duration_s=1) for number in range(3)]
    many = [
        block(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}/32", duration_s=600 + number, automatic=True)
        for number in range(MOST_AUTOMATIC + 5)
    ]
    database.set_blocks([*ours, *many], now=START)
    blocks = database.read().blocks
    assert len(blocks) == MOST_AUTOMATIC + 3
    assert {entry.network for entry in (*ours, *many[5:])} == {entry.network for entry in blocks}


async def test_changes_arrive(state, database):
    """What an operator changes is in force in running processes, without their being told."""
    database.add_local_addresses([local("ann@example.com")])
    database.set_blocks([block("192.0.2.0/24", reason="spam")], now=START)
    database.set_source(source("2001:db8::1", "mail.example.com"))
    await wait_until(lambda: state.ehlo_name("2001:db8::1") == "mail.example.com")
    assert state.is_local(ANN)
    assert state.block_for("192.0.2.7").reason == "spam"
    assert state.ehlo_name("2001:DB8:0::1") == "mail.example.com"
    assert state.ehlo_name("192.0.2.1") is None
    database.remove_local_addresses([("exact", "ann@example.com")])
    await wait_until(lambda: not state.is_local(ANN))


async def test_a_notice_is_quicker(build, database):
    """A process that is told looks at once, however rarely it looks by itself."""
    state = build(poll_s=1000)
    await state.start()
    database.add_local_addresses([local("ann@example.com")])
    state.notice(b"")
    await wait_until(lambda: state.is_local(ANN))


async def test_an_automatic_entry(state, build, clock, lines):
    """A worker's entry holds for it at once, for the others soon, and for nobody once it has ended."""
    other = build()
    await other.start()
    await state.add_block("192.0.2.1", reason="5 failed logins", duration_s=600)
    assert state.block_for("192.0.2.1").reason == "5 failed logins"
    await wait_until(lambda: other.block_for("192.0.2.1") is not None)
    (line,) = lines.named("block.added")
    assert (line["network"], line["reason"]) == ("192.0.2.1/32", "5 failed logins")
    clock.now += timedelta(seconds=600)
    assert state.block_for("192.0.2.1") is None
    assert other.block_for("192.0.2.1") is None


async def test_others_are_told(build, database):
    """What a worker added is announced once it is written; a broker that is away does no harm."""
    announced: list[list[Block]] = []

    async def announce(body: bytes) -> None:
        announced.append(list(await asyncio.to_thread(lambda: database.read().blocks)))
        raise BrokerUnavailable("away")

    state = build(announce=announce)
    await state.start()
    await state.add_block("192.0.2.1", reason="", duration_s=600)
    await wait_until(lambda: bool(announced))
    assert [entry.network for entry in announced[0]] == ["192.0.2.1/32"]
    await state.add_block("192.0.2.2", reason="", duration_s=600)
    await wait_until(lambda: len(announced) == 2)


async def test_everything_is_read_again(build, database):
    """A change that did not touch the counters is found when the time to live is over."""
    state = build(ttl_s=0.5)
    await state.start()
    with database.connected(writes=True) as hand:
        hand.execute(text("INSERT INTO mtaq_sources VALUES ('192.0.2.1', 'a.example', '2026-03-01 12:00:00')"))
    await wait_until(lambda: state.ehlo_name("192.0.2.1") == "a.example")


@on_sqlite
async def test_the_file_is_taken_away(state, database, lines, tmp_path, clock):
    """Without its database a process goes on with what it knew, says so once, and catches up afterwards."""
    database.add_local_addresses([local("ann@example.com")])
    await wait_until(lambda: state.is_local(ANN))
    path = tmp_path / "state.db"
    path.rename(tmp_path / "away.db")
    await wait_until(lambda: bool(lines.named("state.lost")))
    await state.add_block("192.0.2.1", reason="x", duration_s=600)
    await asyncio.sleep(1)
    assert state.is_local(ANN)
    assert state.block_for("192.0.2.1") is not None
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    await wait_until(lambda: bool(lines.named("state.restored")))
    assert len(lines.named("state.lost")) == 1
    assert [entry.network for entry in database.read().blocks] == ["192.0.2.1/32"]
    assert lines.named("bug") == []


@on_sqlite
async def test_another_file_in_its_place(state, address, tmp_path):
    """A backup that was put in the place of the file is what counts from then on."""
    other = Database(f"sqlite://{tmp_path}/backup.db")
    other.open()
    other.add_local_addresses([local("ann@example.com")])
    other.close()
    (tmp_path / "backup.db").rename(tmp_path / "state.db")
    await wait_until(lambda: state.is_local(ANN))


async def test_what_is_not_written_at_the_end(state, database):
    """An entry made a moment before the end is written."""
    await state.add_block("192.0.2.1", reason="x", duration_s=600)
    await state.stop()
    assert [entry.network for entry in database.read().blocks] == ["192.0.2.1/32"]


def test_older_formats_are_migrated(address):
    """A database of an older program is brought up to date, with what is in it."""
    old = Database(address)
    old.open()
    old.set_source(source("192.0.2.1", "a.example"))
    old.close()
    newer = [*MIGRATIONS, ("ALTER TABLE mtaq_sources ADD COLUMN pool TEXT",)]
    for _ in range(2):
        new = Database(address, migrations=newer)
        new.open()
        assert new.read().sources == [source("192.0.2.1", "a.example")]
        new.close()
    with pytest.raises(ConfigError, match="newer mtaq"):
        Database(address).open()


def test_a_migration_that_fails_changes_nothing(address):
    """Half a migration is none: the older program still understands the database."""
    Database(address).open()
    broken = Database(address, migrations=[*MIGRATIONS, ("CREATE TABLE mtaq_half (a TEXT)", "no SQL at all")])
    with pytest.raises(ConfigError, match="cannot be used"):
        broken.open()
    again = Database(address)
    again.open()
    again.close()


async def test_many_start_at_once(address):
    """Processes that start together on a new database all find it made."""
    databases = [Database(address) for _ in range(8)]
    await asyncio.gather(*(asyncio.to_thread(each.open) for each in databases))
    for each in databases:
        assert each.read().sources == []
        each.close()


async def test_writers_do_not_lose_each_others_changes(address):
    """Processes that write at the same time all succeed, and every change is counted."""
    databases = [Database(address) for _ in range(4)]
    for each in databases:
        each.open()

    def write(number: int) -> None:
        for count in range(5):
            databases[number].set_source(source(f"10.0.{number}.{count}", "a.example"))

    await asyncio.gather(*(asyncio.to_thread(write, number) for number in range(4)))
    contents = databases[0].read()
    assert len(contents.sources) == 20
    assert contents.versions["sources"] == 20
    for each in databases:
        each.close()


def test_a_file_that_is_no_database(tmp_path):
    """A file with something else in it is a mistake of the configuration, and stays as it is."""
    (tmp_path / "state.db").write_text("My diary. " * 500)
    with pytest.raises(ConfigError, match="database-address"):
        Database(f"sqlite://{tmp_path}/state.db").open()
    assert (tmp_path / "state.db").read_text().startswith("My diary.")


def test_a_folder_that_is_not_there(tmp_path):
    """A file that cannot be made is a mistake of the configuration."""
    with pytest.raises(ConfigError, match="No such file"):
        Database(f"sqlite://{tmp_path}/missing/state.db").open()


@on_sqlite
def test_a_locked_database_may_pass(database, address, tmp_path, monkeypatch):
    """A lock that somebody holds is a failure that may pass, not a mistake."""
    monkeypatch.setattr("mtaq.state.engine.CONNECT_TIMEOUT_S", 0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as hand:
        hand.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateUnavailable, match="locked"):
            Database(address).open()


def test_permissions(tmp_path):
    """The file can be read by its owner alone, whatever the umask; made by root it belongs to the folder's owner."""
    old = os.umask(0)
    try:
        if os.geteuid() == 0:
            os.chown(tmp_path, 12345, 12345)
        made = Database(f"sqlite://{tmp_path}/state.db")
        made.open()
        made.set_source(source("192.0.2.1", "a.example"))
        made.close()
    finally:
        os.umask(old)
    found = (tmp_path / "state.db").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == tmp_path.stat().st_uid
    assert [path.name for path in tmp_path.iterdir()] == ["state.db"]


@on_sqlite
async def test_a_newer_program_changes_the_format(state, address, database, lines):
    """A process whose database is migrated under its feet goes on with what it can read."""
    newer = Database(address, migrations=[*MIGRATIONS, ("ALTER TABLE mtaq_sources ADD COLUMN pool TEXT",)])
    newer.open()
    newer.set_source(source("192.0.2.1", "a.example"))
    newer.close()
    await wait_until(lambda: state.ehlo_name("192.0.2.1") == "a.example")
    assert lines.named("state.lost") == []


@on_sqlite
async def test_rubbish_in_its_place(state, database, lines, tmp_path):
    """A file that is no database any more is told as a loss; what was known stays."""
    database.set_source(source("192.0.2.1", "a.example"))
    await wait_until(lambda: state.ehlo_name("192.0.2.1") == "a.example")
    (tmp_path / "rubbish").write_text("rubbish " * 1000)
    (tmp_path / "rubbish").rename(tmp_path / "state.db")
    await wait_until(lambda: bool(lines.named("state.lost")))
    assert state.ehlo_name("192.0.2.1") == "a.example"
    assert lines.named("bug") == []


@on_sqlite
async def test_a_database_that_hangs(state, database, lines, monkeypatch):
    """Work that does not come back is left alone, and a new connection takes its place."""
    monkeypatch.setattr("mtaq.state.state.ANSWER_TIMEOUT_S", 0.2)
    released = threading.Event()
    read = Database.read
    hanging = iter([True])

    def hang(self: Database, known: dict[str, int], **options: object) -> object:
        if next(hanging, False):
            released.wait(PATIENCE_S)
        return read(self, known, **options)

    monkeypatch.setattr(Database, "read", hang)
    database.add_local_addresses([local("ann@example.com")])
    await wait_until(lambda: bool(lines.named("state.restored")))
    assert "no answer" in lines.named("state.lost")[0]["reason"]
    assert state.is_local(ANN)
    released.set()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    if not is_installed():
        pytest.skip(f"install {PACKAGE} (Debian package) to run this")
    with running_server() as server:
        yield server


@pytest.mark.peers
@on_sqlite
async def test_the_server_goes_and_comes(own_server, build, lines):
    """While PostgreSQL is away what was known stays, told once; entries made meanwhile are written afterwards."""
    address = own_server.create_database()
    operator = Database(address)
    operator.open()
    operator.add_local_addresses([local("ann@example.com")])
    state = build(address)
    await state.start()
    own_server.stop()
    await wait_until(lambda: bool(lines.named("state.lost")))
    await state.add_block("192.0.2.1", reason="x", duration_s=600)
    assert state.is_local(ANN)
    assert state.block_for("192.0.2.1") is not None
    await asyncio.to_thread(own_server.start)
    await wait_until(lambda: bool(lines.named("state.restored")))
    assert len(lines.named("state.lost")) == 1
    assert [entry.network for entry in operator.read().blocks] == ["192.0.2.1/32"]
    operator.close()


@pytest.mark.peers
@on_sqlite
async def test_the_server_comes_late(own_server, build, lines):
    """A process that starts before its PostgreSQL waits for it, and says so once, without the password."""
    address = own_server.create_database()
    own_server.stop()
    state = build(address)
    starting = asyncio.create_task(state.start())
    await wait_until(lambda: bool(lines.named("state.lost")))
    assert PASSWORD not in str(lines.records)
    await asyncio.to_thread(own_server.start)
    async with asyncio.timeout(PATIENCE_S):
        await starting
    assert len(lines.named("state.lost")) == len(lines.named("state.restored")) == 1


@pytest.mark.peers
@on_sqlite
async def test_starting_is_given_up(postgresql, build):
    """A process that waits for its PostgreSQL can be stopped."""
    state = build("postgresql://mtaq:secret@127.0.0.1:1/mtaq")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await state.start()
    await state.stop()


@pytest.mark.peers
@pytest.mark.parametrize("wrong", ["no-such-user:secret", "mtaq:secret"])
def test_a_wrong_password(postgresql, wrong):
    """A login that is refused may be allowed later; no text repeats the password."""
    address = re.sub("//.*@", f"//{wrong}@", postgresql.create_database())
    with pytest.raises(StateUnavailable, match="authentication failed") as refused:
        Database(address).open()
    assert "secret" not in str(refused.value)


@pytest.mark.peers
def test_tables_may_not_be_made(postgresql):
    """A user without the right to make the tables is a mistake of the configuration."""
    address = postgresql.create_database()
    with psycopg.connect(address, autocommit=True) as operator:
        operator.execute("CREATE ROLE guest LOGIN PASSWORD 'guest' ")
    with pytest.raises(ConfigError, match="permission denied"):
        Database(re.sub("//.*@", "//guest:guest@", address)).open()


def test_an_address_that_is_not_understood():
    """What the driver does not understand is told without the address, which holds the password."""
    with pytest.raises(ConfigError, match="not understood") as refused:
        Database("postgresql://mtaq:secret@127.0.0.1/x?no_such_option=1").open()
    assert "secret" not in str(refused.value)


def test_the_driver_is_missing(monkeypatch):
    """Without its driver PostgreSQL cannot be used, and the text says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"mtaq\[postgresql\]"):
        Database("postgresql:///mtaq").open()


WATCHER = """
import asyncio, sys
from datetime import UTC, datetime
from mtaq.model.address import Address
from mtaq.state import open_state
from mtaq.telemetry.events import EventLog

class Nowhere:
    def write(self, level, record): pass

async def main():
    clock = lambda: datetime.now(UTC)
    state = open_state(sys.argv[1], events=EventLog(Nowhere(), node="", clock=clock), clock=clock, ttl_s=600)
    await state.start()
    print("started", flush=True)
    while not (state.is_local(Address("ann", "example.com")) and state.block_for("198.51.100.1")):
        await asyncio.sleep(0.01)
    await state.add_block("203.0.113.9", reason="seen", duration_s=600)
    await state.stop()

asyncio.run(main())
"""


async def test_other_processes_see_it(address, database):
    """What one process changes is in force in another, and the other way round."""
    watcher = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WATCHER, address, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert watcher.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            assert await watcher.stdout.readline() == b"started\n"
            database.add_local_addresses([local("*@example.com")])
            database.set_blocks([block("198.51.100.0/24")], now=START)
            assert await watcher.wait() == 0
    finally:
        if watcher.returncode is None:
            watcher.kill()
            await watcher.wait()
    assert [entry.reason for entry in database.read().blocks if entry.automatic] == ["seen"]


@pytest.mark.rabbitmq
@on_sqlite
async def test_told_by_the_exchange(rabbitmq, build, database):
    """Over the fanout exchange a change is in force elsewhere, although nobody looks for it."""
    exchange = fresh_name("cluster")
    brokers = [open_broker(BrokerOptions(addresses=parse_addresses(rabbitmq.address))) for _ in range(2)]
    for broker in brokers:
        await broker.start()
    writer = build(announce=lambda body: brokers[0].broadcast(exchange, body, timeout_s=PATIENCE_S))
    reader = build(poll_s=1000)
    listening = asyncio.Event()

    def notice(body: bytes) -> None:
        listening.set()
        reader.notice(body)

    brokers[1].subscribe(exchange, notice)
    await writer.start()
    await reader.start()
    await listening.wait()
    await writer.add_block("192.0.2.1", reason="x", duration_s=600)
    await wait_until(lambda: reader.block_for("192.0.2.1") is not None)
    for broker in brokers:
        await broker.close()
