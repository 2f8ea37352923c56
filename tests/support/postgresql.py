"""A private PostgreSQL server: own folder, port and password; whatever else runs on the machine is left alone.

The server is Debian's, started directly and not as a service. It refuses to run as root, so root starts it as the user
that the package has made. A server that does not come up raises ``RuntimeError`` with the end of its log.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.support.ports import free_port

#: What to install when ``is_installed()`` says no.
PACKAGE = "postgresql"

PASSWORD = "p@ss/word"  # to be percent-encoded in an address, as any operator's may


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


def is_installed() -> bool:
    """Is there a PostgreSQL server to start, and somebody to run it?"""
    return _programs() is not None and (os.geteuid() != 0 or _user() is not None)


def _user() -> str | None:
    """The user to become; ``None`` for staying who we are."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return None


class PostgresServer:
    """One server in one directory, which is removed with it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._user = _user()
        self._server: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        self._make()

    def address(self, database: str) -> str:
        """The ``database-address`` of one database."""
        return f"postgresql://mtaq:{PASSWORD.replace('@', '%40').replace('/', '%2F')}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Make a database that nobody else has, and return its ``database-address``."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.address(name)

    def start(self, *, timeout_s: float = 30) -> None:
        """Start the server and wait until it takes connections."""
        with (self.directory / "output.log").open("ab") as output:
            self._server = subprocess.Popen(
                [self._program("postgres"), "-D", self.directory / "data", "-p", str(self.port),
                 "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}",
                 "-c", "fsync=off", "-c", "shared_buffers=16MB"],
                user=self._user, group=self._user, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=self.directory, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                psycopg.connect(self.address("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    log = (self.directory / "output.log").read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"PostgreSQL did not start: {error}\n{log}") from error
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once, connections included. Twice is harmless."""
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    def remove(self) -> None:
        """Stop the server and forget everything."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _make(self) -> None:
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        if self._user is not None:
            shutil.chown(secret, self._user)
        subprocess.run(
            [self._program("initdb"), "-D", self.directory / "data", "--username=mtaq", f"--pwfile={secret}",
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            user=self._user, group=self._user, cwd=self.directory, check=True, capture_output=True,
        )  # fmt: skip

    def _program(self, name: str) -> Path:
        programs = _programs()
        assert programs is not None, "not installed"
        return programs / name


@contextlib.contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Give a started server, and remove it afterwards."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
