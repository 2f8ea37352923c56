"""A dictionary that answers the questions of checks at once, and zones of the vector files for it.

Zones have the form of ``tests.support.dns_server``; texts of TXT records may be bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dns.name

from mtaq.mailauth.asking import Steps
from mtaq.model.dns import DnsAnswer, Found, Question

Zones = dict[str, Any]


def openspf_zones(zonedata: Mapping[str, Any]) -> Zones:
    """
    Return a zone of the openspf suite in the form of ``tests.support.dns_server``.

    Records of type SPF stand for TXT records where there are none; a name with a time-out has SERVFAIL for every type
    that it has no record of.
    """
    return {_key(name): _openspf_entry(entries) for name, entries in zonedata.items()}


def _key(name: str) -> str:
    labels = [label.encode() for label in name.lower().split(".")]
    return dns.name.Name((*labels, b"")).to_text(omit_final_dot=True)


def _openspf_entry(entries: list[Any]) -> Zones | str:
    entry: Zones = {}
    times_out = False
    for record in entries:
        ((kind, value),) = record.items()
        if kind == "rcode":
            times_out = True
        else:
            entry.setdefault(kind, []).append(_octets(value) if kind in ("TXT", "SPF") else value)
    spf = entry.pop("SPF", [])
    texts = entry.setdefault("TXT", spf)
    if texts in ([], [[b"NONE"]]):
        del entry["TXT"]
    if times_out:
        return dict.fromkeys(("A", "AAAA", "MX", "PTR", "TXT"), "SERVFAIL") | entry
    return entry


def _octets(value: str | list[str]) -> list[bytes]:
    strings = [value] if isinstance(value, str) else value
    return [string.encode("latin-1") for string in strings] or [b""]


def split_zones(zones: Mapping[str, Any]) -> Zones:
    """Return *zones* with their TXT records in strings of at most 255 octets, as DNS has them."""
    return {name: _split(entry) for name, entry in zones.items()}


def _split(entry: Any) -> Any:
    if isinstance(entry, str) or isinstance(entry.get("TXT", ""), str):
        return entry
    texts = ["".join(record).encode() for record in entry["TXT"]]
    return entry | {"TXT": [[text[at : at + 255] for at in range(0, len(text), 255)] for text in texts]}


def answer_from(zones: Mapping[str, Any], question: Question, aliases: int = 8) -> DnsAnswer:
    """Return what a resolver makes of *zones* for *question*."""
    entry = zones.get(_key(question.name))
    if entry is None:
        return DnsAnswer(Found.NO_NAME)
    if isinstance(entry, Mapping) and "CNAME" in entry and question.kind != "CNAME":
        alias = str(entry["CNAME"][0]).rstrip(".")
        return answer_from(zones, Question(alias, question.kind), aliases - 1) if aliases else _word("SERVFAIL")
    records = entry if isinstance(entry, str) else entry.get(question.kind, "NODATA")
    return _word(records) if isinstance(records, str) else DnsAnswer(Found.RECORDS, _plain(question.kind, records))


def _word(word: str) -> DnsAnswer:
    return DnsAnswer({"NXDOMAIN": Found.NO_NAME, "NODATA": Found.NO_DATA}.get(word, Found.FAILED))


def _plain(kind: str, records: list[Any]) -> tuple[Any, ...]:
    if kind == "TXT":
        strings = [[record] if isinstance(record, (str, bytes)) else record for record in records]
        return tuple(tuple(s if isinstance(s, bytes) else s.encode() for s in record) for record in strings)
    if kind == "MX":
        return tuple((preference, host.lower().rstrip(".")) for preference, host in records)
    return tuple(str(record).lower().rstrip(".") for record in records)


def driven(steps: Steps[Any], zones: Mapping[str, Any], asked: list[Question] | None = None) -> Any:
    """Return what *steps* comes to with the answers of *zones*; its questions are added to *asked*."""
    try:
        questions = next(steps)
        while True:
            if asked is not None:
                asked += questions
            questions = steps.send([answer_from(zones, question) for question in questions])
    except StopIteration as end:
        return end.value
