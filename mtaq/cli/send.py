"""``mtaq send``: hand a message from standard input to the relay, as sendmail does.

Speaks SMTP to the server and stores nothing itself: what the server did not take is the caller's still, and the exit
status says so (sysexits): 0 taken for all, 65 a bad address or message, 67 a recipient refused for good, 69 refused for
good, 75 try again, 64 and 78 wrong usage and configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import aiosmtplib

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.send_message import complete, parse_address, read_message, recipients_of, unique, without_bcc
from mtaq.cli.settings import add_settings_arguments, load_or_exit
from mtaq.config.values import integer
from mtaq.model.address import Address, address_text
from mtaq.net.tls import client_context

NO_USER = 67  # EX_NOUSER
CONNECT_TIMEOUT_S = 30.0
#: RFC 5321 §4.5.3.2: the longest that a command, and the end of the content, may take.
COMMAND_TIMEOUT_S = 300.0
CONTENT_TIMEOUT_S = 600.0

_is_host_name = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*").fullmatch


@dataclass(slots=True)
class Outcome:
    """What the server said.

    Attributes:
        reply: To the content, or to what it refused before; ``None`` without one.
        refused: Recipients it refused, with the reply.
        failure: What kept it from saying anything.
    """

    reply: aiosmtplib.SMTPResponse | None = None
    refused: dict[Address, aiosmtplib.SMTPResponse] = field(default_factory=dict)
    failure: str = ""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``send``."""
    words = "hand a message from standard input to the relay, as sendmail does"
    parser = subparsers.add_parser("send", help=words, description=words)
    parser.set_defaults(func=_send)
    add = parser.add_argument
    add("recipients", metavar="RECIPIENT", nargs="*", help="addresses to send to")
    add("-f", metavar="ADDRESS", dest="sender", help="reverse-path; <> for none (user@host)")
    add("-t", action="store_true", dest="from_fields", help="send to those in To, Cc and Bcc too; Bcc is removed")
    add("-i", "-oi", action="store_true", dest="ignore_dots", help="a line with a lone dot does not end the message")
    add("--server", metavar="HOST[:PORT]", help="send to this server (the relay on this host, as configured)")
    add_settings_arguments(parser)


def _send(args: argparse.Namespace) -> int:
    hostname = _hostname()
    try:
        host, port = _server(args)
    except ValueError as error:
        return _complain(error, exits.USAGE)
    try:
        author = parse_address(_user(), hostname)
        reverse_path = _reverse_path(args.sender, author, hostname)
        content = read_message(sys.stdin.buffer, dot_ends=not args.ignore_dots)
        texts = [*args.recipients, *(recipients_of(content) if args.from_fields else [])]
        recipients = unique(parse_address(text, hostname) for text in texts)
    except ValueError as error:
        return _complain(error, exits.DATA)
    if not recipients:
        return _complain("no recipients: name them, or say -t", exits.DATA if args.from_fields else exits.USAGE)
    if args.from_fields:
        content = without_bcc(content)
    now = datetime.now().astimezone()
    content = complete(content, author=reverse_path or author, hostname=hostname, now=now)
    outcome = asyncio.run(submit(host, port, hostname, reverse_path, recipients, content))
    return _report(outcome, all_refused=len(outcome.refused) == len(recipients))


def _server(args: argparse.Namespace) -> tuple[str, int]:
    if args.server is not None:
        host, colon, port = args.server.rpartition(":")
        if not colon or args.server.endswith("]") or (":" in host and not host.startswith("[")):
            host, port = args.server, "25"
        if not host:
            raise ValueError(f"--server {args.server!r}: HOST[:PORT] is expected")
        return host.removeprefix("[").removesuffix("]"), integer(1, 65_535)(port)
    listen = load_or_exit(args).listen
    if not listen.smtp_port:
        raise ValueError("the configuration has no smtp-port; say --server")
    wildcards = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound
    host = listen.smtp_ip[0] if listen.smtp_ip and listen.smtp_ip[0] not in wildcards else "127.0.0.1"
    return host, listen.smtp_port[0]


def _reverse_path(text: str | None, author: Address, hostname: str) -> Address | None:
    if text is None:
        return author
    return parse_address(text, hostname) if text.strip() not in ("", "<>") else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "nobody"


def _hostname() -> str:
    name = platform.node()
    return name if _is_host_name(name) else "localhost"


async def submit(
    host: str, port: int, hostname: str, reverse_path: Address | None, recipients: Sequence[Address], content: bytes
) -> Outcome:
    """
    Offer one message to the server at *host*.

    Args:
        hostname: Our name, for EHLO.
        content: With CRLF line ends.
    """
    outcome = Outcome()
    client = aiosmtplib.SMTP(
        hostname=host, port=port, local_hostname=hostname, start_tls=False, timeout=COMMAND_TIMEOUT_S
    )
    try:
        await client.connect(timeout=CONNECT_TIMEOUT_S)
        await _introduce(client, host)
        await _transact(client, reverse_path, recipients, content, outcome)
        await client.quit()
    except aiosmtplib.SMTPResponseException as error:
        outcome.reply = outcome.reply or aiosmtplib.SMTPResponse(error.code, error.message)
    except (aiosmtplib.SMTPException, OSError) as error:
        if outcome.reply is None:  # a server that only fails to say goodbye has the message
            outcome.failure = f"{host}:{port}: {error}"
    finally:
        client.close()
    return outcome


async def _introduce(client: aiosmtplib.SMTP, host: str) -> None:
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()
    if client.supports_extension("starttls"):
        await client.starttls(server_hostname=host, tls_context=client_context(verified=False))
        await client.ehlo()


async def _transact(
    client: aiosmtplib.SMTP,
    reverse_path: Address | None,
    recipients: Sequence[Address],
    content: bytes,
    outcome: Outcome,
) -> None:
    # The library's mail() and rcpt() take addresses apart and make others of them; what is validated goes as it is.
    sender = b"FROM:<%b>" % address_text(reverse_path).encode()
    answer = await client.execute_command(b"MAIL", sender, *_parameters(client, reverse_path, recipients, content))
    if answer.code >= 300:
        outcome.reply = answer
        return
    for recipient in recipients:
        answer = await client.execute_command(b"RCPT", b"TO:<%b>" % str(recipient).encode())
        if answer.code >= 300:
            outcome.refused[recipient] = answer
    if len(outcome.refused) < len(recipients):
        outcome.reply = await client.data(content, timeout=CONTENT_TIMEOUT_S)


def _parameters(
    client: aiosmtplib.SMTP, reverse_path: Address | None, recipients: Sequence[Address], content: bytes
) -> list[bytes]:
    parameters = []
    if client.supports_extension("size"):
        parameters.append(b"SIZE=%d" % len(content))
    if not content.isascii() and client.supports_extension("8bitmime"):
        parameters.append(b"BODY=8BITMIME")
    paths = [*recipients, *([reverse_path] if reverse_path is not None else [])]
    if not all(path.is_ascii for path in paths):
        parameters.append(b"SMTPUTF8")  # a server that does not know it refuses, which is right (RFC 6531 §3.5)
    return parameters


def _report(outcome: Outcome, *, all_refused: bool) -> int:
    for recipient, answer in outcome.refused.items():
        print(f"mtaq send: {recipient}: {answer.code} {answer.message}", file=sys.stderr)
    if outcome.failure:
        return _complain(outcome.failure, exits.TEMPORARY)
    codes = [answer.code for answer in outcome.refused.values()]
    if outcome.reply is not None:
        if outcome.reply.code >= 300:
            status = exits.UNAVAILABLE if outcome.reply.code >= 500 else exits.TEMPORARY
            return _complain(f"{outcome.reply.code} {outcome.reply.message}", status)
        print(outcome.reply.message)
    if not codes:
        return exits.OK
    if not all_refused:
        print("mtaq send: sent to the other recipients", file=sys.stderr)
    return NO_USER if min(codes) >= 500 else exits.TEMPORARY


def _complain(problem: object, status: int) -> int:
    print(f"mtaq send: {problem}", file=sys.stderr)
    return status
