"""What the operator's own code decides about a message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mtaq.model.address import Address
from mtaq.model.decision import Decision, accept, defer, drop, reject
from mtaq.receive.decisions import decide_message
from mtaq.receive.draft import Draft, Dropped, Refusal, SessionFacts
from mtaq.smtp.server_events import Transaction
from tests.unit.receive.fakes import NOW, facts, policy


class Code:
    """A hook and a pipeline that say what a test wants.

    Attributes:
        says: The answer; a dictionary is laid over what was asked.
        asked: What it was asked.
    """

    def __init__(self, says: Decision | dict[str, Any]) -> None:
        self.says = says
        self.asked: list[dict[str, Any]] = []

    async def message(self, message: dict[str, Any]) -> Decision:
        """Answer as told."""
        self.asked.append(message)
        return accept({**message, **self.says}) if isinstance(self.says, dict) else self.says

    run = message

    async def sender(self, session: dict[str, Any]) -> Decision:
        """Accept."""
        return accept()

    recipient = sender


def scene(hook: Code | None = None, pipeline: Code | None = None) -> tuple[Draft, SessionFacts]:
    """Return a draft for one recipient, and a session whose port has these."""
    port = policy()
    port.hook, port.pipeline = hook, pipeline
    session = facts(port)
    transaction = Transaction(reverse_path=None, forward_paths=[Address("grace", "example.com")])
    return Draft.of(transaction, b"Subject: a\r\n\r\n", session, identity="srv.id", now=NOW), session


async def test_without_code_nothing_happens() -> None:
    """A port without hook and pipeline leaves the message as it is."""
    draft, session = scene()
    before = replace(draft)
    await decide_message(draft, session)
    assert draft == before


async def test_the_pipeline_works_on_what_the_hook_left() -> None:
    """Both may change the message; what the first did the second sees."""
    hook, pipeline = Code({"tags": ["a"], "recipients": ["new@example.com"]}), Code({"mime": "Subject: b\r\n\r\n"})
    draft, session = scene(hook, pipeline)
    await decide_message(draft, session)
    assert (pipeline.asked[0]["tags"], pipeline.asked[0]["recipients"]) == (["a"], ["new@example.com"])
    assert draft.content == b"Subject: b\r\n\r\n"
    assert [(one.message_id, str(one.address)) for one in draft.recipients] == [("srv.id.2", "new@example.com")]


@pytest.mark.parametrize(("says", "code"), [(reject("no"), 550), (defer("later"), 451)])
async def test_a_refusal_of_the_hook_ends_it(says: Decision, code: int) -> None:
    """The client hears its words; the pipeline is not asked; the log says which key it was."""
    pipeline = Code(accept())
    draft, session = scene(Code(says), pipeline)
    with pytest.raises(Refusal) as caught:
        await decide_message(draft, session)
    assert (caught.value.reply.code, caught.value.stage) == (code, "hook")
    assert caught.value.reason == f"smtp-hook: {says.text}"
    assert pipeline.asked == []


async def test_a_refusal_of_the_pipeline_is_its_own() -> None:
    """A step that cannot say refuses for now."""
    draft, session = scene(Code(accept()), Code(defer("later")))
    with pytest.raises(Refusal, match="smtp-pipeline: later"):
        await decide_message(draft, session)


@pytest.mark.parametrize("point", ["message", "pipeline"])
async def test_a_drop_says_who_and_where(point: str) -> None:
    """Hook or step are named, for the one line that is logged of it."""
    dropping, passing = Code(replace(drop(), decided_by="exec:///x")), Code(accept())
    draft, session = scene(*((dropping, passing) if point == "message" else (passing, dropping)))
    with pytest.raises(Dropped) as caught:
        await decide_message(draft, session)
    assert (caught.value.hook, caught.value.point) == ("exec:///x", point)
    assert len(passing.asked) == (point == "pipeline")
