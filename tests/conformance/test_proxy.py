"""Headers of the PROXY protocol from other projects' tests and from its own text."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.receive.proxy import HeaderParser, MalformedHeader, ProxyHeader
from tests.conformance.vectors import cases, departs

SUITE = "proxy/proxy"


def parse(data: bytes, block_bytes: int) -> ProxyHeader | None:
    """Feed *data* in blocks until the header is complete."""
    parser = HeaderParser()
    for start in range(0, len(data), block_bytes):
        parser.feed(data[start : start + block_bytes])
        if parser.header is not None:
            return parser.header
    return None


def accepted(case: dict[str, Any]) -> ProxyHeader:
    """Return what an accepted case says."""
    expect = case["expect"]
    if expect["src"] is None:
        return ProxyHeader(is_local=case["id"].startswith("v2-local"))
    return ProxyHeader(
        source=(expect["src"], expect["src_port"]),
        destination=(expect["dst"], expect["dst_port"]),
    )


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("case", cases(SUITE), ids=lambda case: str(case["id"]))
def test_header(case: dict[str, Any], whole: bool) -> None:
    """A header says what the vector says, or is refused as the vector wants it, whole and byte by byte."""
    data = bytes.fromhex(case["hex"])
    block_bytes = len(data) if whole else 1
    assert not departs(SUITE, case["id"])
    if not case["expect"]["ok"]:
        with pytest.raises(MalformedHeader):
            parse(data, block_bytes)
        return
    header = parse(data, block_bytes)
    assert header is not None
    said, wanted = header, accepted(case)
    assert (said.is_local, said.source, said.destination) == (wanted.is_local, wanted.source, wanted.destination)
    assert (said.tls is not None) is (case["id"] == "v2-tcp4-tlvs")
