"""May this sender, may this recipient?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from mtaq.model.address import Address
from mtaq.model.decision import Decision, accept, defer, reject
from mtaq.model.reply import Reply
from mtaq.receive.domains import DomainCheck
from mtaq.receive.draft import SessionFacts
from mtaq.receive.envelope import Answer, EnvelopeDesk
from mtaq.smtp import codes
from mtaq.smtp.server_events import Mail, Rcpt, Transaction
from tests.unit.receive.fakes import Counts, Domains, ManualBroker, State, event_log, facts, no_evidence, policy

ADA, GRACE, LOCAL = Address("ada", "example.org"), Address("grace", "example.com"), Address("box", "here.test")
NOWHERE, POSTMASTER = Address("x", "nowhere.test"), Address("postmaster", "")


class Hook:
    """Decides as a test wants.

    Attributes:
        decide: From what it is asked.
        asked: What it was asked.
    """

    def __init__(self, decide: Callable[[dict[str, Any]], Decision] = lambda _: accept()) -> None:
        self.decide = decide
        self.asked: list[dict[str, Any]] = []

    async def sender(self, session: dict[str, Any]) -> Decision:
        """Decide."""
        self.asked.append(session)
        return self.decide(session)

    recipient = message = sender


class World:
    """A desk, a session and a transaction."""

    def __init__(self, hook: Hook | None = None, **options: str) -> None:
        events, self.lines = event_log()
        self.state, self.resolver = State(), Domains()
        self.state.local.add(LOCAL)
        self.resolver.unknown.add("nowhere.test")
        self.desk = EnvelopeDesk(
            addresses=self.state, rates=Counts(), domains=DomainCheck(self.resolver),
            evidence=no_evidence(ManualBroker()), events=events, now=lambda: 0.0,
        )  # fmt: skip
        port = policy(**options)
        port.hook = hook
        self.facts: SessionFacts = facts(port)
        self.transaction = Transaction(reverse_path=ADA)

    def sender(self, path: Address | None = ADA) -> Answer:
        """Say MAIL."""
        return self.desk.sender(Mail(path, None, "7bit", smtputf8=False), self.facts)

    def recipient(self, path: Address = GRACE) -> Answer:
        """Say RCPT."""
        return self.desk.recipient(Rcpt(path), self.transaction, self.facts)

    def refusals(self) -> list[tuple[Any, ...]]:
        """Return what was logged of refusals."""
        return [(line["reverse_path"], line.get("forward_path"), line["reply_code"]) for line in self.lines.records]


async def known(answer: Answer) -> Reply:
    """Return the answer, whenever it comes."""
    return answer if isinstance(answer, Reply) else await answer


def test_the_usual_session_needs_nobody() -> None:
    """Without DNS and hooks the answers are there at once."""
    world = World()
    assert world.sender() is codes.SENDER_OK
    assert world.sender(None) is codes.SENDER_OK
    assert world.recipient() is codes.RECIPIENT_OK
    assert world.refusals() == []


def test_the_rate_comes_first() -> None:
    """A client that is too fast is told so before its sender is looked at, and no hook is asked."""
    hook = Hook()
    world = World(hook, smtp_rate_per_ip="1", smtp_sender_domain="resolvable")
    answer = world.sender(NOWHERE)
    assert not isinstance(answer, Reply)
    answer.close()
    assert world.sender(NOWHERE) is codes.RATE_EXCEEDED
    assert hook.asked == []
    assert world.refusals() == [("x@nowhere.test", None, 450)]


@pytest.mark.parametrize(("relay", "answer"), [("authenticated", codes.AUTH_REQUIRED), ("none", codes.RELAY_DENIED)])
def test_who_may_not_relay_reaches_local_addresses_only(relay: Literal["authenticated", "none"], answer: Reply) -> None:
    """Local addresses are for everybody; for others the client is told what would help, if anything would."""
    world = World()
    world.facts.policy.options = replace(world.facts.policy.options, smtp_relay=relay)
    assert world.recipient(LOCAL) is codes.RECIPIENT_OK
    assert world.recipient() is answer
    assert world.refusals() == [("ada@example.org", "grace@example.com", answer.code)]


@pytest.mark.parametrize("hook", [None, Hook()], ids=["alone", "with a hook"])
async def test_domains_must_take_mail_where_that_is_demanded(hook: Hook | None) -> None:
    """Senders and recipients of unknown domains are refused before a hook is asked, local recipients never."""
    world = World(hook, smtp_sender_domain="resolvable", smtp_recipient_domain="resolvable")
    world.state.local.add(Address("box", "nowhere.test"))
    assert await known(world.sender(NOWHERE)) is codes.SENDER_DOMAIN_BAD
    assert await known(world.recipient(NOWHERE)) is codes.RECIPIENT_DOMAIN_BAD
    if hook is not None:
        assert hook.asked == []
    for accepted in (world.sender(), world.sender(None), world.recipient(), world.recipient(POSTMASTER)):
        assert (await known(accepted)).is_positive
    assert (await known(world.recipient(Address("box", "nowhere.test")))).is_positive


@pytest.mark.parametrize("hook", [None, Hook()], ids=["alone", "with a hook"])
async def test_addresses_without_a_domain(hook: Hook | None) -> None:
    """They are refused unless ``any`` is allowed, whether or not somebody else is asked as well."""
    bare = Address("grace", "")
    for demand, is_positive in (("qualified", False), ("any", True)):
        world = World(hook, smtp_sender_domain=demand, smtp_recipient_domain=demand)
        assert (await known(world.sender(bare))).is_positive is is_positive
        assert (await known(world.recipient(bare))).is_positive is is_positive
        assert (await known(world.recipient(POSTMASTER))).is_positive


async def test_what_a_hook_is_asked_and_says() -> None:
    """It sees client and envelope; its words are the reply, and are logged."""
    hook = Hook(lambda asked: reject("no") if asked["hook"] == "sender" else defer("later"))
    world = World(hook)
    assert await known(world.sender()) == Reply(550, "5.7.1", ("no",))
    assert await known(world.recipient()) == Reply(451, "4.7.1", ("later",))
    client = {"ip": "198.51.100.7", "port": 40112, "helo": "client.test", "secure": False}
    assert hook.asked == [
        {"hook": "sender", "client": client, "envelope": "ada@example.org"},
        {"hook": "recipient", "client": client, "envelope": "ada@example.org", "recipient": "grace@example.com"},
    ]
    assert world.refusals() == [("ada@example.org", None, 550), ("ada@example.org", "grace@example.com", 451)]


def test_probes_are_answered_and_send_nothing() -> None:
    """A probe hears the truth about a recipient; its content is refused beforehand."""
    world = World(smtp_probe_senders="ada@example.org")
    assert world.recipient() is codes.RECIPIENT_OK
    assert world.transaction.refusal is codes.PROBES_ONLY
