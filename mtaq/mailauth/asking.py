"""Checks that must ask DNS midway are generators; here their questions are answered.

A check yields the questions it cannot go on without, and gets their answers in the same order. It neither waits nor
knows who answers, so it is tested with a dictionary. Whoever runs it bounds the time; the number of questions is
bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import TypeVar

from mtaq.model.dns import Ask, DnsAnswer, Question

T = TypeVar("T")

Steps = Generator[Sequence[Question], Sequence[DnsAnswer], T]
"""A check under way, whose end is a ``T``."""

#: Far more than any honest check needs: SPF at its limits asks about 110 questions (RFC 7208 §4.6.4).
MAX_QUESTIONS = 150


class TooManyQuestions(Exception):
    """A check asks without end."""


async def answered(steps: Steps[T], ask: Ask, *, max_questions: int = MAX_QUESTIONS) -> T:
    """
    Return what *steps* comes to, its questions answered by *ask*; those of one step at the same time.

    Raises:
        TooManyQuestions: It asked for more than *max_questions* altogether.
    """
    asked = 0
    try:
        questions = next(steps)
        while True:
            asked += len(questions)
            if asked > max_questions:
                raise TooManyQuestions(f"more than {max_questions} DNS questions")
            answers = [await ask(questions[0])] if len(questions) == 1 else await asyncio.gather(*map(ask, questions))
            questions = steps.send(answers)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()
