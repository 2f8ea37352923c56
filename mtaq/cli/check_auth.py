"""``mtaq check-auth``: may this user log in, and what does each form of ``smtp-auth`` say?

Asks the forms themselves and in their order, as a session does, but remembers nothing and counts no failures. The
password comes from the terminal or from standard input, never from the command line, which everybody on this host can
read.
"""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
import time
from collections.abc import Sequence

from mtaq.cli import exits
from mtaq.cli.loop import run_in_loop
from mtaq.cli.parser import Subparsers
from mtaq.cli.settings import add_settings_arguments, load_or_exit
from mtaq.config import Settings
from mtaq.config.logins import Login
from mtaq.config.values import integer
from mtaq.net.http import request
from mtaq.net.streams import connected, exchange
from mtaq.smtpauth import Network, Verdict, authenticator_for
from mtaq.smtpauth.authenticator import may_be_asked

_CLIENT_IP = "127.0.0.1"
_MAX_LINE_BYTES = 4096
_STATUS = {
    Verdict.ACCEPTED: exits.OK,
    Verdict.REFUSED: exits.NO_PERMISSION,
    Verdict.UNAVAILABLE: exits.TEMPORARY,
}


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``check-auth``."""
    words = "try a login with the forms of smtp-auth; exit status 0 accepted, 77 refused, 75 nobody could say"
    parser = subparsers.add_parser("check-auth", help=words, description=words)
    parser.set_defaults(func=_check_auth)
    parser.add_argument("user", metavar="USER", help="name to log in with; the password is asked for")
    parser.add_argument("--port", metavar="N", help="use what smtp-auth is on this port (what it is on no port alone)")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input, one line")
    add_settings_arguments(parser)


def _check_auth(args: argparse.Namespace) -> int:
    try:
        port = integer(1, 65_535)(args.port) if args.port is not None else None
    except ValueError as error:
        return _complain(f"--port: {error}", exits.USAGE)
    settings = load_or_exit(args)
    logins = (settings.reception if port is None else settings.receive(port)).smtp_auth
    if not logins:
        return _complain(_nobody(settings, port), exits.CONFIG)
    password = _read_line() if args.password_stdin else getpass.getpass("Password: ")
    if not may_be_asked(args.user, password):
        return _complain("refused: empty, too long, or with control characters", exits.NO_PERMISSION)
    return _STATUS[run_in_loop(_ask(logins, args.user, password))]


def _read_line() -> str:
    line = sys.stdin.buffer.readline(_MAX_LINE_BYTES)
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _nobody(settings: Settings, port: int | None) -> str:
    elsewhere = [str(number) for number, options in sorted(settings.ports.items()) if options.smtp_auth]
    if port is None and elsewhere:
        return f"smtp-auth is set for some ports only; say --port {' or '.join(elsewhere)}"
    return "smtp-auth is not set" + (f" for port {port}" if port is not None else "")


async def _ask(logins: Sequence[Login], user: str, password: str) -> Verdict:
    network = Network(connected, exchange, request)
    authenticator = authenticator_for(
        logins, network=network, clock=time.monotonic, on_unavailable=_ignore, scram_secret=secrets.token_bytes(32)
    )
    verdict = Verdict.REFUSED
    for form in authenticator.forms:
        answer = await form.ask(user, password, _CLIENT_IP)
        print(f"{form.name}: {answer.verdict.value}" + (f" ({answer.reason})" if answer.reason else ""), flush=True)
        if answer.verdict is not Verdict.REFUSED:
            verdict = answer.verdict
        if answer.verdict is Verdict.ACCEPTED:
            break
    await authenticator.close()
    return verdict


def _ignore(_form: str, _reason: str) -> None:
    """What could not be asked is printed anyway."""


def _complain(problem: str, status: int) -> int:
    print(f"mtaq check-auth: {problem}", file=sys.stderr)
    return status
