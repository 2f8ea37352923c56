"""What a sink is like apart from its faults: name, certificate, extensions, logins, limits; for each of its addresses.

Pure. A setting that has another form raises ``ValueError`` with what is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from mtaq.cli.sink_addresses import Place, Places
from mtaq.cli.sink_extensions import EXTENSIONS
from mtaq.config.values import byte_count, integer
from mtaq.net.tls import Floor

#: Certificates that the sink makes itself.
CERTIFICATES = {
    "good": "for its host name, signed by the authority that --ca writes",
    "wrong-name": "signed, but for another name",
    "expired": "signed, but since yesterday no longer valid",
    "self-signed": "for its host name, signed by nobody else",
}
_VERSIONS: Mapping[str, Floor] = {"1.2": "1.2", "1.3": "1.3"}
_count = integer(1, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How one address behaves.

    Attributes:
        hostname: In the greeting, in answer to EHLO, and in certificates that are made.
        max_size_bytes: Largest message.
        certificate: One of ``CERTIFICATES``, or a PEM file; ``None`` for no TLS.
        key: PEM file of the certificate's key; ``None`` when it stands in the same file.
        tls_min: Lowest version of TLS.
        tls_max: Highest.
        without: Extensions that are neither announced nor known.
        logins: Passwords by user; ``None`` when AUTH is not offered; empty when nobody may.
        connections: At a time from one client, then 421; ``None`` for no limit.
        messages: On one connection, then 421.
        rate: A minute from one client, then 451.
    """

    hostname: str = "sink.localhost"
    max_size_bytes: int = 512 * 1024 * 1024
    certificate: str | Path | None = None
    key: Path | None = None
    tls_min: Floor = "1.2"
    tls_max: Floor = "1.3"
    without: frozenset[str] = frozenset()
    logins: Mapping[str, str] | None = field(default=None, repr=False)
    connections: int | None = None
    messages: int | None = None
    rate: int | None = None

    @property
    def is_plain(self) -> bool:
        """Is nothing asked for that needs a look at every command?"""
        return (self.logins, self.connections, self.messages, self.rate, self.without) == (
            None, None, None, None, frozenset(),
        )  # fmt: skip


class Setting(NamedTuple):
    """One line of a script that changes profiles.

    Attributes:
        change: Makes the new profile.
        at: Only at these addresses; empty for all.
    """

    change: Callable[[Profile], Profile]
    at: tuple[Places, ...] = ()


def profile_at(place: Place, profile: Profile, settings: Iterable[Setting]) -> Profile:
    """Return *profile* as *settings* change it for *place*; the last word counts."""
    for setting in settings:
        if not setting.at or any(place in places for places in setting.at):
            profile = setting.change(profile)
    return profile


def parse_setting(name: str, text: str) -> Callable[[Profile], Profile]:
    """
    Read the value of a setting.

    Raises:
        ValueError: It is not what is expected.
    """
    try:
        return SETTINGS[name](text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _changes(field_name: str, parse: Callable[[str], object]) -> Callable[[str], Callable[[Profile], Profile]]:
    def parsed(text: str) -> Callable[[Profile], Profile]:
        value = parse(text)
        return lambda profile: replace(profile, **{field_name: value})  # type: ignore[arg-type]  # by the table below

    return parsed


def _hostname(text: str) -> str:
    if not text or not text.isascii() or not text.replace(".", "").replace("-", "").isalnum():
        raise ValueError("a host name is expected")
    return text


def _certificate(text: str) -> str | Path:
    if text in CERTIFICATES:
        return text
    if "/" not in text and "." not in text:
        raise ValueError(f"{', '.join(CERTIFICATES)} or a PEM file is expected")
    return Path(text)


def _version(text: str) -> Floor:
    if text not in _VERSIONS:
        raise ValueError("1.2 or 1.3 is expected")
    return _VERSIONS[text]


def _size(text: str) -> int:
    size_bytes = byte_count(text)
    if size_bytes < 1:
        raise ValueError("a size is expected, such as 10MB")
    return size_bytes


def _without(text: str) -> Callable[[Profile], Profile]:
    names = [name.strip().upper() for name in text.split(",")]
    for name in names:
        if name not in EXTENSIONS:
            raise ValueError(f"{name!r} is not one of {', '.join(EXTENSIONS)}")
    return lambda profile: replace(profile, without=profile.without | frozenset(names))


def _login(text: str) -> Callable[[Profile], Profile]:
    if text == "nobody":
        return lambda profile: replace(profile, logins=profile.logins or {})
    user, colon, password = text.partition(":")
    if not (colon and user and password):
        raise ValueError("USER:PASSWORD or nobody is expected")
    return lambda profile: replace(profile, logins={**(profile.logins or {}), user: password})


#: What a script can set; a value's parser makes a change of it.
SETTINGS: Mapping[str, Callable[[str], Callable[[Profile], Profile]]] = {
    "hostname": _changes("hostname", _hostname),
    "size": _changes("max_size_bytes", _size),
    "certificate": _changes("certificate", _certificate),
    "key": _changes("key", Path),
    "tls-min": _changes("tls_min", _version),
    "tls-max": _changes("tls_max", _version),
    "without": _without,
    "login": _login,
    "connections": _changes("connections", _count),
    "messages": _changes("messages", _count),
    "rate": _changes("rate", _count),
}
