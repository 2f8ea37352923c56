"""``metrics-port``: a few pages over HTTP for those who watch: ``/metrics``, ``/live``, ``/ready``.

Answers from a thread of its own, so that a slow reader slows nothing else. Knows only GET and its pages. A visitor that
goes away is no event; a page that cannot be made is answered 500.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple


class Page(NamedTuple):
    """What a path answers."""

    status: int
    content_type: str
    body: bytes


class Monitor:
    """Serves *pages* on *host*:*port* until closed.

    Raises:
        OSError: The port cannot be bound; says which one.
    """

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        handler = type("Handler", (_Handler,), {"pages": pages})
        server = _Server6 if ":" in host else _Server
        try:
            self._server = server((host, port), handler)
        except OSError as error:
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise OSError(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind only: HTTPServer would ask DNS for a name that nobody needs."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of visitors that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Callable[[], Page]]
    timeout = 10  # seconds a client may take to say what it wants
    server_version = "mtaq"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0], _no_such_page)
        try:
            answer = page()
        except OSError:  # the numbers of a worker that just ended, taken away while they were read
            answer = Page(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", b"try again\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Visits are not logged."""


def _no_such_page() -> Page:
    return Page(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"no such page\n")
