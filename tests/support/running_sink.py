"""A sink in the test's own process: it starts faster than a program, and is as real."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mtaq.cli.sink_addresses import Place
from mtaq.cli.sink_faults import Rule
from mtaq.cli.sink_profile import Profile
from mtaq.cli.sink_record import Record
from mtaq.cli.sink_script import Script, parse_script
from mtaq.cli.sink_server import SinkBuilder, start, stop
from mtaq.cli.sink_state import Sink
from mtaq.cli.sink_tls import Authority
from mtaq.net.listeners import listen


class Notes:
    """What a sink in a folder has kept.

    Attributes:
        folder: Its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return its log, or the lines about *event*."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def notes(self) -> list[dict[str, Any]]:
        """Return its note on each message."""
        return self.lines("message")

    def contents(self) -> list[bytes]:
        """Return the content of each message, in order of arrival."""
        return [path.read_bytes() for path in sorted((self.folder / "mail" / "new").iterdir())]


class RunningSink(Notes):
    """The sink of ``mtaq sink`` in a thread, on a port of its own.

    Attributes:
        port: Where it listens on *ip*.
        authority: Signs its certificates.
    """

    def __init__(
        self,
        folder: Path,
        rules: Sequence[Rule] = (),
        certificate: Path | None = None,
        *,
        percent: float = 100.0,
        seed: int | None = None,
        script: str = "",
        log_all: bool = False,
        implicit_tls: bool = False,
    ) -> None:
        super().__init__(folder)
        builder = _builder(folder, rules, certificate, script, log_all, percent=percent, seed=seed)
        self.authority = builder.authority
        [listener] = listen(["127.0.0.1"], [0])
        self.port: int = listener.port
        self._sink = builder.build(Place("127.0.0.1", self.port), implicit_tls=implicit_tls)
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(start(self._sink, listener.sock))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self._sink.connections)

    def stop(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _stop(self) -> None:
        await stop([self._server], [self._sink])
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SinkHere(Notes):
    """The same in the test's own loop, on one address or several.

    Attributes:
        port: Where it listens, on every address the same.
        sinks: One for each address.
        authority: Signs their certificates.
    """

    def __init__(self, folder: Path, port: int, sinks: Sequence[Sink], authority: Authority) -> None:
        super().__init__(folder)
        self.port = port
        self.sinks = sinks
        self.authority = authority

    @property
    def open(self) -> int:
        """Connections that are open."""
        return sum(len(sink.connections) for sink in self.sinks)


@asynccontextmanager
async def scripted(
    folder: Path, script: str, *, ips: Sequence[str] = ("127.0.0.1",), certificate: Path | None = None
) -> AsyncIterator[SinkHere]:
    """Serve a sink with *script*, which logs everything."""
    builder = _builder(folder, (), certificate, script, True, percent=100.0, seed=None)
    port, servers, sinks = 0, [], []
    for ip in ips:
        [listener] = listen([ip], [port])
        port = listener.port
        sinks.append(builder.build(Place(ip, port)))
        servers.append(await start(sinks[-1], listener.sock))
    try:
        yield SinkHere(folder, port, sinks, builder.authority)
    finally:
        await stop(servers, sinks)


def _builder(
    folder: Path,
    rules: Sequence[Rule],
    certificate: Path | None,
    text: str,
    log_all: bool,
    *,
    percent: float,
    seed: int | None,
) -> SinkBuilder:
    record = Record(maildir=folder / "mail", log=folder / "log", verbose=False, everything=log_all)
    profile = Profile(hostname="sink.test", max_size_bytes=1_000_000, certificate=certificate)
    script = parse_script(text, "script") + Script(tuple(rules))
    return SinkBuilder(record, script, profile, percent=percent, seed=seed)
