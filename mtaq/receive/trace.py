"""What we write above a message (RFC 5321 §4.4, RFC 8601 §4.1, RFC 7208 §9.1).

From the top: Return-Path where the message is delivered here; what our checks found, where the operator wants it told;
our Received. So whoever reads the results sees below them by which hop they were found.
"""

from __future__ import annotations

from mtaq.mailauth.authres import compose
from mtaq.mailauth.spf import SpfResult
from mtaq.mailauth.spf_received import received_spf
from mtaq.mime.received import protocol_name, received_field, return_path_field
from mtaq.receive.draft import Draft, SessionFacts


class TraceFields:
    """The fields above one message, for all its recipients."""

    def __init__(self, draft: Draft, facts: SessionFacts) -> None:
        """Make them of a *draft* that is ready to be published."""
        self._envelope = draft.envelope
        self._received = _received(draft, facts)
        self._wanted = facts.policy.options.smtp_auth_results
        self._results = _results(draft, facts) if self._wanted else b""
        # A first line that begins with a blank would go on with our Received, in the words of whoever sent it.
        self._end = b"\r\n" if draft.content.startswith((b" ", b"\t")) else b""

    def above(self, *, is_local: bool) -> bytes:
        """Return the fields for recipients whose mail is delivered here, or for others.

        The header section ends with them where the content has none that could follow.
        """
        results = self._results if ("local" if is_local else "nonlocal") in self._wanted else b""
        return_path = return_path_field(self._envelope) if is_local else b""
        return b"".join((return_path, results, self._received, self._end))


def _results(draft: Draft, facts: SessionFacts) -> bytes:
    report = draft.report
    if report is None:
        return b""
    utf8 = bool(draft.properties.get("smtputf8"))
    field = compose(facts.policy.authserv_id(facts.hostname), report.verdicts(), utf8=utf8)
    spf = report.results.get("spf")
    if facts.policy.options.smtp_received_spf and isinstance(spf, SpfResult):
        return field + received_spf(spf)
    return field


def _received(draft: Draft, facts: SessionFacts) -> bytes:
    return received_field(
        helo=facts.connection.helo,
        remote_ip=facts.connection.remote_ip,
        remote_name=None,
        hostname=facts.hostname,
        protocol=protocol_name(
            esmtp=facts.esmtp,
            tls=facts.connection.tls is not None,
            authenticated=facts.connection.user is not None,
            smtputf8=bool(draft.properties.get("smtputf8")),
        ),
        tls=facts.connection.tls,
        transaction_id=draft.transaction_id,
        recipient=draft.recipients[0].address if len(draft.recipients) == 1 else None,
        now=draft.received_at,
    )
