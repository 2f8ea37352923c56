"""Ports for servers that tests start.

Below the range that the kernel takes ports from for outgoing connections: a server that is stopped and started again
would else find its port taken by somebody's client now and then.
"""

from __future__ import annotations

import random
import socket

FIRST, LAST = 10_240, 32_000


def free_port(ip: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port that nobody listens on now."""
    for _ in range(1000):
        port = random.randint(FIRST, LAST)
        with socket.socket(type=kind) as probe:
            try:
                probe.bind((ip, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port in a thousand tries")
