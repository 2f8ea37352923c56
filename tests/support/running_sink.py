"""A sink in a thread of the test's own process: it starts faster than a program, and is as real."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from mtaq.cli.sink_connection import Sink as SinkState
from mtaq.cli.sink_connection import SinkConnection
from mtaq.cli.sink_faults import Faults
from mtaq.cli.sink_record import Record
from mtaq.net.tls import server_context
from mtaq.smtp.server_session import SessionOptions


class RunningSink:
    """The sink of ``mtaq sink`` on a port of its own.

    Attributes:
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, folder: Path, faults: Faults, certificate: Path | None = None) -> None:
        self.folder = folder
        self.log = folder / "log"
        options = SessionOptions(
            hostname="sink.test",
            max_size_bytes=1_000_000,
            max_recipients=1000,
            strict_addresses=False,
            starttls=certificate is not None,
        )
        record = Record(maildir=folder / "mail", log=self.log, verbose=False)
        context = server_context(certificate) if certificate is not None else None
        self._sink = SinkState(options, record, faults, context)
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(self._loop.create_server(self._connection, "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        self._server = server
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _connection(self) -> SinkConnection:
        return SinkConnection(self._sink)

    def stop(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        for connection in list(self._sink.connections):
            connection.shut_down()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def notes(self) -> list[dict[str, Any]]:
        """Return its note on each message."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def contents(self) -> list[bytes]:
        """Return the content of each message, in order of arrival."""
        return [path.read_bytes() for path in sorted((self.folder / "mail" / "new").iterdir())]
