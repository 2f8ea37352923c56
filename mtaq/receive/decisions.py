"""Asks the operator's own code (``smtp-hook``, ``smtp-pipeline``) and does what it decided.

The code never fails here: whatever goes wrong in it arrives as a transient refusal (``mtaq.hooks``).
"""

from __future__ import annotations

from typing import Any, Literal

from mtaq.model.address import address_text
from mtaq.model.decision import Decision
from mtaq.model.reply import Reply
from mtaq.receive.draft import Draft, Dropped, Refusal, SessionFacts
from mtaq.smtp.grammar import parse_forward_path
from mtaq.smtp.server_events import Mail, Rcpt, Transaction


async def sender_decision(mail: Mail, facts: SessionFacts) -> Reply | None:
    """Return the hook's refusal of a reverse-path, or ``None``."""
    hook = facts.policy.hook
    if hook is None:
        return None
    return _refusal(await hook.sender(_session(facts, "sender", envelope=address_text(mail.reverse_path))))


async def recipient_decision(rcpt: Rcpt, transaction: Transaction, facts: SessionFacts) -> Reply | None:
    """Return the hook's refusal of a forward-path, or ``None``."""
    hook = facts.policy.hook
    if hook is None:
        return None
    envelope = address_text(transaction.reverse_path)
    return _refusal(
        await hook.recipient(_session(facts, "recipient", envelope=envelope, recipient=str(rcpt.forward_path)))
    )


async def decide_message(draft: Draft, facts: SessionFacts) -> None:
    """
    Have the hook and then the pipeline judge *draft*, which may change it.

    Raises:
        Refusal: One of them does not want it, or could not say.
        Dropped: One of them takes it and wants it nowhere.
    """
    policy = facts.policy
    if policy.hook is not None:
        _apply(await policy.hook.message(draft.to_json()), draft, "message")
    if policy.pipeline is not None:
        _apply(await policy.pipeline.run(draft.to_json()), draft, "pipeline")


def _apply(decision: Decision, draft: Draft, point: Literal["message", "pipeline"]) -> None:
    if decision.action == "drop":
        raise Dropped(decision.decided_by, point)
    refusal = _refusal(decision)
    if refusal is not None:
        key = "smtp-hook" if point == "message" else "smtp-pipeline"
        raise Refusal(refusal, stage="hook", reason=f"{key}: {refusal.text}")
    if decision.message is not None:
        # Judged by whoever made the decision: these are addresses, and there is content.
        texts = decision.message["recipients"]
        recipients = [parse_forward_path(text.encode(), strict=False, smtputf8=True, bare=True) for text in texts]
        draft.change(decision.message, recipients)


def _refusal(decision: Decision) -> Reply | None:
    return decision.reply if decision.action in ("reject", "defer") else None


def _session(facts: SessionFacts, point: str, **values: str) -> dict[str, Any]:
    connection = facts.connection
    client: dict[str, Any] = {
        "ip": connection.remote_ip,
        "port": connection.remote_port,
        "helo": connection.helo,
        "secure": connection.tls is not None,
    }
    if connection.user is not None:
        client["user"] = connection.user
    return {"hook": point, "client": client, **values}
