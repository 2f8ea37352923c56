"""Mail that was signed on its way out, as it arrives at a real server: ours, dkimpy and OpenDKIM judge it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dkim
import pytest

from mtaq.mailauth.arc import check_arc
from mtaq.mailauth.arc_chain import find_chain
from mtaq.mailauth.dkim import check_dkim, find_signatures
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.state.dkim_keys import dkim_key, generate, record_of
from tests.support import opendkim
from tests.support.control import about
from tests.support.delivery import START, World, options, outbox_json, set_entries
from tests.support.dns_server import DnsServer
from tests.support.keys import ed25519_pem, ed25519_record, rsa_pem, rsa_record
from tests.support.running_sink import SinkHere, scripted
from tests.support.zones import Zones, driven, split_zones

ZONES: Zones = {
    "rsa._domainkey.example.com": {"TXT": [rsa_record()]},
    "ed._domainkey.example.com": {"TXT": [ed25519_record()]},
}
RSA = {"domain": "example.com", "selector": "rsa", "key": rsa_pem()}
ED25519 = {"domain": "example.com", "selector": "ed", "key": ed25519_pem()}
CONTENT = (
    "From: Ada <ada@example.com>\nTo: bob@example.net\nSubject: Ünïcode  and blanks \n"
    "List-Unsubscribe: <https://example.com/u>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
    "Content-Transfer-Encoding: 8bit\n\n.dot\n..\nzwölf  Boxkämpfer \t\n\n\n"
)
PNG = b"\x89PNG\r\n\x1a\n\0\xff\r\r"
BINARY = (
    b'From: ada@example.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n'
    b"Content-Transfer-Encoding: binary\r\n\r\n--b\r\n\r\ntext\r\n"
    b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n" + PNG + b"\r\n--b--\r\n"
)

needs_opendkim = pytest.mark.skipif(not opendkim.OPENDKIM.exists(), reason="install opendkim (Debian package)")


@asynccontextmanager
async def delivery(folder: Path, script: str = "") -> AsyncIterator[tuple[World, SinkHere]]:
    """A delivery service whose mail goes to a sink."""
    async with scripted(folder, script) as sink:
        sinking = options(smtp_sink_address="127.0.0.1", smtp_sink_port=sink.port)
        async with World(options=sinking) as world:
            yield world, sink


async def sent(folder: Path, message: dict[str, Any], *, script: str = "", state: tuple[Any, ...] = ()) -> bytes:
    """Deliver *message*; return it as the sink has it."""
    async with delivery(folder, script) as (world, sink):
        set_entries(world.control, "dkim_keys", *state)
        await world.deliver(message)
        result = world.result("results")
        assert (result["state"], result["result"]) == ("message", "accepted"), result
        [content] = sink.contents()
        return content


def signed(**properties: Any) -> dict[str, Any]:
    """A message that asks for a signature of each kind."""
    return outbox_json(**{"mime": CONTENT, "dkim": [RSA, ED25519]} | properties)


def judged(content: bytes, zones: Zones = ZONES) -> dict[str, str]:
    """What our own verifier says, by selector."""
    result = driven(check_dkim(find_signatures(SignedMessage(content)), now=START), zones)
    return {signature.named.selector: signature.word for signature in result.signatures}


def judged_by_dkimpy(content: bytes) -> list[bool]:
    """What dkimpy says, from the top."""
    count = SignedMessage(content).count(b"dkim-signature")
    return [bool(dkim.DKIM(content).verify(idx=index, dnsfunc=from_zones)) for index in range(count)]


def from_zones(name: bytes, timeout: int = 5) -> bytes:
    """Answer dkimpy."""
    return str(ZONES[name.decode().rstrip(".")]["TXT"][0]).encode()


@pytest.mark.peers
@needs_opendkim
@pytest.mark.parametrize("canonicalization", ["relaxed/relaxed", "simple/simple", "relaxed/simple", "simple/relaxed"])
async def test_all_accept_what_arrives(canonicalization: str, tmp_path: Path) -> None:
    """OpenDKIM, dkimpy and we ourselves find both signatures right, with every canonicalisation."""
    asked = [key | {"canonicalization": canonicalization} for key in (RSA, ED25519)]
    content = await sent(tmp_path, signed(dkim=asked))
    assert judged(content) == {"rsa": "pass", "ed": "pass"}
    assert judged_by_dkimpy(content) == [True, True]
    async with DnsServer(split_zones(ZONES)) as server:
        assert await opendkim.verdicts(content, server.address, tmp_path) == {"rsa": "pass", "ed": "pass"}
        altered = content.replace(b"zw\xc3\xb6lf", b"elf")
        assert await opendkim.verdicts(altered, server.address, tmp_path) == {"rsa": "fail", "ed": "fail"}


@pytest.mark.peers
@needs_opendkim
async def test_a_field_that_is_added_is_noticed(tmp_path: Path) -> None:
    """OpenDKIM as well does not accept a second From, nor another of a field that was signed once more."""
    content = await sent(tmp_path, signed(dkim=RSA | {"oversign": ["subject", "reply-to"]}))
    async with DnsServer(split_zones(ZONES)) as server:
        for field in (b"From: x@example.net\r\n", b"Subject: new\r\n", b"Reply-To: x@example.net\r\n"):
            assert await opendkim.verdicts(field + content, server.address, tmp_path) == {"rsa": "fail"}
        assert await opendkim.verdicts(b"X-Trace: 1\r\n" + content, server.address, tmp_path) == {"rsa": "pass"}


async def test_header_edits_come_first(tmp_path: Path) -> None:
    """What was edited is what is signed."""
    edits = {"replace": {"Subject": "Grüße"}, "append": {"List-Id": "<l.example.com>"}, "remove": ["To"]}
    content = await sent(tmp_path, signed(headers=edits))
    assert b"List-Id: <l.example.com>\r\n\r\n" in content
    assert judged(content) == {"rsa": "pass", "ed": "pass"}
    assert judged_by_dkimpy(content) == [True, True]


async def test_keys_of_the_operator(tmp_path: Path) -> None:
    """A key that was made for a domain signs its mail, beside those that the message brings."""
    pem = generate("ed25519-sha256")
    key = dkim_key("example.org", "s2036", pem, signs=["*.example.com", "example.com"], about=about())
    content = await sent(tmp_path, signed(), state=(key,))
    zones = ZONES | {"s2036._domainkey.example.org": {"TXT": [record_of(pem)]}}
    assert judged(content, zones) == {"rsa": "pass", "ed": "pass", "s2036": "pass"}


@pytest.mark.parametrize("script", ["", "without: BINARYMIME", "without: CHUNKING"])
async def test_binary_content(script: str, tmp_path: Path) -> None:
    """A server without BINARYMIME gets base64, another one octets; the signature is right for each."""
    message = signed(body="binarymime", dkim=RSA)
    del message["mime"]
    message["mime-base64"] = b64encode(BINARY).decode()
    content = await sent(tmp_path, message, script=script)
    assert (PNG in content) is (not script)
    assert (b"Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgoA/w0N\r\n--b--\r\n" in content) is bool(script)
    assert judged(content) == {"rsa": "pass"}
    if script:  # dkimpy takes a bare LF for a line end
        assert judged_by_dkimpy(content) == [True]


@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
async def test_seals(key: dict[str, Any], tmp_path: Path) -> None:
    """Sealed and signed; dkimpy accepts the chain, and a second hop prolongs it."""
    both = key | {"protocols": ["dkim", "arc"]}
    checks = [{"spf": "pass", "smtp.mailfrom": "ada@example.com"}, {"arc": "none"}]
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    content = await sent(folders[0], signed(dkim=both, checks=checks, hostname="mx.example.com"))
    again = signed(mime=content.decode(), dkim=both, checks=[{"arc": "pass", "instances": 1}])
    content = await sent(folders[1], again)
    result = driven(check_arc(find_chain(SignedMessage(content)), now=START), ZONES)
    assert (result.word, result.instances) == ("pass", 2)
    if key is RSA:  # dkimpy knows no other for ARC
        verdict, _, reason = dkim.arc_verify(content, dnsfunc=from_zones)
        assert verdict == b"pass", reason


async def test_a_large_message(tmp_path: Path) -> None:
    """Hashed in a thread, and right."""
    content = await sent(tmp_path, signed(mime=CONTENT + "x  y\t\n" * 100_000))
    assert judged(content) == {"rsa": "pass", "ed": "pass"}


async def test_keys_stay_here(tmp_path: Path) -> None:
    """A private key is in no result, no line of the log and no entry of the journal; retries carry it on."""
    async with delivery(tmp_path, "rcpt: 450 4.2.1 later") as (world, sink):
        await world.deliver(signed(dkim=ED25519 | {"expire": 86_400}))
        [retry] = world.queues.stored["outbox"]
        [told] = world.queues.stored["retry"]
        assert retry.json["dkim"]["key"] == ed25519_pem()
        assert told.json["dkim"] == {"domain": "example.com", "selector": "ed", "expire": 86_400}
        secret = ed25519_pem().splitlines()[1]
        assert secret not in repr(world.lines.records)
        assert secret not in repr(world.journal.entries)
        assert not sink.contents()


async def test_a_key_that_is_none(tmp_path: Path) -> None:
    """The message fails without a connection, and its result names the property."""
    async with delivery(tmp_path) as (world, sink):
        await world.deliver(signed(dkim=RSA | {"key": "-----BEGIN PRIVATE KEY-----\nSECRET\n"}))
        result = world.result("results")
        assert (result["state"], result["result"]) == ("process", "invalid")
        assert result["description"] == "dkim.key: not a private key in PEM"
        assert sink.lines() == []
        assert "SECRET" not in repr([stored.json for stored in world.queues.stored["results"]])
