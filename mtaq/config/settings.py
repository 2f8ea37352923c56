"""A configuration that was found right, as the parts of the program use it.

Built from effective texts alone, so that a supervisor can hand them to its worker processes through a pipe and both
hold the same; reading and checking are ``mtaq.config.loading``'s work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from mtaq.config.delivery import DeliverOptions, DnsOptions
from mtaq.config.option import Option
from mtaq.config.process import LogOptions, ProcessOptions
from mtaq.config.queues import QueueOptions
from mtaq.config.reception import ListenOptions, ReceiveOptions
from mtaq.config.spool import SpoolOptions
from mtaq.config.state import StateOptions
from mtaq.config.table import OPTIONS, SECTION_OPTIONS, SECTIONS

Raw = dict[str, Any]
"""The JSON-able form of ``Settings``. Holds secrets: for pipes, never for logs or command lines."""


class Given(NamedTuple):
    """What the operator gave for one ``key`` or ``key@port``.

    Attributes:
        text: As written.
        origin: ``file:line``, ``environment`` or ``command line``.
    """

    text: str
    origin: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The effective configuration.

    Attributes:
        listen: Where connections are accepted.
        reception: Reception on ports that nothing overrides; ask ``receive(port)`` instead.
        spool: The watched folder.
        queues: The broker and its queues.
        deliver: Delivery.
        dns: Look-ups.
        state: The runtime state; ask ``database_address`` for its place.
        process: Folders and processes.
        log: The application log.
        ports: Reception where ``key@port`` overrides something.
        given: What differs from the defaults, by ``key`` or ``key@port``. Holds secrets.
        warnings: What the operator should change, one line each.
    """

    listen: ListenOptions
    reception: ReceiveOptions
    spool: SpoolOptions
    queues: QueueOptions
    deliver: DeliverOptions
    dns: DnsOptions
    state: StateOptions
    process: ProcessOptions
    log: LogOptions
    ports: Mapping[int, ReceiveOptions]
    given: Mapping[str, Given]
    warnings: tuple[str, ...] = ()

    def receive(self, port: int) -> ReceiveOptions:
        """Return the options of reception on *port*, overrides applied."""
        return self.ports.get(port, self.reception)

    @property
    def database_address(self) -> str:
        """Where the runtime state is kept."""
        return self.state.database_address or f"sqlite://{quote(self.process.data_directory.rstrip('/'))}/mtaq.db"

    @property
    def origins(self) -> dict[str, str]:
        """Where each value came from: key → ``default``, ``file:line``, ``environment`` or ``command line``."""
        return dict.fromkeys(OPTIONS, "default") | {name: given.origin for name, given in self.given.items()}

    def to_raw(self) -> Raw:
        """Return a form that JSON can carry to a worker process. Holds secrets."""
        return {"given": {name: list(given) for name, given in self.given.items()}, "warnings": list(self.warnings)}

    @classmethod
    def from_raw(cls, raw: Raw) -> Settings:
        """Build what ``to_raw`` described; it was checked before and is not checked again."""
        return build({name: Given(*given) for name, given in raw["given"].items()}, tuple(raw["warnings"]))


class ChangedKeys(NamedTuple):
    """Which keys differ between two configurations.

    Attributes:
        live: Keys, ``key`` or ``key@port``, that a running instance takes at once.
        restart: Keys that need a restart.
    """

    live: tuple[str, ...]
    restart: tuple[str, ...]


def build(given: Mapping[str, Given], warnings: tuple[str, ...] = ()) -> Settings:
    """Build settings from texts that are known to parse."""
    values = {row.attribute: _parsed(row, given.get(row.key)) for row in OPTIONS.values()}
    parts = {
        name: section(**{row.attribute: values[row.attribute] for row in SECTION_OPTIONS[name]})
        for name, section in SECTIONS.items()
    }
    ports = _per_port(parts["reception"], given)
    return Settings(**parts, ports=ports, given=dict(given), warnings=warnings)


def _parsed(row: Option, given: Given | None) -> Any:
    return row.parser(row.default_text if given is None else given.text)


def _per_port(reception: ReceiveOptions, given: Mapping[str, Given]) -> dict[int, ReceiveOptions]:
    overrides: dict[int, dict[str, Any]] = {}
    for name, value in given.items():
        key, _, port = name.partition("@")
        if port:
            overrides.setdefault(int(port), {})[OPTIONS[key].attribute] = OPTIONS[key].parser(value.text)
    return {port: replace(reception, **values) for port, values in overrides.items()}


def changed_keys(old: Settings, new: Settings) -> ChangedKeys:
    """Tell which keys' values differ, those that take effect at once apart from those that need a restart."""
    names = [name for name in _names(old, new) if _value(old, name) != _value(new, name)]
    live = tuple(name for name in names if _is_live(name))
    return ChangedKeys(live, tuple(name for name in names if not _is_live(name)))


def merge_live(running: Settings, new: Settings) -> Settings:
    """Return *new* as far as a running instance can take it: where a restart is needed the running value stays."""
    sources = ((name, new if _is_live(name) else running) for name in _names(running, new))
    return build({name: source.given[name] for name, source in sources if name in source.given}, new.warnings)


def _names(old: Settings, new: Settings) -> list[str]:
    overridden = {name: None for name in (*old.given, *new.given) if "@" in name}
    return [*OPTIONS, *overridden]


def _is_live(name: str) -> bool:
    return OPTIONS[name.partition("@")[0]].reload


def _value(settings: Settings, name: str) -> object:
    key, _, port = name.partition("@")
    row = OPTIONS[key]
    if port:
        return getattr(settings.receive(int(port)), row.attribute)
    section = next(section for section, rows in SECTION_OPTIONS.items() if row in rows)
    return cast("object", getattr(getattr(settings, section), row.attribute))
