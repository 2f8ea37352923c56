"""Limits that hold over processes: four of them deliver to one host, which notes when what came."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mtaq.assembly.queues import prepare_queues
from mtaq.cli.logs import open_log
from mtaq.client import connect
from mtaq.config.loading import load
from mtaq.model.control import DnsOverride, Entry, Limits, OverrideHost, Pool, PoolMember, Scope, Throttle
from mtaq.state.control_database import ControlDatabase
from mtaq.state.database import Database
from mtaq.state.entries import Source
from tests.support.delivery_worker import DeliveryProcess
from tests.support.fake_mx import FakeMx, Mail, Script

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PROCESSES = 4
LONG = bool(os.environ.get("LONG"))
#: Messages and domains of the company test.
SIZES = (100_000, 200) if LONG else (2_000, 40)
SICK = ("throttled.example", "busy.example", "dead.example")


class Timed(list[Any]):
    """A list that notes when it grows."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def append(self, item: Any) -> None:
        """Note and keep."""
        self.times.append(time.monotonic())
        super().append(item)


class TimedMx(FakeMx):
    """A mail host that notes when messages and connections came."""

    def __init__(self, *scripts: Script, **where: Any) -> None:
        super().__init__(*scripts, **where)
        self.mail: Timed = Timed()
        self.dialogs: Timed = Timed()


@dataclass
class Instance:
    """Processes on one queue and one run directory."""

    folder: Path
    options: dict[str, object]
    processes: list[DeliveryProcess] = field(default_factory=list)

    @property
    def queue(self) -> str:
        """The address of the queue."""
        return f"embedded://{self.folder / 'queue'}"

    @property
    def configuration(self) -> Path:
        """Its file."""
        return self.folder / "mtaq.conf"

    def prepare(self, number: int, entries: Sequence[Entry], sources: Iterable[Source] = ()) -> None:
        """Write configuration and state for so many processes, and create the queues."""
        for name in ("data", "run"):
            (self.folder / name).mkdir()
        options = {
            "rabbitmq-address": self.queue, "rabbitmq-success": "success", "retry-interval": "1",
            "data-directory": self.folder / "data", "run-directory": self.folder / "run",
            "delivery-allow-private": "true", "smtp-threads": number, "log-level": "info", **self.options,
        }  # fmt: skip
        self.configuration.write_text("".join(f"{key}: {value}\n" for key, value in options.items()))
        database = Database(f"sqlite:///{self.folder / 'data' / 'mtaq.db'}")
        database.open()
        ControlDatabase(database).put(entries, now=NOW)
        for source in sources:
            database.set_source(source)
        database.close()
        settings = load(path=str(self.configuration), environ={}, overrides=())
        asyncio.run(prepare_queues(settings, open_log(settings, clock=lambda: NOW)))

    def start(self, number: int) -> None:
        """Start so many processes."""
        self.processes = [DeliveryProcess(self.configuration, each) for each in range(number)]

    def tell(self) -> None:
        """Show the ends of the logs, for who wonders why a test failed."""
        for process in self.processes:
            print(f"{process.log}, exit status {process.process.poll()}:\n{process.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.process.terminate()
        for process in self.processes:
            process.stop()

    async def publish(self, messages: Iterable[dict[str, Any]]) -> None:
        """Put messages into the outbox."""
        async with connect(self.queue) as queues:
            rest = iter(messages)
            while some := list(islice(rest, 500)):
                await asyncio.gather(*(queues.publish("outbox", message) for message in some))


@asynccontextmanager
async def delivering(
    folder: Path,
    mx: FakeMx,
    *entries: Entry,
    processes: int = PROCESSES,
    sources: Iterable[Source] = (),
    **options: Any,
) -> AsyncIterator[Instance]:
    """Run an instance whose every connection goes to *mx*."""
    sink = {"smtp-sink-address": mx.ip, "smtp-sink-port": mx.port}
    named = {name.replace("_", "-"): value for name, value in options.items()}
    instance = Instance(folder, sink | named)
    try:
        await asyncio.to_thread(instance.prepare, processes, entries, sources)
        await asyncio.to_thread(instance.start, processes)
        yield instance
    except BaseException:
        instance.tell()
        raise
    finally:
        await asyncio.to_thread(instance.stop)


def message(recipient: str, **properties: Any) -> dict[str, Any]:
    return {"envelope": "", "recipient": recipient, "mime": "Subject: x\r\n\r\nx\r\n", **properties}


def throttle(domain: str = "example.com", **limits: Any) -> Throttle:
    return Throttle(id=domain, created_at=NOW, scope=Scope(domain=domain), limits=Limits(**limits))


def most_within(times: Sequence[float], seconds: float) -> int:
    """The most of *times* that lie in any window of this length."""
    return max((sum(first <= at < first + seconds for at in times) for first in times), default=0)


async def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Wait, bounded."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.1)


async def test_four_processes_keep_one_rate(tmp_path: Path) -> None:
    """In whatever window: the rate is spread evenly, so a shorter one than a minute shows it as well."""
    async with TimedMx() as mx, delivering(tmp_path, mx, throttle(messages_per_minute=240)) as instance:
        await instance.publish(message(f"user{n}@example.com") for n in range(60))
        await until(lambda: len(mx.mail) == 60)
        times = mx.mail.times
        assert most_within(times, 1) <= 4 + 1
        assert most_within(times, 5) <= 20 + 1
        assert most_within(times, 60) <= 240
        assert len({mail.commands[1] for mail in mx.mail}) == 60


async def test_four_processes_keep_one_volume(tmp_path: Path) -> None:
    """Bytes of content in any minute, whatever the sizes are."""
    sizes = [3000, 500, 9000, 100, 2500, 7000] * 3
    async with TimedMx() as mx, delivering(tmp_path, mx, throttle(bytes_per_minute=600_000)) as instance:
        await instance.publish(
            message(f"user{n}@example.com", mime="S: x\r\n\r\n" + "x" * size) for n, size in enumerate(sizes)
        )
        await until(lambda: len(mx.mail) == len(sizes))
        volumes = [(at, len(mail.content)) for at, mail in zip(mx.mail.times, mx.mail, strict=True)]
        for first, _ in volumes:
            inside = [size for at, size in volumes if first <= at < first + 2]
            assert sum(inside) <= 20_000 + 2 * max(sizes)


async def test_four_processes_keep_one_cap_and_share_it(tmp_path: Path) -> None:
    """Never one connection more, and none of the processes goes without for long."""
    script = Script(byte_pause_s=0.002)
    # So few in hand that each of them has something to do.
    async with TimedMx(script) as mx, delivering(tmp_path, mx, throttle(connections=4), rabbitmq_qos=20) as instance:
        await instance.publish(message(f"user{n}@example.com") for n in range(240))
        await until(lambda: len(mx.mail) == 240)
        assert mx.most_open == 4


async def test_four_processes_open_connections_at_one_rate(tmp_path: Path) -> None:
    """However many they would like to have."""
    async with (
        TimedMx() as mx,
        delivering(tmp_path, mx, throttle(connections_per_minute=120, messages_per_connection=5)) as instance,
    ):
        await instance.publish(message(f"user{n}@example.com") for n in range(100))
        await until(lambda: len(mx.mail) == 100)
        assert most_within(mx.dialogs.times, 1) <= 2 + 1
        assert most_within(mx.dialogs.times, 5) <= 10 + 1
        carried = Counter(mail.connection for mail in mx.mail)
        assert max(carried.values()) <= 5


async def test_each_host_that_is_tried_counts_as_a_connection(tmp_path: Path) -> None:
    """Three that are too busy are three connections, and not one because one message wanted them."""
    script = Script(replies={"banner": b"421 4.3.2 too busy\r\n"})
    async with TimedMx(script) as one, TimedMx(script) as two, TimedMx(script) as three:
        hosts = tuple(OverrideHost("127.0.0.1", mx.port) for mx in (one, two, three))
        entries = [
            DnsOverride(id="o", created_at=NOW, domain="example.com", hosts=hosts),
            throttle(connections_per_minute=120),
        ]
        async with delivering(tmp_path, one, *entries, smtp_sink_address="") as instance:
            await instance.publish(message(f"user{n}@example.com") for n in range(40))
            times = lambda: sorted(one.dialogs.times + two.dialogs.times + three.dialogs.times)  # noqa: E731 - asked again
            await until(lambda: len(times()) >= 12)
            assert most_within(times(), 1) <= 2 + 1
            assert most_within(times(), 5) <= 10 + 1
            assert three.dialogs


@pytest.mark.skipif(not LONG, reason="takes three minutes; ./scripts/test --long")
async def test_no_minute_holds_more_than_the_rate(tmp_path: Path) -> None:
    """For three minutes, over a restart of a process."""
    async with TimedMx() as mx, delivering(tmp_path, mx, throttle(messages_per_minute=300)) as instance:
        await instance.publish(message(f"user{n}@example.com") for n in range(850))
        await until(lambda: len(mx.mail) > 200)
        instance.processes[0].process.kill()
        instance.processes.append(DeliveryProcess(instance.configuration, 9))
        await until(lambda: len({mail.commands[1] for mail in mx.mail}) == 850, 280)
        assert most_within(mx.mail.times, 60) <= 300
        assert most_within(mx.mail.times, 60) >= 270


async def test_sick_domains_do_not_slow_the_others(tmp_path: Path) -> None:
    """One is throttled, one says 421, one is dead: whatever is in the queue before, the healthy ones are served.

    Each of the sick ones alone has more messages than a process may have in hand.
    """
    async with TimedMx() as mx, TimedMx(Script(replies={"banner": b"421 4.3.2 too busy\r\n"})) as busy:
        entries = [
            throttle("throttled.example", messages_per_minute=60),
            override("busy.example", busy.port),
            override("dead.example", 1),
            *(override(f"healthy{n}.example", mx.port) for n in range(5)),
            override("throttled.example", mx.port),
        ]
        async with delivering(
            tmp_path, mx, *entries, processes=2, smtp_sink_address="", retry_interval=3600, rabbitmq_qos=100
        ) as instance:
            await instance.publish(message(f"user{n}@{domain}") for domain in SICK for n in range(200))
            await instance.publish(message(f"user{n}@healthy{n % 5}.example") for n in range(200))
            healthy = lambda: sum("healthy" in mail.commands[1] for mail in mx.mail)  # noqa: E731 - asked again and again
            await until(lambda: healthy() == 200, 60)
            throttled = [at for at, mail in zip(mx.mail.times, mx.mail, strict=True) if "throttled" in mail.commands[1]]
            assert len(throttled) < 100
            assert most_within(throttled, 5) <= 6


@pytest.mark.timeout(3600)
async def test_healthy_domains_take_about_as_long_in_sick_company(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ratio is told, and at full length it must be below 1.2; memory stays bounded."""
    messages, domains = SIZES
    each, healthy = messages // domains, [f"d{n}.example" for n in range(domains - len(SICK))]
    alone_s, _ = await took(tmp_path / "alone", healthy, [], each)
    company_s, most_kb = await took(tmp_path / "company", healthy, SICK, each)
    with capsys.disabled():
        rate = each * len(healthy) / alone_s
        print(f"\n{messages} messages, {domains} domains: {alone_s:.1f} s alone ({rate:.0f} a second), ", end="")
        print(f"{company_s:.1f} s in company, ratio {company_s / alone_s:.2f}; a process took {most_kb // 1024} MB")
    assert most_kb < 512 * 1024
    assert not LONG or company_s < 1.2 * alone_s


async def took(folder: Path, healthy: Sequence[str], sick: Sequence[str], each: int) -> tuple[float, int]:
    """Return the seconds until all mail to *healthy* has arrived, and the memory of the largest process in KB."""
    folder.mkdir()
    async with TimedMx() as mx, TimedMx(Script(replies={"banner": b"421 4.3.2 too busy\r\n"})) as busy:
        ports = {"busy.example": busy.port, "dead.example": 1}
        everybody = [*healthy, *sick]
        entries = [override(domain, ports.get(domain, mx.port)) for domain in everybody]
        instance = Instance(folder, {"retry-interval": 600})
        await asyncio.to_thread(instance.prepare, 2, [*entries, throttle("throttled.example", messages_per_minute=60)])
        await instance.publish(message(f"user{n}@{domain}") for n in range(each) for domain in everybody)
        try:
            await asyncio.to_thread(instance.start, 2)
            await until(lambda: bool(mx.mail))
            begin = mx.mail.times[0]
            await until(lambda: arrived(mx) == each * len(healthy), 1800)
            return time.monotonic() - begin, max(memory_kb(process.process.pid) for process in instance.processes)
        except BaseException:
            instance.tell()
            raise
        finally:
            await asyncio.to_thread(instance.stop)


def arrived(mx: FakeMx) -> int:
    """How many messages came that no limit holds back."""
    return sum("throttled" not in mail.commands[1] for mail in mx.mail)


def memory_kb(pid: int) -> int:
    """The most memory that a process had so far."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def override(domain: str, port: int) -> DnsOverride:
    return DnsOverride(id=domain, created_at=NOW, domain=domain, hosts=(OverrideHost("127.0.0.1", port),))


async def test_each_message_leaves_from_its_source_with_its_name(tmp_path: Path) -> None:
    """``ips`` before pool before mapped address before default; a pool by weight; EHLO tells the source's name."""
    pool = Pool(
        id="bulk", created_at=NOW, name="bulk", members=(PoolMember("127.0.0.4", 3), PoolMember("127.0.0.5", 1))
    )
    names = [Source(ip=f"127.0.0.{n}", ehlo_name=f"out{n}.test", created_at=NOW) for n in range(2, 10)]
    async with (
        TimedMx() as mx,
        delivering(tmp_path, mx, pool, processes=1, sources=names, smtp_default_ips="127.0.0.2;127.0.0.3") as instance,
    ):
        mapped = {"ips": ["127.0.0.9"], "connection": {"local-ip": "127.0.0.9"}}
        kinds: dict[str, dict[str, Any]] = {
            "default": {}, "ips": {"ips": ["127.0.0.6", "127.0.0.7"]}, "pool": {"pool": "bulk"},
            "both": {"ips": ["127.0.0.8"], "pool": "bulk"}, "mapped": mapped,
        }  # fmt: skip
        wanted = [(kind, n) for kind in kinds for n in range(240 if kind == "pool" else 20)]
        await instance.publish(message(f"{kind}{n}@example.com", **kinds[kind]) for kind, n in wanted)
        await until(lambda: len(mx.mail) == len(wanted))
        assert used(mx, "default") == {"127.0.0.2", "127.0.0.3"}
        assert used(mx, "ips") == {"127.0.0.6", "127.0.0.7"}
        assert used(mx, "both") == {"127.0.0.8"}
        assert used(mx, "mapped") == {"127.0.0.9"}
        shares = Counter(mail.client_ip for mail in mail_of(mx, "pool"))
        assert set(shares) == {"127.0.0.4", "127.0.0.5"}
        assert 150 <= shares["127.0.0.4"] <= 210
        for mail in mx.mail:
            assert mx.dialogs[mail.connection][0] == f"EHLO out{mail.client_ip[-1]}.test"


def mail_of(mx: FakeMx, kind: str) -> list[Mail]:
    return [mail for mail in mx.mail if mail.commands[1].startswith(f"RCPT TO:<{kind}")]


def used(mx: FakeMx, kind: str) -> set[str]:
    return {mail.client_ip for mail in mail_of(mx, kind)}


async def test_sites_that_are_counted_together_get_their_own_mail(tmp_path: Path) -> None:
    """A cap over all sites is one number, and not one connection for all of them."""
    every = Throttle(id="every", created_at=NOW, scope=Scope(), limits=Limits(connections=2), one_for_sites=True)
    async with TimedMx() as one, TimedMx() as two:
        entries = [every, override("one.example", one.port), override("two.example", two.port)]
        async with delivering(tmp_path, one, *entries, processes=1, smtp_sink_address="") as instance:
            await instance.publish(message(f"user{n}@{site}.example") for n in range(20) for site in ("one", "two"))
            await until(lambda: len(one.mail) + len(two.mail) == 40)
        for mx, domain in ((one, "one.example"), (two, "two.example")):
            assert len(mx.mail) == 20
            assert all(mail.commands[1].endswith(f"@{domain}>") for mail in mx.mail)
