"""May this sender, may this recipient?

The order is the contract's: rate, syntax of the domain, its existence, then the operator's own code. An answer that
needs nobody is given at once, so that the usual session costs no task; one that needs DNS or a hook is a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from mtaq.limits.clients import client_key
from mtaq.model.address import Address, address_text
from mtaq.model.reply import Reply
from mtaq.receive.decisions import recipient_decision, sender_decision
from mtaq.receive.domains import DomainCheck, needs_dns
from mtaq.receive.draft import Refusal, SessionFacts, Stage
from mtaq.receive.evidence import Evidence
from mtaq.receive.ports import Counts, LocalAddresses
from mtaq.receive.probes import is_probe
from mtaq.smtp import codes
from mtaq.smtp.server_events import Mail, Rcpt, Transaction
from mtaq.telemetry.events import EventLog

Answer = Reply | Coroutine[Any, Any, Reply]


class EnvelopeDesk:
    """Answers MAIL and RCPT for all sessions of a process."""

    def __init__(
        self,
        *,
        addresses: LocalAddresses,
        rates: Counts,
        domains: DomainCheck,
        evidence: Evidence,
        events: EventLog,
        now: Callable[[], float],
    ) -> None:
        """Ask these; *now* is the clock of *rates*, in seconds."""
        self._addresses = addresses
        self._rates = rates
        self._domains = domains
        self._evidence = evidence
        self._events = events
        self._now = now

    def sender(self, mail: Mail, facts: SessionFacts) -> Answer:
        """Return the answer to MAIL, or what will find it."""
        policy = facts.policy
        limit = policy.options.smtp_rate_per_ip
        if limit is not None and self._exceeds(limit, facts.connection.remote_ip):
            return self._refused(codes.RATE_EXCEEDED, facts, mail.reverse_path)
        if policy.hook is None and not needs_dns(mail.reverse_path, policy.options.smtp_sender_domain):
            refusal = self._domains.refuse_sender_syntax(mail.reverse_path, policy.options)
            return codes.SENDER_OK if refusal is None else self._refused(refusal, facts, mail.reverse_path)
        return self._sender_later(mail, facts)

    def recipient(self, rcpt: Rcpt, transaction: Transaction, facts: SessionFacts) -> Answer:
        """Return the answer to RCPT, or what will find it."""
        policy, path = facts.policy, rcpt.forward_path
        is_local = self._addresses.is_local(path)
        refusal = policy.refuse_recipient(is_local=is_local, logged_in=facts.connection.user is not None)
        if refusal is not None:
            return self._refused(refusal, facts, transaction.reverse_path, path)
        if policy.options.smtp_probe_senders and is_probe(transaction.reverse_path, policy.options):
            transaction.refusal = codes.PROBES_ONLY
        looked_up = not is_local and needs_dns(path, policy.options.smtp_recipient_domain)
        if policy.hook is None and not looked_up:
            refusal = None if is_local else self._domains.refuse_recipient_syntax(path, policy.options)
            if refusal is None:
                return codes.RECIPIENT_OK
            return self._refused(refusal, facts, transaction.reverse_path, path)
        return self._recipient_later(rcpt, transaction, facts, is_local=is_local)

    def _exceeds(self, limit: int, ip: str) -> bool:
        return self._rates.take(b"rate " + client_key(ip), limit=limit, now=self._now()) > 0

    async def _sender_later(self, mail: Mail, facts: SessionFacts) -> Reply:
        refusal = await self._domains.refuse_sender(mail.reverse_path, facts.policy.options)
        refusal = refusal or await sender_decision(mail, facts)
        return codes.SENDER_OK if refusal is None else self._refused(refusal, facts, mail.reverse_path)

    async def _recipient_later(
        self, rcpt: Rcpt, transaction: Transaction, facts: SessionFacts, *, is_local: bool
    ) -> Reply:
        refusal = None
        if not is_local:
            refusal = await self._domains.refuse_recipient(rcpt.forward_path, facts.policy.options)
        refusal = refusal or await recipient_decision(rcpt, transaction, facts)
        if refusal is None:
            return codes.RECIPIENT_OK
        return self._refused(refusal, facts, transaction.reverse_path, rcpt.forward_path)

    def _refused(
        self, reply: Reply, facts: SessionFacts, reverse_path: Address | None, forward_path: Address | None = None
    ) -> Reply:
        self._events.message_refused(
            session_id=facts.session_id,
            peer_ip=facts.connection.remote_ip,
            reverse_path=address_text(reverse_path),
            forward_path=address_text(forward_path) if forward_path else None,
            reply_code=reply.code,
            enhanced_code=reply.status,
            reason=reply.text,
        )
        stage: Stage = "mail" if forward_path is None else "rcpt"
        self._evidence.keep_envelope(Refusal(reply, stage=stage), facts, reverse_path, forward_path)
        return reply
