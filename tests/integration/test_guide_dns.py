"""The examples of docs/guide/dns.md, run as they stand there, with a real resolver; only the port is the test's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtaq.assembly.parts import resolver_for
from mtaq.config import load
from mtaq.dns.resolver import CachingResolver
from mtaq.model.dns import DnsAnswer, Found, Question
from tests.support.unbound import PROGRAM, Unbound

TEXT = (Path(__file__).parents[2] / "docs/guide/dns.md").read_text("utf-8")

SIGNED = """\
@ IN MX 10 mx
mx IN A 127.0.0.9
mx IN AAAA ::1
_25._tcp.mx IN TLSA 3 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
alias IN CNAME mx
out IN CNAME mx.insecure.test.
"""
INSECURE = "mx IN A 127.0.0.8\n"

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(PROGRAM is None, reason="install unbound (Debian package) to run this"),
]


def block(language: str) -> str:
    """The one block of that language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    (block,) = (text for name, text in found if name == language)
    return str(block)


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    folder = tmp_path_factory.mktemp("unbound")
    written = block("unbound").replace("    interface: 127.0.0.1\n", "")
    with Unbound(folder, signed=SIGNED, insecure=INSECURE, configuration=written) as running:
        yield running


@pytest.fixture
def resolver(unbound: Unbound, tmp_path: Path) -> CachingResolver:
    host, port = unbound.address
    file = tmp_path / "mtaq.conf"
    file.write_text(block("").replace(f"dns-nameserver: {host}", f"dns-nameserver: {host}:{port}"))
    return resolver_for(load(path=str(file), environ={}, overrides=[]))


async def test_what_is_proved_is_secure(resolver: CachingResolver) -> None:
    """A validating resolver that is trusted says of records, of their absence and of aliases that they are proved."""
    tlsa = await resolver.ask(Question("_25._tcp.mx.signed.test", "TLSA"))
    assert (tlsa.found, tlsa.secure, tlsa.records[0][:3]) == (Found.RECORDS, True, (3, 1, 1))
    assert await resolver.ask(Question("none.signed.test", "TXT")) == DnsAnswer(Found.NO_NAME, secure=True)
    assert await resolver.ask(Question("mx.signed.test", "TXT")) == DnsAnswer(Found.NO_DATA, secure=True)
    assert (await resolver.locate_mail_hosts("signed.test")).secure
    assert (await resolver.locate_addresses("alias.signed.test")).secure


async def test_what_is_not_proved_is_not_secure(resolver: CachingResolver) -> None:
    """A zone without signatures is answered, and is not secure, nor is an alias that leads into it."""
    for name in ("mx.insecure.test", "out.signed.test"):
        assert await resolver.ask(Question(name, "A")) == DnsAnswer(Found.RECORDS, ("127.0.0.8",), secure=False)
