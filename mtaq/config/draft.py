"""Settings that are not approved yet, and where each value was given, so that a mistake can be told at its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtaq.config.errors import Findings
from mtaq.config.reader import Entry
from mtaq.config.reception import ReceiveOptions
from mtaq.config.settings import Settings


@dataclass(frozen=True)
class Draft:
    """Settings not yet approved.

    Attributes:
        settings: Built from what parses.
        entries: Where each ``key`` or ``key@port`` that is not a default stands.
    """

    settings: Settings
    entries: dict[str, Entry]

    def ports(self) -> list[int]:
        """All ports configured, open or not."""
        return [*self.settings.listen.smtp_port, *self.settings.listen.smtp_secure_port]

    def open_ports(self) -> Iterator[tuple[int, ReceiveOptions]]:
        """Yield each port that is not switched off, with its options."""
        for port in self.ports():
            if self.settings.receive(port).smtp_enabled:
                yield port, self.settings.receive(port)

    def blame(self, findings: Findings, problem: str, *keys: str, port: int | None = None) -> None:
        """Note *problem* at the first of *keys* that was given, its ``@port`` form first."""
        entry = self._entry(keys, port)
        if entry is None:
            findings.error(problem, source="default", key=keys[0])
        elif not any(error.key == entry.name and error.problem == problem for error in findings.errors):
            findings.error(problem, source=entry.source, line=entry.line, key=entry.name)

    def advise(self, findings: Findings, problem: str, *keys: str, port: int | None = None) -> None:
        """Warn of *problem* at the first of *keys* that was given; of what is a default nobody is warned."""
        entry = self._entry(keys, port)
        if entry is not None:
            findings.warn(problem, source=entry.source, line=entry.line, key=entry.name)

    def _entry(self, keys: tuple[str, ...], port: int | None) -> Entry | None:
        names = [name for key in keys for name in (f"{key}@{port}", key)]
        return next((self.entries[name] for name in names if name in self.entries), None)
