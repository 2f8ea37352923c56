"""The forms of ``smtp-auth``: text to values, and text to what may be printed.

Knows how the forms are written, not how anybody is asked. A mistake is a ``ValueError`` that never repeats the text,
which may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit


@dataclass(frozen=True)
class HardcodedLogin:
    """``hardcoded://user:password,…``.

    Attributes:
        passwords: By user; never empty.
    """

    passwords: tuple[tuple[str, str], ...] = field(repr=False)


@dataclass(frozen=True)
class LdapLogin:
    """``ldap(s)://host:port/base_dn``.

    Attributes:
        tls: TLS from the first byte, the certificate verified.
        base_dn: What follows ``uid=<user>,`` in the name to bind as.
    """

    host: str
    port: int
    tls: bool
    base_dn: str


@dataclass(frozen=True)
class RadiusLogin:
    """``radius://identifier:secret@host:port``.

    Attributes:
        identifier: How we call ourselves to the server (NAS-Identifier).
        secret: Shared with the server.
    """

    identifier: str
    secret: str = field(repr=False)
    host: str
    port: int


@dataclass(frozen=True)
class SystemLogin:
    """``users://user,pattern*``.

    Attributes:
        patterns: Which system accounts may log in; ``*`` stands for any letters.
    """

    patterns: tuple[str, ...]


@dataclass(frozen=True)
class HttpLogin:
    """``http(s)://host/path``.

    Attributes:
        url: Asked with the client's Basic credentials; has none of its own.
    """

    url: str


@dataclass(frozen=True)
class FileLogin:
    """``file:///path``.

    Attributes:
        path: Absolute; lines of ``user:crypt-hash``.
    """

    path: str


@dataclass(frozen=True)
class ProgramLogin:
    """``exec:///path``.

    Attributes:
        path: Absolute; takes no arguments.
    """

    path: str


Login = HardcodedLogin | LdapLogin | RadiusLogin | SystemLogin | HttpLogin | FileLogin | ProgramLogin
"""One form."""

_FORMS = "hardcoded://, ldap://, ldaps://, radius://, users://, http://, https://, file:/// or exec:///"
_find_bad_escape = re.compile("%(?![0-9A-Fa-f]{2})").search
_find_control = re.compile("[\\x00-\\x1f\\x7f-\\x9f]").search
_PORTS = {"ldap": 389, "ldaps": 636, "radius": 1812}


def logins(text: str) -> tuple[Login, ...]:
    """
    Parse one or several forms, separated by blanks.

    Raises:
        ValueError: Which one is wrong and what is expected; never the text itself.
    """
    forms = text.split()
    return tuple(_numbered(form, number, len(forms)) for number, form in enumerate(forms, start=1))


def _numbered(form: str, number: int, total: int) -> Login:
    try:
        return _login(form)
    except ValueError as error:
        which = f"form {number} of {total}: " if total > 1 else ""
        raise ValueError(f"{which}{error}") from None


def _login(form: str) -> Login:
    scheme, slashes, rest = form.partition("://")
    parse = _PARSERS.get(scheme)
    if not slashes or parse is None:
        raise ValueError(f"unknown form; expected {_FORMS} (a blank inside of one is written %20)")
    return parse(scheme, rest)


def _hardcoded(_scheme: str, rest: str) -> HardcodedLogin:
    passwords: dict[str, str] = {}
    for item in rest.split(","):
        user, colon, password = item.partition(":")
        if not user or not colon or not password or ":" in password:
            raise ValueError("expected hardcoded://user:password,user2:password2 (inside, , is %2C, : is %3A)")
        if _decoded(user) in passwords:
            raise ValueError("a user is given twice; expected one password for each")
        passwords[_decoded(user)] = _decoded(password)
    return HardcodedLogin(tuple(passwords.items()))


def _ldap(scheme: str, rest: str) -> LdapLogin:
    parts = _parts(scheme, rest)
    base_dn = _decoded(parts.path.removeprefix("/")) if len(parts.path) > 1 else ""
    if not parts.hostname or "@" in parts.netloc or "=" not in base_dn or parts.query or parts.fragment:
        raise ValueError(f"expected {scheme}://host:{_PORTS[scheme]}/ou=people,dc=example,dc=com")
    return LdapLogin(parts.hostname, parts.port or _PORTS[scheme], scheme == "ldaps", base_dn)


def _radius(scheme: str, rest: str) -> RadiusLogin:
    parts = _parts(scheme, rest)
    has_more = parts.path not in ("", "/") or parts.query or parts.fragment
    if not parts.hostname or not parts.username or not parts.password or parts.netloc.count("@") > 1 or has_more:
        raise ValueError("expected radius://identifier:secret@host:1812 (inside, @ is %40, / is %2F, # is %23)")
    identifier = _decoded(parts.username)
    if len(identifier.encode()) > 253:
        raise ValueError("expected an identifier of at most 253 bytes")
    return RadiusLogin(identifier, _decoded(parts.password), parts.hostname, parts.port or _PORTS[scheme])


def _users(_scheme: str, rest: str) -> SystemLogin:
    patterns = tuple(_decoded(item) for item in rest.split(",") if item)
    if not patterns:
        raise ValueError("expected users://user1,user2,client*")
    return SystemLogin(patterns)


def _http(scheme: str, rest: str) -> HttpLogin:
    parts = _parts(scheme, rest)
    if not parts.hostname or "@" in parts.netloc or parts.fragment or not f"{scheme}://{rest}".isascii():
        raise ValueError(f"expected {scheme}://host/path; name and password sent there are those of the client")
    return HttpLogin(f"{scheme}://{rest}")


def _file(_scheme: str, rest: str) -> FileLogin:
    return FileLogin(_path("file", rest))


def _program(_scheme: str, rest: str) -> ProgramLogin:
    return ProgramLogin(_path("exec", rest))


def _path(scheme: str, rest: str) -> str:
    if not rest.startswith("/") or rest.endswith("/"):
        raise ValueError(f"expected {scheme}:/// and an absolute path: {scheme}:///etc/mtaq/users")
    return _decoded(rest)


_PARSERS: dict[str, Callable[[str, str], Login]] = {
    "hardcoded": _hardcoded,
    "ldap": _ldap,
    "ldaps": _ldap,
    "radius": _radius,
    "users": _users,
    "http": _http,
    "https": _http,
    "file": _file,
    "exec": _program,
}


def _parts(scheme: str, rest: str) -> SplitResult:
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        if parts.port != 0:
            return parts
    except ValueError:
        pass
    raise ValueError(f"expected {scheme}:// with a host, and a port from 1 to 65535 or none")


def _decoded(text: str) -> str:
    """Decode ``%XX``; what could end a line or a string elsewhere is refused."""
    if _find_bad_escape(text):
        raise ValueError("a % without two hexadecimal digits; expected %25 for a percent sign")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError("escapes that are not UTF-8; expected UTF-8") from None
    if _find_control(decoded):
        raise ValueError("holds control characters; expected plain text")
    return decoded


def mask_logins(text: str) -> str:
    """Hide passwords and secrets; what has no known form is hidden whole."""
    return " ".join(_mask(form) for form in text.split())


def _mask(form: str) -> str:
    scheme, slashes, rest = form.partition("://")
    if not slashes or scheme not in _PARSERS:
        return "***"
    if scheme == "hardcoded":
        return f"{scheme}://" + ",".join(f"{item.partition(':')[0]}:***" for item in rest.split(","))
    rest, question, _query = rest.partition("?")
    credentials, at, place = rest.rpartition("@")
    user, colon, _secret = credentials.partition(":")
    return f"{scheme}://{user}{colon and ':***'}{at}{place}{question and '?***'}"
