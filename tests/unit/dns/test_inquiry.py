"""A check has a few questions at a time, and answers until its time is over."""

from __future__ import annotations

import asyncio

from mtaq.dns.inquiry import Inquiry
from mtaq.model.dns import DnsAnswer, Found, Question

ANSWER = DnsAnswer(Found.RECORDS, ("127.0.0.1",))
QUESTION = Question("a.test", "A")


async def test_no_answer_in_time_is_a_failure() -> None:
    """A silent name fails when the time is over, whether it was asked or still waited for its turn."""

    async def silent(question: Question) -> DnsAnswer:
        await asyncio.Event().wait()
        return ANSWER

    inquiry = Inquiry(silent, timeout_s=0.01, at_once=1)
    answers = await asyncio.gather(inquiry.ask(QUESTION), inquiry.ask(QUESTION))
    assert [answer.found for answer in answers] == [Found.FAILED] * 2


async def test_silence_leaves_time_for_others() -> None:
    """One silent question after the other, and there is still time for one that is answered."""

    async def ask(question: Question) -> DnsAnswer:
        await (asyncio.Event().wait() if question.name == "silent.test" else asyncio.sleep(0))
        return ANSWER

    inquiry = Inquiry(ask, timeout_s=0.5)
    for _ in range(3):
        assert (await inquiry.ask(Question("silent.test", "A"))).found is Found.FAILED
    assert await inquiry.ask(QUESTION) == ANSWER


async def test_what_is_known_is_answered_even_late() -> None:
    """An answer that needs no waiting comes after the time as well."""

    async def known(question: Question) -> DnsAnswer:
        return ANSWER

    assert await Inquiry(known, timeout_s=0).ask(QUESTION) == ANSWER


async def test_a_few_at_a_time() -> None:
    """No more than `at_once` questions of a check are open."""
    open_now, most = 0, 0

    async def count(question: Question) -> DnsAnswer:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return ANSWER

    inquiry = Inquiry(count, timeout_s=30, at_once=3)
    assert await asyncio.gather(*(inquiry.ask(QUESTION) for _ in range(20))) == [ANSWER] * 20
    assert most == 3
