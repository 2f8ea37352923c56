"""Who signs a message on its way out, and when it does not go out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mtaq.deliver import signing_keys
from mtaq.deliver.category import category
from mtaq.deliver.ending import HostFailure
from mtaq.deliver.intake import paths_of, prepare
from mtaq.deliver.signing import Signing
from mtaq.deliver.signing_keys import KeyRing
from mtaq.mailauth.arc import check_arc
from mtaq.mailauth.arc_chain import find_chain
from mtaq.mailauth.arc_seal import seal
from mtaq.mailauth.dkim import check_dkim, find_signatures
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_sign import Signer
from mtaq.mailauth.dkim_sign_key import UnusableKey
from mtaq.mailauth.dkim_tags import parse_tags
from mtaq.model.codec import decode_outbox, encode_outbox, encode_result
from mtaq.model.control import DkimKey
from mtaq.model.dns import Ask, DnsAnswer, Question
from mtaq.model.errors import LocalProtocolError
from mtaq.model.message import OutboxMessage
from mtaq.smtp.client_commands import PeerExtensions, Transaction
from mtaq.smtp.client_session import ClientSession
from mtaq.state.dkim_keys import dkim_key
from mtaq.telemetry.events import EventLog
from tests.support.control import about, control
from tests.support.delivery import NAMES, Lines, options
from tests.support.keys import ed25519_pem, ed25519_record, rsa_pem, rsa_record, signing_key
from tests.support.zones import Zones, answer_from, driven

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTENT = "From: Ada <ada@example.com>\r\nSubject: x\r\n\r\nhello\r\n"
ZONES: Zones = {
    f"{selector}._domainkey.{domain}": {"TXT": [record]}
    for domain in ("example.com", "sub.example.com", "example.net", "xn--maana-pta.example")
    for selector, record in (("rsa", rsa_record(1024)), ("ed", ed25519_record()))
}
BINARY = PeerExtensions(chunking=True, binarymime=True, eightbitmime=True)
PLAIN = PeerExtensions()
ED = {"domain": "example.com", "selector": "ed", "key": ed25519_pem()}


def outbox(**properties: Any) -> OutboxMessage:
    message = {"recipient": "bob@example.org", "message-id": "test.1", "mime": CONTENT} | properties
    return decode_outbox(json.dumps(message).encode())


def state_key(domain: str = "example.com", selector: str = "rsa", pem: str = "", **more: Any) -> DkimKey:
    return dkim_key(domain, selector, pem or rsa_pem(1024), about=about(), **more)


class World:
    def __init__(self, *keys: DkimKey, zones: Zones = ZONES, names: Any = NAMES, resolves: bool = True) -> None:
        self.lines, self.asked, self.threads = Lines(), list[Question](), list[threading.Thread]()
        self._zones = zones
        self.signing = Signing(
            control(*keys),
            names,
            inquire=self._inquire if resolves else None,
            events=EventLog(self.lines, node="test", clock=lambda: NOW),
            clock=self._clock,
        )

    def _clock(self) -> datetime:
        self.threads.append(threading.current_thread())
        return NOW

    def _inquire(self) -> Ask:
        async def ask(question: Question) -> DnsAnswer:
            self.asked.append(question)
            return answer_from(self._zones, question)

        return ask

    async def plan(self, message: OutboxMessage) -> Transaction:
        return await self.signing.plan(message, prepare(message, *paths_of(message, options())))

    async def sent(self, message: OutboxMessage, peer: PeerExtensions = PLAIN) -> Transaction:
        transaction = await self.plan(message)
        assert transaction.variant_for is not None
        return await transaction.variant_for(transaction, peer)

    @property
    def unsigned(self) -> list[str]:
        return [str(line["reason"]) for line in self.lines.of("delivery.unsigned")]


def signers(content: bytes) -> list[str]:
    """Return who signed, from the top; every signature must verify."""
    result = driven(check_dkim(find_signatures(SignedMessage(content)), now=NOW), ZONES)
    assert {signature.word for signature in result.signatures} <= {"pass"}, result
    return [f"{signature.named.selector}.{signature.named.domain}" for signature in result.signatures]


def judged(content: bytes) -> tuple[str, int]:
    result = driven(check_arc(find_chain(SignedMessage(content)), now=NOW), ZONES)
    return result.word, result.instances


async def test_ordinary_mail_goes_as_it_is() -> None:
    """Nothing is done to what nobody signs, whatever keys there are for others."""
    for world in (World(), World(state_key("example.net"))):
        message = outbox()
        transaction = prepare(message, *paths_of(message, options()))
        assert await world.signing.plan(message, transaction) is transaction


async def test_keys_of_the_message() -> None:
    """Each of them signs, the first one topmost."""
    world = World()
    transaction = await world.sent(outbox(dkim=[ED, ED | {"selector": "rsa", "key": rsa_pem(1024)}]))
    assert signers(transaction.content) == ["ed.example.com", "rsa.example.com"]
    assert transaction.content.endswith(CONTENT.encode())
    assert transaction.variant_for is None


@pytest.mark.parametrize(
    ("author", "expected"),
    [
        ("ada@example.com", ["rsa.example.com", "ed.example.net"]),
        ("Ada <ada@Sub.Example.com>", ["rsa.example.com"]),
        ("ada@example.org", []),
        ("ada@example.com, bob@sub.example.com", ["rsa.example.com", "ed.example.net"]),
    ],
)
async def test_keys_of_the_operator(author: str, expected: list[str]) -> None:
    """All that were given the domain in From sign, a domain above it only where the entry says so."""
    keys = [
        state_key(signs=["example.com", "*.example.com"]),
        state_key("example.net", "ed", ed25519_pem(), signs=["example.com"]),
    ]
    transaction = await World(*keys).plan(outbox(mime=CONTENT.replace("Ada <ada@example.com>", author)))
    if expected:
        assert transaction.variant_for is not None
        transaction = await transaction.variant_for(transaction, PLAIN)
    assert sorted(signers(transaction.content)) == sorted(expected)


async def test_a_domain_beyond_ascii() -> None:
    """It is found however From spells it, and signs in A-labels (RFC 8616)."""
    world = World(state_key("mañana.example"))
    for domain in ("mañana.example", "xn--maana-pta.example"):
        transaction = await world.sent(outbox(mime=f"From: a@{domain}\r\n\r\n", smtputf8=True))
        assert signers(transaction.content) == ["rsa.xn--maana-pta.example"]


async def test_no_signature_twice() -> None:
    """A key of the message takes the place of the operator's key of the same name."""
    world = World(state_key("example.com", "ed", ed25519_pem()), state_key())
    transaction = await world.sent(outbox(dkim=ED | {"headers": ["X-More"]}, mime="X-More: 1\r\n" + CONTENT))
    assert signers(transaction.content) == ["ed.example.com", "rsa.example.com"]
    (first, _) = SignedMessage(transaction.content).named(b"dkim-signature")
    assert "x-more" in parse_tags(first.value)["h"]


async def test_what_a_message_asks_for() -> None:
    """Fields, canonicalisation and end are in the signature."""
    asked = ED | {"oversign": ["reply-to"], "canonicalization": "simple/relaxed", "expire": 3600}
    transaction = await World().sent(outbox(dkim=asked))
    (field,) = SignedMessage(transaction.content).named(b"dkim-signature")
    tags = parse_tags(field.value)
    assert (tags["c"], int(tags["x"]) - int(tags["t"]), tags["h"]) == (
        "simple/relaxed", 3600, "from:from:reply-to:subject",
    )  # fmt: skip


async def test_fields_of_the_operator() -> None:
    """Those that a key was given are signed as well."""
    world = World(state_key(headers=["feedback-id"]))
    transaction = await world.sent(outbox(mime="Feedback-ID: 1\r\n" + CONTENT))
    (field,) = SignedMessage(transaction.content).named(b"dkim-signature")
    assert parse_tags(field.value)["h"].endswith(":feedback-id")


async def test_what_is_signed_is_what_is_sent() -> None:
    """Header edits are made and bare LF has become CRLF before; octets beyond ASCII stay."""
    message = outbox(
        mime="From: a@example.com\nSubject: é\n\nbody ü\n", headers={"replace": {"Subject": "new"}}, dkim=ED
    )
    content = (await World().sent(message)).content
    assert b"\r\nSubject: new\r\n\r\nbody \xc3\xbc\r\n" in content
    assert signers(content) == ["ed.example.com"]


async def failure(world: World, message: OutboxMessage) -> Any:
    with pytest.raises(HostFailure) as raised:
        await world.sent(message)
    assert "SECRET" not in f"{raised.value!r} {raised.value.ending!r} {raised.value.__cause__!r}"
    return raised.value.ending


@pytest.mark.parametrize(
    ("asked", "description"),
    [
        (ED | {"key": "SECRET"}, "dkim.key: not a private key in PEM"),
        ([ED, ED | {"key": "SECRET"}], "dkim[1].key: not a private key in PEM"),
        (ED | {"domain": "no domain"}, "dkim.domain is not a domain name"),
        (ED | {"selector": "-"}, "dkim.selector is not a domain name"),
        (ED | {"expire": "2026-01-01 00:00:00"}, "dkim: the signature would have expired already"),
    ],
)
async def test_a_message_that_cannot_be_signed_fails(asked: Any, description: str) -> None:
    """For good, with the property's name and without a word of the key."""
    ending = await failure(World(), outbox(dkim=asked))
    assert (ending.state, ending.result, ending.final, ending.description) == ("process", "invalid", True, description)
    assert category(ending) == "other"  # the mailbox is none the worse


async def test_a_message_without_from_fails() -> None:
    """It asked for a signature, and none can be valid."""
    ending = await failure(World(), outbox(dkim=ED, mime="Subject: x\r\n\r\n"))
    assert (ending.state, ending.result, ending.final) == ("process", "invalid", True)
    assert ending.description == "dkim: there is no From field"


async def test_an_operators_key_that_cannot_be_used_defers() -> None:
    """The mail waits until somebody has mended it: it was not to go unsigned."""
    world = World(replace(state_key(), pem="SECRET"))
    ending = await failure(world, outbox())
    assert (ending.state, ending.result, ending.final, ending.code) == ("process", "error", False, 451)
    assert ending.description == (
        "the DKIM key rsa._domainkey.example.com of this system cannot be used: not a private key in PEM"
    )


async def test_nobody_can_tell_whose_it_is() -> None:
    """Mail whose From cannot be read goes without an operator's signature, and the log says so."""
    world = World(state_key())
    transaction = await world.plan(outbox(mime="Subject: x\r\n\r\n"))
    assert transaction.variant_for is None
    assert world.unsigned == ["no key is looked for: no From field"]


# Seals.

ARC = ED | {"protocols": ["arc"]}


def came_sealed(instances: int = 1) -> str:
    content = CONTENT.encode()
    for number in range(instances):
        signer = Signer(domain="example.net", selector="ed", key=signing_key(ed25519_pem()))
        verdict: Any = "pass" if number else "none"
        content = seal(content, signer, verdict=verdict, results=b"mx.example.net; none", now=NOW) + content
    return content.decode()


def said(content: bytes, name: bytes) -> dict[str, str]:
    return parse_tags(SignedMessage(content).named(name)[0].value)


async def test_the_first_seal() -> None:
    """What our checks found stands in it, under the name that took the message; DKIM signatures are made before."""
    checks = [{"spf": "pass", "smtp.mailfrom": "a@example.com"}, {"arc": "none"}]
    message = outbox(dkim=ED | {"protocols": ["dkim", "arc"]}, checks=checks, hostname="mx.example.com")
    content = (await World().sent(message)).content
    assert judged(content) == ("pass", 1)
    assert signers(content) == ["ed.example.com"]
    assert content.index(b"ARC-Seal") < content.index(b"DKIM-Signature")
    (results,) = SignedMessage(content).named(b"arc-authentication-results")
    assert results.value == b" i=1; mx.example.com;\r\n spf=pass smtp.mailfrom=a@example.com;\r\n arc=none"
    assert "dkim-signature" in said(content, b"arc-message-signature")["h"]


async def test_a_seal_alone() -> None:
    """No DKIM signature is made with a key that is for ARC."""
    content = (await World().sent(outbox(dkim=[ARC, ARC | {"selector": "rsa", "key": rsa_pem(1024)}]))).content
    assert (judged(content), signers(content)) == (("pass", 1), [])
    assert said(content, b"arc-seal")["s"] == "ed"


async def test_our_name_in_seals() -> None:
    """``smtp-authserv-id`` goes before the name that took the message, and that before the name in EHLO."""
    for names, properties, expected in (
        (replace(NAMES, authserv_id="id.test"), {"hostname": "mx.test"}, b"id.test"),
        (NAMES, {"hostname": "mx.test"}, b"mx.test"),
        (NAMES, {}, b"out.test"),
    ):
        content = (await World(names=names).sent(outbox(dkim=ARC, **properties))).content
        assert SignedMessage(content).named(b"arc-authentication-results")[0].value.startswith(b" i=1; " + expected)


async def test_results_that_stand_above_the_message() -> None:
    """Where a message has no checks, fields with our authserv-id say what was found."""
    mime = "Authentication-Results: out.test; spf=fail\r\nAuthentication-Results: x.test; dkim=pass\r\n" + CONTENT
    content = (await World().sent(outbox(dkim=ARC, mime=mime))).content
    (results,) = SignedMessage(content).named(b"arc-authentication-results")
    assert results.value == b" i=1; out.test; arc=none; spf=fail"


@pytest.mark.parametrize("word", ["pass", "fail"])
async def test_a_chain_that_reception_judged(word: str) -> None:
    """Its verdict is taken; nothing is asked."""
    world = World()
    message = outbox(dkim=ARC, mime=came_sealed(2), checks=[{"arc": word, "instances": 2}])
    content = (await world.sent(message)).content
    assert (said(content, b"arc-seal")["cv"], said(content, b"arc-seal")["i"]) == (word, "3")
    assert judged(content) == (word, 3)
    assert world.asked == []


@pytest.mark.parametrize(
    "checks", [[], [{"arc": "none"}], [{"arc": "pass", "instances": 1}], [{"arc": "fail"}], ["arc"], None]
)
async def test_a_chain_that_nobody_judged(checks: Any) -> None:
    """It is verified here, where what was found is not about it, before anything is changed."""
    world = World()
    edits = {"replace": {"Subject": "[list] x"}}
    content = (await world.sent(outbox(dkim=ARC, mime=came_sealed(2), checks=checks, headers=edits))).content
    assert (said(content, b"arc-seal")["cv"], said(content, b"arc-seal")["i"]) == ("pass", "3")
    assert b"arc=pass" in SignedMessage(content).named(b"arc-authentication-results")[0].value
    assert world.asked


async def test_a_chain_that_is_broken() -> None:
    """It is sealed as broken, and only once (RFC 8617 §5.1)."""
    broken = came_sealed(1).replace("hello", "hullo")
    content = (await World().sent(outbox(dkim=ARC, mime=broken))).content
    assert said(content, b"arc-seal")["cv"] == "fail"
    again = World()
    assert (await again.sent(outbox(dkim=ARC, mime=content.decode()))).content == content
    assert again.unsigned == ["not sealed: a host before sealed that the chain is broken (cv=fail)"]


@pytest.mark.parametrize(
    ("world", "checks"),
    [
        (lambda: World(zones={"ed._domainkey.example.net": "SERVFAIL"}), []),
        (World, [{"arc": "temperror", "instances": 1}]),
        (lambda: World(resolves=False), []),
    ],
)
async def test_no_seal_on_what_cannot_be_judged(world: Callable[[], World], checks: Any) -> None:
    """Where the keys of the chain cannot be looked up, the message goes unsealed, DKIM signatures and all."""
    around = world()
    message = outbox(dkim=ED | {"protocols": ["arc", "dkim"]}, mime=came_sealed(1), checks=checks)
    content = (await around.sent(message)).content
    assert SignedMessage(content).count(b"arc-seal") == 1
    assert signers(content) == ["ed.example.com"]
    assert around.unsigned == ["not sealed: the keys of the chain cannot be looked up now"]


# Binary content.

IMAGE = (
    b"From: a@example.com\nMIME-Version: 1.0\r\nContent-Type: image/png\r\n"
    b"Content-Transfer-Encoding: binary\r\n\r\n\0\n\r"
)


def binary(**properties: Any) -> OutboxMessage:
    return replace(outbox(body="binarymime", **properties), content=IMAGE)


@pytest.mark.parametrize("asked", [None, ED])
async def test_each_server_gets_its_variant(asked: Any) -> None:
    """Binary where it is taken, else base64; signed as it goes."""
    message = binary(dkim=asked)
    whole, lines = [(await World().sent(message, peer)) for peer in (BINARY, PLAIN)]
    assert (whole.body, lines.body) == ("binarymime", "7bit")
    assert whole.content.endswith(b"\r\n\r\n\0\n\r")
    assert lines.content.endswith(b"Content-Transfer-Encoding: base64\r\n\r\nAAoN\r\n")
    for transaction in (whole, lines):
        assert signers(transaction.content) == (["ed.example.com"] if asked else [])


async def test_binary_content_that_cannot_be_converted() -> None:
    """It stays what it is, and the session objects."""
    message = replace(binary(dkim=ED), content=b"From: a@example.com\r\nContent-Type: multipart/mixed\r\n\r\n\0")
    transaction = await World().sent(message, PLAIN)
    assert transaction.body == "binarymime"
    assert ClientSession("x.test").objection(transaction) is not None


async def test_nothing_goes_out_before_it_is_signed() -> None:
    """A session takes a transaction that has been made for its server, and no other."""
    session = ClientSession("x.test")
    session.receive_data(b"220 mx\r\n")
    session.data_to_send()
    session.receive_data(b"250 mx\r\n")
    transaction = await World().plan(outbox(dkim=ED))
    with pytest.raises(LocalProtocolError):
        session.begin(transaction)


async def test_sizes_for_rates() -> None:
    """What a signature adds counts, about, before it is made."""
    world = World()
    transaction = await world.plan(outbox(dkim=[ED, ARC]))
    assert transaction.variant_for is not None
    made = await transaction.variant_for(transaction, PLAIN)
    assert made.size_bytes <= transaction.size_bytes <= made.size_bytes + 5_000
    assert made.size_bytes == len(made.content)


async def test_large_content_is_left_to_a_thread() -> None:
    """The event loop goes on while a body is hashed."""
    world = World()
    await world.sent(outbox(dkim=ED))
    await world.sent(outbox(dkim=ED, mime=CONTENT + "x" * 100_000))
    loop_thread, other = world.threads
    assert loop_thread is threading.current_thread()
    assert other is not loop_thread


# Keys.


async def test_a_key_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many messages need it at the same time; and one that cannot be used is not read again either."""
    read: list[str] = []
    load = signing_keys.load_key

    def counted(pem: str) -> Any:
        read.append(pem)
        return load(pem)

    monkeypatch.setattr(signing_keys, "load_key", counted)
    keys = KeyRing()
    one, *others = await asyncio.gather(*(keys.key(ed25519_pem()) for _ in range(20)))
    assert all(other is one for other in others)
    for _ in range(2):
        with pytest.raises(UnusableKey):
            await keys.key("none")
    assert len(read) == 2


async def test_keys_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was used longest ago goes first."""
    monkeypatch.setattr(signing_keys, "MOST_KEYS", 2)
    keys = KeyRing()
    first = await keys.key(ed25519_pem())
    for pem in ("a", "b"):
        with pytest.raises(UnusableKey):
            await keys.key(pem)
        assert await keys.key(ed25519_pem()) is first
    assert len(keys._known) == 2


async def test_a_message_that_was_given_up_does_not_take_the_key_along() -> None:
    """Whoever else waits for it gets it."""
    keys = KeyRing()
    given_up = asyncio.ensure_future(keys.key(ed25519_pem()))
    waiting = asyncio.ensure_future(keys.key(ed25519_pem()))
    await asyncio.sleep(0)
    given_up.cancel()
    assert (await waiting).algorithm == "ed25519-sha256"


# What is told.


@pytest.mark.parametrize("asked", [ED | {"key": "SECRET"}, [ED | {"key": "SECRET"}]])
async def test_a_key_is_told_to_nobody(asked: Any) -> None:
    """It is in no result and no ``repr``; the copy for the next attempt has it, because that needs it."""
    message = outbox(dkim=asked)
    result = encode_result(message, [], None)
    assert b"SECRET" not in result
    assert json.loads(result)["dkim"] == (
        [{"domain": "example.com", "selector": "ed"}]
        if isinstance(asked, list)
        else {"domain": "example.com", "selector": "ed"}
    )
    assert "SECRET" not in repr(message)
    assert b"SECRET" in encode_outbox(message, {})


async def test_a_plan_shows_no_key() -> None:
    """Nor does a transaction."""
    transaction = await World(state_key()).plan(outbox(dkim=ED))
    assert "PRIVATE" not in repr(transaction)
