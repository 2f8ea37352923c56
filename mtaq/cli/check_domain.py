"""``mtaq check-domain``: are the records of a domain right for mail that leaves from here?

Prints what is right, what is wrong and what to publish; changes nothing. Exit status 0 when nothing is wrong, 1 when
something is.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtaq.assembly.parts import host_ips, resolver_for
from mtaq.cli import exits
from mtaq.cli.loop import run_in_loop
from mtaq.cli.parser import Subparsers
from mtaq.cli.settings import add_settings_arguments, load_or_exit
from mtaq.cli.state import argument, read_state
from mtaq.config import Settings
from mtaq.dns.blocking import blocking_resolver
from mtaq.smtp.grammar import a_label_domain, parse_domain
from mtaq.state.entries import parse_ip

if TYPE_CHECKING:
    from mtaq.cli.domain_findings import Finding, OurSource

_SIGNS = {"right": "✓", "warning": "!", "wrong": "✗"}
_MOST_TIMEOUT_S = 10.0


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``check-domain``."""
    words = "say whether the records of a domain are right for mail from here, and what to publish; 1 when one is wrong"
    parser = subparsers.add_parser("check-domain", help=words, description=words)
    parser.set_defaults(func=_check_domain)
    parser.add_argument("domain", metavar="DOMAIN", type=argument(_domain), help="a domain that we send for")
    parser.add_argument(
        "--ip",
        action="append",
        metavar="IP",
        type=argument(parse_ip),
        help="a source address, may be repeated; else those of smtp-default-ips, else those with a name, else all",
    )
    parser.add_argument("--selector", action="append", metavar="NAME", help="look at this DKIM key; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_settings_arguments(parser)


def _domain(text: str) -> str:
    return a_label_domain(parse_domain(text.rstrip(".")))


def _check_domain(args: argparse.Namespace) -> int:
    settings = load_or_exit(args)
    try:
        from mtaq.cli import domain_findings
    except ImportError as error:
        print(f"mtaq check-domain: {error.name} is not installed: pip install 'mtaq[check-domain]'", file=sys.stderr)
        return exits.UNAVAILABLE
    contents = read_state(settings, lambda database: database.read())
    names = {source.ip: source.ehlo_name for source in contents.sources or ()}
    resolver = resolver_for(settings)
    ips = args.ip or list(settings.deliver.smtp_default_ips) or list(names) or host_ips()

    async def find() -> tuple[list[OurSource], list[Finding]]:
        sources = [
            domain_findings.OurSource(ip=ip, ehlo_name=names.get(ip) or await _ehlo_name(settings, ip)) for ip in ips
        ]
        checks = domain_findings.DomainChecks(
            domain=args.domain,
            sources=sources,
            keys=dict.fromkeys(args.selector or ()),
            ask=resolver.ask,
            resolver=blocking_resolver([(server.host, server.port) for server in settings.dns.dns_nameserver]),
            timeout_s=min(settings.dns.dns_timeout, _MOST_TIMEOUT_S),
            now=datetime.now(UTC),
        )
        return sources, await checks.run()

    async def _ehlo_name(settings: Settings, ip: str) -> str:
        return settings.reception.smtp_hostname or await resolver.reverse(ip) or platform.node()

    sources, findings = run_in_loop(find())
    if args.json:
        _print_json(args.domain, sources, findings)
    else:
        _print_text(args.domain, sources, findings)
    return exits.FAILURE if any(finding.mark == "wrong" for finding in findings) else exits.OK


def _print_json(domain: str, sources: Sequence[OurSource], findings: Sequence[Finding]) -> None:
    report = {
        "domain": domain,
        "sources": [{"ip": source.ip, "name": source.ehlo_name} for source in sources],
        "findings": [
            {"topic": one.topic, "verdict": one.mark, "text": one.text, "publish": list(one.publish)}
            for one in findings
        ],
    }
    print(json.dumps(report, indent=2, ensure_ascii=False))


def _print_text(domain: str, sources: Sequence[OurSource], findings: Sequence[Finding]) -> None:
    places = ", ".join(f"{source.ip} ({source.ehlo_name})" for source in sources) or "no address of ours"
    print(f"{domain}, sent from {places}\n")
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"  {_SIGNS[finding.mark]} {finding.topic:<{width}}  {_printable(finding.text)}")
    lines = [line for finding in findings for line in finding.publish]
    if lines:
        print("\nTo publish:\n")
        for line in lines:
            print(f"  {_printable(line)}")


def _printable(text: str) -> str:
    """What others published may hold what steers a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
