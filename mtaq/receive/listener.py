"""Accepts connections, one slot each.

A client beyond the cap is left in the kernel's backlog for a while, because most often a slot comes free; after that
it is taken and told 421, so that it knows. On a port with TLS from the first byte, whoever is not served is closed
before the handshake: a connection without a slot must not linger.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from mtaq.receive.ports import Slots

#: How often a full instance looks for a free slot.
RETRY_S = 0.05

#: After so long without a look nobody has been waiting: the next client's wait begins anew.
FORGET_S = 0.5


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


class Acceptor:
    """Accepts on one listening socket."""

    def __init__(
        self,
        sock: socket.socket,
        make_protocol: Callable[[int | None], asyncio.BaseProtocol],
        *,
        slots: Slots,
        admits: Callable[[str], bool],
        handshake: Callable[[], Handshake] | None,
        wait_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._make_protocol = make_protocol
        self._slots = slots
        self._admits = admits
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
        if self._handshake is not None and (slot is None or not self._admits(address[0])):
            # Nothing can be said before the handshake, and none is made for those who may not connect.
            client.close()
            self._give_back(slot)
            return
        client.setblocking(False)
        self._open(client, slot)

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

    def _open(self, client: socket.socket, slot: int | None) -> None:
        task = self._loop.create_task(self._opening(client, slot))
        self._openings.add(task)
        task.add_done_callback(self._openings.discard)

    async def _opening(self, client: socket.socket, slot: int | None) -> None:
        protocol = self._make_protocol(slot)
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
            client.close()
            self._give_back(slot)
