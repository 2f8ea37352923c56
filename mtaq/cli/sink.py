"""``mtaq sink``: a mail host that takes everything, for trials and tests.

It keeps what it takes where it is told to, and fails where it is told to. Never for real mail: there is no policy, no
queue and no fsync.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from mtaq.cli import exits
from mtaq.cli.loop import run_in_loop
from mtaq.cli.parser import Subparsers
from mtaq.cli.sink_connection import Sink, SinkConnection
from mtaq.cli.sink_faults import STAGES, Faults, parse_faults
from mtaq.cli.sink_record import Record
from mtaq.config.values import byte_count, integer
from mtaq.model.errors import ConfigError
from mtaq.net.listeners import Listener, listen
from mtaq.net.tls import server_context
from mtaq.smtp.server_session import SessionOptions

_STAGES = ", ".join(STAGES)


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``sink``."""
    words = "a mail host for tests: takes every message, keeps it or not, misbehaves on request"
    parser = subparsers.add_parser("sink", help=words, description=words)
    parser.set_defaults(func=_sink)
    add = parser.add_argument
    add("--listen", metavar="IP:PORT", action="append", help="listen here; repeatable (127.0.0.1:2526)")
    add("--hostname", metavar="NAME", default="sink.localhost", help="name in the greeting (sink.localhost)")
    add("--maxsize", metavar="SIZE", default="512MB", help="largest message (512MB)")
    add("--maildir", metavar="DIR", type=Path, help="keep each message's content, byte for byte, as a file in DIR/new")
    add("--log", metavar="FILE", type=Path, help="append a line of JSON about each message")
    add("--discard", action="store_true", help="keep nothing and print nothing")
    add("--certificate", metavar="FILE", type=Path, help="PEM file: offer STARTTLS")
    add("--key", metavar="FILE", type=Path, help="PEM file of the certificate's key, when it is not in the same file")
    faults = parser.add_argument_group("misbehaviour", f"STAGE is one of {_STAGES}; all repeatable")
    add = faults.add_argument
    add("--reply", metavar="STAGE=CODE[ TEXT]", action="append", default=[], help="answer this instead")
    add("--drop", metavar="STAGE", action="append", default=[], help="close the connection without an answer")
    add("--delay", metavar="STAGE=SECONDS", action="append", default=[], help="answer later")
    add("--percent", metavar="N", type=float, default=100.0, help="misbehave on N per cent of the occasions (100)")


def _sink(args: argparse.Namespace) -> int:
    try:
        faults = Faults(parse_faults(args.reply, args.drop, args.delay), args.percent)
        addresses = [_address(text) for text in args.listen or ["127.0.0.1:2526"]]
        max_size_bytes = byte_count(args.maxsize)
        if not 0.0 <= args.percent <= 100.0:
            raise ValueError("--percent: a number from 0 to 100 is expected")
        if args.discard and args.maildir is not None:
            raise ValueError("--discard and --maildir contradict each other")
    except ValueError as error:
        print(f"mtaq sink: {error}", file=sys.stderr)
        return exits.USAGE
    try:
        context = server_context(args.certificate, args.key) if args.certificate is not None else None
    except ConfigError as error:
        print(f"mtaq sink: {error}", file=sys.stderr)
        return exits.CONFIG
    options = SessionOptions(
        hostname=args.hostname,
        max_size_bytes=max_size_bytes,
        max_recipients=100_000,
        strict_addresses=False,
        starttls=context is not None,
    )
    return _listen_and_run(args, addresses, options, faults, context)


def _listen_and_run(
    args: argparse.Namespace,
    addresses: Sequence[tuple[str, int]],
    options: SessionOptions,
    faults: Faults,
    context: ssl.SSLContext | None,
) -> int:
    listeners: list[Listener] = []
    try:
        record = Record(maildir=args.maildir, log=args.log, verbose=not args.discard)
        for ip, port in addresses:
            listeners += listen([ip], [port])
    except OSError as error:
        print(f"mtaq sink: {error}", file=sys.stderr)
        return exits.CANNOT_CREATE if error.filename else exits.OS_ERROR
    run_in_loop(_serve(Sink(options, record, faults, context), listeners))
    print(f"{record.count} messages taken", flush=True)
    return exits.OK


async def _serve(sink: Sink, listeners: Sequence[Listener]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servers = []
    for listener in listeners:
        servers.append(await loop.create_server(lambda: SinkConnection(sink), sock=listener.sock, backlog=1024))
        print(f"listening on {listener}", flush=True)
    await stop.wait()
    for server in servers:
        server.close()
    for connection in list(sink.connections):
        connection.shut_down()
    await asyncio.sleep(0)  # one turn of the loop, in which the last replies go out


def _address(text: str) -> tuple[str, int]:
    ip, _, port = text.rpartition(":")
    try:
        return str(ipaddress.ip_address(ip.removeprefix("[").removesuffix("]"))), integer(0, 65_535)(port)
    except ValueError as error:
        raise ValueError(f"--listen {text!r}: IP:PORT is expected") from error
