"""``mtaq dns-override``: where does mail for a domain go, whatever DNS says?"""

from __future__ import annotations

import argparse

from mtaq.cli.control import Noun, about_of, add_about_arguments, add_nouns_verbs, put
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument
from mtaq.model.control import DnsOverride, OverrideHost
from mtaq.state import control_entries
from mtaq.state.control_values import parse_override_host, parse_scope_domain


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``dns-override`` and its verbs."""
    parser = subparsers.add_parser("dns-override", help="mail hosts in the place of those in DNS")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "send mail for a domain to these hosts, in place of what was said about it")
    adding.add_argument(
        "domain", metavar="DOMAIN", type=argument(parse_scope_domain), help="a domain; *.example.com is all below it"
    )
    adding.add_argument(
        "hosts", nargs="+", metavar="HOST[:PORT]", type=argument(parse_override_host),
        help="names or IP addresses, in the order to try them; an IPv6 address with a port in brackets",
    )  # fmt: skip
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)


def _add(args: argparse.Namespace) -> int:
    return put(
        args, _NOUN, lambda now: control_entries.dns_override(args.domain, args.hosts, about=about_of(args, now))
    )


def _row(override: DnsOverride) -> Row:
    return {"hosts": ", ".join(map(_text, override.hosts))}


def _text(host: OverrideHost) -> str:
    name = f"[{host.host}]" if ":" in host.host and host.port is not None else host.host
    return name if host.port is None else f"{name}:{host.port}"


_NOUN = Noun(
    kind="dns_overrides",
    verb="dns-override",
    one="DNS override",
    nothing="DNS is not overridden",
    id="DOMAIN",
    row=_row,
)
