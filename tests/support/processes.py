"""Servers of others beside a test: started, waited for until they listen, and ended with it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command*, silent and with nothing of our environment but its path."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_tcp(port: int, process: subprocess.Popen[bytes], *, seconds: float) -> None:
    """Wait until *process* takes connections on *port*; raises ``RuntimeError`` when it ends or takes too long."""
    deadline_s = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            go_on(process, deadline_s)


def go_on(process: subprocess.Popen[bytes], deadline_s: float) -> None:
    """Pause before the next look at *process*; raises ``RuntimeError`` when it has ended or its time is over."""
    if process.poll() is not None or time.monotonic() > deadline_s:
        raise RuntimeError(f"{process.args!r} does not start (status {process.returncode})")
    time.sleep(0.05)
