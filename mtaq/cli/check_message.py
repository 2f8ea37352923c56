"""``mtaq check-message``: what would the checks of reception say of this message, and why?

Runs them all, as for a message from the client and with the envelope named, with the resolver and spam filter that are
configured. Changes nothing. Exit status 0 whatever the verdicts; 65 when the file is no message, 66 when it cannot be
read.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from collections.abc import Sequence
from typing import Any

from mtaq.assembly.parts import resolver_for, spam_filter_for, utc_now
from mtaq.cli import exits
from mtaq.cli.loop import run_in_loop
from mtaq.cli.parser import Subparsers
from mtaq.cli.settings import add_settings_arguments, load_or_exit
from mtaq.cli.state import argument
from mtaq.config import ReceiveOptions, Settings
from mtaq.config.message_checks import CHECKS
from mtaq.config.values import integer
from mtaq.mailauth.origin import Origin
from mtaq.mime.headers import fields
from mtaq.model.address import Address
from mtaq.receive.check_refusal import refusal_of
from mtaq.receive.check_report import Report
from mtaq.receive.checks import Checks
from mtaq.smtp.grammar import parse_mailbox
from mtaq.state.entries import parse_ip
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.sinks import open_sink

_LINE_END = re.compile(rb"\r?\n")


class _NoMessage(ValueError):
    """The file holds no message; the text says why."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``check-message``."""
    words = "say what the checks find of a message, and why"
    parser = subparsers.add_parser("check-message", help=words, description=words)
    parser.set_defaults(func=_check_message)
    add = parser.add_argument
    add("file", metavar="FILE", help="the message; - for standard input")
    add("--ip", required=True, metavar="IP", type=argument(parse_ip), help="the client's address")
    add("--helo", required=True, metavar="NAME", help="what the client calls itself")
    add(
        "--from",
        required=True,
        metavar="ADDRESS",
        dest="sender",
        type=argument(_sender),
        help="reverse-path; <> is none",
    )
    add("--port", metavar="N", type=argument(integer(1, 65_535)), help="with the options of this port")
    add("--json", action="store_true", help="print JSON")
    add_settings_arguments(parser)


def _sender(text: str) -> Address | None:
    text = text.removeprefix("<").removesuffix(">")
    return parse_mailbox(text, strict=False, smtputf8=True) if text else None


def _check_message(args: argparse.Namespace) -> int:
    settings = load_or_exit(args)
    options = settings.reception if args.port is None else settings.receive(args.port)
    try:
        content = _content(args.file, options.smtp_maxsize)
    except OSError as error:
        return _complain(exits.explain(error), exits.NO_INPUT)
    except _NoMessage as error:
        return _complain(f"{args.file}: {error}", exits.DATA)
    origin = Origin(
        client_ip=args.ip,
        helo=args.helo,
        envelope=args.sender,
        receiver=options.smtp_authserv_id or options.smtp_hostname or platform.node(),
        received_at=utc_now(),
    )
    report = run_in_loop(_checked(content, origin, settings, options))
    refusal = refusal_of(report, options.smtp_check_reject, origin)
    reply = None if refusal is None else str(refusal[0])
    if args.json:
        print(json.dumps({"checks": report.to_json(), "reply": reply}, indent=2, ensure_ascii=False))
    else:
        _print(report.to_json(), reply)
    return exits.OK


def _content(file: str, max_bytes: int) -> bytes:
    """
    Return the message in *file* with the line ends of SMTP.

    Raises:
        OSError: It cannot be read.
        _NoMessage: It has no header section, or is larger than any message that is accepted.
    """
    if file == "-":
        text = sys.stdin.buffer.read(max_bytes + 1)
    else:
        with open(file, "rb") as stream:
            text = stream.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise _NoMessage(f"larger than smtp-maxsize, {max_bytes} bytes")
    if next(fields(text), None) is None:
        raise _NoMessage("no message: it has no header field")
    return _LINE_END.sub(b"\r\n", text)


async def _checked(content: bytes, origin: Origin, settings: Settings, options: ReceiveOptions) -> Report:
    events = EventLog(open_sink(["stderr"]), node=settings.process.server_id, clock=utc_now, level="error")
    spam = spam_filter_for(options, _tell) if "spam" in options.smtp_check else None
    return await Checks(resolver_for(settings), events=events).run(content, origin, CHECKS, spam=spam)


def _tell(engine: str, reason: str) -> None:
    print(f"mtaq check-message: {engine}: {reason}", file=sys.stderr)


def _print(checks: Sequence[dict[str, Any]], reply: str | None) -> None:
    for item in checks:
        (check, word), *others = item.items()
        print(f"{check}: {word}")
        for name, value in others:
            print(f"  {name}: {_shown(value)}")
    if reply is not None:
        print(f"\nrefused: {_shown(reply)}")


def _shown(value: Any) -> str:
    """Return *value* on one line. What others say may hold what steers a terminal."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(character if character.isprintable() else "�" for character in str(value))


def _complain(problem: str, status: int) -> int:
    print(f"mtaq check-message: {problem}", file=sys.stderr)
    return status
