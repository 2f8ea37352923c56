"""Is a message refused for what its checks found (``smtp-check-reject``)?

Only a clear no refuses: what is ``temperror`` or could not be decided never does. Who has logged in sends as its
operator lets it, so SPF and DMARC, which are about strangers, do not count; spam does, since accounts are stolen.
"""

from __future__ import annotations

import re

from mtaq.config.message_checks import Reject
from mtaq.mailauth.dmarc import DmarcResult
from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult
from mtaq.mailauth.spf import SpfResult
from mtaq.model.reply import Reply
from mtaq.receive.check_report import Report
from mtaq.smtp import codes

_is_name = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.IGNORECASE).fullmatch

_OF_STRANGERS = frozenset(("spf", "dmarc"))


def refusal_of(report: Report, rejects: tuple[Reject, ...], origin: Origin) -> tuple[Reply, str] | None:
    """Return what the client is told, and the reason for the log; ``None`` when the message is not refused."""
    for check in rejects:
        if check in _OF_STRANGERS and origin.user is not None:
            continue
        refusal = _refusal(report.results.get(check))
        if refusal is not None:
            return refusal
    return None


def _refusal(result: object) -> tuple[Reply, str] | None:
    match result:
        case SpfResult(word="fail"):
            return codes.spf_failed(result.reply_text), f"SPF: {result.explanation}"
        case DmarcResult(disposition="reject"):
            domain = result.domain if result.domain is not None and _is_name(result.domain) else None
            return codes.dmarc_failed(domain), f"DMARC: {result.reason or result.result}"
        case SpamResult(word="spam"):
            return codes.SPAM, f"spam: {result.score} of {result.threshold} by {result.engine}"
    return None
