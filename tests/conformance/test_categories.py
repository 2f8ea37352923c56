"""Words for failures, measured against bounces that others collected and sorted (Sisimai).

Its reasons are finer in some places and coarser in others, so each is held against the words that it may be here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mtaq.deliver.category import category_of_reply
from mtaq.reports import recognise
from tests.conformance.vectors import cases, home

WORDS = {
    "userunknown": {"bad-mailbox"},
    "filtered": {"bad-mailbox"},
    "suspend": {"bad-mailbox"},
    "hasmoved": {"bad-mailbox"},
    "mailboxfull": {"quota"},
    "blocked": {"reputation", "auth", "policy", "rate"},
    "toomanyconn": {"rate"},
    "policyviolation": {"policy", "content", "auth", "spam"},
    "securityerror": {"policy", "content", "auth", "spam"},
    "rejected": {"policy"},
    "hostunknown": {"bad-domain"},
    "notaccept": {"bad-domain"},
    "norelaying": {"bad-domain"},
    "networkerror": {"network"},
    "expired": {"network"},
    "spamdetected": {"spam"},
    "virusdetected": {"content", "spam"},
    "mesgtoobig": {"content"},
    "exceedlimit": {"content"},
    "systemerror": {"other"},
    "syntaxerror": {"other"},
    "onhold": {"other", "policy"},
}

#: Where we say something else, and why.
DEPARTURES = {
    "lhost-postfix-13.eml": "its text says User Unknown: the other recipient's",
    "lhost-postfix-80.eml": "the sender's domain is listed: reputation",
    "rfc3464-01.eml": "its text says User Unknown: the other recipient's",
    "rhost-messagelabs-03.eml": "Rejected, and nothing else",
    "rhost-nttdocomo-02.eml": "its text says Unknown user",
    "rhost-nttdocomo-03.eml": "its text says Unknown user",
    "rhost-spectrum-01.eml": "the sender is rejected: what for stands behind a link",
    "rhost-zoho-04.eml": "5.4.1 is all that it says",
    "lhost-amazonses-01.eml": "Amazon's words around the reply: Unknown address error",
}


class Diagnostic(NamedTuple):
    """A reply that a bounce reports, and what Sisimai calls it."""

    reason: str
    code: int
    status: str | None
    text: str


def diagnostics(case: dict[str, Any]) -> Iterator[Diagnostic]:
    """Yield the replies that the notice *case* quotes."""
    report = recognise((home("reports/sisimai") / case["file"]).read_bytes(), envelope="")
    recipients = report.to_json().get("recipients", []) if report is not None else []
    for number, verdict in enumerate(case["sisimai"]):
        about = [one for one in recipients if verdict["recipient"].lower() in str(one).lower()] or recipients[number:]
        text = about[0].get("diagnostic-code", "") if about else ""
        if verdict["reason"] in WORDS and text.lower().startswith("smtp;"):
            text = text[5:].strip()
            code = re.search(r"\b([45]\d\d)[ -]", text[:60])
            status = re.search(r"\b([45]\.\d+\.\d+)\b", text[:40])
            if code:
                yield Diagnostic(verdict["reason"], int(code[1]), status and status[1], text)


def test_replies_in_bounces_are_called_what_others_call_them() -> None:
    """Of 148 replies all but those listed; one that is listed and agrees is a mistake as well."""
    replies = [(case["file"].rpartition("/")[2], one) for case in cases("reports/sisimai") for one in diagnostics(case)]
    assert len(replies) > 130
    differing = {
        name for name, one in replies if category_of_reply(one.code, one.status, one.text) not in WORDS[one.reason]
    }
    assert differing == set(DEPARTURES)
