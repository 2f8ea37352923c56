"""``mtaq``: find the verb, run it, turn its end into an exit status.

Knows which module holds which verb and nothing else about them; a module is imported only when its verb is asked for,
so that ``mtaq version`` and ``mtaq config check`` answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from mtaq.cli import exits
from mtaq.cli.parser import Parser
from mtaq.version import __version__

VERBS: dict[str, str] = {
    "run": "mtaq.cli.run",
    "receive": "mtaq.cli.run",
    "deliver": "mtaq.cli.run",
    "reload": "mtaq.cli.run",
    "health": "mtaq.cli.run",
    "send": "mtaq.cli.send",
    "sink": "mtaq.cli.sink",
    "check-auth": "mtaq.cli.check_auth",
    "check-domain": "mtaq.cli.check_domain",
    "check-message": "mtaq.cli.check_message",
    "local": "mtaq.cli.local",
    "block": "mtaq.cli.block",
    "source": "mtaq.cli.source",
    "throttle": "mtaq.cli.throttle",
    "pause": "mtaq.cli.pause",
    "resume": "mtaq.cli.pause",
    "suppress": "mtaq.cli.suppress",
    "force-error": "mtaq.cli.force_error",
    "rewrite": "mtaq.cli.rewrite",
    "flood": "mtaq.cli.replies",
    "response": "mtaq.cli.replies",
    "warm-up": "mtaq.cli.warm_up",
    "dkim": "mtaq.cli.dkim",
    "pool": "mtaq.cli.pool",
    "dns-override": "mtaq.cli.dns_override",
    "tls": "mtaq.cli.tls",
    "show": "mtaq.cli.show",
    "flush": "mtaq.cli.flush",
    "requeue": "mtaq.cli.requeue",
    "queue": "mtaq.cli.queue",
    "inject": "mtaq.cli.queue",
    "trace": "mtaq.cli.trace",
    "config": "mtaq.cli.config",
    "version": "mtaq.cli.version",
}
"""Verb → the module whose ``add_parser(subparsers)`` adds it; a module may add several."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mtaq`` with *argv*, by default the process's own, and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except SystemExit as end:
        return _status(end.code)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may fail when the interpreter flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK


def _run(arguments: list[str]) -> int:
    parser = build_parser(_asked_for(arguments))
    args, rest = parser.parse_known_args(arguments)
    if rest and not (getattr(args, "takes_overrides", False) and all(_is_override(argument) for argument in rest)):
        parser.error(f"unknown arguments: {' '.join(map(_name_only, rest))}")
    args.overrides = tuple(rest)
    status: int = args.func(args)
    sys.stdout.flush()
    return status


def _asked_for(arguments: Sequence[str]) -> Iterable[str]:
    """Return the modules needed to understand *arguments*: one when the verb comes first, else all."""
    if arguments and arguments[0] in VERBS:
        return [VERBS[arguments[0]]]
    return dict.fromkeys(VERBS.values())


def build_parser(modules: Iterable[str]) -> Parser:
    """Return the parser of ``mtaq`` with the verbs of some modules."""
    parser = Parser(prog="mtaq", description="The open mail relay whose queues are RabbitMQ queues.")
    parser.add_argument("--version", action="version", version=f"mtaq {__version__}")
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for module in modules:
        import_module(module).add_parser(subparsers)
    return parser


def build_full_parser() -> Parser:
    """Return the parser with every verb, for the reference."""
    return build_parser(dict.fromkeys(VERBS.values()))


def _is_override(argument: str) -> bool:
    return argument.startswith("--") and len(argument) > 2


def _name_only(argument: str) -> str:
    # What stands behind the sign may be a password.
    return argument.partition("=")[0]


def _status(code: object) -> int:
    if code is None:
        return exits.OK
    if isinstance(code, int):
        return code
    print(code, file=sys.stderr)
    return exits.FAILURE
