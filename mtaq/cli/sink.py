"""``mtaq sink``: a mail host that takes everything, for trials and tests, and misbehaves where it is told to.

Never for real mail: there is no policy, no queue and no fsync. What a script can say is ``sink_script``'s.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path

from mtaq.cli import exits
from mtaq.cli.loop import run_in_loop
from mtaq.cli.parser import Subparsers
from mtaq.cli.sink_addresses import FORM, Place, parse_places
from mtaq.cli.sink_faults import STAGES, parse_faults
from mtaq.cli.sink_profile import Profile
from mtaq.cli.sink_record import Record
from mtaq.cli.sink_script import Script, parse_line, parse_script, text_rule
from mtaq.cli.sink_server import SinkBuilder, start, stop
from mtaq.cli.sink_state import Sink
from mtaq.config.values import byte_count
from mtaq.model.errors import ConfigError
from mtaq.net.listeners import Listener, listen

_STAGES = ", ".join(STAGES)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``sink``."""
    words = "a mail host for tests: takes every message, keeps it or not, misbehaves on request"
    parser = subparsers.add_parser("sink", help=words, description=words)
    parser.set_defaults(func=_sink)
    _add_basics(parser)
    _add_faults(parser.add_argument_group("misbehaviour", f"STAGE is one of {_STAGES}; see docs/guide/sink.md"))


def _add_basics(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    here = "listen here, 127.0.0.2-9:PORT for several; repeatable (127.0.0.1:2526)"
    add("--listen", metavar="IP:PORT", action="append", default=[], help=here)
    add("--listen-tls", metavar="IP:PORT", action="append", default=[], help="listen here, TLS from the first byte")
    add("--hostname", metavar="NAME", default="sink.localhost", help="name in the greeting (sink.localhost)")
    add("--maxsize", metavar="SIZE", default="512MB", help="largest message (512MB)")
    add("--maildir", metavar="DIR", type=Path, help="keep each message's content, byte for byte, as a file in DIR/new")
    add("--log", metavar="FILE", type=Path, help="append a line of JSON about each message")
    add("--log-all", action="store_true", help="and about connections, refusals and faults")
    add("--discard", action="store_true", help="keep nothing and print nothing")
    add("--certificate", metavar="FILE", type=Path, help="PEM file: offer STARTTLS")
    add("--key", metavar="FILE", type=Path, help="PEM file of the certificate's key, when it is not in the same file")
    add("--ca", metavar="FILE", type=Path, help="write the authority of the certificates that the script asks for")


def _add_faults(faults: argparse._ArgumentGroup) -> None:
    add = faults.add_argument
    words = "rules and settings, one a line; repeatable"
    add("--script", metavar="FILE", type=Path, action="append", default=[], help=words)
    add("--rule", metavar="LINE", action="append", default=[], help="a line as in a script, after those; repeatable")
    add("--texts", metavar="NAME", action="append", default=[], help="refuse as a large receiver does: gmail:rate")
    add("--reply", metavar="STAGE=CODE[ TEXT]", action="append", default=[], help="answer this instead")
    add("--drop", metavar="STAGE", action="append", default=[], help="close the connection without an answer")
    add("--delay", metavar="STAGE=SECONDS", action="append", default=[], help="answer later")
    add("--percent", metavar="N", type=float, default=100.0, help="misbehave on N per cent of the occasions (100)")
    add("--seed", metavar="N", type=int, help="and choose them at random, from this seed, instead of evenly")


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Where to listen."""

    plain: list[Place] = field(default_factory=list)
    secure: list[Place] = field(default_factory=list)


def _sink(args: argparse.Namespace) -> int:
    try:
        addresses = _addresses(args)
        profile = Profile(
            hostname=args.hostname,
            max_size_bytes=byte_count(args.maxsize),
            certificate=args.certificate,
            key=args.key,
        )
        script = _script_of_arguments(args)
    except ValueError as error:
        return _say(error, exits.USAGE)
    try:
        script = reduce(add, (_script_of(path) for path in args.script), Script()) + script
    except (OSError, ValueError) as error:
        return _say(error, exits.CONFIG)
    return _listen_and_run(args, addresses, profile, script)


def _addresses(args: argparse.Namespace) -> _Addresses:
    if not 0.0 <= args.percent <= 100.0:
        raise ValueError("--percent: a number from 0 to 100 is expected")
    if args.discard and args.maildir is not None:
        raise ValueError("--discard and --maildir contradict each other")
    if args.log_all and args.log is None:
        raise ValueError("--log-all needs --log")
    found = _Addresses()
    for option, texts, places in (
        ("--listen", args.listen, found.plain),
        ("--listen-tls", args.listen_tls, found.secure),
    ):
        for text in texts:
            try:
                places += parse_places(text)
            except ValueError as error:
                raise ValueError(f"{option} {text!r}: {FORM} is expected") from error
    return found if found.plain or found.secure else _Addresses([Place("127.0.0.1", 2526)])


def _script_of_arguments(args: argparse.Namespace) -> Script:
    lines = reduce(add, (_line(text) for text in args.rule), Script())
    texts = tuple(text_rule(name) for name in args.texts)
    return lines + Script((*texts, *parse_faults(args.reply, args.drop, args.delay)))


def _line(text: str) -> Script:
    try:
        return parse_line(text)
    except ValueError as error:
        raise ValueError(f"--rule {text!r}: {error}") from error


def _script_of(path: Path) -> Script:
    return parse_script(path.read_text(encoding="utf-8"), str(path))


def _say(error: Exception, status: int) -> int:
    text = exits.explain(error) if isinstance(error, OSError) else str(error)
    for line in text.splitlines():
        print(f"mtaq sink: {line}", file=sys.stderr)
    return status


def _listen_and_run(args: argparse.Namespace, addresses: _Addresses, profile: Profile, script: Script) -> int:
    try:
        record = Record(maildir=args.maildir, log=args.log, verbose=not args.discard, everything=args.log_all)
        builder = SinkBuilder(record, script, profile, percent=args.percent, seed=args.seed)
        served = _listeners(builder, addresses)
        if args.ca is not None:
            builder.authority.write(args.ca)
    except ConfigError as error:
        return _say(error, exits.CONFIG)
    except OSError as error:
        print(f"mtaq sink: {error}", file=sys.stderr)
        return exits.CANNOT_CREATE if error.filename else exits.OS_ERROR
    run_in_loop(_serve(served))
    print(f"{record.count} messages taken", flush=True)
    return exits.OK


def _listeners(builder: SinkBuilder, addresses: _Addresses) -> list[tuple[Sink, Listener]]:
    served = []
    for implicit_tls, places in ((False, addresses.plain), (True, addresses.secure)):
        for place in places:
            sink = builder.build(place, implicit_tls=implicit_tls)
            served += [(sink, listener) for listener in listen([place.ip], [place.port])]
    return served


async def _serve(served: Sequence[tuple[Sink, Listener]]) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    servers = []
    for sink, listener in served:
        servers.append(await start(sink, listener.sock))
        print(f"listening on {listener}", flush=True)
    await told.wait()
    await stop(servers, [sink for sink, _ in served])
