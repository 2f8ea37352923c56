"""Connections, listeners, TLS contexts, addresses and slots on real sockets of the loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from mtaq.deliver.ports import SourceUnusable
from mtaq.model.errors import ConfigError
from mtaq.net.addresses import can_bind, is_loopback, is_own, is_private, own_addresses
from mtaq.net.connect import READ_LIMIT, TcpStream, connect
from mtaq.net.listeners import Listener, listen
from mtaq.net.monitor import Monitor, Page
from mtaq.net.slots import Slots
from mtaq.net.tls import client_context, server_context, tls_facts

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Run a coroutine on each of the two loops."""
    if request.param == "uvloop":
        return uvloop.run
    return asyncio.run


class Peer:
    """A server whose behaviour is a function of reader and writer."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "mx.pem"
    authority.issue_cert("mx.test").private_key_and_cert_chain_pem.write_to_path(path)
    return path


async def read_exactly(stream: TcpStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.read()
        assert more
        data += more
    return data


def test_source_address_and_ends(run: Callable[[Any], Any]) -> None:
    """A connection leaves from the source it was given, and both ends are known."""

    async def main() -> None:
        seen: list[str] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peername")[0])
            writer.write(b"220 hello\r\n")
            writer.close()

        async with Peer(serve) as port:
            stream = await connect("127.0.0.1", port, source="127.0.0.2")
            assert (stream.local_ip, stream.remote_ip, stream.tls) == ("127.0.0.2", "127.0.0.1", None)
            assert await stream.read() == b"220 hello\r\n"
            assert await stream.read() == b""
            assert await stream.read() == b""
            stream.abort()
            stream.abort()
        assert seen == ["127.0.0.2"]

    run(main())


def test_waiting_has_an_end(run: Callable[[Any], Any]) -> None:
    """A read may be given up, by its time or from outside, and one that follows has what arrived since."""

    async def main() -> None:
        speak = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await speak.wait()
            writer.write(b"220 hello\r\n")
            await reader.read()
            writer.close()

        async with Peer(serve) as port:
            stream = await connect("127.0.0.1", port)
            now = asyncio.get_running_loop().time
            for until in (now() - 1, now(), now() + 0.01):
                with pytest.raises(TimeoutError):
                    await stream.read(until)
            reading = asyncio.ensure_future(stream.read(now() + 60))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            arrival = stream.arrival()
            assert not arrival.done()
            speak.set()
            await arrival
            assert stream.arrival().done()
            assert await stream.read(now() - 1) == b"220 hello\r\n"
            again = stream.arrival()
            assert not again.done()
            stream.abort()
            await again
            with pytest.raises(ConnectionAbortedError):
                await stream.read(now() + 60)

    run(main())


def test_foreign_source_is_unusable(run: Callable[[Any], Any]) -> None:
    """A source that is not this host's is an error of its own; one of the other family is an ordinary one."""

    async def main() -> None:
        with pytest.raises(SourceUnusable, match=r"192\.0\.2\.77"):
            await connect("127.0.0.1", 9, source="192.0.2.77")
        with pytest.raises(OSError, match="family") as caught:
            await connect("127.0.0.1", 9, source="::1")
        assert not isinstance(caught.value, SourceUnusable)

    run(main())


def test_refused_connection(run: Callable[[Any], Any]) -> None:
    """Nobody listens: an `OSError`."""

    async def main() -> None:
        [listener] = listen(["127.0.0.1"], [0])
        listener.sock.close()
        with pytest.raises(ConnectionRefusedError):
            await connect("127.0.0.1", listener.port)

    run(main())


def test_fast_peer_is_held_back(run: Callable[[Any], Any]) -> None:
    """A peer that sends megabytes unread is made to wait; everything arrives in order once it is read."""
    sent = os.urandom(8_000_000)

    async def main() -> None:
        finished = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(sent)
            await writer.drain()
            writer.close()
            finished.set()

        async with Peer(serve) as port:
            stream = await connect("127.0.0.1", port)
            for _ in range(200):
                await asyncio.sleep(0.001)
            assert not finished.is_set()
            held = len(stream._buffer)
            assert held < READ_LIMIT + 300_000  # one read of the loop's more than the limit
            received = bytearray()
            while data := await stream.read():
                assert len(data) <= READ_LIMIT
                received += data
            assert bytes(received) == sent

    run(main())


def test_drain_waits_for_a_slow_peer(run: Callable[[Any], Any]) -> None:
    """`drain` waits while the peer does not take what was written, and goes on when it does."""

    async def main() -> None:
        go_on = asyncio.Event()
        received: list[int] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            received.append(len(await reader.readexactly(20_000_000)))
            writer.close()

        async with Peer(serve) as port:
            stream = await connect("127.0.0.1", port)
            stream.write(bytes(20_000_000))
            drained = asyncio.create_task(stream.drain())
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert not drained.done()
            go_on.set()
            await drained
            assert await stream.read() == b""
            assert received == [20_000_000]

    run(main())


def test_broken_connection_ends_every_wait(run: Callable[[Any], Any]) -> None:
    """A reset, and closing on this side, end reads and drains that wait, with an `OSError`."""

    async def main() -> None:
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)

        async with Peer(serve) as port:
            for local in (False, True):
                stream = await connect("127.0.0.1", port)
                stream.write(bytes(20_000_000))
                waiting = [asyncio.create_task(stream.drain()), asyncio.create_task(stream.read())]
                for _ in range(20):
                    await asyncio.sleep(0.001)
                if local:
                    stream.abort()
                else:
                    writers[0].transport.abort()
                for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                    assert isinstance(outcome, OSError)
                stream.write(b"lost")
                with pytest.raises(OSError):  # noqa: PT011 - which one depends on the loop
                    await stream.drain()
                stream.abort()
            writers[1].transport.abort()

    run(main())


async def tls_peer(context: ssl.SSLContext, before: bytes = b"") -> Peer:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readexactly(10) == b"STARTTLS\r\n"
            writer.write(b"220 go ahead\r\n" + before)
            await writer.drain()
            await writer.start_tls(context)
            writer.write(b"in secret")
            assert await reader.readexactly(3) == b"yes"
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    return Peer(serve)


def test_start_tls_verified(
    run: Callable[[Any], Any], authority: trustme.CA, certificate: Path, tmp_path: Path
) -> None:
    """A certificate for the right name from a known authority is taken; for another name it is refused."""
    authorities = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(authorities)
    verified = client_context(verified=True, authorities=authorities)

    async def main() -> None:
        async with await tls_peer(server_context(certificate)) as port:
            stream = await connect("127.0.0.1", port)
            stream.write(b"STARTTLS\r\n")
            await read_exactly(stream, 14)
            await stream.start_tls(verified, "mx.test")
            assert stream.tls is not None
            assert tls_facts(stream.tls).version == "TLSv1.3"
            assert tls_facts(stream.tls).cipher
            assert await read_exactly(stream, 9) == b"in secret"
            stream.write(b"yes")
            await stream.drain()
            stream.abort()

            stream = await connect("127.0.0.1", port)
            stream.write(b"STARTTLS\r\n")
            await read_exactly(stream, 14)
            with pytest.raises(ssl.SSLCertVerificationError):
                await stream.start_tls(verified, "other.test")
            with pytest.raises(OSError):  # noqa: PT011 - any will do
                await stream.read()

    run(main())


def test_start_tls_unverified(run: Callable[[Any], Any], certificate: Path) -> None:
    """Opportunistic TLS takes any certificate, for a name and for an IP address alike."""

    async def main() -> None:
        async with await tls_peer(server_context(certificate)) as port:
            for name in ("another.test", "127.0.0.1"):
                stream = await connect("127.0.0.1", port)
                stream.write(b"STARTTLS\r\n")
                await read_exactly(stream, 14)
                await stream.start_tls(client_context(verified=False), name)
                assert await read_exactly(stream, 9) == b"in secret"
                stream.abort()

    run(main())


def test_plaintext_after_starttls_is_refused(run: Callable[[Any], Any], certificate: Path) -> None:
    """Bytes that came in clear behind the reply to STARTTLS never count as said under TLS (RFC 3207 §4.2)."""

    async def main() -> None:
        async with await tls_peer(server_context(certificate), before=b"250 injected\r\n") as port:
            stream = await connect("127.0.0.1", port)
            stream.write(b"STARTTLS\r\n")
            reply = await read_exactly(stream, 28)
            stream.data_received(reply[14:])  # as if the reply to STARTTLS had been read alone
            with pytest.raises(ConnectionAbortedError, match="in clear"):
                await stream.start_tls(client_context(verified=False), "mx.test")

    run(main())


@pytest.mark.parametrize("name", ["", ".leading", "x" * 300])
def test_impossible_server_name(run: Callable[[Any], Any], certificate: Path, name: str) -> None:
    """A name that TLS cannot carry is an `OSError` like any other failed handshake."""

    async def main() -> None:
        async with await tls_peer(server_context(certificate)) as port:
            stream = await connect("127.0.0.1", port)
            stream.write(b"STARTTLS\r\n")
            await read_exactly(stream, 14)
            with pytest.raises(OSError):  # noqa: PT011 - the loops differ in their words
                await stream.start_tls(client_context(verified=True), name)

    run(main())


def test_peer_without_tls(run: Callable[[Any], Any]) -> None:
    """A peer that answers the handshake with text, or closes, is an `OSError`; nothing hangs."""

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"500 what?\r\n")
            writer.close()

        async with Peer(serve) as port:
            stream = await connect("127.0.0.1", port)
            with pytest.raises(OSError):  # noqa: PT011 - SSLError or a reset, as the loop has it
                await stream.start_tls(client_context(verified=False), "mx.test")

    run(main())


def test_cancelled_handshake(run: Callable[[Any], Any]) -> None:
    """The caller bounds the handshake by cancelling it; the connection is then closed."""

    async def main() -> None:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1000):
                pass
            closed.set()
            writer.close()

        async with Peer(serve) as port:
            stream = await connect("127.0.0.1", port)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await stream.start_tls(client_context(verified=False), "mx.test")
            await asyncio.wait_for(closed.wait(), 10)

    run(main())


def test_certificate_errors(certificate: Path, tmp_path: Path) -> None:
    """A certificate, key or cipher string that cannot be used is named."""
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        server_context(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"missing\.key"):
        server_context(certificate, tmp_path / "missing.key")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing")
    with pytest.raises(ConfigError, match=r"nonsense\.pem"):
        server_context(nonsense)
    with pytest.raises(ConfigError, match="NOPE"):
        server_context(certificate, ciphers="NOPE")
    with pytest.raises(ConfigError, match=r"nonsense\.pem"):
        client_context(verified=True, authorities=nonsense)


def test_old_tls_is_refused(certificate: Path) -> None:
    """TLS 1.2 is the floor, 1.3 when asked for."""
    assert server_context(certificate).minimum_version == ssl.TLSVersion.TLSv1_2
    assert server_context(certificate, floor="1.3").minimum_version == ssl.TLSVersion.TLSv1_3
    assert client_context(verified=False).minimum_version == ssl.TLSVersion.TLSv1_2


def test_listen_on_all_addresses() -> None:
    """All addresses are one socket for each family, and the IPv6 one takes no IPv4."""
    listeners = listen([], [0])
    try:
        assert listeners[0].ip == "0.0.0.0"
        for listener in listeners[1:]:
            assert listener.ip == "::"
            assert listener.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    finally:
        for listener in listeners:
            listener.sock.close()


def test_listen_and_hand_down() -> None:
    """A listener that another process inherits by its descriptor has the same address, accepts, and goes no further."""
    first, second = listen(["127.0.0.1", "127.0.0.2"], [0], implicit_tls=True)
    handed_down = os.dup(first.sock.fileno())
    os.set_inheritable(handed_down, True)
    inherited = Listener.from_fd(handed_down, implicit_tls=True)
    assert not inherited.sock.get_inheritable()
    assert (inherited.ip, inherited.port, inherited.implicit_tls) == ("127.0.0.1", first.port, True)
    assert str(second) == f"127.0.0.2:{second.port}"
    first.sock.close()
    with socket.create_connection(("127.0.0.1", inherited.port), timeout=5):
        inherited.sock.setblocking(True)
        inherited.sock.accept()[0].close()
    inherited.sock.close()
    second.sock.close()


def test_port_in_use() -> None:
    """A port that is taken is named, and nothing stays open."""
    [taken] = listen(["127.0.0.2"], [0])
    with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.2:{taken.port}: Address already in use"):
        listen(["127.0.0.1", "127.0.0.2"], [taken.port])
    [free] = listen(["127.0.0.1"], [taken.port])
    free.sock.close()
    taken.sock.close()


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
           |-- 127.0.0.0
              /8 host LOCAL
        +-- 192.0.2.0/30 2 0 2
           |-- 192.0.2.0
              /24 link UNICAST
           |-- 192.0.2.2
              /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
"""


def test_own_addresses(tmp_path: Path) -> None:
    """The kernel's tables give this host's addresses, and neither its routes nor its broadcast addresses."""
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text("fd000000000000000000000000000002 04 40 00 82     eth0\n")
    networks = own_addresses(tmp_path)
    assert [str(network) for network in networks] == ["127.0.0.0/8", "192.0.2.2/32", "fd00::2/128"]
    assert is_own("192.0.2.2", networks)
    assert is_own("::ffff:192.0.2.2", networks)
    assert is_own("127.9.9.9", networks)
    assert is_own("0.0.0.0", networks)
    assert not is_own("192.0.2.3", networks)
    assert not is_own("192.0.2.255", networks)
    assert own_addresses(tmp_path / "none") == ()


def test_this_hosts_addresses() -> None:
    """On this host the loopback is own, and an address of the documentation nets is not."""
    assert is_own("127.0.0.1")
    assert not is_own("203.0.113.5")
    assert can_bind("127.0.0.3")
    assert not can_bind("203.0.113.5")
    assert not is_own("203.0.113.5", ())


@pytest.mark.parametrize(
    ("ip", "private"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("172.31.0.1", True), ("192.168.1.1", True), ("169.254.1.1", True),
        ("100.64.0.1", True), ("0.0.0.0", True), ("224.0.0.1", True), ("255.255.255.255", True), ("::1", True),
        ("fd00::1", True), ("fe80::1", True), ("ff02::1", True), ("::ffff:10.0.0.1", True), ("2002:0a00:1::1", True),
        ("64:ff9b::7f00:1", True), ("64:ff9b::808:808", False), ("8.8.8.8", False), ("2606:4700::1", False),
        ("::10.0.0.1", True), ("::ffff:0:10.0.0.1", True), ("64:ff9b:1::a00:1", True), ("fec0::1", True),
    ],
)  # fmt: skip
def test_private_addresses(ip: str, private: bool) -> None:
    """Private is what the Internet does not route, also when it hides in an IPv6 address."""
    assert is_private(ip) is private


def test_loopback() -> None:
    """Loopback is 127.0.0.0/8 and ::1, mapped ones included."""
    assert is_loopback("127.8.8.8")
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("10.0.0.1")


HOLDER = """
import sys
from pathlib import Path
from mtaq.net.monitor import Monitor, Page
from mtaq.net.slots import Slots
slots = Slots(Path(sys.argv[1]), int(sys.argv[2]))
held = [slots.take() for _ in range(int(sys.argv[3]))]
print(sum(slot is not None for slot in held), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holders() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def hold(holders: list[subprocess.Popen[str]], path: Path, count: int, wanted: int) -> int:
    """Start a process that takes *wanted* of *count* slots; return how many it got."""
    arguments = [sys.executable, "-c", HOLDER, str(path), str(count), str(wanted)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holders.append(process)
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_slots_hold_across_processes(tmp_path: Path, holders: list[subprocess.Popen[str]]) -> None:
    """Two processes together never hold more slots than there are, and get exactly as many."""
    path = tmp_path / "slots"
    assert hold(holders, path, 10, 4) == 4
    assert hold(holders, path, 10, 20) == 6
    slots = Slots(path, 10)
    assert slots.take() is None


def test_slots_of_a_killed_process_are_free_at_once(tmp_path: Path, holders: list[subprocess.Popen[str]]) -> None:
    """`kill -9` gives a process's slots back without anybody's help."""
    path = tmp_path / "slots"
    assert hold(holders, path, 5, 5) == 5
    slots = Slots(path, 5)
    assert slots.take() is None
    holders[0].send_signal(signal.SIGKILL)
    holders[0].wait()
    assert sorted(slots.take() for _ in range(5)) == [0, 1, 2, 3, 4]  # type: ignore[type-var]
    assert slots.take() is None


def test_slots_within_one_process(tmp_path: Path) -> None:
    """One process never gets a slot twice, and gets back what it gave back; closing gives everything back."""
    path = tmp_path / "slots"
    slots = Slots(path, 3)
    held = {slots.take() for _ in range(3)}
    assert held == {0, 1, 2}
    assert slots.taken == 3
    assert slots.take() is None
    slots.release(1)
    slots.release(1)
    assert slots.take() == 1
    slots.close()
    slots.close()
    assert slots.taken == 0
    assert Slots(path, 3).take() is not None
    assert Slots(tmp_path / "none", 0).take() is None


def visit(host: str, port: int, path: str) -> bytes:
    """Return everything the monitor answers to a GET."""
    with socket.create_connection((host, port), 30) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with client.makefile("rb") as file:
            return file.read()


def test_visitors_that_vanish_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever resets the connection to ``metrics-port`` does not put a traceback on the operator's terminal."""
    started, go_on = threading.Event(), threading.Event()

    def slow_page() -> Page:
        started.set()
        go_on.wait(30)
        return Page(200, "text/plain", b"x" * 10_000_000)

    monitor = Monitor("127.0.0.1", 0, {"/slow": slow_page, "/live": lambda: Page(200, "text/plain", b"alive")})
    client = socket.create_connection(("127.0.0.1", monitor.port), 30)
    client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
    started.wait(30)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    go_on.set()
    assert visit("127.0.0.1", monitor.port, "/live").endswith(b"alive")
    monitor.close()
    assert capfd.readouterr().err == ""


def test_a_page_that_cannot_be_read_is_answered(capfd: pytest.CaptureFixture[str]) -> None:
    """The file of a worker that ends while ``/metrics`` is made gives 500, and no traceback."""

    def gone() -> Page:
        raise FileNotFoundError("gone")

    monitor = Monitor("127.0.0.1", 0, {"/metrics": gone})
    assert b" 500 " in visit("127.0.0.1", monitor.port, "/metrics")
    monitor.close()
    assert capfd.readouterr().err == ""


def test_the_monitor_listens_on_ipv6() -> None:
    """``metrics-port: [::1]:9100`` works."""
    monitor = Monitor("::1", 0, {"/live": lambda: Page(200, "text/plain", b"alive")})
    assert visit("::1", monitor.port, "/live").endswith(b"alive")
    monitor.close()


def test_a_monitor_port_in_use_is_named() -> None:
    """The error says which port it was."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: "):
            Monitor("127.0.0.1", port, {})
