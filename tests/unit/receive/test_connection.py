"""One connection: what becomes of it when clients go, stay, speak early or do not listen."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from mtaq.model.login import Verdict
from mtaq.model.message import TlsFacts
from mtaq.receive.proxy import ProxyHeader
from mtaq.smtp.scram import ScramKeys
from tests.unit.receive.fakes import policy
from tests.unit.receive.scene import TRANSACTION, Scene


async def test_commands_behind_the_answer_of_a_vanished_client_are_not_obeyed() -> None:
    """A client gone while its message is stored: the message is kept, what it pipelined behind is not looked at."""
    scene = Scene().open()
    scene.connection.data_received(b"EHLO client.test\r\n" + TRANSACTION + TRANSACTION)
    await scene.until_published(1)
    scene.connection.connection_lost(None)
    scene.broker.settle(0)
    await scene.until_published(2)
    assert len(scene.broker.waiting) == 1
    assert scene.slots.released == [7]
    assert len(scene.closed_lines()) == 1


async def test_a_vanished_client_keeps_its_slot_while_its_message_is_stored() -> None:
    """Who sends, vanishes and comes again cannot have more messages in memory than there are slots."""
    scene = Scene().open()
    scene.connection.data_received(b"EHLO client.test\r\n" + TRANSACTION)
    await scene.until_published(1)
    [task] = scene.service._tasks
    scene.connection.connection_lost(None)
    assert scene.slots.released == []
    scene.broker.settle(0)
    await task
    assert scene.slots.released == [7]


async def test_starttls_pipelined_by_a_vanished_client_is_no_bug() -> None:
    """STARTTLS behind the message of a client that is gone: nothing fails."""
    scene = Scene().open(policy(smtp_range="127.0.0.0/8", starttls=True))
    scene.connection.data_received(b"EHLO client.test\r\n" + TRANSACTION + b"STARTTLS\r\n")
    await scene.until_published(1)
    [task] = scene.service._tasks
    scene.connection.connection_lost(None)
    scene.broker.settle(0)
    await task


async def test_a_client_gone_before_its_handshake_frees_its_slot() -> None:
    """It reset the connection while it was told to begin: no handshake, no slot, no failure."""
    scene = Scene().open(policy(smtp_range="127.0.0.0/8", starttls=True))
    scene.connection.data_received(b"EHLO client.test\r\nSTARTTLS\r\n")
    [task] = scene.service._tasks
    scene.connection.connection_lost(None)
    await task
    assert scene.slots.released == [7]


async def test_a_connection_lost_twice_frees_its_slot_once() -> None:
    """A failed handshake may be told by the loop and by us; the slot may be another client's by then."""
    scene = Scene().open()
    scene.connection.connection_lost(None)
    scene.connection.connection_lost(None)
    assert scene.slots.released == [7]
    assert len(scene.closed_lines()) == 1


async def test_a_half_closed_client_that_reads_late_is_answered_all_it_said() -> None:
    """Commands that wait because the client does not read are obeyed after its EOF, and then it is closed."""
    scene = Scene().open()
    scene.connection.pause_writing()
    scene.connection.data_received(b"EHLO client.test\r\nNOOP\r\n")
    assert scene.connection.eof_received()
    scene.connection.resume_writing()
    assert scene.client.heard.endswith(b"250 2.0.0 ok\r\n")
    assert scene.client.closed


async def test_refused_messages_are_not_counted_as_accepted() -> None:
    """The line that closes a session counts what was answered 250 and nothing else."""
    scene = Scene().open()
    scene.connection.data_received(b"EHLO client.test\r\n" + TRANSACTION)
    await scene.until_published(1)
    scene.broker.settle(0, OSError("surprise"))
    await asyncio.gather(*scene.service._tasks)
    assert b"451 4.3.0" in scene.client.heard
    scene.connection.connection_lost(None)
    [line] = scene.closed_lines()
    assert line["session_messages"] == 0


async def test_replies_that_nobody_reads_do_not_pile_up() -> None:
    """A client that pipelines EHLO without reading: work stops with the first batch of replies, and nothing is lost."""
    scene = Scene().open()
    write = scene.client.write

    def write_and_stall(data: bytes | bytearray | memoryview) -> None:
        write(data)
        scene.connection.pause_writing()

    scene.client.write = write_and_stall  # type: ignore[method-assign]  # a peer whose window is full
    scene.connection.data_received(b"EHLO client.test\r\n" * 5_000 + b"QUIT\r\n")
    assert len(scene.client.heard) < 100_000
    while not scene.client.closed:
        scene.connection.resume_writing()
    assert scene.client.heard.count(b"250-ENHANCEDSTATUSCODES\r\n") == 5_000
    assert scene.client.heard.endswith(b"221 2.0.0 goodbye\r\n")


PATIENT = {"smtp_range": "127.0.0.0/8", "smtp_greeting_delay": "100"}


async def test_a_client_that_spoke_before_it_was_served_is_told_and_closed() -> None:
    """An early talker gets 554 5.5.1 in place of the greeting, and the log has the refusal."""
    scene = Scene().prepare().connect(spoke_early=True)
    assert scene.client.heard.startswith(b"554 5.5.1 ")
    assert scene.client.closed
    [line] = [record for record in scene.lines.records if record["event"] == "session.refused"]
    assert (line["reply_code"], line["enhanced_code"]) == (554, "5.5.1")


async def test_who_may_not_connect_is_told_so_whatever_it_said() -> None:
    """The range counts before manners do."""
    scene = Scene().prepare().connect(policy(smtp_range="192.0.2.1"), spoke_early=True)
    assert scene.client.heard.startswith(b"554 5.7.1 ")


async def test_early_talkers_end_on_the_blocked_list() -> None:
    """Ten sessions that began with an early talker block the client."""
    scene = Scene().prepare()
    for _ in range(10):
        assert scene.state.added == []
        scene.connect(spoke_early=True)
        scene.connection.connection_lost(None)
        await asyncio.gather(*scene.service._tasks)
    assert scene.state.added == [("127.0.0.1", "10 sessions with protocol abuse")]


async def test_a_client_that_speaks_while_it_waits_for_the_greeting_is_told() -> None:
    """With a delay nothing is said at first; who speaks meanwhile gets 554 5.5.1, and is never greeted."""
    scene = Scene().open(policy(**PATIENT))
    assert scene.client.heard == b""
    scene.connection.data_received(b"EHLO client.test\r\n")
    assert scene.client.heard.startswith(b"554 5.5.1 ")
    assert scene.client.heard.count(b"\r\n") == 1
    assert scene.client.closed


async def test_a_client_that_goes_while_it_waits_for_the_greeting_leaves_nothing() -> None:
    """Its slot is free, and the timer of its greeting is gone."""
    scene = Scene().open(policy(**PATIENT))
    timer = scene.connection._greeting
    assert timer is not None
    scene.connection.connection_lost(None)
    assert timer.cancelled()
    assert scene.slots.released == [7]


async def test_a_client_that_waits_for_the_greeting_is_told_when_we_stop() -> None:
    """The end of the service reaches also whoever was not greeted yet."""
    scene = Scene().open(policy(**PATIENT))
    await scene.service.stop(0)
    assert scene.client.heard.startswith(b"421 4.3.2 ")


@pytest.mark.parametrize("source", [None, ("127.0.0.9", 40112)], ids=["for itself", "for a client"])
async def test_behind_a_proxy_the_greeting_comes_at_once(source: tuple[str, int] | None) -> None:
    """What a proxy does before the greeting says nothing of its client."""
    header = ProxyHeader(source=source, destination=source, is_local=source is None)
    scene = Scene().prepare().connect(policy(**PATIENT), header)
    assert scene.client.heard.startswith(b"220 ")


async def test_the_greeting_comes_after_its_delay() -> None:
    """Who is silent until then is greeted and served."""
    scene = Scene().open(policy(**PATIENT))
    assert scene.connection._greeting is not None
    scene.connection._greeting._run()
    assert scene.client.heard.startswith(b"220 ")
    scene.connection.data_received(b"EHLO client.test\r\n")
    assert b"250-" in scene.client.heard


class CertificateTls:
    """TLS whose client has shown ada's certificate."""

    context: ssl.SSLContext

    def facts(self, session: ssl.SSLObject) -> TlsFacts:
        """Return the usual."""
        return TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")

    def peer_user(self, session: ssl.SSLObject) -> str | None:
        """Return her name."""
        return "ada"


class AnyLogin:
    """Takes any password; fails when asked for keys."""

    knows_passwords = True

    async def check(self, user: str, password: str, *, client_ip: str) -> Verdict:
        """Accept."""
        return Verdict.ACCEPTED

    async def scram_keys(self, user: str) -> ScramKeys | None:
        """Fail."""
        raise RuntimeError("surprise")


def inside_tls() -> Scene:
    """Return a scene whose client has a certificate and is greeted."""
    scene = Scene().prepare()
    scene.service.configure({}, {25: CertificateTls()})
    scene.connect(policy(smtp_range="127.0.0.0/8", logins=AnyLogin()), tls=True)
    scene.connection.data_received(b"EHLO client.test\r\n")
    return scene


async def test_who_has_a_certificate_may_log_in_all_the_same() -> None:
    """Programs that are given a certificate and a password use both: AUTH is announced, so it must work."""
    scene = inside_tls()
    assert scene.connection.facts().user == "ada"
    scene.connection.data_received(b"AUTH PLAIN AGdyYWNlAHNlY3JldA==\r\n")
    await asyncio.gather(*scene.service._tasks)
    assert scene.client.heard.endswith(b"235 2.7.0 logged in\r\n")
    assert scene.connection.facts().user == "grace"


async def test_a_login_that_meets_a_bug_is_told_to_try_again() -> None:
    """Whatever the back end raises is answered 451 and told in the log, with every mechanism."""
    scene = inside_tls()
    scene.connection.data_received(b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJjZGVm\r\n")
    await asyncio.gather(*scene.service._tasks)
    assert scene.client.heard.endswith(b"451 4.3.0 cannot be taken now, try again later\r\n")
    assert [record["event"] for record in scene.lines.records if record["event"] == "bug"] == ["bug"]
