"""The table of what reception writes about a report that came to a local address."""

from __future__ import annotations

from mtaq.model.schema_forms import OBJECT, OBJECTS, TEXT, TEXTS, YES_NO, Property, words
from mtaq.model.schema_inbox import INBOX

_RECIPIENT = (
    Property("final-recipient", TEXT, "The address as it was last, without its type."),
    Property("original-recipient", TEXT, "The address as its sender named it, likewise."),
    Property("action", TEXT, "`failed`, `delayed`, `delivered`, `relayed` or `expanded`, in lower case."),
    Property("status", TEXT, "Enhanced status code."),
    Property("diagnostic-code", TEXT, "The refusal with its type: `smtp; 550 5.1.1 no such user`."),
    Property("remote-mta", TEXT, "Who refused."),
    Property("last-attempt-date", TEXT, "As it stands."),
    Property("will-retry-until", TEXT, "As it stands."),
    Property("final-log-id", TEXT, "As it stands."),
)

_ORIGINAL = (
    Property("message-id", TEXT, "Of the header section, as it stands."),
    Property("mtaq-id", TEXT, "Our `message-id` without the recipient's number, from the topmost such `Received:`."),
    Property("from", TEXT, "Decoded."),
    Property("to", TEXT, "Decoded."),
    Property("subject", TEXT, "Decoded."),
    Property("date", TEXT, "As it stands."),
)

REPORT = (
    Property("type", words(("dsn", "mdn", "arf", "dmarc", "tlsrpt")), "What kind of report it is.", True),
    Property("truncated", YES_NO, "True when it was longer than what stands here; the content has all of it."),
    Property(
        "original",
        OBJECT,
        "The message it is about, where it came back; not in aggregate reports.",
        properties=_ORIGINAL,
    ),
    Property("recipients", OBJECTS, "`dsn`: whom it is about.", properties=_RECIPIENT),
    Property("recognised-by", words(("flufl.bounce", "verp")), "`dsn`: how, when it is none by the standard."),
    Property("verp", TEXT, "`dsn`: the recipient that the address it came to was made for."),
    Property("original-envelope-id", TEXT, "`dsn`, `arf`: the sender's own name for the transaction."),
    Property("reporting-mta", TEXT, "`dsn`, `arf`: who writes, without its type."),
    Property("dsn-gateway", TEXT, "`dsn`: likewise."),
    Property("received-from-mta", TEXT, "`dsn`: likewise."),
    Property("arrival-date", TEXT, "`dsn`, `arf`: as it stands."),
    Property("disposition", TEXT, "`mdn`: what became of it: `displayed`, `deleted`, …"),
    Property("action-mode", TEXT, "`mdn`: `manual-action` or `automatic-action`."),
    Property("sending-mode", TEXT, "`mdn`: `mdn-sent-manually` or `mdn-sent-automatically`."),
    Property("modifiers", TEXTS, "`mdn`: such as `error`."),
    Property("failure", TEXTS, "`mdn`: why nothing became of it."),
    Property("error", TEXTS, "`mdn`: what went wrong."),
    Property("warning", TEXTS, "`mdn`: what was odd."),
    Property("final-recipient", TEXT, "`mdn`: whose reader writes."),
    Property("original-recipient", TEXT, "`mdn`: the address as its sender named it."),
    Property("original-message-id", TEXT, "`mdn`: which message it is about."),
    Property("feedback-type", TEXT, "`arf`: `abuse`, `auth-failure`, …"),
    Property("original-mail-from", TEXT, "`arf`: reverse-path of the message."),
    Property("original-rcpt-to", TEXTS, "`arf`: its recipients."),
    Property("reported-domain", TEXTS, "`arf`: domains it is about."),
    Property("reported-uri", TEXTS, "`arf`: URIs it is about."),
    Property("authentication-results", TEXTS, "`arf`: as they stand."),
    Property("redacted-address", TEXTS, "`arf`: what stands for addresses that were made unreadable."),
    Property("source-ip", TEXT, "`arf`: where the message came from."),
    Property("auth-failure", TEXT, "`arf`: what failed."),
    Property("feedback", OBJECT, "`dmarc`: the XML, element by element; `record` is an array."),
    Property("tls-report", OBJECT, "`tlsrpt`: the JSON as it was sent."),
)
"""The ``report`` property; a feedback report's other fields stand beside these by their names in lower case."""

REPORTS: tuple[Property, ...] = (
    *INBOX,
    Property("report", OBJECT, "What the report says.", True, REPORT),
)
"""A message in the reports queue."""
