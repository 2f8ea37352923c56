"""The words of the log: which events there are, how important each is, and the fields a line may carry.

Declares only. ``mtaq.telemetry.events`` has one method per event, ``docs/reference/events.md`` is generated from here.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, TypedDict

DEBUG, INFO, WARNING, ERROR = range(4)

LEVELS: dict[str, int] = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
"""The words of ``log-level``, least important first."""

LEVEL_NAMES: tuple[str, ...] = tuple(LEVELS)


class Fields(TypedDict, total=False):
    """What a line may carry beside event, time, level and node. ``None`` is not written."""

    arc: str | None
    attempt: int | None
    auth_user: str | None
    broker: str | None
    changed: str | None
    check: str | None
    concerns: str | None
    connections: int | None
    dkim: str | None
    dmarc: str | None
    domain: str | None
    duration_ms: float | None
    egress_pool: str | None
    egress_source: str | None
    engine: str | None
    enhanced_code: str | None
    error: str | None
    file: str | None
    form: str | None
    forward_path: str | None
    helo: str | None
    hook: str | None
    iprev: str | None
    local_ip: str | None
    local_port: int | None
    logger: str | None
    mechanism: str | None
    message_id: str | None
    messages: int | None
    mx_host: str | None
    needs_restart: str | None
    network: str | None
    notice: str | None
    next_attempt_at: datetime | None
    outcome: str | None
    pattern: str | None
    peer_ip: str | None
    peer_port: int | None
    pid: int | None
    point: str | None
    proxy_ip: str | None
    queue: str | None
    reason: str | None
    recipients: int | None
    refused: int | None
    remote_ip: str | None
    reply_code: int | None
    reply_text: str | None
    report: str | None
    restart_s: float | None
    result: str | None
    reverse_path: str | None
    role: str | None
    session_id: str | None
    session_messages: int | None
    site: str | None
    size_bytes: int | None
    spam: str | None
    spf: str | None
    state: str | None
    status: int | None
    tls_version: str | None
    traceback: str | None
    user: str | None
    version: str | None
    warnings: str | None


class Event(NamedTuple):
    """One kind of line.

    Attributes:
        name: Written into ``event``.
        level: One of ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR``.
        meaning: What happened, one sentence.
        fields: What such a line usually carries.
    """

    name: str
    level: int
    meaning: str
    fields: str


_SESSION = "session_id peer_ip peer_port proxy_ip local_ip local_port"
_REPLY = "reply_code enhanced_code reply_text"
_CHECKS = "spf dkim dmarc arc iprev spam"
_DELIVERY = (
    "message_id attempt reverse_path forward_path site mx_host remote_ip egress_source tls_version "
    f"{_REPLY} state result concerns outcome size_bytes duration_ms"
)

SESSION_OPENED = Event("session.opened", DEBUG, "A client connected and was greeted.", _SESSION)
SESSION_REFUSED = Event(
    "session.refused", INFO, "A client was turned away before its session began.", f"{_SESSION} {_REPLY} reason"
)
SESSION_CLOSED = Event(
    "session.closed",
    INFO,
    "A session ended; the line sums it up.",
    f"{_SESSION} helo tls_version session_messages recipients refused size_bytes duration_ms reason",
)
PROXY_REFUSED = Event(
    "proxy.refused",
    INFO,
    "A proxy was closed for its PROXY header: none came, or it was wrong.",
    "peer_ip peer_port reason",
)
MESSAGE_ACCEPTED = Event(
    "message.accepted",
    INFO,
    "A message was answered 250: it is safe in the queue.",
    f"{_SESSION} message_id helo reverse_path forward_path recipients size_bytes queue {_CHECKS} duration_ms",
)
MESSAGE_REFUSED = Event(
    "message.refused",
    INFO,
    "A mail transaction was refused.",
    f"{_SESSION} helo reverse_path forward_path recipients size_bytes {_CHECKS} {_REPLY} reason",
)
_HOOK = "hook point message_id peer_ip reverse_path forward_path duration_ms"
HOOK_FAILED = Event(
    "hook.failed",
    WARNING,
    "The operator's own code gave no usable answer; the client is told to try again.",
    f"{_HOOK} reason error traceback",
)
MESSAGE_CHANGED = Event("message.changed", INFO, "A hook or a step of a pipeline changed a message.", _HOOK)
MESSAGE_DROPPED = Event(
    "message.dropped",
    INFO,
    "A hook or a step of a pipeline dropped a message; the client is told 250.",
    "session_id hook point message_id peer_ip reverse_path forward_path recipients size_bytes",
)
REPORT_RECOGNISED = Event(
    "report.recognised",
    INFO,
    "A message to a local address is a report, and was read.",
    "session_id message_id peer_ip reverse_path forward_path report",
)
CHECK_UNDECIDED = Event(
    "check.undecided",
    INFO,
    "A check of a message came to no result, mostly because DNS did not answer; the message goes on.",
    "check message_id peer_ip reason",
)
SPAM_FILTER_LOST = Event("spam.filter_lost", WARNING, "The spam filter gave no usable answer.", "engine reason")
LOGIN_ACCEPTED = Event("login.accepted", INFO, "A client logged in.", "session_id peer_ip user mechanism")
LOGIN_REFUSED = Event(
    "login.refused",
    INFO,
    "A client gave a wrong user or password; neither is logged, since people type one in place of the other.",
    "session_id peer_ip mechanism",
)
LOGIN_UNAVAILABLE = Event(
    "login.unavailable",
    WARNING,
    "A login could not be judged, because back ends did not answer; the client was told to try again.",
    "session_id peer_ip mechanism",
)
LOGIN_BACK_END_LOST = Event("login.back_end_lost", WARNING, "A back end of `smtp-auth` did not answer.", "form reason")
DELIVERY_DELIVERED = Event("delivery.delivered", INFO, "A peer took responsibility for a message.", _DELIVERY)
DELIVERY_DEFERRED = Event(
    "delivery.deferred", INFO, "An attempt failed for now; another follows.", f"{_DELIVERY} next_attempt_at reason"
)
DELIVERY_FAILED = Event("delivery.failed", INFO, "A message was given up for good.", f"{_DELIVERY} reason")
MESSAGE_RETURNED = Event(
    "message.returned",
    INFO,
    "A notice about a message was made for its sender.",
    "message_id attempt reverse_path forward_path notice queue",
)
DELIVERY_DUPLICATE = Event(
    "delivery.duplicate",
    WARNING,
    "The broker handed out a message again whose outcome was already in the journal; it was not sent again.",
    "message_id attempt reverse_path forward_path outcome",
)
DELIVERY_UNCERTAIN = Event(
    "delivery.uncertain",
    WARNING,
    "A message is sent again whose content was going out when a process died; it may have arrived before.",
    "message_id attempt reverse_path forward_path",
)
DELIVERY_FALLBACK = Event(
    "delivery.fallback",
    WARNING,
    "The local address that the message came in on cannot be bound; the default addresses are used.",
    "message_id forward_path local_ip egress_source error",
)
DELIVERY_HELD = Event(
    "delivery.held",
    WARNING,
    "The broker keeps refusing what follows from an attempt; the message stays in the outbox, and it is offered again.",
    "reason",
)
DELIVERY_HOST_OFFLINE = Event(
    "delivery.host_offline",
    INFO,
    "An address of a mail host refused connections or was silent again and again; it is not tried for some minutes.",
    "mx_host remote_ip egress_source reason",
)
DELIVERY_PARKED = Event(
    "delivery.parked",
    DEBUG,
    "A message has to wait, and does so in the delay queues; that is no attempt.",
    "message_id forward_path site egress_source reason next_attempt_at",
)
DELIVERY_THROTTLED = Event(
    "delivery.throttled",
    INFO,
    "Messages to a site have to wait for their turn under its limits. Told once a minute for each site.",
    "site egress_source next_attempt_at",
)
DELIVERY_UNCHANGED = Event(
    "delivery.unchanged",
    WARNING,
    "A response pattern would make a message of the wrong form; the message stays as it was.",
    "message_id reason",
)
DELIVERY_UNSIGNED = Event(
    "delivery.unsigned",
    WARNING,
    "A message goes without a DKIM signature or an ARC set that it might have had.",
    "message_id forward_path reason",
)
DELIVERY_FLOOD = Event(
    "delivery.flood",
    WARNING,
    "A reply matched a flood pattern: what goes this way is paused or slowed down.",
    "pattern message_id site egress_source reply_code enhanced_code reply_text",
)
MTA_STS_UNAVAILABLE = Event(
    "mta_sts.unavailable",
    INFO,
    "The MTA-STS policy that a domain announces cannot be had, or not be kept; what was had before stays in force.",
    "domain reason",
)
TLS_REPORTED = Event(
    "tls.reported", INFO, "A report on TLS to the owner of a domain was put into its queue.", "domain queue"
)
TLS_REPORT_HELD = Event(
    "tls.report_held",
    WARNING,
    "Reports on TLS cannot be counted or published now; it is tried again.",
    "domain queue reason",
)
DELIVERY_SWEPT = Event(
    "delivery.swept",
    INFO,
    "Limits, pauses or warm-ups have changed, and what need not wait any more was sent forward from the delay queues.",
    "messages refused duration_ms",
)
DELIVERY_NOT_SWEPT = Event(
    "delivery.not_swept", WARNING, "The delay queues could not be looked through; it is tried again.", "reason"
)
DELIVERY_WAITING = Event(
    "delivery.waiting",
    WARNING,
    "The instance has as many connections as it may; messages wait for one to end. Told once a minute.",
    "",
)
JOURNAL_LOST = Event(
    "journal.lost",
    ERROR,
    "The delivery journal cannot be written; no attempt is begun until it can.",
    "reason",
)
JOURNAL_RESTORED = Event("journal.restored", INFO, "The delivery journal works again.", "")
STATE_LOST = Event(
    "state.lost", ERROR, "The database of the runtime state is away; what was known last stays in force.", "reason"
)
STATE_RESTORED = Event("state.restored", INFO, "The database of the runtime state works again.", "")
BLOCK_ADDED = Event(
    "block.added", WARNING, "A network was put on the blocked list without an operator's doing.", "network reason"
)
OUTBOX_DEAD = Event(
    "outbox.dead",
    WARNING,
    "A message in the outbox could not be understood, or what follows from it not published; it was moved aside.",
    "message_id queue size_bytes reason",
)
BROKER_LOST = Event("broker.lost", ERROR, "The broker is away or takes nothing.", "broker reason error")
BROKER_RESTORED = Event("broker.restored", INFO, "The broker works again.", "broker duration_ms")
SERVICE_STARTED = Event("service.started", INFO, "A process is ready to work.", "role pid version")
SERVICE_STOPPING = Event("service.stopping", INFO, "A process was told to stop.", "role pid reason")
WORKER_STARTED = Event("worker.started", INFO, "The supervisor started a worker process.", "role pid")
WORKER_DIED = Event(
    "worker.died",
    ERROR,
    "A worker process ended although nobody told it to; it is started again.",
    "role pid status restart_s error",
)
CONFIG_LOADED = Event(
    "config.loaded",
    INFO,
    "A configuration took effect; what needs a restart is named.",
    "changed needs_restart warnings",
)
CERTIFICATE_RENEWED = Event(
    "certificate.renewed", INFO, "A certificate or its key changed on disk; new sessions have the new one.", "file"
)
CERTIFICATE_REFUSED = Event(
    "certificate.refused",
    ERROR,
    "A certificate or its key changed on disk and cannot be used; the old one serves on, the files are tried again.",
    "file error",
)
SPOOL_REFUSED = Event(
    "spool.refused", WARNING, "A file of the spool directory is not taken; it was put aside, or left.", "file reason"
)
SPOOL_HELD = Event(
    "spool.held", ERROR, "The spool directory cannot be worked on for now; it is tried again.", "file reason"
)
CONFIG_REFUSED = Event("config.refused", ERROR, "A new configuration has mistakes; nothing was changed.", "error")
LIBRARY = Event("library", WARNING, "A library that mtaq uses has something to say.", "logger reason error traceback")
BUG = Event(
    "bug",
    ERROR,
    "Something happened that should be impossible; mail is kept. Please report it.",
    "error traceback session_id message_id role pid",
)

EVENTS: tuple[Event, ...] = tuple(value for value in list(vars().values()) if isinstance(value, Event))
"""Every event in the order of the documents."""

FIELD_MEANINGS: dict[str, str] = {
    "arc": "word of `checks` for the chain of earlier hosts",
    "attempt": "number of the attempt, from 1",
    "broker": "which broker, without its password",
    "check": "which check",
    "changed": "keys whose new value is in effect",
    "concerns": "whom a failure is about: message, recipient, host, site, or here",
    "dkim": "words of `checks` for the signatures, each once",
    "dmarc": "word of `checks` for the policy of the author's domain",
    "domain": "the domain that it is about",
    "duration_ms": "milliseconds that the unit of work took",
    "egress_source": "local address that the connection leaves from",
    "engine": "spamassassin or rspamd",
    "enhanced_code": "enhanced status code (RFC 3463)",
    "error": "the error in its own words",
    "file": "path of the file or folder that it is about",
    "form": "form of `smtp-auth`, without secrets",
    "forward_path": "recipient's address; of several the first",
    "helo": "the name that the client gave in EHLO or HELO",
    "hook": "the operator's own code, without its password",
    "iprev": "word of `checks` for the client's reverse name",
    "local_ip": "our address",
    "local_port": "our port",
    "logger": "which part of the library",
    "mechanism": "SASL mechanism (RFC 4954)",
    "messages": "number of messages",
    "message_id": "identity in the queues; the same in reception, attempts and results",
    "mx_host": "name of the host that was tried",
    "needs_restart": "keys whose new value waits for a restart",
    "network": "addresses that may not connect, in CIDR notation",
    "next_attempt_at": "when it is tried again",
    "notice": "failure, delay or success",
    "outcome": "delivered, deferred or failed",
    "pattern": "which entry of the runtime state",
    "peer_ip": "the client's address",
    "peer_port": "the client's port",
    "pid": "process id",
    "point": "where the code was asked: sender, recipient, message or pipeline",
    "proxy_ip": "address of the proxy that told the client's address",
    "queue": "name of the queue",
    "reason": "why, more exact than what the peer was told",
    "recipients": "number of recipients",
    "refused": "number of refusals",
    "remote_ip": "address of the host that was tried",
    "reply_code": "reply code (RFC 5321 §4.2): ours in session and message lines, the peer's in delivery lines",
    "reply_text": "text of that reply",
    "report": "what kind: dsn, mdn, arf, dmarc or tlsrpt",
    "restart_s": "seconds until it is started again",
    "result": "`result` of the result message",
    "reverse_path": "sender's address; empty for the null reverse-path",
    "role": "receive, deliver or run",
    "session_id": "identity of the SMTP session",
    "session_messages": "messages accepted in the session",
    "site": "all domains with the same MX hosts",
    "size_bytes": "size of the content",
    "spam": "word of `checks` of the spam filter",
    "spf": "word of `checks` for the client and the reverse-path",
    "state": "`state` of the result message",
    "status": "exit status; negative: the signal that ended it",
    "tls_version": "version of TLS; absent or empty in plain text",
    "traceback": "where it happened, innermost last",
    "user": "who logged in",
    "version": "version of mtaq",
    "warnings": "what the operator should change",
}
"""Field → its meaning, for the documents."""
