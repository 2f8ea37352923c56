"""Attempts to log in: what is answered, counted and logged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mtaq.limits.clients import client_key
from mtaq.model.login import Verdict
from mtaq.receive.clients import Misdeeds
from mtaq.receive.draft import SessionFacts
from mtaq.receive.logins import LoginDesk
from mtaq.smtp import codes
from mtaq.smtp.scram import ScramKeys, fake_keys
from mtaq.smtp.server_events import Login, LoginProved, ScramKeysWanted
from tests.unit.receive.fakes import Counts, Lines, State, event_log, facts, policy

LOGIN = Login("PLAIN", "ada", "hunter2")
WANTED = ScramKeysWanted("SCRAM-SHA-256", "ada")


class BackEnds:
    """Says what a test wants.

    Attributes:
        verdict: About everybody.
        asked: Who was asked for.
    """

    knows_passwords = True

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked: list[tuple[str, ...]] = []

    async def check(self, user: str, password: str, *, client_ip: str) -> Verdict:
        """Answer as told."""
        self.asked.append((user, password, client_ip))
        return self.verdict

    async def scram_keys(self, user: str) -> ScramKeys | None:
        """Know everybody."""
        self.asked.append((user,))
        return fake_keys(user, secret=b"")


class World:
    """A desk and all around it."""

    def __init__(self, verdict: Verdict = Verdict.REFUSED, *, failure_delay_s: float = 0.0, **options: str) -> None:
        events, self.lines = event_log()
        self.state, self.counts, self.back_ends = State(), Counts(), BackEnds(verdict)
        misdeeds = Misdeeds(counts=self.counts, state=self.state, now=lambda: 0.0)
        self.desk = LoginDesk(misdeeds=misdeeds, events=events, failure_delay_s=failure_delay_s)
        self.facts: SessionFacts = facts(policy(**({"smtp_auth_failures": "2"} | options)))

    async def say(self, event: Login | ScramKeysWanted | LoginProved) -> Any:
        """Return the desk's answer."""
        return await self.desk.respond(event, self.back_ends, self.facts)


def logged(lines: Lines) -> list[dict[str, Any]]:
    """Return what was logged, without what every line has."""
    return [{k: v for k, v in record.items() if k not in ("at", "level", "node")} for record in lines.records]


@pytest.mark.parametrize(
    ("verdict", "answer", "event"),
    [
        (Verdict.ACCEPTED, codes.LOGGED_IN, "login.accepted"),
        (Verdict.REFUSED, codes.LOGIN_FAILED, "login.refused"),
        (Verdict.UNAVAILABLE, codes.NO_LOGIN_NOW, "login.unavailable"),
    ],
)
async def test_what_back_ends_say(verdict: Verdict, answer: object, event: str) -> None:
    """Yes, no, and nobody knows; the user is logged only when it is one, the password never."""
    world = World(verdict)
    assert await world.say(LOGIN) == answer
    assert world.back_ends.asked == [("ada", "hunter2", "198.51.100.7")]
    line = {"event": event, "session_id": "s-1", "peer_ip": "198.51.100.7", "mechanism": "PLAIN"}
    assert logged(world.lines) == [line | ({"user": "ada"} if verdict is Verdict.ACCEPTED else {})]


async def test_a_back_end_that_is_down_is_nobodys_failure() -> None:
    """Clients that try again and again meanwhile are not shut out."""
    world = World(Verdict.UNAVAILABLE)
    assert [await world.say(LOGIN) for _ in range(5)] == [codes.NO_LOGIN_NOW] * 5
    assert world.counts.counts == {}


async def test_too_many_failures() -> None:
    """The last one is told so and blocks; from then on nobody is asked, right password or not, by any mechanism."""
    world = World()
    assert [await world.say(LOGIN) for _ in range(2)] == [codes.LOGIN_FAILED, codes.TOO_MANY_LOGINS]
    assert world.state.added == [("198.51.100.7", "2 failed logins")]
    world.back_ends.verdict = Verdict.ACCEPTED
    asked = len(world.back_ends.asked)
    assert await world.say(LOGIN) == codes.TOO_MANY_LOGINS
    assert await world.say(WANTED) == codes.TOO_MANY_LOGINS
    assert len(world.back_ends.asked) == asked


async def test_without_protection_the_session_ends_all_the_same() -> None:
    """Too many failures are answered 421, but nobody is put on the list."""
    world = World(smtp_protection="false")
    assert [await world.say(LOGIN) for _ in range(2)] == [codes.LOGIN_FAILED, codes.TOO_MANY_LOGINS]
    assert world.state.added == []


async def test_scram() -> None:
    """Keys are handed on; a proof is a login like any other, and a wrong one a failure like any other."""
    world = World()
    assert await world.say(WANTED) == fake_keys("ada", secret=b"")
    assert await world.say(LoginProved("SCRAM-SHA-256", "ada", ok=True)) == codes.LOGGED_IN
    assert await world.say(LoginProved("SCRAM-SHA-256", "ada", ok=False)) == codes.LOGIN_FAILED
    assert await world.say(LoginProved("SCRAM-SHA-256", "ada", ok=False)) == codes.TOO_MANY_LOGINS
    assert [line.get("user") for line in logged(world.lines)] == ["ada", None, None]


async def test_a_failure_is_counted_before_its_answer_is_delayed() -> None:
    """Who leaves without waiting for the answer has failed all the same."""
    world = World(failure_delay_s=600.0)
    asking = asyncio.create_task(world.say(LOGIN))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asking.done()
    assert world.counts.counts == {b"login " + client_key("198.51.100.7"): 1}
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
