"""``mtaq flood`` and ``mtaq response``: what follows from the replies of mail hosts?"""

from __future__ import annotations

import argparse
import json
from typing import get_args

from mtaq.cli import exits
from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_change_arguments,
    add_limit_arguments,
    add_nouns_verbs,
    add_position_argument,
    add_reply_arguments,
    add_scope_arguments,
    entries_of,
    limits_of,
    places,
    print_entries,
    put,
    scope_of,
    words_of,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument
from mtaq.config.values import seconds
from mtaq.model.control import FloodPattern, Limits, ReplyPattern, ResponseAction, ResponsePattern
from mtaq.model.outcome import State
from mtaq.state import control_entries
from mtaq.state.control_values import parse_count, parse_domain_only, parse_site, parse_tag, parse_word
from mtaq.state.entries import parse_ip
from mtaq.state.replies import ReplyRules


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``flood`` and ``response`` with their verbs."""
    _add_flood(subparsers)
    _add_response(subparsers)


def _add_flood(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("flood", help="replies that pause or slow down what goes the same way")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _put_flood, "pause, or limit for a time, what goes where such a reply came from")
    add_reply_arguments(adding)
    add_scope_arguments(adding)
    adding.add_argument(
        "--pause", dest="pause_s", metavar="DURATION", default=0, type=argument(seconds), help="for how long"
    )
    adding.add_argument(
        "--for", dest="limits_s", metavar="DURATION", default=0, type=argument(seconds),
        help="how long the limits hold, after the pause",
    )  # fmt: skip
    add_limit_arguments(adding)
    adding.add_argument(
        "--all-sources", action="store_true", help="for all source addresses, not only the one that heard the reply"
    )
    add_position_argument(adding)
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _FLOOD)
    _add_test(verbs, _FLOOD)


def _add_response(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("response", help="replies after which a message is treated in another way")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _put_response, "say what becomes of a message after such a reply")
    add_reply_arguments(adding)
    add_scope_arguments(adding)
    adding.add_argument(
        "--state", choices=get_args(State), metavar="STATE", help="where in the session: rcptto, data …"
    )
    adding.add_argument("--tag", metavar="TAG", type=argument(parse_tag), help="only messages with this tag")
    adding.add_argument(
        "--action",
        choices=get_args(ResponseAction),
        help="try again, give up, or try again at once from another source",
    )
    adding.add_argument("--delay", dest="delay_s", metavar="DURATION", type=argument(seconds), help="with retry: when")
    add_change_arguments(adding)
    add_position_argument(adding)
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _RESPONSE)
    _add_test(verbs, _RESPONSE)


def _add_test(verbs: Subparsers[argparse.ArgumentParser], noun: Noun) -> None:
    words = "print the patterns that a reply matches, of which the first is taken; exit status 1 when none does"
    testing = add_verb(verbs, "test", lambda args: _test(args, noun), words)
    testing.add_argument("text", metavar="TEXT", help="the text of the reply")
    testing.add_argument("--code", metavar="CODE", type=argument(parse_count), help="its code")
    testing.add_argument("--status", metavar="STATUS", help="its enhanced status code")
    testing.add_argument("--source", metavar="IP", type=argument(parse_ip), help="the source address that heard it")
    testing.add_argument(
        "--pool", dest="pools", metavar="NAME", action="append", default=[], type=argument(parse_word),
        help="a pool that it is in; may be repeated",
    )  # fmt: skip
    testing.add_argument("--domain", metavar="DOMAIN", type=argument(parse_domain_only), help="of the recipient")
    testing.add_argument(
        "--site", metavar="SITE", type=argument(parse_site), help="its mail hosts, separated by commas"
    )


def _put_flood(args: argparse.Namespace) -> int:
    limits = limits_of(args)
    return put(
        args,
        _FLOOD,
        lambda now: control_entries.flood_pattern(
            position=args.position,
            reply=ReplyPattern(args.code, args.status, args.text),
            scope=scope_of(args),
            pause_s=args.pause_s,
            limits=None if limits == Limits() else limits,
            limits_s=args.limits_s,
            one_for_sources=args.all_sources,
            about=about_of(args, now),
        ),
    )


def _put_response(args: argparse.Namespace) -> int:
    return put(
        args,
        _RESPONSE,
        lambda now: control_entries.response_pattern(
            position=args.position,
            reply=ReplyPattern(args.code, args.status, args.text),
            scope=scope_of(args),
            state=args.state,
            tag=args.tag,
            action=args.action,
            delay_s=args.delay_s,
            add_tags=args.add_tags,
            properties=dict(args.properties),
            about=about_of(args, now),
        ),
    )


def _test(args: argparse.Namespace, noun: Noun) -> int:
    rules: ReplyRules[FloodPattern | ResponsePattern] = ReplyRules(entries_of(args, noun.kind))
    found = rules.find(
        code=args.code,
        status=args.status,
        text=args.text,
        source=args.source,
        pools=args.pools,
        domain=args.domain or "",
        site=args.site,
    )
    print_entries(found, noun, as_json=args.json)
    return exits.OK if found else exits.FAILURE


def _reply(pattern: ReplyPattern) -> str:
    said = (("code", pattern.code), ("status", pattern.status), ("text", pattern.text))
    return ", ".join(f"{name} {value}" for name, value in said if value is not None) or "*"


def _flood_row(pattern: FloodPattern) -> Row:
    effects = [f"pause {pattern.pause_s} s"] if pattern.pause_s else []
    if pattern.limits is not None:
        effects.append(f"{words_of(pattern.limits)} for {pattern.limits_s} s")
    return {
        "position": str(pattern.position),
        "reply": _reply(pattern.reply),
        **places(pattern.scope),
        "effect": "; ".join(effects) + (", all sources" if pattern.one_for_sources else ""),
    }


def _response_row(pattern: ResponsePattern) -> Row:
    effects: list[str] = [pattern.action] if pattern.action is not None else []
    effects += [f"after {pattern.delay_s} s"] if pattern.delay_s is not None else []
    effects += [f"+{tag}" for tag in pattern.add_tags]
    effects += [f"{name}={json.dumps(value)}" for name, value in pattern.properties.items()]
    return {
        "position": str(pattern.position),
        "reply": _reply(pattern.reply),
        "state": pattern.state,
        **places(pattern.scope),
        "tag": pattern.tag,
        "effect": ", ".join(effects),
    }


_FLOOD = Noun(
    kind="flood_patterns", verb="flood", one="flood pattern", nothing="no flood pattern", id="ID", row=_flood_row
)
_RESPONSE = Noun(
    kind="response_patterns", verb="response", one="response pattern", nothing="no response pattern", id="ID",
    row=_response_row,
)  # fmt: skip
