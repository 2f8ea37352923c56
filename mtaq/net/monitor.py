"""``metrics-port``: a few pages over HTTP for those who watch: ``/metrics``, ``/live``, ``/ready``.

Answers from a thread of its own, so that a slow reader slows nothing else. Knows only GET and its pages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Page(NamedTuple):
    """What a path answers."""

    status: int
    content_type: str
    body: bytes


class Monitor:
    """Serves *pages* on *host*:*port* until closed.

    Raises:
        OSError: The port cannot be bound.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        handler = type("Handler", (_Handler,), {"pages": pages})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port; of use when 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Callable[[], Page]]
    timeout = 10  # seconds a client may take to say what it wants

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        answer = page() if page else Page(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"no such page\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Visits are not logged."""
