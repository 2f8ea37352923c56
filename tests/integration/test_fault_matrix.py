"""Every fault at every stage, on the first message of a connection and on a reused one.

Each cell delivers to a real sink that misbehaves on its first connection only. It asserts where and how the attempt
ended, whether it counted, that the message arrives exactly once in the end, and that no connection is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mtaq.deliver.dispatch import CONNECTIONS, READY
from mtaq.net.tls import client_context
from tests.support.delivery import PATIENCE_S, World, options, outbox_json, surroundings
from tests.support.running_sink import SinkHere, scripted

#: Short enough for a test that waits for it; everything else has longer.
SOON_S = 0.5
#: The time-out that ends a stalled stage.
PHASES = {
    "connect": "banner", "ehlo": "ehlo", "starttls": "tls", "handshake": "tls", "auth": "auth", "rset": "mail",
    "mail": "mail", "rcpt": "rcpt", "data": "data", "content": "block", "message": "dot",
}  # fmt: skip
SECRET = "pa-ss-word"
#: So much that neither kernel holds it between us and a sink that reads no more.
LARGE = "Subject: large\r\n\r\n" + ("x" * 998 + "\r\n") * 20_000


class Fault(NamedTuple):
    """What happens at a stage, and how an attempt ends by it."""

    answer: str
    result: str
    code: int | None
    status: str


FAULTS = {
    "drop": Fault("drop", "lost", None, "4.4.2"),
    "reset": Fault("reset", "lost", None, "4.4.2"),
    "stall": Fault("stall", "timeout", None, "4.4.2"),
    "noise": Fault("noise", "invalid", None, "4.5.0"),
    "NULs": Fault("nul", "invalid", None, "4.5.0"),
    "10,000 lines": Fault("lines", "invalid", None, "4.5.0"),
    "endless lines": Fault("endless", "invalid", None, "4.5.0"),
    "endless line": Fault("line", "invalid", None, "4.5.0"),
    "421": Fault("421 4.3.2 going away", "error", 421, "4.3.2"),
}
FEW = {name: FAULTS[name] for name in ("drop", "stall", "noise", "421")}


def gauges() -> tuple[float, float]:
    """Connections and waiting messages of all services in this process."""
    return tuple(sum(sample.value for sample in gauge.collect()[0].samples) for gauge in (CONNECTIONS, READY))  # type: ignore[return-value]


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


class Cell:
    """A delivery service, and a sink that it delivers to."""

    def __init__(self, world: World, sink: SinkHere, before: tuple[float, float]) -> None:
        self.world = world
        self.sink = sink
        self.sink_is_blind = False  # what does not read cannot notice that the other side has closed
        self._before = before

    async def hand_out(self, *messages: Any) -> None:
        """Hand out all at once, and wait until each is settled."""
        consumed = [self.world.queues.hand_out(message) for message in messages]
        for each in consumed:
            assert await each.outcome() == "ack"

    def deferred(self) -> dict[str, Any]:
        """Return the result of the one message that is to be tried again."""
        [back], [copy] = self.world.queues.stored["outbox"], self.world.queues.stored["retry"]
        assert back.delay_s > 0
        assert back.json["results"] == copy.json["results"]
        assert not self.world.queues.stored["failure"]
        return dict(copy.json["results"][-1])

    async def try_again(self) -> None:
        """Hand out what was put back, at its time."""
        [back] = self.world.queues.stored.pop("outbox")
        self.world.clock.forward(back.delay_s)
        await self.hand_out(back.json)

    def assert_once(self, *recipients: str) -> None:
        """Each message was taken once, and reported once."""
        taken = Counter(path for note in self.sink.notes() for path in note["forward-paths"])
        assert taken == Counter(recipients)
        told = Counter(stored.json["recipient"] for stored in self.world.queues.stored["success"])
        assert told == Counter(recipients)

    def results(self, recipient: str) -> list[dict[str, Any]]:
        """Return the results of a message that arrived."""
        [found] = [
            stored.json["results"]
            for stored in self.world.queues.stored["success"]
            if stored.json["recipient"] == recipient
        ]
        return list(found)

    async def assert_no_leak(self) -> None:
        """Nothing is open: not here, not there, and the numbers say so."""
        await wait_until(lambda: not self.world.slots.held and gauges() == self._before)
        if self.sink_is_blind:
            return
        await wait_until(lambda: not self.sink.open)
        opened, closed = (
            Counter(line["connection"] for line in self.sink.lines(event)) for event in ("opened", "closed")
        )
        assert opened == closed


@asynccontextmanager
async def cell(folder: Path, script: str, around: Any = None, **changes: Any) -> AsyncIterator[Cell]:
    """A site with one connection at a time, which is closed when there is no work."""
    before = gauges()
    usual = {"delivery_connections_per_site": 1, "delivery_idle": 0}
    async with scripted(folder, f"hostname: mx.example.com\nsize: 100MB\n{script}\n") as sink:
        extra = {"surroundings": around} if around is not None else {}
        async with World(options=options(delivery_port=sink.port, **(usual | changes)), **extra) as world:
            world.resolver.add("example.com", (10, "mx.example.com", "127.0.0.1"))
            made = Cell(world, sink, before)
            yield made
            await made.assert_no_leak()


def patience(fault: Fault, stage: str) -> dict[str, Any]:
    """Return time-outs: a short one only where somebody has to wait for it."""
    if fault.result != "timeout":
        return {}
    phase = PHASES[stage.partition(" ")[0]]
    return {"delivery_timeouts": options().delivery_timeouts._replace(**{phase: SOON_S})}


def ending(result: dict[str, Any]) -> tuple[str, str, int | None, str]:
    """Return what a cell is about."""
    return result["state"], result["result"], result.get("code"), result["status"]


# The first message of a connection

CLEAR = {"connect": "intro", "ehlo": "ehlo", "mail": "mailfrom", "rcpt": "rcptto", "data": "data", "message": "message"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", CLEAR)
async def test_first_message(tmp_path: Path, stage: str, fault: str) -> None:
    """The attempt ends where the fault was, counts, and the next one delivers the message, once."""
    what = FAULTS[fault]
    script = f"{stage} connection=1: {what.answer}"
    async with cell(tmp_path, script, **patience(what, stage)) as trial:
        await trial.hand_out(outbox_json())
        result = trial.deferred()
        if (stage, fault) == ("connect", "reset") and result["state"] == "connect":
            assert (result["result"], result["status"]) == ("error", "4.4.1")  # before we knew to be connected
        else:
            assert ending(result) == (CLEAR[stage], what.result, what.code, what.status)
        assert result["attempt"] == 1
        assert trial.sink.notes() == []
        assert len(trial.sink.lines("opened")) == 1
        await trial.try_again()
        assert [each["attempt"] for each in trial.results("bob@example.com")] == [1, 2]
        trial.assert_once("bob@example.com")


MIDDLE = {
    **FEW,
    "reset": FAULTS["reset"],
    "452": Fault("452 4.3.1 enough", "error", 452, "4.3.1"),
}


@pytest.mark.parametrize("reused", [False, True], ids=["first", "reused"])
@pytest.mark.parametrize("fault", MIDDLE)
async def test_in_the_middle_of_content(tmp_path: Path, fault: str, reused: bool) -> None:
    """What happens before everything is sent, happens at ``data``; nothing was delivered."""
    what = MIDDLE[fault]
    script = f"content connection=1 message={1 + reused}: after 1000, {what.answer}"
    async with cell(tmp_path, script, **patience(what, "content")) as trial:
        trial.sink_is_blind = fault == "stall"
        first = [outbox_json("ada@example.com")] if reused else []
        await trial.hand_out(*first, outbox_json(mime=LARGE))
        result = trial.deferred()
        assert ending(result) == ("data", what.result, what.code, what.status)
        assert result["messages"] == 1 + reused
        assert result["sent"]["data"] < len(LARGE)
        await trial.try_again()
        trial.assert_once(*(["ada@example.com"] if reused else []), "bob@example.com")


async def test_an_early_final_no_is_final(tmp_path: Path) -> None:
    """5yz in the middle of content fails the message, which is not tried again."""
    async with cell(tmp_path, "content: after 1000, 552 5.3.4 enough") as trial:
        await trial.hand_out(outbox_json(mime=LARGE))
        assert ending(trial.world.result("failure")) == ("data", "error", 552, "5.3.4")
        assert not trial.world.queues.stored["outbox"]


async def test_a_lost_answer_to_the_final_dot_is_not_tried_again_within_the_attempt(tmp_path: Path) -> None:
    """Whether it was taken cannot be known: one copy in this attempt; RFC 5321 §4.5.3.2.6."""
    async with cell(tmp_path, "message connection=1: keep, drop") as trial:
        await trial.hand_out(outbox_json())
        assert ending(trial.deferred()) == ("message", "lost", None, "4.4.2")
        assert len(trial.sink.notes()) == len(trial.sink.lines("opened")) == 1


async def test_what_was_accepted_stays_accepted(tmp_path: Path) -> None:
    """A connection that ends, or a peer that goes on talking, behind the 250 changes nothing."""
    for number, answer in enumerate(("close, 250 2.0.0 queued", "unasked, 250 2.0.0 queued")):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with cell(folder, f"message connection=1: {answer}") as trial:
            await trial.hand_out(outbox_json(), outbox_json("ada@example.com"))
            trial.assert_once("ada@example.com", "bob@example.com")
            assert [len(trial.results(f"{name}@example.com")) for name in ("ada", "bob")] == [1, 1]


async def test_nobody_listens(tmp_path: Path) -> None:
    """A refused connection is ``connect``/``error``, transient."""
    async with cell(tmp_path, "") as trial:
        trial.world.resolver.add("example.com", (10, "mx.example.com", "127.0.0.99"))
        await trial.hand_out(outbox_json())
        assert ending(trial.deferred()) == ("connect", "error", None, "4.4.1")
        trial.world.resolver.add("example.com", (10, "mx.example.com", "127.0.0.1"))
        await trial.try_again()
        trial.assert_once("bob@example.com")


# A reused connection

REUSED = {"rcpt": "rcptto", "data": "data", "message": "message"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", REUSED)
async def test_reused_connection(tmp_path: Path, stage: str, fault: str) -> None:
    """The second message of a connection ends as the first one of another would; the first is not touched."""
    what = FAULTS[fault]
    async with cell(tmp_path, f"{stage} connection=1 message=2: {what.answer}", **patience(what, stage)) as trial:
        await trial.hand_out(outbox_json("ada@example.com"), outbox_json())
        result = trial.deferred()
        assert ending(result) == (REUSED[stage], what.result, what.code, what.status)
        assert (result["attempt"], result["messages"]) == (1, 2)
        trial.assert_once("ada@example.com")
        await trial.try_again()
        trial.assert_once("ada@example.com", "bob@example.com")


@pytest.mark.parametrize("fault", FAULTS)
async def test_reused_connection_at_mail(tmp_path: Path, fault: str) -> None:
    """Lost or told to go before anything was at risk: a new connection at once, and no attempt is counted."""
    what = FAULTS[fault]
    script = f"mail connection=1 message=2: {what.answer}"
    async with cell(tmp_path, script, **patience(what, "mail")) as trial:
        await trial.hand_out(outbox_json("ada@example.com"), outbox_json())
        if fault not in ("drop", "reset", "421"):
            assert ending(trial.deferred()) == ("mailfrom", what.result, what.code, what.status)
            await trial.try_again()
        else:
            [result] = trial.results("bob@example.com")
            assert (result["attempt"], result["messages"]) == (1, 1)
            assert trial.world.queues.stored["retry"] == []
        assert len(trial.sink.lines("opened")) == 2
        trial.assert_once("ada@example.com", "bob@example.com")


@pytest.mark.parametrize("fault", ["drop", "reset", "421", "stall", "noise"])
async def test_reused_connection_at_rset(tmp_path: Path, fault: str) -> None:
    """Behind a message that was refused, RSET is what finds out that the connection is of no use."""
    what = FAULTS[fault]
    script = f"rcpt to=ada@*: 550 5.1.1 no such user\nrset connection=1: {what.answer}"
    async with cell(tmp_path, script, **patience(what, "rset")) as trial:
        await trial.hand_out(outbox_json("ada@example.com"), outbox_json())
        [failure] = trial.world.queues.stored.pop("failure")
        assert ending(failure.json["results"][-1]) == ("rcptto", "error", 550, "5.1.1")
        if fault in ("stall", "noise"):
            assert ending(trial.deferred()) == ("mailfrom", what.result, what.code, what.status)
            await trial.try_again()
        trial.assert_once("bob@example.com")
        assert len(trial.sink.lines("opened")) == 2


IDLE = {
    "drop": "drop",
    "reset": "reset",
    "421": "421 4.4.2 silent for too long",
    "something": "250 2.0.0 hello?",
    "noise": "noise",
    "endless line": "line",
}


@pytest.mark.parametrize("fault", IDLE)
async def test_idle_connection(tmp_path: Path, fault: str) -> None:
    """What happens while nothing is under way is noticed; the next message goes over a new connection."""
    async with cell(tmp_path, f"idle connection=1: {IDLE[fault]}", delivery_idle=20) as trial:
        await trial.hand_out(outbox_json("ada@example.com"))
        await wait_until(lambda: not trial.sink.open)
        await trial.hand_out(outbox_json())
        assert len(trial.sink.lines("opened")) == 2
        assert trial.world.queues.stored["retry"] == []
        trial.assert_once("ada@example.com", "bob@example.com")
        await trial.world.service.stop(grace_s=0.2)


# TLS

TLS_FAULTS = {**FEW, "reset": FAULTS["reset"], "10,000 lines": FAULTS["10,000 lines"]}
HANDSHAKE = {
    "drop": Fault("drop", "lost", None, "4.4.2"),
    "reset": Fault("reset", "lost", None, "4.4.2"),
    "stall": Fault("stall", "timeout", None, "4.4.2"),
    "noise": Fault("noise", "error", None, "4.7.0"),
    "in clear": Fault("plaintext", "error", None, "4.7.0"),
}
SECURE = [
    *(("starttls", "starttls", fault) for fault in TLS_FAULTS.values()),
    *(("handshake", "starttls", fault) for fault in HANDSHAKE.values()),
    *(("ehlo tls=yes", "ehlo", fault) for fault in TLS_FAULTS.values()),
]


def named(value: object) -> str:
    return value.answer.partition(" ")[0] if isinstance(value, Fault) else str(value)


@pytest.mark.parametrize(("stage", "state", "what"), SECURE, ids=named)
async def test_tls_that_is_required(tmp_path: Path, stage: str, state: str, what: Fault) -> None:
    """TLS that breaks defers; nothing goes in clear."""
    script = f"certificate: self-signed\n{stage} connection=1: {what.answer}"
    async with cell(tmp_path, script, delivery_security="required", **patience(what, stage)) as trial:
        await trial.hand_out(outbox_json())
        result = trial.deferred()
        assert ending(result) == (state, what.result, what.code, what.status)
        assert len(trial.sink.lines("opened")) == 1
        await trial.try_again()
        trial.assert_once("bob@example.com")
        assert all(note["tls"] for note in trial.sink.notes())


@pytest.mark.parametrize(("stage", "state", "what"), SECURE, ids=named)
async def test_tls_that_is_only_wished_for(tmp_path: Path, stage: str, state: str, what: Fault) -> None:
    """TLS that breaks is left out on a new connection, in the same attempt; a host that says 421 is believed."""
    script = f"certificate: self-signed\n{stage} connection=1: {what.answer}"
    async with cell(tmp_path, script, **patience(what, stage)) as trial:
        await trial.hand_out(outbox_json())
        if what.code == 421:
            assert ending(trial.deferred()) == (state, "error", 421, "4.3.2")
            await trial.try_again()
        else:
            [result] = trial.results("bob@example.com")
            assert result["attempt"] == 1
            assert "cipher" not in result
        trial.assert_once("bob@example.com")
        assert len(trial.sink.lines("opened")) == 2


@pytest.mark.parametrize("security", ["opportunistic", "required"])
async def test_starttls_refused(tmp_path: Path, security: str) -> None:
    """454 is taken for "no TLS": in clear where that is allowed, on the same connection; else deferred."""
    script = "certificate: self-signed\nstarttls connection=1: 454 4.7.0 not now"
    async with cell(tmp_path, script, delivery_security=security) as trial:
        await trial.hand_out(outbox_json())
        if security == "required":
            assert trial.deferred()["state"] == "starttls"
            await trial.try_again()
        trial.assert_once("bob@example.com")
        assert [bool(note["tls"]) for note in trial.sink.notes()] == [security == "required"]


@pytest.mark.parametrize("kind", ["good", "wrong-name", "expired", "self-signed"])
@pytest.mark.parametrize("security", ["opportunistic", "required", "verified"])
async def test_certificates(tmp_path: Path, kind: str, security: str) -> None:
    """Who wants a verified host takes the good one only, and defers; who does not, takes any and says so."""
    async with cell(tmp_path, f"certificate: {kind}", delivery_security=security) as trial:
        trial.sink.authority.write(tmp_path / "ca.pem")
        verified = client_context(verified=True, authorities=tmp_path / "ca.pem")
        around = surroundings(verified=verified)
        async with World(options=trial.world.options, surroundings=around) as world:
            world.resolver.add("example.com", (10, "mx.example.com", "127.0.0.1"))
            await world.deliver(outbox_json())
            if security == "verified" and kind != "good":
                assert ending(world.result("retry")) == ("starttls", "error", None, "4.7.0")
                assert world.result("retry")["category"] == "tls"
                assert trial.sink.notes() == []
            else:
                result = world.result("success")
                assert result["certificate"]["verified"] is (security == "verified")
                assert trial.sink.notes()[0]["tls"]["version"] == "TLSv1.3"
            assert len(trial.sink.lines("opened")) == 1


# Logging in


@pytest.mark.parametrize("fault", [*TLS_FAULTS, "535"])
async def test_logging_in(tmp_path: Path, fault: str) -> None:
    """Whatever goes wrong with a login is transient, and the password is nowhere to be read."""
    what = TLS_FAULTS.get(fault) or Fault("535 5.7.8 no", "error", 535, "5.7.8")
    script = f"certificate: self-signed\nlogin: ada:{SECRET}\nauth connection=1: {what.answer}"
    async with cell(tmp_path, script, delivery_allow_private=False, **patience(what, "auth")) as trial:
        smarthost = {"hostname": "127.0.0.1", "port": trial.sink.port, "username": "ada", "password": SECRET}
        await trial.hand_out(outbox_json(smarthost=smarthost))
        assert ending(trial.deferred()) == ("auth", what.result, what.code, what.status)
        assert trial.sink.notes() == []
        await trial.try_again()
        trial.assert_once("bob@example.com")
        assert trial.sink.notes()[0]["user"] == "ada"
        assert SECRET not in trial.sink.log.read_text() + repr(trial.world.lines.records)


async def test_a_password_that_is_not_known(tmp_path: Path) -> None:
    """The host's own no is transient as well: it is the operator's to mend."""
    async with cell(tmp_path, "certificate: self-signed\nlogin: nobody", delivery_allow_private=False) as trial:
        smarthost = {"hostname": "127.0.0.1", "port": trial.sink.port, "username": "ada", "password": SECRET}
        await trial.hand_out(outbox_json(smarthost=smarthost))
        assert ending(trial.deferred()) == ("auth", "error", 535, "5.7.8")


# Many at once


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt", "data", "message"])
@pytest.mark.parametrize("answer", ["drop", "421 4.7.0 busy"])
async def test_every_third_occasion(tmp_path: Path, stage: str, answer: str) -> None:
    """Sixty messages over four connections to a host that fails again and again: all arrive once, no slot is lost."""
    recipients = [f"user{number}@example.com" for number in range(60)]
    async with cell(tmp_path, f"{stage} 33%: {answer}", delivery_connections_per_site=4) as trial:
        await trial.hand_out(*(outbox_json(recipient) for recipient in recipients))
        for _ in range(40):
            back = trial.world.queues.stored.pop("outbox", [])
            if not back:
                break
            trial.world.clock.forward(max(stored.delay_s for stored in back))
            await trial.hand_out(*(stored.json for stored in back))
        assert trial.world.queues.stored["failure"] == []
        trial.assert_once(*recipients)
