"""Why did an attempt not succeed, in one word (``category``), and whom does that concern?

Peers agree on few codes, so a reply's text counts for more than its enhanced status code, and that for more than the
reply code. The first line of the table that matches decides, so what is told precisely stands before what is told in
passing: a large receiver explains the rate it allows with a sentence about spam. The wordings are those of real
receivers; ``tests/conformance`` and the texts of ``mtaq sink`` measure how well they are understood. Nothing is decided
by the word alone but one thing: a message that was greylisted keeps its source address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mtaq.deliver.ending import Ending

Concern = Literal["message", "recipient", "host", "site", "here"]
"""What a failure is about: this message, its recipient, one mail host, the whole site, or this end of the line."""

#: A transient refusal that gives no reason but to come again, as hosts do to those they do not know.
_COME_AGAIN = re.compile(r"\b(?:try|come|retry)\b[ \w,]{0,20}\b(?:again|back|later)\b", re.IGNORECASE)
_OWN_TROUBLE = re.compile(r"local (?:problem|error)|system (?:problem|error)|internal|look-?up|\bdns\b", re.IGNORECASE)

#: Of a reply so much is looked at.
_LOOKED_AT = 2000

_BEFORE: Sequence[tuple[str, str]] = (
    ("spam", r"\bUBE\b"),
    ("greylist", r"gr[ea]y-?list|try again later from \["),
    ("network", r"too many hops|mail loop|routing loop|looping"),
    (
        "rate",
        r"\brate\b|throttl|too (?:many|fast|much)|slow down|(?:excessive|unexpected) volume|frequency limited"
        r"|limits? (?:for|on) how many|connections? from your"
        r"|(?:message|connection)s? per (?:connection|hour|day|minute)"
        r"|concurrent connections|temporarily deferred",
    ),
    (
        "quota",
        r"quota|mail ?box (?:is |was )?full|storage (?:allocation|space|limit)|insufficient (?:disk|system)? ?storage",
    ),
    (
        "content",
        r"not rfc ?[0-9]* ?[0-9]* ?compliant|multiple (?:\w+ )?(?:addresses in from|headers?)|header error"
        r"|virus detected|malware|message content|its content presents|attachment"
        r"|(?:message|size|length) (?:\w+ )?(?:too (?:big|large)|exceeds)",
    ),
    (
        "reputation",
        r"reputation|(?:block|black|deny) ?-?list|spamhaus|dnsbl|\brbl\b|\bCDRBL\b|spamcop|barracuda|sorbs"
        r"|(?:is|are) listed|banned|\bip .{0,40}blocked|blocked .{0,20}\bip\b|service refused|not accepting connections"
        r"|client host .{0,80}blocked|tosa@rx\.t-online\.de",
    ),
    (
        "auth",
        r"\bdmarc\b|\bdkim\b|\bspf\b|unauthenticated|not authenticated|required authentication level"
        r"|authentication (?:information|required|failed|credentials)|mismatches client ip|purported responsible",
    ),
    ("tls", r"starttls|\btls\b.{0,30}(?:required|needed|must)|(?:requires?|must use) (?:a )?(?:\btls\b|encrypt)"),
    ("spam", r"\bspam|spam\b|MCSpam|\bjunk\b|unsolicited|\bbulk\b|\bUBE\b|content (?:filter|reject)|\[CS01\]"),
    ("content", r"virus"),
    (
        "policy",
        r"sender (?:address )?.{0,60}(?:rejected|does not exist|refused|denied)|domain of sender|not verified"
        r"|reverse (?:dns|hostname)|\bptr\b|client host rejected|helo command rejected|for policy reasons|by policy"
        r"|policy (?:restriction|violation|reject)|local policy|security polic",
    ),
)  # fmt: skip
_AFTER: Sequence[tuple[str, str]] = (
    (
        "bad-domain",
        r"(?:domain|host) (?:is )?(?:not found|unknown|not reachable)"
        r"|relay(?:ing)? (?:access )?(?:denied|not permitted)|no such domain|unable to relay|does not accept mail"
        r"|null mx|domain is not reachable",
    ),
    (
        "bad-mailbox",
        r"user unknown|unknown (?:user|recipient|address|mailbox)"
        r"|no such (?:user|recipient|mailbox|address|person|account)"
        r"|(?:does ?n[o']t|does not|not) exist|not our customer|no longer (?:on|at|available|active)|no mailbox"
        r"|(?:recipient|mailbox|user|address|account)(?: address)? (?:is |has been |was )?(?:rejected|unavailable"
        r"|not found|invalid|disabled|blocked|inactive|suspended|closed|refused|discontinued)"
        r"|(?:invalid|inactive|disabled|unrouteable) (?:recipient|mailbox|(?:e-?mail )?address|user|account)"
        r"|recipnotfound|recipientnotfound|user does ?n.t have|recipient preferences|account that you tried to reach",
    ),
)  # fmt: skip


def _compiled(rows: Sequence[tuple[str, str]]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((word, re.compile(pattern, re.IGNORECASE | re.DOTALL)) for word, pattern in rows)


_FIRST, _LAST = _compiled(_BEFORE), _compiled(_AFTER)

#: RFC 3463 §3 and the IANA registry, without the class; a detail that ends in a dot stands for all below it.
_STATUSES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("bad-mailbox", ("1.0", "1.1", "1.3", "1.4", "1.6", "2.0", "2.1", "2.4", "7.13")),
    ("bad-domain", ("1.2", "1.10", "4.3", "4.4", "7.27")),
    ("policy", ("1.7", "1.8", "7.25")),
    ("quota", ("2.2", "3.1")),
    ("content", ("2.3", "3.4", "3.3", "6.")),
    ("rate", ("4.5", "5.3", "7.28")),
    ("network", ("4.",)),
    ("tls", ("7.4", "7.5", "7.10", "7.11", "7.30")),
    ("auth", ("7.8", "7.9", "7.20", "7.21", "7.22", "7.23", "7.24", "7.26", "7.29")),
    ("policy", ("7.",)),
)
#: RFC 5321 §4.2.3, RFC 4954 §6, RFC 3207 §4.
_CODES = {452: "quota", 552: "quota", 454: "tls", 523: "content", 530: "auth", 534: "auth", 535: "auth", 538: "tls"}


def category(ending: Ending) -> str | None:
    """Return the word for what *ending* was caused by; ``None`` for success."""
    if ending.result == "accepted":
        return None
    if ending.state == "dns":
        return "network" if ending.result == "timeout" else "bad-domain"
    if ending.state == "starttls":
        return "tls"
    if ending.state == "auth":
        return "auth"
    if ending.state == "suppression":
        return "policy"
    if ending.state == "process" and ending.result == "invalid":
        is_about_address = ending.status is None or ending.status.startswith("5.1.")
        return "bad-mailbox" if is_about_address and not ending.quiet else "other"
    if ending.code is None:
        return "network" if ending.state not in ("process", "rewrite", "bind") else "other"
    if ending.state == "process" and ending.result == "timeout":
        return "other"
    return category_of_reply(ending.code, ending.status, ending.description)


def category_of_reply(code: int, status: str | None, text: str) -> str:
    """Return the word for a reply that refuses something."""
    text = text[:_LOOKED_AT]
    for word, pattern in _FIRST:
        if pattern.search(text):
            return word
    if code < 500 and _asks_to_come_again(status, text):
        return "greylist"
    for word, pattern in _LAST:
        if pattern.search(text):
            return word
    return _by_status(status) or _CODES.get(code, "other")


def _asks_to_come_again(status: str | None, text: str) -> bool:
    kind = (status or "4.7.").split(".")[1]
    return kind in ("2", "7") and _COME_AGAIN.search(text) is not None and not _OWN_TROUBLE.search(text)


def _by_status(status: str | None) -> str | None:
    detail = (status or "").partition(".")[2]
    for word, details in _STATUSES:
        if any(detail == known or (known.endswith(".") and detail.startswith(known)) for known in details):
            return word
    return None


def concern(ending: Ending) -> Concern | None:
    """
    Return what *ending* is about; ``None`` for success.

    What a host says of itself (421 and x.3.2: RFC 5321 §3.8, RFC 3463 §3.4) and all it says before MAIL is not the
    site's word: the next host is asked within the attempt (``deliver.opening``). A rate and a bad reputation are.
    """
    if ending.result == "accepted":
        return None
    if ending.state in ("process", "rewrite", "storage", "bind"):
        return "recipient" if ending.state == "process" and ending.result == "invalid" else "here"
    if ending.state in ("dns", "auth"):
        return "site"
    word = category(ending)
    if word in ("rate", "reputation"):
        return "site"
    if ending.code is None or _is_about_host(ending):
        return "host"
    if ending.state in ("suppression", "rcptto") or word in ("bad-mailbox", "quota", "greylist"):
        return "recipient"
    return "message"


def _is_about_host(ending: Ending) -> bool:
    before_mail = ending.state in ("connect", "handshake", "intro", "ehlo", "starttls")
    return before_mail or ending.code == 421 or (ending.status or "").partition(".")[2] == "3.2"


def greylisted_from(results: Sequence[Any]) -> str | None:
    """
    Return the source address from which the message of *results* was greylisted last, if it was.

    A receiver that greylists remembers who asked: from another address it would begin anew (RFC 6647 §2.3).
    """
    for item in reversed(results):
        if isinstance(item, Mapping) and item.get("category") == "greylist" and isinstance(item.get("from"), str):
            return str(item["from"])
    return None
