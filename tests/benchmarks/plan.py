"""Which servers run, and who is loaded when: in turn, so that whatever else happens on the machine meets them all."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.benchmarks.checks import MtaqChecks, write_signed, zones
from tests.benchmarks.load import Case
from tests.benchmarks.measure import Measurement, Server, measure
from tests.benchmarks.peers import SmtpSink
from tests.benchmarks.postfix import PostfixDiscard, PostfixHold, PostfixRelay, can_run_postfix
from tests.benchmarks.relay import MtaqIntake, MtaqRelay
from tests.support.dns_thread import running_dns
from tests.support.rabbitmq import RabbitNode, running_node

#: The servers, in the order in which they are loaded; one that has nothing to do with a benchmark is left out of it.
SERVERS = {
    "intake": ("smtp-sink", "postfix-hold", "postfix", "mtaq"),
    "relay": ("smtp-sink", "postfix", "mtaq"),
    "checks": ("mtaq", "mtaq-checks"),
}

#: How long one load lasts, about. Short ones before it warm up, and tell how many messages that takes.
LOAD_S = 10.0
_TRIAL_S = 1.0
_FIRST_MESSAGES = 100


@dataclass(frozen=True, slots=True)
class Running:
    """What runs while a benchmark does.

    Attributes:
        servers: To be loaded in turn.
        node: mtaq's RabbitMQ node; ``None`` when mtaq is not measured.
        message: Writes the file of a body's size in bytes that is sent; ``None`` where smtp-source makes messages.
    """

    servers: Sequence[Server]
    node: RabbitNode | None
    message: Callable[[int], Path] | None = None


@contextlib.contextmanager
def running(what: str, names: Sequence[str], *, sessions: int) -> Iterator[Running]:
    """Start those of the servers of a benchmark that *names* says; afterwards nothing of them is left."""
    names = [name for name in SERVERS[what] if name in names]
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="mtaq-bench-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o711)  # Postfix's user goes through it
        sink = SmtpSink(folder, sessions=sessions)
        stack.callback(sink.stop)
        sink.start()
        servers: list[Server] = [sink] if "smtp-sink" in names else []
        peers = [name for name in names if name.startswith("postfix")]
        if peers and not can_run_postfix():
            print("postfix is left out: to start one of our own takes root", file=sys.stderr)
        elif peers:
            servers += [_postfix(stack, what, name, folder, sessions, sink) for name in peers]
        node = None
        if "mtaq" in names or "mtaq-checks" in names:
            node = stack.enter_context(running_node(folder / "rabbitmq"))
        if node is not None and "mtaq" in names:
            servers.append(_mtaq(stack, what, folder, node, sink))
        if node is not None and "mtaq-checks" in names:
            servers.append(_mtaq_checks(stack, folder, node))
        yield Running(servers, node, partial(write_signed, folder) if what == "checks" else None)


def _postfix(stack: contextlib.ExitStack, what: str, name: str, folder: Path, sessions: int, sink: SmtpSink) -> Server:
    peer: PostfixHold | PostfixDiscard | PostfixRelay
    if what == "relay":
        peer = PostfixRelay(folder, sessions=sessions, sink=sink)
    elif name == PostfixHold.name:
        peer = PostfixHold(folder, sessions=sessions)
    else:
        peer = PostfixDiscard(folder, sessions=sessions)
    stack.callback(peer.stop)
    peer.start()
    return peer


def _mtaq(stack: contextlib.ExitStack, what: str, folder: Path, node: RabbitNode, sink: SmtpSink) -> Server:
    relay: MtaqIntake | MtaqRelay = MtaqRelay(folder, node, sink=sink) if what == "relay" else MtaqIntake(folder, node)
    stack.callback(relay.stop)
    relay.start()
    return relay


def _mtaq_checks(stack: contextlib.ExitStack, folder: Path, node: RabbitNode) -> Server:
    dns = stack.enter_context(running_dns(zones()))
    own = folder / "checks"
    own.mkdir()
    relay = MtaqChecks(own, node, nameserver=f"127.0.0.1:{dns.port}")
    stack.callback(relay.stop)
    relay.start()
    return relay


def in_turn(servers: Sequence[Server], case: Case, *, rounds: int, messages: int | None) -> Iterator[Measurement]:
    """
    Load each server, then each again, *rounds* times.

    Args:
        servers: All running.
        case: What is sent.
        rounds: At least 1.
        messages: In each load; ``None`` for as many as the server takes in ``LOAD_S`` seconds.

    Raises:
        LoadFailed: A message was not answered 250.
    """
    counts = [messages or _messages_for(server, case) for server in servers]
    for _ in range(rounds):
        for server, count in zip(servers, counts, strict=True):
            yield measure(server, case, count)


def _messages_for(server: Server, case: Case) -> int:
    rate = measure(server, case, _FIRST_MESSAGES).per_s
    rate = measure(server, case, max(_FIRST_MESSAGES, int(rate * _TRIAL_S))).per_s
    return max(_FIRST_MESSAGES, int(rate * LOAD_S))
