"""Which policy of MTA-STS is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mtaq.deliver import mta_sts_policies, mta_sts_store
from mtaq.deliver.mta_sts import parse_policy
from mtaq.deliver.mta_sts_policies import StsPolicies
from mtaq.deliver.mta_sts_store import Kept, PolicyStore
from mtaq.deliver.tls_ports import PolicyUnavailable
from mtaq.model.dns import DnsAnswer, Found, Question
from mtaq.telemetry.events import EventLog
from tests.support.delivery import START, Clock, Lines
from tests.support.policy_server import policy

ENFORCE = policy("enforce", "mx.a.test")
TESTING = policy("testing", "mx.a.test")


class Site:
    """A domain's record and policy, and a sender that looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.lines = Lines()
        self.record: DnsAnswer = txt("1")
        self.served: str | Exception = ENFORCE
        self.fetched: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.policies = self.sender()

    def sender(self) -> StsPolicies:
        """Another process, or this one after a restart."""
        return StsPolicies(
            ask=self.ask,
            fetch=self.fetch,
            store=PolicyStore(self.folder / "mta-sts"),
            clock=self.clock,
            events=EventLog(self.lines, node="test", clock=self.clock, level="debug"),
            tell=lambda domain, kind, reason: self.told.append((domain, kind)),
        )

    async def ask(self, question: Question) -> DnsAnswer:
        """The name server."""
        assert question == Question("_mta-sts.a.test", "TXT")
        return self.record

    async def fetch(self, domain: str) -> bytes:
        """The web server."""
        self.fetched.append(domain)
        await self.gate.wait()
        if isinstance(self.served, Exception):
            raise self.served
        return self.served.encode()

    async def mode(self, policies: StsPolicies | None = None) -> str | None:
        """What holds now."""
        found = await (policies or self.policies).find("a.test")
        return found.mode if found is not None else None

    async def refreshed(self, until: Callable[[], bool]) -> None:
        """Let what happens beside mail happen."""
        for _ in range(1000):
            if until():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nothing happened")


def txt(identity: str) -> DnsAnswer:
    """The record of a policy."""
    return DnsAnswer(Found.RECORDS, ((f"v=STSv1; id={identity};".encode(),),))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """With a policy to enforce."""
    return Site(tmp_path)


async def test_a_policy_is_fetched_once(site):
    """However many messages there are."""
    assert [await site.mode() for _ in range(3)] == ["enforce"] * 3
    assert site.fetched == ["a.test"]


async def test_messages_that_come_together_wait_for_one_fetch(site):
    """And so do those that come meanwhile."""
    site.gate.clear()
    waiting = [asyncio.create_task(site.mode()) for _ in range(3)]
    await site.refreshed(lambda: bool(site.fetched))
    waiting.append(asyncio.create_task(site.mode()))
    site.gate.set()
    assert await asyncio.gather(*waiting) == ["enforce"] * 4
    assert site.fetched == ["a.test"]


async def test_without_a_record_nothing_is_fetched(site):
    """The domain has no policy."""
    site.record = DnsAnswer(Found.NO_NAME)
    assert await site.mode() is None
    assert site.fetched == []


@pytest.mark.parametrize("found", [Found.NO_DATA, Found.NO_NAME, Found.FAILED])
async def test_a_policy_holds_when_its_record_is_gone(site, found):
    """RFC 8461 §3.1: who can hide the record must not get the mail; after its time it is over."""
    assert await site.mode() == "enforce"
    site.record, site.served = DnsAnswer(found), PolicyUnavailable("sts-policy-fetch-error", "away")
    assert await site.mode() == "enforce"
    site.clock.forward(604_800 + 1)
    assert await site.mode() is None


async def test_a_restart_does_not_lose_a_policy(site):
    """Nor does another process need to fetch it, though neither record nor web server answer any more."""
    assert await site.mode() == "enforce"
    site.record, site.served = DnsAnswer(Found.FAILED), PolicyUnavailable("sts-policy-fetch-error", "away")
    assert await site.mode(site.sender()) == "enforce"
    assert len(site.fetched) == 1


async def test_a_process_learns_what_another_has_fetched(site):
    """Within a minute, when there is no record; at once, when there is."""
    site.record, other = DnsAnswer(Found.NO_NAME), site.sender()
    assert await site.mode(other) is None
    site.record = txt("1")
    assert await site.mode() == "enforce"
    assert await site.mode(other) == "enforce"
    assert len(site.fetched) == 1
    late = site.sender()
    site.record = DnsAnswer(Found.NO_NAME)
    assert await site.mode(late) == "enforce"


async def test_a_new_id_is_a_new_policy(site):
    """It is fetched before the message goes on."""
    assert await site.mode() == "enforce"
    site.record, site.served = txt("2"), TESTING
    assert await site.mode() == "testing"
    assert len(site.fetched) == 2


@pytest.mark.parametrize(
    ("served", "kind"),
    [
        (PolicyUnavailable("sts-policy-fetch-error", "404"), "sts-policy-fetch-error"),
        (PolicyUnavailable("sts-webpki-invalid", "another name"), "sts-webpki-invalid"),
        ("nonsense", "sts-policy-invalid"),
    ],
)
async def test_the_policy_before_stays_when_the_new_one_cannot_be_had(site, served, kind):
    """And its owner is told, once in five minutes."""
    assert await site.mode() == "enforce"
    site.record, site.served = txt("2"), served
    assert [await site.mode() for _ in range(3)] == ["enforce"] * 3
    assert site.told == [("a.test", kind)]
    site.clock.forward(301)
    site.served = TESTING
    assert await site.mode() == "testing"


async def test_a_domain_whose_first_policy_cannot_be_had_is_as_without(site):
    """RFC 8461 §3.3: mail goes on; it is tried again after five minutes, or with another id."""
    site.served = PolicyUnavailable("sts-policy-fetch-error", "away")
    assert [await site.mode() for _ in range(3)] == [None] * 3
    assert len(site.fetched) == 1
    assert site.lines.of("mta_sts.unavailable")[0]["domain"] == "a.test"
    site.record = txt("2")
    assert await site.mode() is None
    site.clock.forward(301)
    site.served = ENFORCE
    assert await site.mode() == "enforce"


async def test_a_silent_web_server_is_waited_for_so_long_and_no_longer(site, monkeypatch):
    """Then the message goes as if there were no policy."""
    monkeypatch.setattr(mta_sts_policies, "FETCH_TIMEOUT_S", 0.01)
    site.gate.clear()
    assert await site.mode() is None
    assert site.told == [("a.test", "sts-policy-fetch-error")]


async def test_mode_none_is_no_policy(site):
    """But is kept: it is how a policy is taken back."""
    site.served = policy("none")
    assert await site.mode() is None
    assert await site.mode() is None
    assert len(site.fetched) == 1


async def test_a_policy_in_use_is_fetched_again_every_day(site):
    """Beside the mail, though its id is the same; so it never comes to its end."""
    for day in range(1, 10):
        assert await site.mode() == "enforce"
        await site.refreshed(lambda times=day: len(site.fetched) == times and not site.policies._fetching)
        site.clock.forward(86_400 + 1)


async def test_a_policy_that_is_not_in_use_is_fetched_before_its_end(site):
    """The day before, without any mail; and one that has ended is forgotten."""
    assert await site.mode() == "enforce"
    site.clock.forward(5 * 86_400)
    await site.policies.keep_fresh()
    assert len(site.fetched) == 1
    site.clock.forward(1.5 * 86_400)
    await site.policies.keep_fresh()
    assert len(site.fetched) == 2
    site.served = PolicyUnavailable("sts-policy-fetch-error", "away")
    site.clock.forward(8 * 86_400)
    await site.policies.keep_fresh()
    assert list((site.folder / "mta-sts").iterdir()) == []


async def test_what_cannot_be_kept_holds_all_the_same(site):
    """The disk is full: until the next restart; the log says so."""
    (site.folder / "mta-sts").write_text("a file in the folder's place")
    assert [await site.mode() for _ in range(2)] == ["enforce"] * 2
    assert "not kept over a restart" in site.lines.of("mta_sts.unavailable")[0]["reason"]


async def test_memory_is_bounded(site, monkeypatch):
    """What falls out of memory is read again."""
    monkeypatch.setattr(mta_sts_policies, "MAX_DOMAINS", 1)
    site.policies._known["other.test"] = (None, site.clock())
    assert await site.mode() == "enforce"
    assert list(site.policies._known) == ["a.test"]


def kept(domain: str, *, max_age: int = 604_800) -> Kept:
    """A policy fetched at the start."""
    return Kept(domain, parse_policy(policy("enforce", "mx.a.test", max_age=max_age).encode()), "1", START)


def test_files_are_read_as_they_were_written(tmp_path):
    """Also of names that are too long for a file name; one that is broken is none."""
    store = PolicyStore(tmp_path / "folder")
    long = ".".join(["x" * 62] * 4)
    for domain in ("a.test", long):
        assert store.read(domain) is None
        store.write(kept(domain))
        assert store.read(domain) == kept(domain)
    assert {each.domain for each in store.all()} == {"a.test", long}
    for path in (tmp_path / "folder").iterdir():
        whole = path.read_bytes()
        for broken in (whole[:40], b"[]", b"{}", whole.replace(b'"format": 1', b'"format": 2'), b"[" * 10_000):
            path.write_bytes(broken)
            assert store.read("a.test") is None or path.read_bytes() != broken
    assert list(store.all()) == []


def test_too_many_files_go_by_their_end(tmp_path, monkeypatch):
    """And what a crash left half written goes after a day."""
    monkeypatch.setattr(mta_sts_store, "MAX_FILES", 2)
    store = PolicyStore(tmp_path)
    for domain, days in (("a", 3), ("b", 2), ("c", 4), ("d", 1)):
        store.write(kept(domain, max_age=days * 86_400))
    half: Any = tmp_path / "x.0123"
    half.write_text("{")
    store.prune(START + timedelta(days=1.5))
    assert {each.domain for each in store.all()} == {"a", "c"}
    assert half.exists()
    store.prune(START + timedelta(days=40_000))
    assert not any(tmp_path.iterdir())
