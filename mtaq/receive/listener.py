"""Accepts connections, one slot each, and hears who is behind a proxy before anything else is said.

A client beyond the cap is left in the kernel's backlog for a while, because most often a slot comes free; after that
it is taken and told 421, so that it knows. On a port with TLS from the first byte, whoever is not served is closed
before the handshake: a connection without a slot must not linger.

A peer that is a trusted proxy begins with a PROXY header, on every port; its client's address is the one that counts
from then on. Whoever sends none in time, or one that is wrong, is closed without a word.

In clear and without a proxy nothing may come from a client before it is greeted; whoever serves it is told when
something did.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import termios
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from mtaq.receive.ports import Slots
from mtaq.receive.proxy import MalformedHeader, ProxyHeader
from mtaq.receive.proxy_reader import read_header

#: How often a full instance looks for a free slot.
RETRY_S = 0.05

#: After so long without a look nobody has been waiting: the next client's wait begins anew.
FORGET_S = 0.5

#: Longest wait for a PROXY header, which a proxy sends before all else.
HEADER_S = 5.0

#: The same for a proxy that has no slot, and must not linger; its client is told 421 if the header comes.
HEADER_WITHOUT_SLOT_S = 1.0

#: What is taken of words that come before the greeting.
EARLY_BYTES = 4096

#: What FIONREAD says, a C int, where nothing is to be read.
_NONE = bytes(4)


class Handshake(NamedTuple):
    """How TLS is begun with the next client.

    Attributes:
        context: The certificate.
        timeout_s: Longest handshake.
    """

    context: ssl.SSLContext
    timeout_s: float


def is_secured(transport: asyncio.BaseTransport | None) -> bool:
    """Has the handshake on *transport* come to its end? The loop also returns when the client was gone before."""
    return transport is not None and transport.get_extra_info("ssl_object") is not None


def has_spoken(client: socket.socket) -> bool:
    """
    Has *client* said something before its greeting (RFC 5321 §4.3.1)?

    Its words are taken, for nobody wants them: left in the kernel, they would have the close cut off our reply.
    """
    try:
        # Asking what is there costs half of a read that finds nothing, which is an exception.
        if fcntl.ioctl(client, termios.FIONREAD, _NONE) == _NONE:
            return False
        return bool(client.recv(EARLY_BYTES))
    except OSError:  # it went away, which whoever serves it will notice
        return False


class Acceptor:
    """Accepts on one listening socket."""

    def __init__(
        self,
        sock: socket.socket,
        make_protocol: Callable[[int | None, ProxyHeader | None, bool], asyncio.BaseProtocol],
        *,
        slots: Slots,
        is_proxy: Callable[[str], bool],
        admits: Callable[[str, int], bool],
        header_refused: Callable[[str, int, str], None],
        handshake: Callable[[], Handshake] | None,
        wait_s: float,
    ) -> None:
        """
        Accept on *sock*, bound and listening.

        Args:
            make_protocol: Makes what serves a client, from its slot, from what its proxy said of it, and from whether
                it has spoken already.
            is_proxy: Is the peer with this IP a proxy whose header counts?
            admits: May the client with this IP, which has that slot, begin a handshake?
            header_refused: Told IP and port of a proxy that was closed for its header, and why.
            handshake: How TLS is begun with the next client; ``None`` on a port that begins in clear.
            wait_s: How long a client beyond the cap is left waiting.
        """
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._make_protocol = make_protocol
        self._slots = slots
        self._is_proxy = is_proxy
        self._admits = admits
        self._header_refused = header_refused
        self._handshake = handshake
        self._wait_s = wait_s
        self._full_since = self._full_at = float("-inf")
        self._retry: asyncio.TimerHandle | None = None
        self._openings: set[asyncio.Task[None]] = set()
        self._listening = False

    def start(self) -> None:
        """Begin."""
        self._listening = True
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def stop(self) -> None:
        """Accept nothing more; what waits in the backlog is for other processes that hold the socket."""
        if self._listening:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        self._listening = False
        if self._retry is not None:
            self._retry.cancel()

    def _readable(self) -> None:
        # One at a time: who takes all that wait would have a burst of long sessions alone, and leave other cores idle.
        slot = self._slots.take()
        if slot is None and not self._waited_enough():
            self._pause()
            return
        try:
            client, address = self._sock.accept()
        except (BlockingIOError, InterruptedError):
            self._give_back(slot)
            return
        except OSError:  # the client was gone, or we are out of descriptors: look again soon
            self._give_back(slot)
            self._pause()
            return
        if self._is_proxy(address[0]):
            self._run(self._open_proxied(client, address, slot))
        elif self._may_open(address[0], slot):
            self._run(self._open(client, slot, None))
        else:
            self._turn_away(client, slot)

    def _waited_enough(self) -> bool:
        """Note since when somebody waits for a slot; told once ``wait_s`` has passed."""
        now = self._loop.time()
        if now - self._full_at > FORGET_S:
            self._full_since = now
        self._full_at = now
        return now - self._full_since >= self._wait_s

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._retry = self._loop.call_later(RETRY_S, self._resume)

    def _resume(self) -> None:
        if self._listening:
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _give_back(self, slot: int | None) -> None:
        if slot is not None:
            self._slots.release(slot)

    def _turn_away(self, client: socket.socket, slot: int | None) -> None:
        client.close()
        self._give_back(slot)

    def _may_open(self, client_ip: str, slot: int | None) -> bool:
        """Nothing can be said before a handshake, and none is made for those who may not connect."""
        return self._handshake is None or (slot is not None and self._admits(client_ip, slot))

    def _run(self, opening: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(opening)
        self._openings.add(task)
        task.add_done_callback(self._openings.discard)

    async def _open_proxied(self, client: socket.socket, peer: tuple[str, int], slot: int | None) -> None:
        client.setblocking(False)
        try:
            header = await read_header(client, timeout_s=HEADER_S if slot is not None else HEADER_WITHOUT_SLOT_S)
        except (MalformedHeader, OSError) as error:
            self._turn_away(client, slot)
            self._header_refused(peer[0], peer[1], str(error) or "no header in time")
            return
        except asyncio.CancelledError:
            self._turn_away(client, slot)
            raise
        client_ip = header.source[0] if header.source else peer[0]
        # A proxy that asks how we are need not be in the range that its clients must be in.
        if (header.is_local and slot is not None) or self._may_open(client_ip, slot):
            await self._open(client, slot, header)
        else:
            self._turn_away(client, slot)

    async def _open(self, client: socket.socket, slot: int | None, header: ProxyHeader | None) -> None:
        spoke_early = self._handshake is None and header is None and has_spoken(client)
        protocol = self._make_protocol(slot, header, spoke_early)
        try:
            if self._handshake is None:
                await self._loop.connect_accepted_socket(lambda: protocol, client)
                return
            context, timeout_s = self._handshake()
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, client, ssl=context, ssl_handshake_timeout=timeout_s
            )
            if not is_secured(transport):
                raise ConnectionResetError("the client went away")
        except OSError:  # it went away, or the handshake failed; connection_made was not called
            self._turn_away(client, slot)
