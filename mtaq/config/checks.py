"""Contradictions: what no single value shows.

Each check looks at settings whose values all parse and notes what does not go together; what depends on files stands in
``file_checks``. A check is left out when a key it needs is wrong already, so that one mistake is told once.
"""

from __future__ import annotations

from collections.abc import Callable

from mtaq.config.draft import Draft
from mtaq.config.errors import Findings
from mtaq.config.file_checks import (
    check_certificates,
    check_client_authorities,
    check_hooks,
    check_logins,
    check_spool,
    check_user,
)


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


def check_archive(draft: Draft, findings: Findings) -> None:
    """The queue of the copies is none that mtaq or the operator's script works on."""
    queues = draft.settings.queues
    taken = {getattr(queues, key.replace("-", "_")): key for key in _QUEUES}
    for port, options in draft.open_ports():
        name = options.smtp_archive.queue if options.smtp_archive else None
        if name is not None and (name in taken or name.startswith(f"{queues.rabbitmq_outbox}.delay.")):
            problem = f"queue {name} is {taken.get(name, 'a delay queue of the outbox')}; expected one of its own"
            draft.blame(findings, problem, "smtp-archive", port=port)


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


def check_extract(draft: Draft, findings: Findings) -> None:
    """Header fields that choose queues, hosts and source addresses are not for strangers."""
    for port, options in draft.open_ports():
        names = (f"smtp-range@{port}", "smtp-range")
        entry = next((draft.entries[name] for name in names if name in draft.entries), None)
        if entry is not None and options.smtp_extract == "true" and options.smtp_range.covers_internet:
            problem = f"port {port} believes x-mq fields of everybody; expected smtp-extract: trusted or false"
            findings.warn(problem, source=entry.source, line=entry.line, key=entry.name)


def check_rejects(draft: Draft, findings: Findings) -> None:
    """A message is refused for what was checked only, and what was not checked is not told."""
    for port, options in draft.open_ports():
        for check in options.smtp_check_reject:
            if check not in options.smtp_check:
                problem = f"{check} is not checked on port {port}; expected it in smtp-check as well"
                draft.blame(findings, problem, "smtp-check-reject", port=port)
        if options.smtp_auth_results and not options.smtp_check:
            draft.advise(findings, f"nothing is checked on port {port}; expected smtp-check as well",
                         "smtp-auth-results", port=port)  # fmt: skip
        if options.smtp_received_spf and not (options.smtp_auth_results and "spf" in options.smtp_check):
            draft.advise(findings, f"not written on port {port}; expected smtp-auth-results, and spf in smtp-check",
                         "smtp-received-spf", port=port)  # fmt: skip


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
    accepted = (queues.rabbitmq_inbox, queues.rabbitmq_local, queues.rabbitmq_reports)
    for key in (*_MAY_BE_OUTBOX, *_NEVER_OUTBOX):
        name = getattr(queues, key.replace("-", "_")) or ""
        if name == queues.rabbitmq_outbox and key in _NEVER_OUTBOX:
            draft.blame(findings, "is the outbox, which would deliver it again; expected another queue", key)
        elif name and key == "rabbitmq-refused" and name in accepted:
            draft.blame(findings, "also takes accepted mail; expected a queue for what was refused alone", key)
        elif name.startswith(ladder):
            draft.blame(findings, f"{ladder}* are the outbox's delay queues; expected another name", key)


def check_queue_type(draft: Draft, findings: Findings) -> None:
    """Quorum queues cannot be told to forget."""
    queues = draft.settings.queues
    if queues.rabbitmq_type == "quorum" and not queues.rabbitmq_durable:
        problem = "quorum queues are always durable; expected true, or rabbitmq-type: classic"
        draft.blame(findings, problem, "rabbitmq-durable", "rabbitmq-type")


def check_smarthost(draft: Draft, findings: Findings) -> None:
    """A user has a password, and a host to log in at."""
    deliver = draft.settings.deliver
    if (deliver.smarthost_username is None) != (deliver.smarthost_password is None):
        problem = "a login takes both; expected smarthost-username and smarthost-password, or neither"
        draft.blame(findings, problem, "smarthost-password", "smarthost-username")
    elif deliver.smarthost_username is not None and deliver.smarthost is None:
        draft.blame(findings, "there is no smarthost to log in at; expected smarthost as well", "smarthost-username")


def check_dane(draft: Draft, findings: Findings) -> None:
    """DANE rests on DNSSEC, which a resolver that is trusted has to prove."""
    entry, settings = draft.entries.get("delivery-tls-policies"), draft.settings
    if entry is not None and "dane" in settings.deliver.delivery_tls_policies and not settings.dns.dns_trust_ad:
        problem = "no answer of DNS counts as proved, so dane does nothing; expected dns-trust-ad: true as well"
        findings.warn(problem, source=entry.source, line=entry.line, key=entry.name)


def check_attempt_timeout(draft: Draft, findings: Findings) -> None:
    """RabbitMQ closes the channel of who holds a message for 30 minutes, as it is installed."""
    entry = draft.entries.get("delivery-attempt-timeout")
    if entry is not None and draft.settings.deliver.delivery_attempt_timeout > 1700:
        problem = "close to or above RabbitMQ's consumer_timeout of 1800 seconds; raise that first"
        findings.warn(problem, source=entry.source, line=entry.line, key=entry.name)


_MAY_BE_OUTBOX = ("rabbitmq-inbox", "rabbitmq-local", "rabbitmq-dsn", "rabbitmq-tls-reports")
_NEVER_OUTBOX = (
    "rabbitmq-reports", "rabbitmq-refused", "rabbitmq-results", "rabbitmq-success", "rabbitmq-failure",
    "rabbitmq-retry", "rabbitmq-dead",
)  # fmt: skip
_QUEUES = ("rabbitmq-outbox", *_MAY_BE_OUTBOX, *_NEVER_OUTBOX)

CHECKS: tuple[tuple[tuple[str, ...], Callable[[Draft, Findings], None]], ...] = (
    (("smtp-port", "smtp-secure-port", "metrics-port"), check_ports),
    (("smtp-enabled", "smtp-certificate", "smtp-key", "user"), check_certificates),
    (("smtp-enabled", "smtp-auth", "smtp-certificate", "smtp-key", "user"), check_logins),
    (("smtp-enabled", "smtp-certificate", "smtp-tls-client-ca", "user"), check_client_authorities),
    (("smtp-enabled", "smtp-hook", "smtp-pipeline", "user"), check_hooks),
    (("spool-directory", "spool-fail-directory", "user"), check_spool),
    (("smtp-enabled", "smtp-archive", *_QUEUES), check_archive),
    (("user",), check_user),
    (("smtp-enabled", "smtp-relay", "smtp-auth", "smtp-tls-client-ca"), check_relay),
    (
        (
            "smtp-enabled",
            "rabbitmq-inbox",
            "rabbitmq-outbox",
            "smtp-range",
            "smtp-relay",
            "smtp-auth",
            "smtp-tls-client-ca",
        ),
        check_open_relay,
    ),
    (("smtp-proxy",), check_proxies),
    (("smtp-enabled", "smtp-range", "smtp-extract"), check_extract),
    (("smtp-enabled", "smtp-check", "smtp-check-reject", "smtp-auth-results", "smtp-received-spf"), check_rejects),
    (("smtp-enabled", "smtp-greeting-delay", "smtp-timeout"), check_greeting),
    (_QUEUES, check_queues),
    (("smtp-connections", "smtp-connections-in", "smtp-connections-out"), check_connections),
    (("rabbitmq-type", "rabbitmq-durable"), check_queue_type),
    (("smarthost", "smarthost-username", "smarthost-password"), check_smarthost),
    (("delivery-attempt-timeout",), check_attempt_timeout),
    (("delivery-tls-policies", "dns-trust-ad"), check_dane),
)
"""The keys a check needs, and the check."""
