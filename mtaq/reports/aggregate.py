"""DMARC aggregate reports (RFC 9990; the older form of RFC 7489 App. C), from XML to JSON.

Faithful: elements keep their names, without namespaces, and their order; what the standards count is a number, what
they repeat is an array even when it occurs once. Attributes are left out. Nothing outside of the octets is ever looked
at: a document that declares entities is no report, and depth, elements and texts are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NoReturn
from xml.parsers import expat

from mtaq.reports.report import VALUE_LIMIT, NotAReport, Report

ELEMENTS_LIMIT = 200_000
DEPTH_LIMIT = 30
RECORDS_LIMIT = 5_000
#: Octets of one tag, with its attributes: they are held all together.
TAG_BYTES = 262_144

_NAME_LIMIT = 100
#: Repeated by the standards, wherever they stand.
_ARRAYS = frozenset(("record", "reason", "error", "extension"))
#: Repeated inside ``auth_results``; elsewhere these are words.
_RESULTS = frozenset(("dkim", "spf"))
_NUMBERS = frozenset(("begin", "end", "count", "pct"))
_is_number = re.compile(r"[0-9]{1,15}").fullmatch
_NEEDED = ("report_metadata", "policy_published")

#: What some documents have before the first letter, and expat does not take.
_BEFORE_XML = b" \t\r\n"
_UTF8_MARK = b"\xef\xbb\xbf"


class _Read(Exception):
    """Nothing more needs to be read."""


class _Element:
    """An element that is not at its end yet."""

    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> None:
        """Take a child in."""
        known = self.children.get(name)
        if isinstance(known, list):
            known.append(value)
        elif known is not None:
            self.children[name] = [known, value]
        else:
            is_array = name in _ARRAYS or (self.name == "auth_results" and name in _RESULTS)
            self.children[name] = [value] if is_array else value

    @property
    def value(self) -> Any:
        """What it is in the JSON."""
        if self.children:
            return self.children
        text = self.text.strip()
        return int(text) if self.name in _NUMBERS and _is_number(text) else text


class _Reader:
    """Follows the parser; ``feedback`` is the element of that name, once it is complete or long enough."""

    def __init__(self) -> None:
        self.feedback: dict[str, Any] = {}
        self.truncated = False
        self._open: list[_Element] = []
        self._elements = 0
        self._records = 0

    def start(self, qualified: str, _: Any) -> None:
        name = qualified.rpartition(" ")[2]
        self._elements += 1
        if len(self._open) == DEPTH_LIMIT or len(name) > _NAME_LIMIT:
            raise NotAReport("elements are nested too deep")
        if not self._open and name not in ("feedback", "schema"):  # some wrap it into its own schema
            raise NotAReport("another document")
        if self._elements > ELEMENTS_LIMIT or self._records == RECORDS_LIMIT:
            self._cut()
        self._open.append(_Element(name))

    def end(self, _: str) -> None:
        element = self._open.pop()
        value = element.value
        self._records += element.name == "record"
        if element.name == "feedback":
            if isinstance(value, dict):
                self.feedback = value
            raise _Read
        if self._open and value != "":
            self._open[-1].add(element.name, value)

    def text(self, text: str) -> None:
        if self._open and len(self._open[-1].text) < VALUE_LIMIT:
            self._open[-1].text = (self._open[-1].text + text)[:VALUE_LIMIT]

    def refuse(self, *_: Any) -> NoReturn:
        raise NotAReport("entities are declared")

    def _cut(self) -> NoReturn:
        self.truncated = True
        self.feedback = next((element.children for element in self._open if element.name == "feedback"), {})
        raise _Read


def read_aggregate(pieces: Iterable[bytes]) -> Report:
    """
    Read an XML document that comes in *pieces*.

    Raises:
        NotAReport: It is another document, broken before its end, or declares entities.
    """
    reader = _Reader()
    try:
        _parse(pieces, reader)
    except _Read:
        pass
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: encodings it does not know
        raise NotAReport(f"not XML: {error}") from error
    if not all(isinstance(reader.feedback.get(name), dict) for name in _NEEDED):
        raise NotAReport("not an aggregate report")
    properties: dict[str, Any] = {"feedback": reader.feedback}
    if reader.truncated:
        properties["truncated"] = True
    long = ("feedback", "record") if isinstance(reader.feedback.get("record"), list) else ()
    return Report("dmarc", properties, long)


def _parse(pieces: Iterable[bytes], reader: _Reader) -> None:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.EntityDeclHandler = reader.refuse
    parser.ExternalEntityRefHandler = reader.refuse
    parser.SkippedEntityHandler = reader.refuse
    fed = 0
    for piece in pieces:
        if not fed:
            piece = piece.removeprefix(_UTF8_MARK).lstrip(_BEFORE_XML)
        parser.Parse(piece, False)
        fed += len(piece)
        if fed - parser.CurrentByteIndex > TAG_BYTES:
            raise NotAReport("a tag that is too long")
    parser.Parse(b"", True)
