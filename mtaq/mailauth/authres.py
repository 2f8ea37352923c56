"""The Authentication-Results field (RFC 8601): written, and read.

What is written may come from anybody (HELO, addresses, signatures), so values are quoted unless they cannot end the
word they stand in, and control characters do not get in. What is read is taken apart strictly, comments are passed
over. Which fields must not be believed is ``mtaq/mailauth/authres_forged.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mtaq.mailauth.from_field import a_label_domain
from mtaq.mailauth.verdict import Verdict
from mtaq.mime.headers import unfold
from mtaq.mime.words import text_of

#: RFC 5322 §2.1.1: lines should stay within 78 characters, and must within 998 octets.
LINE_LENGTH = 78
#: Longest value written, in octets: with its name and quotes it fits into a line that cannot be folded.
MAX_VALUE_BYTES = 450
#: Longest field read.
MAX_FIELD_BYTES = 65_536

_TOKEN = re.compile(r"[^\x00- \x7f()<>@,;:\\\"/\[\]?=]+")  # RFC 2045 §5.1, with UTF-8 (RFC 6532 §3.2)
_ADDRESS = re.compile(r"[^\x00- \x7f()<>@,;:\\\"\[\]]*@[^\x00- \x7f()<>@,;:\\\"/\[\]?=]+")
_KEYWORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_PROPERTY = re.compile(rf"{_KEYWORD.pattern}\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_UNWRITABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")

_SCANNED = re.compile(
    r"""(?P<blank>[ \t\r\n]++)
    |(?P<quoted>"(?:[^"\\]|\\.)*+")
    |(?P<run>[^\x00- \x7f()<>,;:\\"\[\]=.]++)
    |(?P<special>[;=.])
    |(?P<comment>\()""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"\\.|[()]", re.DOTALL)
_UNQUOTE = re.compile(r"\\(.)", re.DOTALL)


class AuthresSyntaxError(ValueError):
    """The field is not what RFC 8601 §2.2 allows."""


@dataclass(frozen=True, slots=True)
class AuthenticationResults:
    """A field that was read.

    Attributes:
        authserv_id: Who says so.
        version: Of the format; ``None`` for 1.
        verdicts: What it says; methods, results and names of properties in lower case.
    """

    authserv_id: str
    version: str | None = None
    verdicts: tuple[Verdict, ...] = ()


def compose(authserv_id: str, verdicts: Sequence[Verdict], *, utf8: bool = False) -> bytes:
    """
    Return the field, folded, with its name and the CRLF at its end.

    Control characters and runs of blanks in values become one blank, values of more than ``MAX_VALUE_BYTES`` are cut.

    Args:
        authserv_id: This host's name in such fields.
        verdicts: None at all is ``none``.
        utf8: The message may have UTF-8 in its header section (RFC 6532). Else domains are written in A-labels, and
            what then is not ASCII as question marks.

    Raises:
        ValueError: A method, result or name of a property is no keyword: these are not for strangers to choose.
    """
    lines = [f"Authentication-Results: {_value(authserv_id, utf8)};"]
    for verdict in verdicts:
        lines += _folded(_resinfo(verdict, utf8))
        lines[-1] += ";"
    if not verdicts:
        lines.append(" none;")
    return ("\r\n".join(lines).removesuffix(";") + "\r\n").encode()


def _resinfo(verdict: Verdict, utf8: bool) -> list[str]:
    """Return the words of a result, each to be kept in one piece."""
    words = [f"{_keyword(verdict.method)}={_keyword(verdict.result)}"]
    if verdict.reason:
        reason = f"reason={_value(verdict.reason, utf8, always_quoted=True)}"
        words += [reason] if len(reason) < LINE_LENGTH else reason.split(" ")
    for name, value in verdict.properties:
        if not _PROPERTY.fullmatch(name):
            raise ValueError(f"{name!r} is no property")
        words.append(f"{name}={_value(value, utf8)}")
    return words


def _keyword(text: str) -> str:
    if not _KEYWORD.fullmatch(text):
        raise ValueError(f"{text!r} is no keyword")
    return text


def _value(text: str, utf8: bool, *, always_quoted: bool = False) -> str:
    """Return *text* as a ``pvalue`` (RFC 8601 §2.2): as it is when it is a token or an address, else quoted."""
    text = _UNWRITABLE.sub(" ", text).strip(" ").encode("utf-8", "replace")[:MAX_VALUE_BYTES].decode("utf-8", "ignore")
    if not utf8 and not text.isascii():
        text = _in_ascii(text)
    if not always_quoted and (_TOKEN.fullmatch(text) or _ADDRESS.fullmatch(text)):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def _in_ascii(text: str) -> str:
    before, at, domain = text.rpartition("@")
    return f"{before}{at}{a_label_domain(domain) or domain}".encode("ascii", "replace").decode("ascii")


def _folded(words: Sequence[str]) -> list[str]:
    """Return lines that begin with a blank and, with a semicolon behind them, are not too long where that can be."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) >= LINE_LENGTH:
            lines.append("")
        lines[-1] += f" {word}"
    return lines


class _Piece(NamedTuple):
    kind: str
    text: str
    apart: bool  # a blank or comment stands before it


def parse(value: bytes) -> AuthenticationResults:
    """
    Read the *value* of a field, folded or not.

    Words that are no property, such as ``version=TLSv1.2``, are passed over; addresses may hold what RFC 5321 allows.

    Raises:
        AuthresSyntaxError: It cannot be read.
    """
    if len(value) > MAX_FIELD_BYTES:
        raise AuthresSyntaxError("too long")
    return _Reader(list(_pieces(text_of(unfold(value))))).read()


def _pieces(text: str) -> Iterator[_Piece]:
    position, apart = 0, False
    while position < len(text):
        match = _SCANNED.match(text, position)
        if match is None:
            raise AuthresSyntaxError(f"unexpected {text[position]!r}")
        position, kind = match.end(), match.lastgroup or ""
        if kind == "comment":
            position = after_comment(text, position)
        if kind in ("comment", "blank"):
            apart = True
        else:
            yield _Piece(kind, match[0], apart)
            apart = False


def after_comment(text: str, position: int) -> int:
    """
    Return where the comment ends whose parenthesis stands before *position*.

    Raises:
        AuthresSyntaxError: It does not end.
    """
    depth = 1
    for match in _COMMENT_MARK.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    raise AuthresSyntaxError("a comment does not end")


class _Reader:
    """Takes pieces apart by the grammar of RFC 8601 §2.2."""

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = pieces
        self._position = 0

    def read(self) -> AuthenticationResults:
        """Return the whole field."""
        authserv_id = self._value("the authserv-id", joined=("run", "."))
        version = self._next().text if self._at("run") else None
        if version is not None and not (version.isascii() and version.isdigit()):
            raise AuthresSyntaxError("the version is no number")
        self._expect(";")
        if self._at("run", "none") and self._position + 1 == len(self._pieces):
            return AuthenticationResults(authserv_id, version)
        verdicts = [self._resinfo()]
        while self._position < len(self._pieces):
            self._expect(";")
            verdicts.append(self._resinfo())
        return AuthenticationResults(authserv_id, version, tuple(verdicts))

    def _resinfo(self) -> Verdict:
        method, _, _ = self._name().partition("/")  # its version says nothing: there is 1 only
        result = self._value("a result", joined=("run",)).lower()
        if not _KEYWORD.fullmatch(method) or not _KEYWORD.fullmatch(result):
            raise AuthresSyntaxError("no method and result")
        reason: str | None = None
        properties: list[tuple[str, str]] = []
        while self._position < len(self._pieces) and not self._at("special", ";"):
            name = self._name()
            value = self._value(name)
            if name == "reason" and reason is None and not properties:
                reason = value
            elif _PROPERTY.fullmatch(name):
                properties.append((name, value))
        return Verdict(method, result, reason, tuple(properties))

    def _name(self) -> str:
        """Return what stands before the next equals sign, in lower case."""
        name = ""
        while self._at("run") or self._at("special", "."):
            name += self._next().text
        self._expect("=")
        if not name:
            raise AuthresSyntaxError("a name is missing")
        return name.lower()

    def _value(self, what: str, *, joined: tuple[str, ...] = ("run", ".", "=")) -> str:
        """Return the value that begins here: words of *joined* kinds without blanks between, or a quoted-string."""
        parts: list[str] = []
        if self._at("quoted"):
            text = unquoted(self._next().text)
            if not self._goes_on() or not self._pieces[self._position].text.startswith("@"):
                return text
            parts.append(text)
        while self._position < len(self._pieces) and (not parts or self._goes_on()):
            kind, text, _ = self._pieces[self._position]
            if (text if kind == "special" else kind) not in joined:
                break
            parts.append(text)
            self._position += 1
        if not parts:
            raise AuthresSyntaxError(f"the value of {what} is missing")
        return "".join(parts)

    def _goes_on(self) -> bool:
        return self._position < len(self._pieces) and not self._pieces[self._position].apart

    def _at(self, kind: str, text: str | None = None) -> bool:
        if self._position == len(self._pieces):
            return False
        piece = self._pieces[self._position]
        return piece.kind == kind and (text is None or piece.text.lower() == text)

    def _next(self) -> _Piece:
        self._position += 1
        return self._pieces[self._position - 1]

    def _expect(self, special: str) -> None:
        if not self._at("special", special):
            raise AuthresSyntaxError(f"{special!r} is missing")
        self._position += 1


def unquoted(text: str) -> str:
    """Return the content of a quoted-string (RFC 5322 §3.2.4)."""
    return _UNQUOTE.sub(r"\1", text[1:-1])
