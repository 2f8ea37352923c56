"""A name server for tests, on UDP and TCP of one loopback port.

Zones have the form of the shared vectors: ``{"a.test": {"MX": [[10, "mx.a.test"]], "A": ["127.0.0.1"]}}``, where a
word stands in place of a list of records, or of a whole name: ``SERVFAIL``, ``REFUSED``, ``FORMERR``, ``NXDOMAIN``,
``NODATA``, ``SILENT`` (no answer at all). A name that is not listed, and has none below it, is NXDOMAIN.
Zones may be changed while the server runs. What does not fit into the datagram that the question allows is truncated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Zones = MutableMapping[str, Any]
Wire = Callable[[bytes], Sequence[bytes]]
"""Makes the octets of any number of answers from those of a question."""


class Query(NamedTuple):
    """One question as it arrived: name in lower case without the last dot, type, and ``udp`` or ``tcp``."""

    name: str
    kind: str
    transport: str


class DnsServer(asyncio.DatagramProtocol):
    """Answers from *zones*; an asynchronous context manager.

    Attributes:
        queries: What was asked, in order.
        truncated: Names whose answers do not fit into UDP: TC over UDP, whole over TCP.
        forged: Names before whose true answer comes one with a wrong id and another with a wrong question.
        without_edns: Answer FORMERR to EDNS, as old servers do.
        lame: Refer to others instead of answering.
        secure: Names that DNSSEC proves: their answers have AD when the question has (RFC 6840 §5.7).
        follows_aliases: Add what an alias leads to; else the answer is the alias alone.
        elsewhere: Names before whose true answer comes another from another port.
        wire: Names whose answers are these octets, whatever they are, over UDP and TCP.
        tcp: What happens to connections: ``answers``, ``stalls``, or is ``cut`` within the answer.
        flags: Those of the last question.
        gate: When clear, answers wait until it is set.
    """

    def __init__(self, zones: Zones, *, host: str = "127.0.0.1", ttl_s: int = 300, negative_ttl_s: int = 60) -> None:
        self.zones = zones
        self.host = host
        self.port = 0
        self.ttl_s = ttl_s
        self.negative_ttl_s = negative_ttl_s
        self.queries: list[Query] = []
        self.truncated: set[str] = set()
        self.forged: set[str] = set()
        self.without_edns = False
        self.lame = False
        self.secure: set[str] = set()
        self.follows_aliases = True
        self.elsewhere: set[str] = set()
        self.wire: dict[str, Wire] = {}
        self.tcp = "answers"
        self.flags = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(20):  # the same port must be free on both
            self._server = await asyncio.start_server(self._serve_tcp, self.host, 0)
            self.port = self._server.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self.port))
            except OSError:
                self._server.close()
            else:
                return self
        raise OSError("no port is free for UDP and TCP")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._server.close()
        for task in self._tasks:
            task.cancel()

    @property
    def address(self) -> tuple[str, int]:
        """What to give a resolver as its name server."""
        return self.host, self.port

    def count(self, name: str, kind: str) -> int:
        """How often was this asked?"""
        return sum(query.name == name and query.kind == kind for query in self.queries)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Answer one datagram."""
        task = asyncio.create_task(self._answer_udp(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_udp(self, data: bytes, peer: tuple[str | Any, int]) -> None:
        query = dns.message.from_wire(data)
        response = self._respond(query, "udp")
        await self.gate.wait()
        name = _name_of(query)
        if name in self.elsewhere:
            await self._answer_elsewhere(query, peer)
        if name in self.forged:
            for forgery in self._forgeries(query):
                self._udp.sendto(forgery, peer)
        for wire in self._wires(data, query, response, most=query.payload if query.edns >= 0 else 512):
            self._udp.sendto(wire, peer)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            query = dns.message.from_wire(data)
            response = self._respond(query, "tcp")
            await self.gate.wait()
            if self.tcp == "stalls":
                await reader.read()
            for wire in self._wires(data, query, response, most=65_535):
                whole = len(wire).to_bytes(2, "big") + wire
                writer.write(whole[:-1] if self.tcp == "cut" else whole)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def refuse_tcp(self) -> None:
        """Close the TCP port."""
        self._server.close()

    def _wires(
        self, data: bytes, query: dns.message.Message, response: dns.message.Message | None, *, most: int
    ) -> Sequence[bytes]:
        name = _name_of(query)
        if name in self.wire:
            return self.wire[name](data)
        if response is None:
            return []
        wire = response.to_wire(max_size=65_535)
        if most < 65_535 and (name in self.truncated or len(wire) > most):
            response.answer.clear()
            response.flags |= dns.flags.TC
            wire = response.to_wire(max_size=65_535)
        return [wire]

    async def _answer_elsewhere(self, query: dns.message.Message, peer: tuple[str | Any, int]) -> None:
        loop = asyncio.get_running_loop()
        other, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(self.host, 0))
        other.sendto(dns.message.make_response(query, recursion_available=True).to_wire(), peer)
        other.close()

    def _respond(self, query: dns.message.Message, transport: str) -> dns.message.Message | None:
        name, kind = _name_of(query), dns.rdatatype.to_text(query.question[0].rdtype)
        self.queries.append(Query(name, kind, transport))
        self.flags = query.flags
        response = dns.message.make_response(query, recursion_available=not self.lame)
        if name in self.secure and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        if self.without_edns and query.edns >= 0:
            response.use_edns(False)
            response.set_rcode(dns.rcode.FORMERR)
            return response
        if self.lame:
            return response
        return self._fill(response, name, kind)

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> dns.message.Message | None:
        for _ in range(10):
            entry = self._entry(name)
            records = entry if isinstance(entry, str) else entry.get(kind, "NODATA")
            if isinstance(entry, Mapping) and "CNAME" in entry and kind != "CNAME":
                response.answer.append(self._rrset(name, "CNAME", entry["CNAME"]))
                if not self.follows_aliases:
                    return response
                name = str(entry["CNAME"][0]).rstrip(".").lower()
                continue
            if not isinstance(records, str):
                response.answer.append(self._rrset(name, kind, records))
                return response
            return self._refuse(response, name, records)
        return response

    def _refuse(self, response: dns.message.Message, name: str, word: str) -> dns.message.Message | None:
        if word == "SILENT":
            return None
        if word != "NODATA":
            response.set_rcode(dns.rcode.from_text(word))
        if word in ("NODATA", "NXDOMAIN"):
            soa = f"ns.test. owner.test. 1 3600 600 86400 {self.negative_ttl_s}"
            zone = name.rpartition(".")[2] or "."
            response.authority.append(dns.rrset.from_text(zone + ".", self.negative_ttl_s, "IN", "SOA", soa))
        return response

    def _entry(self, name: str) -> Any:
        if name in self.zones:
            return self.zones[name]
        return {} if any(other.endswith("." + name) for other in self.zones) else "NXDOMAIN"

    def _rrset(self, name: str, kind: str, records: Sequence[Any]) -> dns.rrset.RRset:
        texts = [_record_text(kind, record) for record in records]
        return dns.rrset.from_text_list(dns.name.from_text(name), self.ttl_s, dns.rdataclass.IN, kind, texts)

    def _forgeries(self, query: dns.message.Message) -> list[bytes]:
        false_id = dns.message.make_response(query)
        false_id.id = query.id ^ 1
        other = dns.message.make_query("other.test", query.question[0].rdtype, id=query.id)
        false_question = dns.message.make_response(other)
        return [false_id.to_wire(), false_question.to_wire()]


def _name_of(query: dns.message.Message) -> str:
    return query.question[0].name.to_text(omit_final_dot=True).lower()


def _record_text(kind: str, record: Any) -> str:
    if kind == "TXT":
        parts = [record] if isinstance(record, (str, bytes)) else record
        return " ".join(_quoted(part if isinstance(part, bytes) else part.encode()) for part in parts)
    words = [str(word) for word in record] if isinstance(record, (list, tuple)) else [str(record)]
    if kind in ("MX", "CNAME", "PTR", "NS"):
        words[-1] = words[-1].rstrip(".") + "."
    return " ".join(words)


def _quoted(octets: bytes) -> str:
    """Return *octets* as a string of a zone file (RFC 1035 §5.1)."""
    return '"' + "".join(chr(o) if 32 <= o < 127 and o not in b'"\\' else f"\\{o:03d}" for o in octets) + '"'
