"""Questions of a check are answered in order, and not without end."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.mailauth.asking import Steps, TooManyQuestions, answered
from mtaq.model.dns import DnsAnswer, Found, Question


async def ask(question: Question) -> DnsAnswer:
    """Answer with the question's own name."""
    await asyncio.sleep(0)
    return DnsAnswer(Found.RECORDS, (question.name,))


async def test_answers_come_in_the_order_of_the_questions() -> None:
    """Questions of one step are asked together and answered in order."""

    def check() -> Steps[list[str]]:
        first = yield [Question("a.test", "A")]
        rest = yield [Question("b.test", "A"), Question("c.test", "A")]
        return [answer.records[0] for answer in (*first, *rest)]

    assert await answered(check(), ask) == ["a.test", "b.test", "c.test"]


async def test_a_check_that_asks_nothing_ends_at_once() -> None:
    """Without questions there is a result all the same."""

    def check() -> Steps[str]:
        yield from ()
        return "none"

    assert await answered(check(), ask) == "none"


async def test_a_check_cannot_ask_without_end() -> None:
    """The bound holds over all steps."""

    def check() -> Steps[None]:
        while True:
            yield [Question("a.test", "A")] * 3

    with pytest.raises(TooManyQuestions):
        await answered(check(), ask, max_questions=10)
