"""What happens to an accepted message before it is published, in the contract's order.

Checks on the content as it came; then the fields of the header that mean something to us, and what else there is to
read; then the operator's own code. Each step may change the draft, or end its way with ``Refusal`` or ``Dropped``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from mtaq.mailauth.authres_forged import without_forged
from mtaq.mailauth.origin import Origin
from mtaq.mime.extract import EXTRACTED_NAMES, extracted_shared
from mtaq.mime.headers import count_received, header_end
from mtaq.mime.mq_fields import strip_mq_fields
from mtaq.model.address import Address, address_parts
from mtaq.receive.check_refusal import refusal_of
from mtaq.receive.decisions import decide_message
from mtaq.receive.draft import Draft, Refusal, SessionFacts
from mtaq.receive.properties import BadField, laid_over, take_properties, treatment
from mtaq.smtp import codes

#: Describing a body takes a millisecond for about this much, as does a header section; more of it goes to a thread.
LARGE_BYTES = 64 * 1024


async def prepare(draft: Draft, facts: SessionFacts) -> None:
    """
    Make *draft* what is published.

    Raises:
        Refusal: The message is not taken.
        Dropped: It is taken, and goes nowhere.
    """
    _count_hops(draft, facts)
    await _check(draft, facts)
    _take_fields(draft, facts)
    await _drop_forged(draft, facts)
    await _extract(draft, facts)
    policy = facts.policy
    if policy.hook is not None or policy.pipeline is not None:
        read = (draft.content, draft.envelope)
        await decide_message(draft, facts)
        if (draft.content, draft.envelope) != read:
            await _extract(draft, facts)


def _count_hops(draft: Draft, facts: SessionFacts) -> None:
    if count_received(draft.content) > facts.policy.options.smtp_max_hops:
        raise Refusal(codes.MAIL_LOOP, stage="content", reason="too many Received fields")


async def _check(draft: Draft, facts: SessionFacts) -> None:
    """Find out who sent it, on the content as it came."""
    policy, options = facts.policy, facts.policy.options
    if policy.checks is None or not options.smtp_check:
        return
    origin = _origin(draft, facts)
    report = await policy.checks.run(draft.content, origin, options.smtp_check, spam=policy.spam)
    draft.report = report
    draft.properties["checks"] = report.to_json()
    refusal = refusal_of(report, options.smtp_check_reject, origin)
    if refusal is not None:
        reply, reason = refusal
        raise Refusal(reply, stage="check", reason=reason)


def _origin(draft: Draft, facts: SessionFacts) -> Origin:
    connection, envelope = facts.connection, address_parts(draft.envelope)
    return Origin(
        client_ip=connection.remote_ip if facts.spool is None else None,
        helo=connection.helo,
        envelope=Address(envelope["local"], envelope["domain"]) if draft.envelope else None,
        recipients=tuple(str(recipient.address) for recipient in draft.recipients),
        user=connection.user,
        receiver=facts.hostname,
        queue_id=draft.transaction_id,
        received_at=draft.received_at,
    )


async def _drop_forged(draft: Draft, facts: SessionFacts) -> None:
    """Take out what claims to be our own finding (RFC 8601 §5)."""
    clean = partial(_without_forged, draft.content, facts.policy.claimed_ids(facts.hostname))
    is_large = header_end(draft.content, LARGE_BYTES) == LARGE_BYTES
    draft.content = await asyncio.to_thread(clean) if is_large else clean()


def _without_forged(content: bytes, names: Iterable[str]) -> bytes:
    for name in names:
        content = without_forged(content, name)
    return content


def _take_fields(draft: Draft, facts: SessionFacts) -> None:
    """Make properties of ``x-mq-*`` fields, as far as the client is believed."""
    options, connection = facts.policy.options, facts.connection
    way = treatment(options, remote_ip=connection.remote_ip, user=connection.user)
    if way == "strip":
        draft.content = strip_mq_fields(draft.content)
    elif way == "take":
        try:
            taken = take_properties(
                draft.content, now=draft.received_at, strict=options.smtp_validate_address == "strict"
            )
        except BadField as error:
            raise Refusal(error.reply, stage="content") from error
        if taken.properties:
            draft.properties, draft.recipients = laid_over(draft.properties, draft.recipients, taken.properties)
        draft.content = taken.content


async def _extract(draft: Draft, facts: SessionFacts) -> None:
    """Write into ``extracted`` what the content says; of what stood there, only what an operator's code added stays."""
    wanted = facts.policy.options.smtp_parse
    known = draft.properties.get("extracted")
    if wanted == "none" and known is None:
        return
    full = wanted == "full" or (isinstance(known, dict) and "attachments" in known)
    read = partial(extracted_shared, draft.content, draft.envelope, full=full)
    found = await asyncio.to_thread(read) if full and len(draft.content) > LARGE_BYTES else read()
    if isinstance(known, dict):
        found |= {name: value for name, value in known.items() if name not in EXTRACTED_NAMES}
    draft.properties["extracted"] = found
