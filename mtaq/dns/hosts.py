"""The operator's own table of names, ``/etc/hosts`` (hosts(5)). It goes before DNS, as everywhere on the host.

A missing or unreadable file is an empty one; a line that cannot be read is passed over, as the C library does.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path


class HostsFile:
    """``/etc/hosts``, read again when it has changed on disk."""

    def __init__(self, path: Path = Path("/etc/hosts")) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._addresses: dict[str, list[str]] = {}
        self._names: dict[str, str] = {}

    def addresses(self, name: str) -> list[str]:
        """Return the IP addresses of *name* (no trailing dot), in the file's order; empty when it is not listed."""
        self._refresh()
        return list(self._addresses.get(name.lower(), ()))

    def name_of(self, ip: str) -> str | None:
        """Return the first name that the file gives *ip*."""
        self._refresh()
        return self._names.get(ip)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
        except OSError:
            stamp = None
        else:
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._read()

    def _read(self) -> None:
        self._addresses, self._names = {}, {}
        try:
            text = self._path.read_text("utf-8", "replace")
        except OSError:
            return
        for line in text.splitlines():
            self._add(line.partition("#")[0].split())

    def _add(self, words: list[str]) -> None:
        if len(words) < 2:
            return
        try:
            ip = str(ipaddress.ip_address(words[0]))
        except ValueError:
            return
        self._names.setdefault(ip, words[1].lower())
        for name in words[1:]:
            known = self._addresses.setdefault(name.lower(), [])
            if ip not in known:
                known.append(ip)
