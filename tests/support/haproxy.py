"""A real haproxy, as an operator would run it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

DEFAULTS = """\
defaults
    mode tcp
    timeout connect 10s
    timeout client 2m
    timeout server 2m
"""


class Haproxy:
    """One haproxy with a configuration of its own; a context manager that waits until it accepts connections."""

    def __init__(self, folder: Path, configuration: str, *, listens: tuple[tuple[str, int], ...]) -> None:
        """Run *configuration* from *folder*; *listens* are the addresses that it binds."""
        self._listens = listens
        self._path = folder / "haproxy.cfg"
        self._path.write_text(configuration)
        self._log = folder / "haproxy.log"

    def __enter__(self) -> Haproxy:
        assert PROGRAM is not None
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, "-db", "-f", str(self._path)], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not all(self._accepts(address) for address in self._listens):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"haproxy does not run:\n{self._log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _accepts(self, address: tuple[str, int]) -> bool:
        try:
            socket.create_connection(address, 5).close()
        except ConnectionRefusedError:
            return False
        return True
