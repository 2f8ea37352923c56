"""Contradictions: what no single value shows.

Each check looks at settings whose values all parse and notes what does not go together. Files are looked at, nothing
else is opened. A check is left out when a key it needs is wrong already, so that one mistake is told once.
"""

from __future__ import annotations

import os
import pwd
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mtaq.config.errors import Findings
from mtaq.config.hooks import Executable
from mtaq.config.logins import FileLogin, Login, ProgramLogin, SystemLogin
from mtaq.config.reader import Entry
from mtaq.config.reception import ReceiveOptions
from mtaq.config.settings import Settings

SHADOW = "/etc/shadow"
"""Where PAM looks for the passwords of system accounts."""


@dataclass(frozen=True)
class Draft:
    """Settings not yet approved.

    Attributes:
        settings: Built from what parses.
        entries: Where each ``key`` or ``key@port`` that is not a default stands.
    """

    settings: Settings
    entries: dict[str, Entry]

    def ports(self) -> list[int]:
        """All ports configured, open or not."""
        return [*self.settings.listen.smtp_port, *self.settings.listen.smtp_secure_port]

    def open_ports(self) -> Iterator[tuple[int, ReceiveOptions]]:
        """Yield each port that is not switched off, with its options."""
        for port in self.ports():
            if self.settings.receive(port).smtp_enabled:
                yield port, self.settings.receive(port)

    def blame(self, findings: Findings, problem: str, *keys: str, port: int | None = None) -> None:
        """Note *problem* at the first of *keys* that was given, its ``@port`` form first."""
        names = [name for key in keys for name in (f"{key}@{port}", key)]
        entry = next((self.entries[name] for name in names if name in self.entries), None)
        if entry is None:
            findings.error(problem, source="default", key=keys[0])
        elif not any(error.key == entry.name and error.problem == problem for error in findings.errors):
            findings.error(problem, source=entry.source, line=entry.line, key=entry.name)


def check_ports(draft: Draft, findings: Findings) -> None:
    """``@port`` names a port that is there; no port is both plain and secure, or the metrics port as well."""
    listen, metrics = draft.settings.listen, draft.settings.process.metrics_port
    for entry in draft.entries.values():
        if entry.port is not None and entry.port not in draft.ports():
            known = ", ".join(map(str, draft.ports())) or "none"
            problem = f"port {entry.port} is neither in smtp-port nor in smtp-secure-port; expected one of: {known}"
            findings.error(problem, source=entry.source, line=entry.line, key=entry.name)
    for port in sorted(set(listen.smtp_port) & set(listen.smtp_secure_port)):
        problem = f"port {port} is also in smtp-port; expected each port in one of the lists"
        draft.blame(findings, problem, "smtp-secure-port")
    if metrics is not None and metrics.port in draft.ports():
        draft.blame(findings, f"port {metrics.port} takes mail; expected another port", "metrics-port")


def check_certificates(draft: Draft, findings: Findings) -> None:
    """Certificate and key come together, can be read and fit; a secure port has them."""
    for port, options in draft.open_ports():
        certificate, key = options.smtp_certificate, options.smtp_key
        if certificate and not key:
            draft.blame(findings, "smtp-key is missing; expected both or neither", "smtp-certificate", port=port)
        elif key and not certificate:
            draft.blame(findings, "smtp-certificate is missing; expected both or neither", "smtp-key", port=port)
        elif not certificate and port in draft.settings.listen.smtp_secure_port:
            problem = f"port {port} has no certificate; expected smtp-certificate and smtp-key"
            draft.blame(findings, problem, "smtp-secure-port")
        elif certificate and key:
            _check_pair(draft, findings, certificate, key, port)


def _check_pair(draft: Draft, findings: Findings, certificate: str, key: str, port: int) -> None:
    readable = [_check_file(draft, findings, name, path, port) for name, path in
                (("smtp-certificate", certificate), ("smtp-key", key))]  # fmt: skip
    if all(readable):
        try:
            # The pass phrase is given, empty, because OpenSSL would ask for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, ValueError, OSError):
            problem = "no usable pair with its smtp-key; expected a certificate in PEM and its key without pass phrase"
            draft.blame(findings, problem, "smtp-certificate", port=port)


def _check_file(draft: Draft, findings: Findings, key: str, path: str, port: int) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        draft.blame(findings, f"{path} cannot be read: {error.strerror}; expected a PEM file", key, port=port)
        return False
    user = draft.settings.process.user
    if user and os.geteuid() == 0 and not _user_can_read(user, path):
        draft.blame(findings, f"{path} cannot be read by user {user}; expected a file that it can read", key, port=port)
        return False
    return True


def _user_can_read(user: str, path: str) -> bool:
    return _can(user, "-r", path)


_ACCESS = {"-r": os.R_OK, "-w": os.W_OK, "-x": os.X_OK}


def _can(user: str | None, test: str, path: str) -> bool:
    """Ask the kernel, as that user: permissions of every folder above and access lists count as well."""
    if not user or os.geteuid() != 0:
        return os.access(path, _ACCESS[test])
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return True  # told by check_user
    groups = os.getgrouplist(user, entry.pw_gid)
    asked = subprocess.run(
        ["/usr/bin/test", test, path], user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups, check=False
    )
    return asked.returncode == 0


def check_logins(draft: Draft, findings: Findings) -> None:
    """Logins are taken under TLS only; the files that they come from are there for the user that asks."""
    for port, options in draft.open_ports():
        if options.smtp_auth and not options.smtp_certificate and not options.smtp_key:
            problem = f"port {port} has no certificate, and nobody logs in without TLS; expected smtp-certificate too"
            draft.blame(findings, problem, "smtp-auth", port=port)
        for login in options.smtp_auth:
            problem = _unusable(login, draft.settings.process.user)
            if problem:
                draft.blame(findings, problem, "smtp-auth", port=port)


def _unusable(login: Login, user: str | None) -> str:
    """Return what keeps *user* from the file that a login comes from; empty when nothing does."""
    who = f" by user {user}" if user else ""
    match login:
        case FileLogin(path) if not (os.path.isfile(path) and _can(user, "-r", path)):
            return f"{path} cannot be read{who}; expected a file of user:hash"
        case ProgramLogin(path) if not (os.path.isfile(path) and _can(user, "-x", path)):
            return f"{path} cannot be run{who}; expected a program"
        case SystemLogin() if os.path.exists(SHADOW) and not _can(user, "-r", SHADOW):
            return f"users:// needs {SHADOW}, which cannot be read{who}; expected membership in its group"
        case _:
            return ""


def check_hooks(draft: Draft, findings: Findings) -> None:
    """Programs that hooks and pipelines name are there, and the user may run them."""
    user = draft.settings.process.user
    for port, options in draft.open_ports():
        named = [("smtp-hook", options.smtp_hook), *(("smtp-pipeline", step) for step in options.smtp_pipeline)]
        for key, target in named:
            if isinstance(target, Executable) and not (os.path.isfile(target.path) and _can(user, "-x", target.path)):
                who = f" by user {user}" if user else ""
                draft.blame(findings, f"{target.path} cannot be run{who}; expected a program", key, port=port)


def check_client_authorities(draft: Draft, findings: Findings) -> None:
    """Certificate authorities of clients can be read, and stand on ports that have a certificate themselves."""
    for port, options in draft.open_ports():
        path = options.smtp_tls_client_ca
        if path is None:
            continue
        if not options.smtp_certificate:
            problem = f"port {port} has no certificate, so no client shows one; expected smtp-certificate as well"
            draft.blame(findings, problem, "smtp-tls-client-ca", port=port)
        if _check_file(draft, findings, "smtp-tls-client-ca", path, port):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
            except OSError:
                problem = f"no certificate authority in {path}; expected certificates in PEM"
                draft.blame(findings, problem, "smtp-tls-client-ca", port=port)


def check_spool(draft: Draft, findings: Findings) -> None:
    """The watched folder and the one for failures are two folders, and files in both can be moved."""
    spool = draft.settings.spool
    for key, path in (("spool-directory", spool.spool_directory), ("spool-fail-directory", spool.spool_fail_directory)):
        if path is None:
            continue
        if not os.path.isdir(path):
            draft.blame(findings, f"{path} is not a folder; expected one that exists", key)
        elif not _can(draft.settings.process.user, "-w", path):
            draft.blame(findings, f"{path} cannot be written to; expected a folder that belongs to the user", key)
    directory, failed = spool.spool_directory, spool.spool_fail_directory
    if failed is not None and directory is None:
        draft.blame(findings, "spool-directory is missing; expected both or neither", "spool-fail-directory")
    elif failed is not None and directory is not None and os.path.realpath(failed) == os.path.realpath(directory):
        draft.blame(findings, "is the watched folder itself; expected another folder", "spool-fail-directory")


def check_archive(draft: Draft, findings: Findings) -> None:
    """The queue of the copies is none that mtaq or the operator's script works on."""
    queues = draft.settings.queues
    taken = {queues.rabbitmq_inbox: "the inbox", queues.rabbitmq_outbox: "the outbox", queues.rabbitmq_dead: "dead"}
    for port, options in draft.open_ports():
        name = options.smtp_archive.queue if options.smtp_archive else None
        if name is not None and (name in taken or name.startswith(f"{queues.rabbitmq_outbox}.delay.")):
            problem = f"queue {name} is {taken.get(name, 'a delay queue of the outbox')}; expected one of its own"
            draft.blame(findings, problem, "smtp-archive", port=port)


def check_user(draft: Draft, findings: Findings) -> None:
    """The user exists."""
    user = draft.settings.process.user
    if user is not None:
        try:
            pwd.getpwnam(user)
        except KeyError:
            draft.blame(findings, f"no user {user!r} on this system; expected one that exists", "user")


def check_relay(draft: Draft, findings: Findings) -> None:
    """Mail that only who has logged in may send needs a way to log in."""
    for port, options in draft.open_ports():
        if options.smtp_relay == "authenticated" and not options.smtp_auth and not options.smtp_tls_client_ca:
            problem = f"nobody can log in on port {port}; expected smtp-auth or smtp-tls-client-ca as well"
            draft.blame(findings, problem, "smtp-relay", port=port)


def check_open_relay(draft: Draft, findings: Findings) -> None:
    """Nobody on the Internet may have mail relayed at once just by connecting."""
    if draft.settings.queues.rabbitmq_inbox != draft.settings.queues.rabbitmq_outbox:
        return
    for port, options in draft.open_ports():
        if options.relay == "range" and options.smtp_range.covers_internet:
            problem = (
                f"an open relay on port {port}: everybody may connect and the inbox is the outbox; "
                "expected a smaller range, smtp-relay: none, or another rabbitmq-inbox"
            )
            draft.blame(findings, problem, "smtp-range", port=port)


def check_proxies(draft: Draft, findings: Findings) -> None:
    """Who may send a PROXY header may claim to be anybody."""
    entry = draft.entries.get("smtp-proxy")
    if entry is not None and draft.settings.reception.smtp_proxy.covers_internet:
        problem = "everybody may claim any address, so smtp-range keeps nobody out; expected your own proxies"
        findings.warn(problem, source=entry.source, line=entry.line, key=entry.name)


def check_greeting(draft: Draft, findings: Findings) -> None:
    """Nobody is cut as silent while it waits to be greeted."""
    for port, options in draft.open_ports():
        if options.smtp_greeting_delay >= options.smtp_timeout:
            problem = (
                f"port {port} ends sessions after {options.smtp_timeout} s (smtp-timeout); expected less than that"
            )
            draft.blame(findings, problem, "smtp-greeting-delay", port=port)


def check_connections(draft: Draft, findings: Findings) -> None:
    """No side's cap is above that of both together."""
    listen = draft.settings.listen
    for key, cap in (
        ("smtp-connections-in", listen.smtp_connections_in),
        ("smtp-connections-out", listen.smtp_connections_out),
    ):
        if cap is not None and cap > listen.smtp_connections:
            problem = f"{cap} is more than smtp-connections, which is {listen.smtp_connections}; expected at most that"
            draft.blame(findings, problem, key)


def check_queues(draft: Draft, findings: Findings) -> None:
    """Nothing that mtaq publishes about a message goes back into the outbox as a message."""
    queues = draft.settings.queues
    ladder = f"{queues.rabbitmq_outbox}.delay."
    for key in (*_MAY_BE_OUTBOX, *_NEVER_OUTBOX):
        name = getattr(queues, key.replace("-", "_")) or ""
        if name == queues.rabbitmq_outbox and key in _NEVER_OUTBOX:
            draft.blame(findings, "is the outbox, which would deliver it again; expected another queue", key)
        elif name.startswith(ladder):
            draft.blame(findings, f"{ladder}* are the outbox's delay queues; expected another name", key)


def check_queue_type(draft: Draft, findings: Findings) -> None:
    """Quorum queues cannot be told to forget."""
    queues = draft.settings.queues
    if queues.rabbitmq_type == "quorum" and not queues.rabbitmq_durable:
        problem = "quorum queues are always durable; expected true, or rabbitmq-type: classic"
        draft.blame(findings, problem, "rabbitmq-durable", "rabbitmq-type")


def check_attempt_timeout(draft: Draft, findings: Findings) -> None:
    """RabbitMQ closes the channel of who holds a message for 30 minutes, as it is installed."""
    entry = draft.entries.get("delivery-attempt-timeout")
    if entry is not None and draft.settings.deliver.delivery_attempt_timeout > 1700:
        problem = "close to or above RabbitMQ's consumer_timeout of 1800 seconds; raise that first"
        findings.warn(problem, source=entry.source, line=entry.line, key=entry.name)


_QUEUES = ("rabbitmq-inbox", "rabbitmq-outbox")
_MAY_BE_OUTBOX = ("rabbitmq-inbox", "rabbitmq-local")
_NEVER_OUTBOX = (
    "rabbitmq-refused", "rabbitmq-results", "rabbitmq-success", "rabbitmq-failure", "rabbitmq-retry", "rabbitmq-dead",
)  # fmt: skip

CHECKS: tuple[tuple[tuple[str, ...], Callable[[Draft, Findings], None]], ...] = (
    (("smtp-port", "smtp-secure-port", "metrics-port"), check_ports),
    (("smtp-enabled", "smtp-certificate", "smtp-key", "user"), check_certificates),
    (("smtp-enabled", "smtp-auth", "smtp-certificate", "smtp-key", "user"), check_logins),
    (("smtp-enabled", "smtp-certificate", "smtp-tls-client-ca", "user"), check_client_authorities),
    (("smtp-enabled", "smtp-hook", "smtp-pipeline", "user"), check_hooks),
    (("spool-directory", "spool-fail-directory", "user"), check_spool),
    (("smtp-enabled", "smtp-archive", *_QUEUES, "rabbitmq-dead"), check_archive),
    (("user",), check_user),
    (("smtp-enabled", "smtp-relay", "smtp-auth", "smtp-tls-client-ca"), check_relay),
    (("smtp-enabled", *_QUEUES, "smtp-range", "smtp-relay", "smtp-auth", "smtp-tls-client-ca"), check_open_relay),
    (("smtp-proxy",), check_proxies),
    (("smtp-enabled", "smtp-greeting-delay", "smtp-timeout"), check_greeting),
    (("rabbitmq-outbox", *_MAY_BE_OUTBOX, *_NEVER_OUTBOX), check_queues),
    (("smtp-connections", "smtp-connections-in", "smtp-connections-out"), check_connections),
    (("rabbitmq-type", "rabbitmq-durable"), check_queue_type),
    (("delivery-attempt-timeout",), check_attempt_timeout),
)
"""The keys a check needs, and the check."""
