"""What happens to an accepted message before it is published, in the contract's order.

Checks on the content as it came; then the fields of the header that mean something to us; then the operator's own
code. Each step may change the draft, or end its way with ``Refusal`` or ``Dropped``.
"""

from __future__ import annotations

from mtaq.mime.headers import count_received
from mtaq.mime.mq_fields import strip_mq_fields
from mtaq.receive.decisions import decide_message
from mtaq.receive.draft import Draft, Refusal, SessionFacts
from mtaq.receive.properties import BadField, laid_over, take_properties, treatment
from mtaq.smtp import codes


async def prepare(draft: Draft, facts: SessionFacts) -> None:
    """
    Make *draft* what is published.

    Raises:
        Refusal: The message is not taken.
        Dropped: It is taken, and goes nowhere.
    """
    _count_hops(draft, facts)
    _take_fields(draft, facts)
    policy = facts.policy
    if policy.hook is not None or policy.pipeline is not None:
        await decide_message(draft, facts)


def _count_hops(draft: Draft, facts: SessionFacts) -> None:
    if count_received(draft.content) > facts.policy.options.smtp_max_hops:
        raise Refusal(codes.MAIL_LOOP, stage="content", reason="too many Received fields")


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
