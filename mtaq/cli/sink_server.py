"""Serves the addresses of a sink: a plain or a scripted connection for whoever connects, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from mtaq.cli.sink_addresses import Place
from mtaq.cli.sink_connection import HANDSHAKE_TIMEOUT_S, SinkConnection
from mtaq.cli.sink_faults import Faults
from mtaq.cli.sink_profile import Profile, profile_at
from mtaq.cli.sink_record import Record
from mtaq.cli.sink_script import Script
from mtaq.cli.sink_scripted import ScriptedConnection
from mtaq.cli.sink_state import Sink
from mtaq.cli.sink_tls import Authority, context_of


class SinkBuilder:
    """Makes a sink for each address.

    Args:
        profile: What holds where the script says nothing.
    """

    def __init__(
        self, record: Record, script: Script, profile: Profile, *, percent: float = 100.0, seed: int | None = None
    ) -> None:
        self.authority = Authority()
        self._record = record
        self._script = script
        self._profile = profile
        # Every fault is counted over all addresses.
        self._faults = Faults(script.rules, percent, seed)

    def build(self, place: Place, *, implicit_tls: bool = False) -> Sink:
        """
        Return the sink at *place*.

        Raises:
            ConfigError: Its certificate cannot be read.
        """
        profile = profile_at(place, self._profile, self._script.settings)
        if profile.certificate is None and (implicit_tls or self._faults.has("starttls", "handshake")):
            profile = replace(profile, certificate="self-signed")
        context = context_of(profile, self.authority)
        return Sink(self._record, profile, self._faults, context, implicit_tls=implicit_tls)


async def start(sink: Sink, sock: socket.socket) -> asyncio.Server:
    """Serve *sink* at the listening socket *sock*."""
    loop = asyncio.get_running_loop()
    if sink.is_plain:
        context = sink.context if sink.implicit_tls else None
        timeout_s = HANDSHAKE_TIMEOUT_S if context is not None else None
        return await loop.create_server(
            lambda: SinkConnection(sink), sock=sock, backlog=1024, ssl=context, ssl_handshake_timeout=timeout_s
        )
    return await asyncio.start_server(partial(_hold_session, sink), sock=sock, backlog=1024)


async def _hold_session(sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.CancelledError):  # by ``stop``
        await ScriptedConnection(sink, reader, writer).run()


async def stop(servers: Iterable[asyncio.Server], sinks: Iterable[Sink]) -> None:
    """Take no more connections, say good-bye on those that are open, and close them."""
    for server in servers:
        server.close()
    for sink in sinks:
        for connection in list(sink.connections):
            connection.shut_down()
    await asyncio.sleep(0)  # one turn of the loop, in which the last replies go out
