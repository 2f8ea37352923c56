"""The checks of a message run side by side, and what is silent or broken costs nobody else his result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from mtaq.config.message_checks import CHECKS, Check
from mtaq.receive import checks as module
from mtaq.receive.check_report import Report, words_of
from mtaq.receive.checks import Checks
from tests.unit.receive.checking import CONTENT, HAM, ORIGIN, RECORDS, Dns, Filter
from tests.unit.receive.fakes import Lines, event_log


async def run(
    wanted: Collection[Check] = CHECKS, *, dns: Dns | None = None, spam: Filter | None = None, **how: Any
) -> tuple[Report, Lines]:
    """Check a message, and return what came out and what was logged."""
    events, lines = event_log()
    checks = Checks(dns or Dns(), events=events, timeout_s=how.get("timeout_s", 20.0))
    content, origin = how.get("content", CONTENT), how.get("origin", ORIGIN)
    return await checks.run(content, origin, wanted, spam=spam or Filter()), lines


def words(report: Report) -> dict[str, str]:
    """Return the first word of each check."""
    return {check: items[0][check] for check, items in report.items.items()}


async def test_all_checks() -> None:
    """Each says its word, in the order of the contract, whatever the order of the option."""
    report, _ = await run(("spam", "arc", "iprev", "spf", "dmarc", "dkim"))
    assert list(words(report).items()) == [
        ("spf", "pass"),
        ("dkim", "none"),
        ("dmarc", "pass"),
        ("arc", "none"),
        ("iprev", "pass"),
        ("spam", "ham"),
    ]
    assert report.to_json()[2]["aligned"] == {"spf": True, "dkim": False}
    assert [verdict.method for verdict in report.verdicts()] == ["spf", "dkim", "dmarc", "arc", "iprev", "x-spam"]
    assert words_of(report) == words(report)
    assert words_of(None) == {}


async def test_dmarc_alone() -> None:
    """SPF and DKIM run for it, and are not reported."""
    report, _ = await run(("dmarc",))
    assert words(report) == {"dmarc": "pass"}


async def test_only_what_is_wanted() -> None:
    """Nobody is asked for what nobody wants to know."""
    dns, spam = Dns(), Filter()
    report, _ = await run(("arc",), dns=dns, spam=spam)
    assert (words(report), dns.asked, spam.seen) == ({"arc": "none"}, [], [])
    assert (await run((), dns=dns))[0].to_json() == []


async def test_a_message_that_no_client_handed_over() -> None:
    """What is about the client is left out, the rest is found out."""
    report, _ = await run(origin=replace(ORIGIN, client_ip=None))
    assert list(words(report)) == ["dkim", "arc", "spam"]


async def test_without_a_filter() -> None:
    """Nothing is said of spam where there is nobody to ask."""
    events, _ = event_log()
    report = await Checks(Dns(), events=events).run(CONTENT, ORIGIN, ("spam", "arc"))
    assert words(report) == {"arc": "none"}


async def test_silence_costs_nobody_else() -> None:
    """What is not finished in time is `temperror`; the others keep their results."""
    dns = Dns(silent=frozenset(("example.org",)))
    report, lines = await run(dns=dns, timeout_s=0.05)
    assert words(report) == {
        "spf": "temperror",
        "dkim": "none",
        "dmarc": "temperror",
        "arc": "none",
        "iprev": "pass",
        "spam": "ham",
    }
    assert report.to_json()[0] == {"spf": "temperror", "reason": "not finished in time"}
    told = [(line["check"], line["reason"]) for line in lines.records if line["event"] == "check.undecided"]
    assert told == [("spf", "not finished in time"), ("dmarc", "not finished in time")]


async def test_a_silent_filter() -> None:
    """Neither does a spam filter hold up anything."""
    report, _ = await run(spam=Filter(None), timeout_s=0.05)
    assert words(report)["spam"] == "temperror"
    assert words(report)["dmarc"] == "pass"


async def test_a_failure_of_dns() -> None:
    """It is `temperror` of the checks that needed the answer, with its reason in the log."""
    report, lines = await run(("spf", "dmarc"), dns=Dns(failing=frozenset(("example.org",))))
    assert words(report) == {"spf": "temperror", "dmarc": "temperror"}
    assert [line["check"] for line in lines.records] == ["spf", "dmarc"]


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        ("check_spf", "spf"),
        ("check_iprev", "iprev"),
        ("check_arc", "arc"),
        ("check_dkim", "dkim"),
        ("find_policy", "dmarc"),
        ("judge", "dmarc"),
    ],
)
async def test_a_bug_in_a_check(broken: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, is `temperror`, and costs no other check its result, except that DMARC needs DKIM."""

    def breaking(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(module, broken, breaking)
    report, lines = await run()
    hit = {check, "dmarc"} if check in ("dkim", "spf") else {check}
    assert {name for name, word in words(report).items() if word == "temperror"} == hit
    assert [line["event"] for line in lines.records].count("bug") == 1


async def test_dmarc_of_a_good_signature_when_spf_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no policy is published, SPF does not matter."""
    monkeypatch.setattr(module, "check_spf", lambda **_: 1 / 0)
    records = {key: value for key, value in RECORDS.items() if key[0] != "_dmarc.example.org"}
    report, _ = await run(("dmarc",), dns=Dns(records))
    assert words(report) == {"dmarc": "none"}


async def test_a_session_that_ends() -> None:
    """Whoever stops waiting leaves no check behind."""
    before = asyncio.all_tasks()
    running = asyncio.create_task(run(dns=Dns(silent=frozenset(("example.org",)))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_large_content_is_read_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says the same, beside the loop, and only a few are read at once."""
    at_once, most, lock = 0, 0, threading.Lock()
    read = module._read_signed

    def counted(content: bytes, *, dkim: bool, arc: bool) -> Any:
        nonlocal at_once, most
        assert threading.current_thread() is not threading.main_thread()
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return read(content, dkim=dkim, arc=arc)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(module, "_read_signed", counted)
    events, _ = event_log()
    checks = Checks(Dns(), events=events)
    content = CONTENT + b"x" * 76 * 1000 + b"\r\n"
    reports = await asyncio.gather(*(checks.run(content, ORIGIN, ("dkim", "arc", "dmarc")) for _ in range(20)))
    assert {tuple(words(report).items()) for report in reports} == {
        (("dkim", "none"), ("dmarc", "pass"), ("arc", "none"))
    }
    assert 1 <= most <= module.LARGE_AT_ONCE


async def test_a_thread_keeps_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that nobody waits for any more still counts, until it has ended."""
    held, began = threading.Event(), threading.Event()

    def held_up(*_: object, **__: object) -> None:
        began.set()
        held.wait(30)

    monkeypatch.setattr(module, "_read_signed", held_up)
    monkeypatch.setattr(module, "is_large", lambda _: True)
    events, _ = event_log()
    checks = Checks(Dns(), events=events, timeout_s=0.05)
    try:
        results = await asyncio.gather(*(checks.run(CONTENT, ORIGIN, ("dkim",)) for _ in range(3)))
        assert [words(report) for report in results] == [{"dkim": "temperror"}] * 3
        assert began.is_set()
        assert checks._room.locked()
    finally:
        held.set()
    for _ in range(200):
        if not checks._room.locked():
            break
        await asyncio.sleep(0.01)
    assert not checks._room.locked()


async def test_the_content_stays() -> None:
    """The filter sees the octets that came."""
    spam = Filter(HAM)
    await run(("spam",), spam=spam)
    assert spam.seen == [CONTENT]
