"""What comes out when a filter answers, is silent, fails, or is asked too much."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.mailauth.spam import SpamResult
from mtaq.spam import filter as module
from mtaq.spam.filter import SpamFilter
from tests.unit.spam.fakes import ORIGIN, Scripted

HAM = SpamResult("ham", "scripted", 1.0, 5.0)


async def judged(engine: Scripted, content: bytes = b"x", timeout_s: float = 5.0) -> tuple[SpamResult, list[str]]:
    told: list[str] = []
    asked = SpamFilter(
        engine, on_unavailable=lambda name, reason: told.append(f"{name}: {reason}"), timeout_s=timeout_s
    )
    return await asked.judge(content, ORIGIN), told


async def test_an_answer_is_passed_on() -> None:
    """What the filter says is what comes out."""
    assert await judged(Scripted(HAM)) == (HAM, [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "refused"), "scripted: [Errno 111] refused"),
        (TimeoutError(), "scripted: no answer in time"),
        (RuntimeError("the content"), "scripted: a bug: RuntimeError"),
    ],
)
async def test_a_failing_filter_is_temperror(error: Exception, reason: str) -> None:
    """Whatever goes wrong in asking is nobody's yes or no, and is told without the content."""
    result, told = await judged(Scripted(error))
    assert result.word == "temperror"
    assert result.to_json() == [
        {"spam": "temperror", "engine": "scripted", "reason": "the filter did not answer"},
    ]
    assert told == [reason]


async def test_a_silent_filter_is_temperror() -> None:
    """Waiting ends."""
    result, told = await judged(Scripted(None), timeout_s=0.01)
    assert (result.word, told) == ("temperror", ["scripted: no answer in time"])


async def test_large_content_is_not_shown() -> None:
    """What is larger than the filter takes is `none` with the reason, and nobody is asked."""
    engine = Scripted(HAM, max_bytes=10)
    result, told = await judged(engine, b"x" * 11)
    assert (result.word, result.reason, told, engine.seen) == ("none", "larger than 10 bytes", [], [])
    assert (await judged(engine, b"x" * 10))[0] == HAM


@pytest.mark.parametrize(("size", "most"), [(10, module.AT_ONCE), (module.LARGE_BYTES + 1, module.LARGE_AT_ONCE)])
async def test_a_flood_waits_its_turn(size: int, most: int) -> None:
    """Only so many messages are with the filter at once, large ones fewer."""
    engine = Scripted(HAM, max_bytes=2**20)
    asked = SpamFilter(engine, on_unavailable=lambda name, reason: None)
    content = b"x" * size
    results = await asyncio.gather(*(asked.judge(content, ORIGIN) for _ in range(3 * module.AT_ONCE)))
    assert set(results) == {HAM}
    assert engine.most_at_once == most
