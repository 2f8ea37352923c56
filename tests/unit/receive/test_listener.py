"""Who is let in, who waits, and who is behind a proxy."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from mtaq.receive import listener
from mtaq.receive.listener import Acceptor, Handshake
from mtaq.receive.proxy import ProxyHeader


class NoSlots:
    """All are taken."""

    def take(self) -> int | None:
        """There is none."""
        return None

    def release(self, slot: int) -> None:
        """Cannot happen."""
        raise AssertionError(slot)


@pytest.fixture
async def acceptor() -> Acceptor:
    """The acceptor of a full instance."""
    with socket.socket() as sock:
        return Acceptor(
            sock, lambda _slot, _header, _early: asyncio.Protocol(), slots=NoSlots(), is_proxy=lambda _ip: False,
            admits=lambda _ip, _slot: True, header_refused=lambda _ip, _port, _reason: None, handshake=None, wait_s=5,
        )  # fmt: skip


def looks(acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch, *times: float) -> list[bool]:
    """Let a waiting client be looked at, at these times; return when it would be told."""
    clock = iter(times)
    monkeypatch.setattr(acceptor, "_loop", type("Clock", (), {"time": lambda _self: next(clock)})())
    return [acceptor._waited_enough() for _ in times]


async def test_a_client_beyond_the_cap_is_told_after_its_wait(
    acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at all the time, it is told once ``wait_s`` has passed."""
    steps = [number / 20 for number in range(102)]
    assert looks(acceptor, monkeypatch, *steps).index(True) == 100


async def test_the_wait_of_an_earlier_client_does_not_count_for_a_later_one(
    acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while in which nobody waited, the next client beyond the cap has its own ``wait_s``."""
    assert looks(acceptor, monkeypatch, 0.0, 1000.0, 1000.05) == [False, False, False]


PROXY, HONEST = "127.0.0.2", "127.0.0.1"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 40112 25\r\n"
LOCAL = bytes.fromhex("0d0a0d0a000d0a515549540a20000000")
HEADER = ProxyHeader(source=("192.0.2.1", 40112), destination=("198.51.100.2", 25))


class Slots:
    """So many slots, and which of them are taken."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self.taken: set[int] = set()

    def take(self) -> int | None:
        """Take one."""
        if not self._free:
            return None
        self.taken.add(slot := self._free.pop())
        return slot

    def release(self, slot: int) -> None:
        """Give one back; twice is an error."""
        self.taken.remove(slot)
        self._free.append(slot)


@dataclass
class Door:
    """An acceptor on a port of its own, and everything it was asked and told.

    Attributes:
        served: Slot, header and first words of each client.
        early: Of each client, whether it had spoken when it was accepted.
        asked: Addresses asked about before a handshake.
        refused: Peers closed for their header.
    """

    slots: Slots
    sock: socket.socket = field(default_factory=socket.socket)
    handshake: Handshake | None = None
    welcome: frozenset[str] = frozenset()
    served: asyncio.Queue[tuple[int | None, ProxyHeader | None, bytes]] = field(default_factory=asyncio.Queue)
    refused: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    asked: list[tuple[str, int]] = field(default_factory=list)
    early: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)

    def open(self) -> None:
        """Accept."""
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen()
        self.sock.setblocking(False)
        self.acceptor = Acceptor(
            self.sock, self.greeter, slots=self.slots,
            is_proxy=lambda ip: ip == PROXY, admits=self.admits,
            header_refused=lambda ip, _port, reason: self.refused.put_nowait((ip, reason)),
            handshake=(lambda: self.handshake) if self.handshake else None, wait_s=0,
        )  # fmt: skip
        self.port = self.sock.getsockname()[1]
        self.acceptor.start()

    def greeter(self, slot: int | None, header: ProxyHeader | None, spoke_early: bool) -> Greeter:
        """Serve a client."""
        self.early.put_nowait(spoke_early)
        return Greeter(self, slot, header)

    def admits(self, ip: str, slot: int) -> bool:
        """Those who are welcome."""
        self.asked.append((ip, slot))
        return ip in self.welcome

    @contextmanager
    def knock(self, source: str, words: bytes) -> Iterator[socket.socket]:
        """Connect from *source* and send *words* at once."""
        with socket.create_connection(("127.0.0.1", self.port), 20, source_address=(source, 0)) as client:
            client.sendall(words)
            client.setblocking(False)
            yield client


class Greeter(asyncio.Protocol):
    """Notes what its client says first."""

    def __init__(self, door: Door, slot: int | None, header: ProxyHeader | None) -> None:
        self._door, self._slot, self._header = door, slot, header

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Note it, and close."""
        self._door.served.put_nowait((self._slot, self._header, data))
        self._transport.close()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A plain port with two slots."""
    door = Door(Slots(2))
    door.open()
    yield door
    door.acceptor.stop()


@pytest.fixture
async def secure_door(tmp_path: Path) -> AsyncIterator[Door]:
    """A port with TLS from the first byte, where only the header's client is welcome."""
    authority, pem = trustme.CA(), tmp_path / "mx.test.pem"
    authority.issue_cert("mx.test").private_key_and_cert_chain_pem.write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    door = Door(Slots(2), handshake=Handshake(context, 20), welcome=frozenset(["192.0.2.1"]))
    door.open()
    yield door
    door.acceptor.stop()


async def is_closed(client: socket.socket) -> bool:
    """Wait until the server has closed, saying nothing."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 20) == b""
    except ConnectionResetError:
        return True


async def test_a_proxy_tells_its_client_and_the_rest_is_the_session(door: Door) -> None:
    """The header goes to who serves the client; what came behind it in the same segment is the client's."""
    with door.knock(PROXY, V1 + b"EHLO client.test\r\n"):
        assert (await door.served.get())[1:] == (HEADER, b"EHLO client.test\r\n")


async def test_a_header_of_anybody_else_is_what_the_client_said(door: Door) -> None:
    """Whoever is no proxy has no header: its bytes reach the session."""
    with door.knock(HONEST, b"") as client:
        assert not await door.early.get()
        client.send(V1)
        assert (await door.served.get())[1:] == (None, V1)


async def test_who_speaks_before_it_is_served_is_found_out(door: Door) -> None:
    """Words that were there when the client was accepted are told, and taken: nobody is handed them."""
    with door.knock(HONEST, b"EHLO client.test\r\n") as client:
        assert await door.early.get()
        client.send(b"NOOP\r\n")
        assert (await door.served.get())[2] == b"NOOP\r\n"


async def test_who_is_gone_has_not_spoken(door: Door) -> None:
    """The end of a connection is no word, however it ends."""
    with door.knock(HONEST, b"") as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with door.knock(HONEST, b"") as client:
        client.shutdown(socket.SHUT_WR)
        assert [await door.early.get(), await door.early.get()] == [False, False]


async def test_behind_a_proxy_words_may_come_with_the_header(door: Door) -> None:
    """What a proxy had in hand when it connected is not held against its client."""
    for header in (V1, LOCAL):
        with door.knock(PROXY, header + b"EHLO client.test\r\n"):
            assert not await door.early.get()


@pytest.mark.parametrize("words", [b"EHLO client.test\r\n", b"PROXY TCP4 1.2.3.4\r\n"])
async def test_a_proxy_without_a_right_header_is_closed(door: Door, words: bytes) -> None:
    """A proxy that begins otherwise is closed without a word, noted, and its slot is free."""
    with door.knock(PROXY, words) as client:
        assert await is_closed(client)
        assert (await door.refused.get())[0] == PROXY
        assert door.slots.taken == set()


async def test_a_silent_proxy_is_closed_in_time(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that does not come holds its slot for a while, and then no more."""
    monkeypatch.setattr(listener, "HEADER_S", 0.05)
    with door.knock(PROXY, V1[:20]) as client:
        assert await is_closed(client)
        assert await door.refused.get() == (PROXY, "no header in time")
        assert door.slots.taken == set()


async def test_waiting_for_a_header_takes_a_slot(door: Door) -> None:
    """Proxies that are slow count like everybody else."""
    with door.knock(PROXY, V1[:20]), door.knock(PROXY, b""), door.knock(HONEST, b"") as client:
        await door.early.get()
        client.send(b"x")
        assert (await door.served.get())[0] is None
        assert len(door.slots.taken) == 2


async def test_beyond_the_cap_a_header_is_not_waited_for_long(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a slot whoever sends its header is served, to be told; who does not is closed sooner than others."""
    monkeypatch.setattr(listener, "HEADER_WITHOUT_SLOT_S", 0.05)
    with door.knock(PROXY, b""), door.knock(PROXY, b""):
        with door.knock(PROXY, V1 + b"x"):
            assert await door.served.get() == (None, HEADER, b"x")
        with door.knock(PROXY, V1[:20]) as client:
            assert await is_closed(client)


async def test_a_reader_that_is_stopped_frees_its_slot(door: Door) -> None:
    """The end of the process while a header is awaited leaves nothing taken."""
    with door.knock(PROXY, V1[:20]) as client:
        while not door.acceptor._openings:
            await asyncio.sleep(0)
        [opening] = door.acceptor._openings
        await asyncio.sleep(0)
        opening.cancel()
        assert await is_closed(client)
        assert door.slots.taken == set()


def begin_tls() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """Return a client's side of TLS with its ClientHello written."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return session, incoming, outgoing


async def test_header_and_client_hello_may_share_a_segment(secure_door: Door) -> None:
    """TLS begins right behind the header, and it is the header's client that is asked about."""
    session, incoming, outgoing = begin_tls()
    loop = asyncio.get_running_loop()
    with secure_door.knock(PROXY, V1 + outgoing.read()) as client:
        while True:
            incoming.write(await asyncio.wait_for(loop.sock_recv(client, 65536), 20))
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        session.write(b"EHLO client.test\r\n")
        await loop.sock_sendall(client, outgoing.read())
        slot, header, words = await secure_door.served.get()
        assert (header, words) == (HEADER, b"EHLO client.test\r\n")
        assert not secure_door.early.get_nowait()
        assert secure_door.asked == [("192.0.2.1", slot)]


async def test_no_handshake_with_a_client_that_may_not_connect(secure_door: Door) -> None:
    """Behind a proxy, too, who may not connect is closed before the handshake, and the slot is free."""
    _, _, outgoing = begin_tls()
    with secure_door.knock(PROXY, V1.replace(b"192.0.2.1", b"192.0.2.9") + outgoing.read()) as client:
        assert await is_closed(client)
        assert [ip for ip, _ in secure_door.asked] == ["192.0.2.9"]
        assert secure_door.slots.taken == set()
        assert secure_door.refused.empty()


async def test_a_proxy_that_speaks_for_itself_is_not_asked_for(secure_door: Door) -> None:
    """LOCAL: the proxy sees whether we are well; it need not be where its clients must be."""
    session, incoming, outgoing = begin_tls()
    with secure_door.knock(PROXY, LOCAL + outgoing.read()) as client:
        incoming.write(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), 20))
        session.do_handshake()
    assert secure_door.asked == []
