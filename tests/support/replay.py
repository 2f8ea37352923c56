"""A check of somebody else's, which calls a function to look things up, made into one that yields its questions.

It is run until it asks something unknown, left by an exception that its own handlers should not catch, and run again
from the start with the answer. Nothing waits and no thread is needed; the price is that it runs once more for each
question, so it must have no effects, and it must ask the same in every run. A check that catches everything does no
harm: what it came to without an answer is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mtaq.mailauth.asking import Steps
from mtaq.model.dns import DnsAnswer, Question

T = TypeVar("T")

LookUp = Callable[[Question], DnsAnswer]
"""Returns the answer to a question that was answered before, or leaves the check with ``Unanswered``."""


class Unanswered(BaseException):
    """The check must stop here. No ``Exception``, so that it passes the handlers that libraries have for those."""


def replayed(check: Callable[[LookUp], T]) -> Steps[T]:
    """
    Return what *check* returns, or raise what it raises, with all it looks up answered.

    Args:
        check: Given the function that it looks up names with. Where a library can only be given one by a variable of
            its module, *check* sets it and puts it back before it returns or raises.
    """
    known: dict[Question, DnsAnswer] = {}
    while True:
        run = _Run(known)
        try:
            result = check(run.look_up)
        except BaseException:
            if run.missing is None:
                raise
        else:
            if run.missing is None:
                return result
        (known[run.missing],) = yield (run.missing,)


class _Run:
    """One run, up to the first question without an answer."""

    def __init__(self, known: dict[Question, DnsAnswer]) -> None:
        self._known = known
        self.missing: Question | None = None

    def look_up(self, question: Question) -> DnsAnswer:
        question = Question(question.name.lower().rstrip("."), question.kind)
        answer = self._known.get(question)
        if answer is not None and self.missing is None:
            return answer
        if self.missing is None:
            self.missing = question
        raise Unanswered
