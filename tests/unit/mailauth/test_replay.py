"""Checks that look up by calling, run again for every answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mtaq.mailauth.asking import Steps
from mtaq.mailauth.replay import LookUp, replayed
from mtaq.model.dns import DnsAnswer, Found, Question

YES = DnsAnswer(Found.RECORDS, ((b"yes",),))
NO = DnsAnswer(Found.NO_NAME)


def run(steps: Steps[Any], answers: dict[str, DnsAnswer]) -> tuple[Any, list[Question]]:
    """Return what *steps* comes to and what it asked."""
    asked: list[Question] = []
    try:
        questions: Sequence[Question] = next(steps)
        while True:
            asked += questions
            questions = steps.send([answers[question.name] for question in questions])
    except StopIteration as end:
        return end.value, asked


def names(*wanted: str) -> Callable[[LookUp], list[Found]]:
    return lambda look_up: [look_up(Question(name, "TXT")).found for name in wanted]


def test_every_name_is_asked_once_and_in_order() -> None:
    """A check that looks up three names, one of them twice, yields three questions."""
    result, asked = run(
        replayed(names("a.test", "b.test", "a.test", "c.test")), dict.fromkeys(("a.test", "b.test", "c.test"), YES)
    )
    assert result == [Found.RECORDS] * 4
    assert asked == [Question(name, "TXT") for name in ("a.test", "b.test", "c.test")]


def test_case_and_last_dot_make_no_new_name() -> None:
    """``A.test.`` and ``a.test`` are one question."""
    _, asked = run(replayed(names("A.test.", "a.test")), {"a.test": YES})
    assert asked == [Question("a.test", "TXT")]


def test_a_check_that_asks_nothing_ends_at_once() -> None:
    """Without questions nothing is yielded."""
    assert run(replayed(lambda _: 5), {}) == (5, [])


def test_an_error_of_the_check_comes_out() -> None:
    """What the check raises with all answers known is raised."""

    def check(look_up: LookUp) -> None:
        look_up(Question("a.test", "TXT"))
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        run(replayed(check), {"a.test": YES})


@pytest.mark.parametrize("handler", [Exception, BaseException])
def test_a_check_that_catches_everything_gets_its_answer_all_the_same(handler: type[BaseException]) -> None:
    """A handler that swallows the stop changes neither the questions nor the result."""

    def check(look_up: LookUp) -> list[Found | None]:
        found: list[Found | None] = []
        for name in ("a.test", "b.test"):
            try:
                found.append(look_up(Question(name, "TXT")).found)
            except handler:
                found.append(None)
        return found

    result, asked = run(replayed(check), {"a.test": YES, "b.test": NO})
    assert result == [Found.RECORDS, Found.NO_NAME]
    assert [question.name for question in asked] == ["a.test", "b.test"]
