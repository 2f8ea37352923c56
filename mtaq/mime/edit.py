"""The edits of the ``headers`` property, made on the content.

Operations are made in this order, whatever their order in the JSON: ``remove``, ``replace``, ``update``, ``prepend``,
``append`` (``add`` is another name for it). So a field that is removed and prepended has moved to the top. Names match
without regard to case. Fields that no edit names, and the body, stay byte for byte.

Anything that could make one field into two, or a body, is refused with ``BadMessage`` that names the property; long
values are folded, and values that are not ASCII become encoded-words unless the message may go out as SMTPUTF8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mtaq.mime.headers import header_end
from mtaq.mime.words import encode_words
from mtaq.model.errors import BadMessage

#: RFC 5322 §2.1.1: octets of a line without CRLF: what must be, and what should be.
LINE_MAX = 998
LINE_FOLDED = 78

_OPERATIONS = ("remove", "replace", "update", "prepend", "append", "add")
_RAW_FIELD = re.compile(rb"[^\n]*+(?:\n[ \t][^\n]*+)*+(?:\n|\Z)")
_RAW_NAME = re.compile(rb"([!-9;-~]++)[ \t]*+:")
_is_name = re.compile(r"[!-9;-~]{1,76}").fullmatch
# A lone surrogate is no character, and has no UTF-8.
_find_control = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]").search
_TOKEN = re.compile(rb"[ \t]*[^ \t]+")
_BLANKS_OR_WORD = re.compile(r"[ \t]+|[^ \t]+")
#: An address field in pieces: blanks, quoted string, address in brackets, word of a display name, anything else.
_PHRASE_PIECE = re.compile(
    r'[ \t]+|"(?:[^"\\]++|\\.?)*+"?|<[^<>]*>|(?:[A-Za-z0-9!#$%&\'*+/=?^_`{|}~.-]|[^\x00-\x7f])+|.'
)
_find_encoded_address = re.compile(r"\?=@|@=\?").search
#: Fields of addresses, in which only display names may be encoded (RFC 2047 §5).
_ADDRESS_FIELDS = {"from", "sender", "reply-to", "to", "cc", "bcc"}


class _Section:
    """A header section taken apart: each field with its lower-case name, lines that are no field with an empty one."""

    def __init__(self, section: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        for match in _RAW_FIELD.finditer(section):
            raw = match[0]
            if raw:
                name = _RAW_NAME.match(raw)
                self.fields.append((name[1].lower() if name is not None else b"", raw))
        if self.fields and not self.fields[-1][1].endswith(b"\n"):
            name_, raw = self.fields[-1]
            self.fields[-1] = (name_, raw + b"\r\n")

    def remove(self, name: bytes) -> None:
        self.fields = [field for field in self.fields if field[0] != name]

    def replace(self, name: bytes, raw: bytes) -> bool:
        """Put *raw* in the first such field's place and remove the others; ``False`` when there is none."""
        index = next((index for index, field in enumerate(self.fields) if field[0] == name), None)
        if index is None:
            return False
        before, after = self.fields[:index], self.fields[index + 1 :]
        self.fields = [*before, (name, raw), *(field for field in after if field[0] != name)]
        return True


def edit_headers(content: bytes, edits: Mapping[str, Any], *, smtputf8: bool = False) -> bytes:
    """
    Make *edits* on the header section of *content*.

    Args:
        content: Header section and body; line ends CRLF.
        edits: The ``headers`` property: ``remove`` a name or an array of names; ``replace`` (the first such field is
            set, the others go, appended when there is none) and ``update`` (likewise, but never appended) name →
            value; ``prepend`` (at the top, the first one given topmost) and ``append`` name → value or array of values.
        smtputf8: Values may stay UTF-8 (RFC 6532).

    Raises:
        BadMessage: An edit of another form, a name or a value that no field can have.
    """
    for operation in edits:
        if operation not in _OPERATIONS:
            raise BadMessage(f"headers.{operation}: one of {', '.join(_OPERATIONS)} is expected")
    end = header_end(content)
    section = _Section(content[:end])
    for name in _names(edits):
        section.remove(name)
    for operation in ("replace", "update"):
        for name, raw in _new_fields(edits, operation, smtputf8, single=True):
            if not section.replace(name, raw) and operation == "replace":
                section.fields.append((name, raw))
    top = list(_new_fields(edits, "prepend", smtputf8))
    bottom = [*_new_fields(edits, "append", smtputf8), *_new_fields(edits, "add", smtputf8)]
    return b"".join([*(raw for _, raw in (*top, *section.fields, *bottom)), content[end:]])


def _names(edits: Mapping[str, Any]) -> Iterator[bytes]:
    names = edits.get("remove")
    if names is None:
        return
    for name in [names] if isinstance(names, str) else names if isinstance(names, list) else [None]:
        yield _checked_name(name, "headers.remove").lower().encode("ascii")


def _new_fields(
    edits: Mapping[str, Any], operation: str, smtputf8: bool, *, single: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    wanted = edits.get(operation)
    if wanted is None:
        return
    where = f"headers.{operation}"
    if not isinstance(wanted, Mapping):
        raise BadMessage(f"{where}: an object of names and values is expected")
    for name, values in wanted.items():
        _checked_name(name, where)
        for value in values if isinstance(values, list) and not single else [values]:
            yield name.lower().encode("ascii"), make_field(name, value, where=f"{where}.{name}", smtputf8=smtputf8)


def _checked_name(name: Any, where: str) -> str:
    if not isinstance(name, str):
        raise BadMessage(f"{where}: the name of a header field is expected, or an array of them")
    if not _is_name(name):
        raise BadMessage(f"{where}: {name[:80]!r} cannot be the name of a header field")
    return name


def make_field(name: str, value: Any, *, where: str, smtputf8: bool) -> bytes:
    """
    Return one header field, folded, with its line end.

    Args:
        name: Already checked.
        where: The property it comes from, for the error.

    Raises:
        BadMessage: *value* is not text, holds a line end or another control character, or a word too long to fold.
    """
    if not isinstance(value, str):
        raise BadMessage(f"{where}: a string is expected")
    if _find_control(value):
        raise BadMessage(f"{where}: a header field cannot hold line ends or control characters")
    if not smtputf8 and not value.isascii():
        value = _encoded_value(name, value, where)
    lines = _folded(name.encode("ascii") + b":", value.strip(" \t").encode("utf-8"))
    if any(len(line) > LINE_MAX for line in lines):
        raise BadMessage(f"{where}: a word of more than {LINE_MAX} octets does not fit into a line")
    return b"\r\n".join(lines) + b"\r\n"


def _folded(start: bytes, value: bytes) -> list[bytes]:
    """Break before blanks, so that unfolding gives *value* back; never before the first word."""
    lines = [start]
    for number, token in enumerate(_TOKEN.findall(b" " + value)):
        if number and len(lines[-1]) + len(token) > LINE_FOLDED:
            lines.append(token)
        else:
            lines[-1] += token
    return lines


def _encoded_value(name: str, value: str, where: str) -> str:
    if name.lower().removeprefix("resent-") not in _ADDRESS_FIELDS:
        return _encoded_runs(_BLANKS_OR_WORD.findall(value))
    encoded = _encoded_runs([_unquoted(piece) for piece in _PHRASE_PIECE.findall(value)])
    if not encoded.isascii() or _find_encoded_address(encoded):
        raise BadMessage(f"{where}: an address that is not ASCII needs smtputf8")
    return encoded


def _unquoted(piece: str) -> str:
    """Take the quotes off a display name that must be encoded: no encoded-word stands inside them (RFC 2047 §5)."""
    if piece.isascii() or not piece.startswith('"'):
        return piece
    return re.sub(r"\\(.)", r"\1", piece[1:].removesuffix('"'))


def _encoded_runs(pieces: list[str]) -> str:
    """Encode pieces that are not ASCII; neighbours together, since blanks between encoded-words vanish."""
    out: list[str] = []
    run = blanks = ""
    for piece in [*pieces, ""]:
        if not piece.isascii() and not piece.startswith("<"):
            run += (blanks if run else "") + piece
        elif run and piece.isspace():
            blanks = piece
            continue
        else:
            if run:
                out += [encode_words(run), blanks or (" " if piece.startswith("<") else "")]
            out.append(piece)
            run = ""
        blanks = ""
    return "".join(out)
