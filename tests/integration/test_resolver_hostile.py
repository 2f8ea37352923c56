"""The resolver against name servers and zones that mean harm: an answer in time, and the right one or none."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.model.dns import DnsAnswer, Found, Question
from tests.support.dns_server import DnsServer

ANSWER = {"A": ["127.0.0.9"]}
POINTER = b"\xc0\x0c"
"""A name that is the one of the question."""


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer({}) as running:
        yield running


def resolver(server: DnsServer, **options: Any) -> CachingResolver:
    """Ask *server* alone, once, so that what it says counts and nothing is tried a second time."""
    defaults: dict[str, Any] = {"attempts": 1, "interval_s": 20, "min_ttl_s": 0, "hosts": Path("/nonexistent")}
    return CachingResolver(ResolverOptions(nameservers=(server.address,), **(defaults | options)))


async def ask(server: DnsServer, name: str = "a.test", kind: Any = "A", **options: Any) -> DnsAnswer:
    return await asyncio.wait_for(resolver(server, **options).ask(Question(name, kind)), 30)


def header(query: bytes, answers: int = 1, *, flags: int = 0x8180, additional: int = 0) -> bytes:
    """Begin an answer to *query*: its id, its question."""
    end = query.index(b"\0", 12) + 5
    return query[:2] + struct.pack("!HHHHH", flags, 1, answers, 0, additional) + query[12:end]


def record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 300, len(data)) + data


A, CNAME, TXT = 1, 5, 16
ADDRESS = bytes([127, 0, 0, 9])


# Aliases.


async def test_aliases_in_a_circle(server: DnsServer) -> None:
    """A circle within one answer, or one that takes a question for each step, ends as a failure."""
    server.zones |= {"a.test": {"CNAME": ["b.test"]}, "b.test": {"CNAME": ["a.test"]}}
    assert (await ask(server)).found is Found.FAILED
    server.follows_aliases = False
    assert (await ask(server)).found is Found.FAILED
    assert len(server.queries) < 15


async def test_an_alias_of_itself(server: DnsServer) -> None:
    """So does the shortest circle."""
    server.zones["a.test"] = {"CNAME": ["a.test"]}
    assert (await ask(server)).found is Found.FAILED


async def test_aliases_without_end(server: DnsServer) -> None:
    """A chain that is longer each time it is followed ends as a failure, after a few questions."""
    server.follows_aliases = False
    server.zones |= {f"a{number}.test": {"CNAME": [f"a{number + 1}.test"]} for number in range(100)}
    assert (await ask(server, "a0.test")).found is Found.FAILED
    assert len(server.queries) < 15


async def test_a_chain_that_takes_a_question_for_each_step(server: DnsServer) -> None:
    """Aliases are followed where the name server does not do it."""
    server.follows_aliases = False
    server.zones |= {f"a{number}.test": {"CNAME": [f"a{number + 1}.test"]} for number in range(5)}
    server.zones["a5.test"] = ANSWER
    assert (await ask(server, "a0.test")).records == ("127.0.0.9",)


@pytest.mark.parametrize("word", ["NXDOMAIN", "NODATA", "SERVFAIL"])
async def test_an_alias_that_leads_nowhere(server: DnsServer, word: str) -> None:
    """What is said of the end of a chain is said of its beginning."""
    server.zones |= {"a.test": {"CNAME": ["b.test"]}, "b.test": word}
    expected = {"NXDOMAIN": Found.NO_NAME, "NODATA": Found.NO_DATA, "SERVFAIL": Found.FAILED}[word]
    assert (await ask(server)).found is expected


# Answers that are not for us.


async def test_answers_from_another_port(server: DnsServer) -> None:
    """What another port answers does not count, although id and question are right."""
    server.zones["a.test"] = ANSWER
    server.elsewhere.add("a.test")
    assert (await ask(server)).records == ("127.0.0.9",)


async def test_a_forged_truncation_is_ignored(server: DnsServer) -> None:
    """A truncated answer with another id or question does not lead to TCP."""

    def forged_and_true(query: bytes) -> Sequence[bytes]:
        other_id = bytes([query[0] ^ 1]) + header(query, 0, flags=0x8380)[1:]
        other_question = header(query, 0, flags=0x8380).replace(b"\x01a\x04test", b"\x01b\x04test")
        garbled = query[:2] + b"\x83\x80" + b"\xff" * 8
        return other_id, other_question, garbled, header(query) + record(POINTER, A, ADDRESS)

    server.wire["a.test"] = forged_and_true
    assert (await ask(server)).records == ("127.0.0.9",)
    assert [query.transport for query in server.queries] == ["udp"]


async def test_a_question_sent_back_is_no_answer(server: DnsServer) -> None:
    """A datagram that is not marked as a response is none."""
    server.wire["a.test"] = lambda query: [query, header(query) + record(POINTER, A, ADDRESS)]
    assert (await ask(server)).records == ("127.0.0.9",)


async def test_records_of_other_names_are_not_taken(server: DnsServer) -> None:
    """Records of other names, wherever they stand, and those in the additional section answer nothing."""
    other = b"\x05other\x04test\0"
    server.wire["a.test"] = lambda query: [
        header(query, 1, additional=1) + record(other, A, ADDRESS) + record(POINTER, A, ADDRESS)
    ]
    server.zones["other.test"] = {"A": ["127.0.0.1"]}
    asking = resolver(server)
    assert (await asking.ask(Question("a.test", "A"))).records == ()
    assert (await asking.ask(Question("other.test", "A"))).records == ("127.0.0.1",)


async def test_records_of_another_class_are_not_taken(server: DnsServer) -> None:
    """A record that is not of the Internet is none of ours."""
    chaos = POINTER + struct.pack("!HHIH", TXT, 3, 300, 3) + b"\x02hi"
    server.wire["a.test"] = lambda query: [header(query) + chaos]
    assert (await ask(server, kind="TXT")).records == ()


async def test_no_such_name_beside_records(server: DnsServer) -> None:
    """An answer that says that the name does not exist, and what it has, says nothing."""
    server.wire["a.test"] = lambda query: [header(query, flags=0x8183) + record(POINTER, A, ADDRESS)]
    assert (await ask(server)).found is Found.FAILED


# Large answers.


async def test_the_largest_text_there_can_be(server: DnsServer) -> None:
    """64 KB of TXT come over TCP, whole."""
    strings = ["x" * 255] * 254
    server.zones["a.test"] = {"TXT": [strings]}
    answer = await ask(server, kind="TXT")
    assert answer.records == (tuple(string.encode() for string in strings),)
    assert [query.transport for query in server.queries] == ["udp", "tcp"]


async def test_large_answers_do_not_fill_memory(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is bounded in bytes: large answers push each other out."""
    monkeypatch.setattr("mtaq.dns.answers.CACHE_BYTES", 200_000)
    asking = resolver(server, min_ttl_s=60)
    for number in range(5):
        server.zones[f"a{number}.test"] = {"TXT": [["x" * 255] * 250]}
        await asking.ask(Question(f"a{number}.test", "TXT"))
    server.queries.clear()
    for number in (4, 3, 0):
        await asking.ask(Question(f"a{number}.test", "TXT"))
    assert {query.name for query in server.queries} == {"a0.test"}


async def test_thousands_of_records(server: DnsServer) -> None:
    """An answer of very many records is refused before they are read, over either transport."""
    records = b"".join(record(POINTER, A, bytes([127, 0, number // 250, number % 250])) for number in range(4000))
    server.wire["a.test"] = lambda query: [header(query, 4000) + records]
    assert (await ask(server)).found is Found.FAILED
    server.truncated.add("b.test")
    server.zones["b.test"] = {"A": [f"127.0.{number // 250}.{number % 250}" for number in range(4000)]}
    answer = await ask(server, "b.test")
    assert answer.found is Found.FAILED
    assert "too many records" in answer.reason


async def test_a_count_that_lies(server: DnsServer) -> None:
    """More records announced than there are is no answer, and fewer neither."""
    server.wire["more.test"] = lambda query: [header(query, 400) + record(POINTER, A, ADDRESS)]
    server.wire["fewer.test"] = lambda query: [header(query, 0) + record(POINTER, A, ADDRESS)]
    for name in ("more.test", "fewer.test"):
        assert (await ask(server, name, interval_s=0.1)).found is Found.FAILED


# TCP.


async def test_tcp_refused(server: DnsServer) -> None:
    """An answer that does not fit, from a server without TCP, is a failure of that server."""
    server.zones["a.test"] = ANSWER
    server.truncated.add("a.test")
    server.refuse_tcp()
    assert (await ask(server)).found is Found.FAILED


@pytest.mark.parametrize("manner", ["stalls", "cut"])
async def test_tcp_without_a_whole_answer(server: DnsServer, manner: str) -> None:
    """TCP that stalls or ends within the answer is waited for no longer than a datagram."""
    server.zones["a.test"] = ANSWER
    server.truncated.add("a.test")
    server.tcp = manner
    assert (await ask(server, interval_s=0.2)).found is Found.FAILED


async def test_another_server_is_asked_after_broken_tcp(server: DnsServer) -> None:
    """What one server cannot say over TCP another one can."""
    server.zones["a.test"] = ANSWER
    async with DnsServer({"a.test": ANSWER}) as broken:
        broken.truncated.add("a.test")
        broken.tcp = "cut"
        servers = (broken.address, server.address)
        asking = CachingResolver(ResolverOptions(nameservers=servers, rotate=False, hosts=Path("/nonexistent")))
        assert (await asking.ask(Question("a.test", "A"))).records == ("127.0.0.9",)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda wire: bytes([wire[0] ^ 1]) + wire[1:],
        lambda wire: wire[:2] + bytes([wire[2] & 0x7F]) + wire[3:],
        lambda wire: wire.replace(b"\x01a\x04test", b"\x01b\x04test"),
        lambda wire: wire[:5],
        lambda wire: b"",
        lambda wire: wire + b"more",
    ],
)
async def test_tcp_with_a_wrong_answer(server: DnsServer, spoil: Callable[[bytes], bytes]) -> None:
    """Over TCP, too, an answer has the id and the question, and can be read."""

    def truncated_then_spoilt(query: bytes) -> Sequence[bytes]:
        if server.queries[-1].transport == "udp":
            return [header(query, 0, flags=0x8380)]
        return [spoil(header(query) + record(POINTER, A, ADDRESS))]

    server.wire["a.test"] = truncated_then_spoilt
    assert (await ask(server)).found is Found.FAILED
    assert server.queries[-1].transport == "tcp"


async def test_a_truncated_answer_over_tcp(server: DnsServer) -> None:
    """An answer that is marked as truncated even over TCP leads to no further question."""
    server.wire["a.test"] = lambda query: [header(query, flags=0x8380) + record(POINTER, A, ADDRESS)]
    await ask(server)
    assert [query.transport for query in server.queries] == ["udp", "tcp"]


# Octets.

SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda query: b"",
    "half a header": lambda query: query[:7],
    "no question": lambda query: query[:2] + b"\x81\x80" + bytes(8),
    "a name that points to itself": lambda query: header(query) + b"\xc0" + bytes([len(header(query))]),
    "names that point to each other": lambda query: header(query) + record(POINTER, CNAME, b"\xc0\x30\xc0\x2e"),
    "a pointer forwards": lambda query: header(query) + record(b"\xc0\xff", A, ADDRESS),
    "an unknown kind of label": lambda query: header(query) + record(b"\x80abc\0", A, ADDRESS),
    "data that is too short": lambda query: header(query) + record(POINTER, A, ADDRESS[:3]),
    "data that is too long": lambda query: header(query) + record(POINTER, A, ADDRESS * 2),
    "a string beyond its record": lambda query: header(query) + record(POINTER, TXT, b"\xffabc"),
    "an end within a record": lambda query: header(query) + record(POINTER, A, ADDRESS)[:-1],
    "two questions": lambda query: header(query)[:5] + b"\x02" + header(query)[6:] + query[12:],
    "random octets": lambda query: query[:2] + b"\x81\x80" + random.Random(1).randbytes(500),
}


@pytest.mark.parametrize("kind", SPOILT)
async def test_what_cannot_be_read_is_ignored(server: DnsServer, kind: str) -> None:
    """A datagram that cannot be read counts as if it had not come; the true one that follows does."""
    server.wire["a.test"] = lambda query: [SPOILT[kind](query), header(query) + record(POINTER, A, ADDRESS)]
    assert (await ask(server)).records == ("127.0.0.9",)


async def test_any_octets_are_survived(server: DnsServer) -> None:
    """Whatever is done to a datagram, there is an answer, and nothing is raised."""
    chance = random.Random(2026)

    def mutated(query: bytes) -> Sequence[bytes]:
        wire = bytearray(true.to_wire() if (true := _full_answer(query)) else b"")
        wire[:2] = query[:2]
        for _ in range(chance.randint(1, 6)):
            wire[chance.randrange(12 if chance.random() < 0.8 else 4, len(wire))] = chance.choice((0, 0xC0, 0xFF, 1))
        spoilt = wire[: chance.randint(10, len(wire))] if chance.random() < 0.2 else wire
        return [bytes(spoilt), header(query, 0, flags=0x8182)]  # what is ignored needs no waiting for

    asking = resolver(server)
    kinds = ("A", "MX", "TXT", "TLSA", "CNAME", "PTR", "AAAA")
    questions = [Question(f"a{number}.test", kinds[number % 7]) for number in range(350)]
    for question in questions:
        server.wire[question.name] = mutated
    answers = await asyncio.gather(*map(asking.ask, questions))
    assert all(isinstance(answer, DnsAnswer) for answer in answers)
    assert {answer.found for answer in answers} >= {Found.RECORDS, Found.FAILED}


def _full_answer(query: bytes) -> dns.message.Message:
    asked = dns.message.from_wire(query)
    name = asked.question[0].name.to_text()
    response = dns.message.make_response(asked, recursion_available=True)
    texts = {"A": "127.0.0.1", "AAAA": "::1", "MX": "10 mx.a.test.", "TXT": '"one" "two"',
             "TLSA": "3 1 1 " + "00ff" * 16, "CNAME": "b.test.", "PTR": "c.test."}  # fmt: skip
    kind = dns.rdatatype.to_text(asked.question[0].rdtype)
    response.answer.append(dns.rrset.from_text(name, 300, "IN", kind, texts[kind]))
    return response


# Silence.


async def test_silent_names_do_not_keep_others_out(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many times the capacity of silent names is asked for, others are answered before any of those fails."""
    monkeypatch.setattr("mtaq.dns.resolver.PATIENCE_S", 0.05)
    server.zones["a.test"] = ANSWER
    for number in range(200):
        server.zones[f"silent{number}.test"] = "SILENT"
    asking = resolver(server, capacity=50, attempts=100, interval_s=600, timeout_s=600)
    silent = [asyncio.create_task(asking.ask(Question(f"silent{number}.test", "TXT"))) for number in range(200)]
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(asking.ask(Question("a.test", "A")), 30)).records == ("127.0.0.9",)
    assert not any(task.done() for task in silent)
    for task in silent:
        task.cancel()


async def test_a_check_gets_no_more_than_its_time(server: DnsServer) -> None:
    """What is silent fails when the time of the check is over, though others may still wait for it."""
    server.zones |= {"silent.test": "SILENT", "a.test": ANSWER}
    asking = resolver(server)
    check = asking.inquiry(timeout_s=0.1)
    answers = await asyncio.gather(*(check(Question(name, "A")) for name in ("silent.test", "a.test")))
    assert [answer.found for answer in answers] == [Found.FAILED, Found.RECORDS]


async def test_nobody_is_there(server: DnsServer) -> None:
    """A port that nobody listens on is silent: a name server that restarts misses one question, not all."""
    server.zones["a.test"] = ANSWER
    async with DnsServer({}) as gone:
        pass
    for servers in ((gone.address,), (gone.address, server.address)):
        options = ResolverOptions(nameservers=servers, rotate=False, attempts=2, interval_s=0.1)
        answer = await CachingResolver(options).ask(Question("a.test", "A"))
        assert answer.found is (Found.RECORDS if server.address in servers else Found.FAILED)


async def test_too_many_open_questions(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number that honest mail never reaches, questions fail at once and take no memory."""
    monkeypatch.setattr("mtaq.dns.answers.MAX_OPEN", 3)
    server.gate.clear()
    asking = resolver(server)
    waiting = [asyncio.create_task(asking.ask(Question(f"a{number}.test", "A"))) for number in range(3)]
    await asyncio.sleep(0)
    assert (await asking.ask(Question("b.test", "A"))).found is Found.FAILED
    server.gate.set()
    assert [answer.found for answer in await asyncio.gather(*waiting)] == [Found.NO_NAME] * 3
    assert (await asking.ask(Question("b.test", "A"))).found is Found.NO_NAME
