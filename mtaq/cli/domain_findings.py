"""What is right and wrong with the records of a domain that we send for, and what should be published instead.

What is true of our own source addresses (SPF, reverse names, keys) is found with the checks that receivers make. What
stands in the records themselves is checkdmarc's to judge; it asks the same name servers, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import checkdmarc.dmarc
import checkdmarc.mta_sts
import checkdmarc.smtp_tls_reporting
import checkdmarc.spf

from mtaq.mailauth.asking import answered
from mtaq.mailauth.iprev import check_iprev
from mtaq.mailauth.spf import check_spf
from mtaq.model.address import Address
from mtaq.model.dns import Ask, DnsAnswer, Found, Question

Mark = Literal["right", "warning", "wrong"]

#: A string in a TXT record holds 255 octets (RFC 1035 §3.3.14).
STRING_BYTES = 255


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        topic: Such as ``SPF``.
        publish: Records that would mend it, as lines of a zone file.
    """

    topic: str
    mark: Mark
    text: str
    publish: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OurSource:
    """One of our source addresses and our name on connections from it."""

    ip: str
    ehlo_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainChecks:
    """Everything asked about one domain.

    Attributes:
        domain: In A-labels.
        sources: Where its mail leaves from.
        keys: Selector → the record that belongs to our key of that name, or ``None`` to look at what is there only.
        ask: Our resolver.
        resolver: The same name servers for checkdmarc, which blocks.
        timeout_s: For one question of checkdmarc's.
    """

    domain: str
    sources: Sequence[OurSource]
    keys: Mapping[str, str | None]
    ask: Ask
    resolver: Any
    timeout_s: float
    now: datetime = field(repr=False)

    async def run(self) -> list[Finding]:
        """Return what was found, in the order in which it is worth reading."""
        found = await asyncio.gather(
            self._mx(), self._spf(), self._dkim(), self._dmarc(), self._mta_sts(), self._tls_rpt(), self._names()
        )
        return [finding for findings in found for finding in findings]

    # Where notices come back to.

    async def _mx(self) -> list[Finding]:
        answer = await self.ask(Question(self.domain, "MX"))
        hosts = [name for _, name in sorted(answer.records)]
        if answer.found is Found.FAILED:
            return [Finding("MX", "warning", f"no answer: {answer.reason}")]
        if hosts == [""]:
            return [Finding("MX", "wrong", "takes no mail (null MX), so replies and notices cannot come back")]
        if hosts:
            return [Finding("MX", "right", ", ".join(hosts))]
        if answer.found is Found.NO_NAME:
            return [Finding("MX", "wrong", "the domain does not exist")]
        publish = tuple(_record(self.domain, "MX", f"10 {source.ehlo_name}.") for source in self.sources[:1])
        return [Finding("MX", "warning", "no MX record: replies and notices go to its own address, if any", publish)]

    # SPF

    async def _spf(self) -> list[Finding]:
        answer = await self.ask(Question(self.domain, "TXT"))
        if answer.found is Found.FAILED:
            return [Finding("SPF", "warning", f"no answer: {answer.reason}")]
        records = [text for text in _texts(answer) if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]
        if not records:
            wanted = " ".join(["v=spf1", *(_mechanism(source.ip) for source in self.sources), "-all"])
            return [Finding("SPF", "wrong", "no record: anybody may send in its name", (self._txt("", wanted),))]
        findings = _judged("SPF", await self._lint(checkdmarc.spf.check_spf))
        refused = [(source, word) for source in self.sources if (word := await self._spf_word(source)) != "pass"]
        for source, word in refused:
            findings.append(Finding("SPF", "wrong", f"{source.ip} gets {word}"))
        if not refused and self.sources:
            findings.append(Finding("SPF", "right", "every source address gets pass"))
        elif len(records) == 1 and refused:
            amended = _amended(records[0], [source.ip for source, _ in refused])
            findings[-1] = _with(findings[-1], self._txt("", amended))
        return findings

    async def _spf_word(self, source: OurSource) -> str:
        check = check_spf(
            client_ip=source.ip,
            helo=source.ehlo_name,
            envelope=Address("postmaster", self.domain),
            receiver=source.ehlo_name,
        )
        result = await answered(check, self.ask)
        return str(result.to_json()[0]["spf"])

    # Keys

    async def _dkim(self) -> list[Finding]:
        if not self.keys:
            return [Finding("DKIM", "warning", "no key of ours to look for; name selectors with --selector")]
        return [await self._dkim_key(selector, wanted) for selector, wanted in self.keys.items()]

    async def _dkim_key(self, selector: str, wanted: str | None) -> Finding:
        topic = f"DKIM {selector}"
        answer = await self.ask(Question(f"{selector}._domainkey.{self.domain}", "TXT"))
        publish = (self._txt(f"{selector}._domainkey.", wanted),) if wanted else ()
        if answer.found is Found.FAILED:
            return Finding(topic, "warning", f"no answer: {answer.reason}")
        texts = _texts(answer)
        if not texts:
            return Finding(topic, "wrong", "no key is published", publish)
        if len(texts) > 1:
            return Finding(topic, "wrong", f"{len(texts)} records where one is expected", publish)
        tags = _tags(texts[0])
        if not tags.get("p"):
            return Finding(topic, "wrong", "the key is revoked" if "p" in tags else "no key in the record", publish)
        if wanted and tags["p"] != _tags(wanted)["p"]:
            return Finding(topic, "wrong", "another key is published than the one we sign with", publish)
        if "y" in tags.get("t", "").split(":"):
            return Finding(topic, "warning", "published as a test (t=y): receivers may take it for none")
        return Finding(topic, "right", "published" if wanted is None else "published, and the one we sign with")

    # What is said about mail and about transport

    async def _dmarc(self) -> list[Finding]:
        report = await self._lint(checkdmarc.dmarc.check_dmarc)
        if report.get("record") is None and not report.get("valid"):
            wanted = f"v=DMARC1; p=none; rua=mailto:dmarc-reports@{self.domain}"
            publish = self._txt("_dmarc.", wanted)
            return [Finding("DMARC", "wrong", str(report.get("error", "no record")), (publish,))]
        return _judged("DMARC", report)

    async def _mta_sts(self) -> list[Finding]:
        report = await self._lint(checkdmarc.mta_sts.check_mta_sts)
        if report.get("valid"):
            return _judged("MTA-STS", report)
        answer = await self.ask(Question(f"_mta-sts.{self.domain}", "TXT"))
        if answer.found in (Found.NO_DATA, Found.NO_NAME):
            publish = self._txt("_mta-sts.", f"v=STSv1; id={self.now:%Y%m%d%H%M%S}")
            text = f"no policy: also serve https://mta-sts.{self.domain}/.well-known/mta-sts.txt"
            return [Finding("MTA-STS", "warning", text, (publish,))]
        return _judged("MTA-STS", report)

    async def _tls_rpt(self) -> list[Finding]:
        report = await self._lint(checkdmarc.smtp_tls_reporting.check_smtp_tls_reporting)
        if report.get("valid"):
            return _judged("TLS-RPT", report)
        publish = self._txt("_smtp._tls.", f"v=TLSRPTv1; rua=mailto:tls-reports@{self.domain}")
        return [Finding("TLS-RPT", "warning", str(report.get("error", "no record")), (publish,))]

    async def _lint(self, check: Callable[..., Mapping[str, Any]]) -> Mapping[str, Any]:
        return await asyncio.to_thread(check, self.domain, resolver=self.resolver, timeout=self.timeout_s, retries=0)

    # Our addresses

    async def _names(self) -> list[Finding]:
        return [await self._name(source) for source in self.sources]

    async def _name(self, source: OurSource) -> Finding:
        topic = f"PTR {source.ip}"
        reverse = f"{ipaddress.ip_address(source.ip).reverse_pointer}. PTR {source.ehlo_name}."
        forward = _record(source.ehlo_name, "AAAA" if ":" in source.ip else "A", source.ip)
        result = (await answered(check_iprev(source.ip), self.ask)).to_json()[0]
        word, name = str(result["iprev"]), result.get("name")
        if word == "temperror":
            return Finding(topic, "warning", "no answer about its name")
        if word != "pass":
            return Finding(topic, "wrong", "no name that leads back to it", (reverse, forward))
        if str(name).lower() != source.ehlo_name.lower():
            text = f"is {name}, but says EHLO {source.ehlo_name}"
            return Finding(topic, "warning", text, (reverse, forward))
        return Finding(topic, "right", f"is {name}")

    def _txt(self, prefix: str, text: str) -> str:
        return _record(f"{prefix}{self.domain}", "TXT", _quoted(text))


def _judged(topic: str, report: Mapping[str, Any]) -> list[Finding]:
    """Return what checkdmarc says, its warnings included."""
    findings = [Finding(topic, "warning", str(warning)) for warning in report.get("warnings") or ()]
    if not report.get("valid"):
        return [Finding(topic, "wrong", str(report.get("error", "not valid"))), *findings]
    record = report.get("record")
    return [Finding(topic, "right", str(record) if record else "valid"), *findings]


def _with(finding: Finding, line: str) -> Finding:
    return Finding(finding.topic, finding.mark, finding.text, (line,))


def _texts(answer: DnsAnswer) -> list[str]:
    return [b"".join(strings).decode("utf-8", "replace") for strings in answer.records]


def _tags(record: str) -> dict[str, str]:
    pairs = (tag.partition("=") for tag in record.split(";"))
    return {name.strip(): "".join(value.split()) for name, _, value in pairs if name.strip()}


def _mechanism(ip: str) -> str:
    return f"ip6:{ip}" if ":" in ip else f"ip4:{ip}"


def _amended(record: str, ips: Sequence[str]) -> str:
    """Return *record* with *ips* allowed, before whatever ends it."""
    terms = record.split()
    ends = (n for n, term in enumerate(terms) if term.lower().lstrip("+-~?") == "all" or "redirect=" in term.lower())
    at = next(ends, len(terms))
    return " ".join([*terms[:at], *map(_mechanism, ips), *terms[at:]])


def _record(name: str, kind: str, data: str) -> str:
    return f"{name}. {kind} {data}"


def _quoted(text: str) -> str:
    """Return *text* as the strings of a TXT record in a zone file (RFC 1035 §5.1)."""
    parts = [text[at : at + STRING_BYTES] for at in range(0, len(text), STRING_BYTES)]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
