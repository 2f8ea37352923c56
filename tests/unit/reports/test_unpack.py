"""Carriers of reports, unpacked within bounds."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile

import pytest

from mtaq.reports.report import NotAReport
from mtaq.reports.unpack import Budget, unpacked
from tests.unit.reports.mails import zipped

TEXT = b"<feedback>" + bytes(range(256)) * 600


def whole(octets: bytes, limit_bytes: int = 10**6) -> bytes:
    return b"".join(unpacked(octets, Budget(limit_bytes)))


@pytest.mark.parametrize(
    "packed",
    [
        TEXT,
        gzip.compress(TEXT),
        gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]),
        gzip.compress(TEXT) + b"\0" * 500 + b"garbage",
        zipped(("report.xml", TEXT)),
        zipped(("../../etc/REPORT.XML", TEXT)),
        zipped(("/absolute", TEXT)),
        zipped(("readme.txt", b"no"), ("folder/", b""), ("r.xml", TEXT)),
    ],
    ids=["plain", "gzip", "two members", "trailing garbage", "zip", "dots", "absolute", "among others"],
)
def test_what_is_carried_comes_out(packed: bytes) -> None:
    """Whatever the carrier, the document is the same; names in archives do nothing."""
    assert whole(packed) == TEXT


def test_stored_and_streamed_entries() -> None:
    """An archive may leave its files uncompressed, and have their sizes behind them."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive, archive.open("r.xml", "w") as file:
        file.write(TEXT)
    assert whole(held.getvalue()) == TEXT


def encrypted() -> bytes:
    octets = bytearray(zipped(("r.xml", TEXT)))
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = octets.find(magic) + place
        octets[at] |= 1
    return bytes(octets)


def with_method(method: int) -> bytes:
    octets = bytearray(zipped(("r.xml", TEXT)))
    struct.pack_into("<H", octets, octets.find(b"PK\x01\x02") + 10, method)
    return bytes(octets)


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(TEXT)[:-100],
        gzip.compress(TEXT)[:12],
        b"\x1f\x8b garbage",
        gzip.compress(TEXT)[:50] + b"\xff" * 300,
        gzip.compress(b"") * 5000,
        zipped(("r.xml", TEXT))[:-200],
        zipped(("r.xml", TEXT))[:40],
        zipped(*((f"{number}.xml", b"x") for number in range(100))),
        zipped(("a.txt", b"x"), ("b.txt", b"x")),
        zipped(("folder/", b"")),
        encrypted(),
        with_method(12),
        b"PK\x03\x04" + b"PK\x05\x06" + b"\xff" * 18,
    ],
    ids=[
        "gzip cut", "gzip header", "gzip garbage", "gzip broken", "many members", "zip cut", "zip header", "many files",
        "no report", "folder", "encrypted", "bzip2", "zip64",
    ],
)  # fmt: skip
def test_what_is_broken_or_strange_is_no_report(packed: bytes) -> None:
    """Cut off, broken, encrypted, of many files: refused, and never with another error."""
    with pytest.raises(NotAReport):
        whole(packed)


@pytest.mark.parametrize("pack", [gzip.compress, lambda octets: zipped(("r.xml", octets))], ids=["gzip", "zip"])
def test_a_bomb_is_given_up_at_the_limit(pack: object) -> None:
    """No more comes out than the budget allows, whatever the octets would grow to."""
    bomb = pack(bytes(50_000_000))  # type: ignore[operator]  # one of the two above
    budget, seen = Budget(1_000_000), 0
    with pytest.raises(NotAReport):  # noqa: PT012  # how much came out before counts
        for piece in unpacked(bomb, budget):
            seen += len(piece)
    assert 900_000 < seen <= 1_000_000


def test_the_budget_is_for_all_carriers_together() -> None:
    """What one carrier took is gone for the next."""
    budget = Budget(1500)
    assert len(b"".join(unpacked(gzip.compress(bytes(1000)), budget))) == 1000
    with pytest.raises(NotAReport):
        list(unpacked(gzip.compress(bytes(1000)), budget))


@pytest.mark.parametrize("packed", [gzip.compress(TEXT), zipped(("r.xml", TEXT))], ids=["gzip", "zip"])
def test_cut_or_changed_anywhere_nothing_else_goes_wrong(packed: bytes) -> None:
    """Every prefix, and every changed octet of the structures, gives octets or ``NotAReport``."""
    variants = [packed[:end] for end in range(0, len(packed), 7)]
    variants += [packed[:at] + b"\xff" + packed[at + 1 :] for at in [*range(60), *range(len(packed) - 90, len(packed))]]
    for octets in variants:
        try:
            whole(octets)
        except NotAReport:
            continue
