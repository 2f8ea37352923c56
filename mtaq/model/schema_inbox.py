"""The table of what reception writes: into the inbox, for local mail, for the archive, and of what was refused."""

from __future__ import annotations

from typing import get_args

from mtaq.model.message import Body
from mtaq.model.schema_forms import (
    BASE64,
    COUNT,
    LISTS,
    MESSAGE_ID,
    OBJECT,
    OBJECTS,
    PORT,
    PROXIED_PORT,
    TEXT,
    TEXTS,
    TIME,
    YES_NO,
    Property,
    words,
)

_NOTIFY_ON = "(SUCCESS|FAILURE|DELAY)"

_PARTS = (
    Property("local", TEXT, "The local-part.", True),
    Property("domain", TEXT, "The domain.", True),
)

_CONNECTION = (
    Property("local-ip", TEXT, "The address the client connected to: ours, or our proxy's.", True),
    Property("local-port", PROXIED_PORT, "The port the client connected to.", True),
    Property("remote-ip", TEXT, "The client's address; IPv4-mapped IPv6 is written as IPv4.", True),
    Property("remote-port", PROXIED_PORT, "The client's port.", True),
    Property("helo", TEXT, "The name the client gave in EHLO or HELO.", True),
    Property("secure", YES_NO, "Whether the session was encrypted.", True),
    Property(
        "tls",
        OBJECT,
        "How the session was encrypted; only when it was.",
        properties=(
            Property("version", TEXT, "Version, such as `TLSv1.3`.", True),
            Property("cipher", TEXT, "OpenSSL's name of the cipher; empty when a proxy did not tell it.", True),
            Property(
                "client-cert",
                OBJECT,
                "The client's certificate; only when it showed one, which `smtp-tls-client-ca` asks for.",
                properties=(
                    Property("subject", TEXT, "Whom it names.", True),
                    Property("verified", YES_NO, "Whether one of those authorities signed it.", True),
                ),
            ),
        ),
    ),
    Property("user", TEXT, "Who has logged in, by a password or by a certificate; only when somebody has."),
    Property(
        "proxy",
        OBJECT,
        "The proxy whose PROXY header told the other addresses; only when there was one.",
        properties=(
            Property("ip", TEXT, "Its address.", True),
            Property("port", PORT, "Its port.", True),
        ),
    ),
)

_SPOOL = (
    Property("directory", TEXT, "The spool directory.", True),
    Property("file", TEXT, "The file's name in it.", True),
    Property("user", TEXT, "Who owned it.", True),
    Property("size", COUNT, "Bytes of the file.", True),
)

CONTENT = (
    Property("mime", TEXT, "The content, when it is valid UTF-8: encoding the string gives the bytes."),
    Property("mime-base64", BASE64, "The content in base64, when it is not valid UTF-8."),
)

_ATTACHMENT = (
    Property("filename", TEXT, "Its file's name, if it has one."),
    Property("type", TEXT, "Its media type in lower case.", True),
    Property("size", COUNT, "Bytes, decoded.", True),
    Property("sha256", TEXT, "Digest of what it holds, decoded; hexadecimal.", True),
    Property("disposition", words(("attachment", "inline")), "How it is to be shown, if it says so."),
    Property("cid", TEXT, "Its content id without angle brackets, if it has one."),
    Property("container", TEXT, "Name of the `winmail.dat` (TNEF) it was found in; absent outside of one."),
)

EXTRACTED = (
    Property("from", TEXT, "Address of the first author."),
    Property("to", TEXTS, "Addresses."),
    Property("cc", TEXTS, "Addresses."),
    Property("subject", TEXT, "Decoded."),
    Property("date", TEXT, "As it stands."),
    Property("message-id", TEXT, "As it stands."),
    Property("headers", LISTS, "Every field by its name in lower case; a list when it occurs again."),
    Property("envelope", OBJECT, "The reverse-path in parts.", properties=_PARTS),
    Property("recipient", OBJECT, "The forward-path in parts.", properties=_PARTS),
    Property("text", TEXT, "The text bodies, one after the other; with `smtp-parse: full` or `parse-full`."),
    Property("html", TEXT, "The HTML bodies, likewise: as harmful as the content is."),
    Property("attachments", OBJECTS, "All other parts, likewise.", properties=_ATTACHMENT),
    Property("truncated", YES_NO, "True when texts, parts or nesting went beyond the bounds, and were left out."),
)

DSN = (
    Property(
        "notify",
        {"type": "string", "pattern": f"^(NEVER|{_NOTIFY_ON}(,{_NOTIFY_ON})*)$"},
        "When: `NEVER`, or some of the other words with commas.",
    ),
    Property("ret", words(("FULL", "HDRS")), "How much of the content comes back."),
    Property("orcpt", TEXT, "The recipient as the sender named it, with its type: `rfc822;grace@example.com`."),
    Property("envid", TEXT, "The sender's own name for the transaction."),
)
"""``dsn``, of a received message and of one to deliver."""

_WORD = words(("none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror"))
_POLICY = words(("none", "quarantine", "reject"))

_CHECK = (
    Property("spf", _WORD, "What SPF says of the client and the reverse-path (RFC 8601 §2.7.2)."),
    Property("smtp.mailfrom", TEXT, "SPF: the reverse-path; empty for the null one."),
    Property("smtp.helo", TEXT, "SPF: the name that the client gave in EHLO or HELO."),
    Property("explanation", TEXT, "SPF: why, in the domain's own words after a `fail` if it has any."),
    Property("helo-spf", _WORD, "SPF: what it says of the client and the name in EHLO or HELO alone."),
    Property("dkim", _WORD, "What one DKIM signature comes to (RFC 8601 §2.7.1); `none` when there is none."),
    Property("domain", TEXT, "DKIM: who signed, `d=`."),
    Property("selector", TEXT, "DKIM: which of its keys, `s=`."),
    Property("header.i", TEXT, "DKIM: for whom it signed, `i=`."),
    Property("header.b", TEXT, "DKIM: the beginning of `b=`, which tells the signatures apart (RFC 6008)."),
    Property("algorithm", TEXT, "DKIM: `a=`."),
    Property("dmarc", _WORD, "What DMARC says of the author's domain (RFC 9989)."),
    Property("header.from", TEXT, "DMARC: the author's domain, in A-labels."),
    Property("policy", _POLICY, "DMARC: what the owner of that domain wants done when it fails."),
    Property(
        "disposition", _POLICY, "DMARC: what follows from it for this message; done for `smtp-check-reject` only."
    ),
    Property(
        "aligned",
        OBJECT,
        "DMARC: what spoke for the author's domain.",
        properties=(
            Property("spf", YES_NO, "Whether SPF did.", True),
            Property("dkim", YES_NO, "Whether a DKIM signature did.", True),
        ),
    ),
    Property("arc", _WORD, "What the seals of earlier hosts come to (RFC 8617)."),
    Property("instances", COUNT, "ARC: how many sets there are."),
    Property("oldest-pass", COUNT, "ARC: from which set on nothing was changed."),
    Property("sealers", TEXTS, "ARC: who sealed, `d=`, the first host first."),
    Property("iprev", _WORD, "Whether the client's address has a name that leads back to it (RFC 8601 §2.7.3)."),
    Property("policy.iprev", TEXT, "iprev: the address."),
    Property("name", TEXT, "iprev: the name, if there is one."),
    Property("spam", words(("spam", "ham", "none", "temperror")), "What the spam filter says; `none`: not looked at."),
    Property("score", {"type": "number"}, "spam: points."),
    Property("threshold", {"type": "number"}, "spam: from how many points it is spam."),
    Property("rules", TEXTS, "spam: names of the rules that gave points, 100 at most."),
    Property("engine", words(("spamassassin", "rspamd")), "spam: which filter."),
    Property("action", TEXT, "spam: what Rspamd would have done."),
    Property("reason", TEXT, "Why the result is what it is."),
)

STAGES = ("mail", "rcpt", "data", "content", "hook", "check")
"""Where a message may be refused."""

#: What reception writes, without the content.
_RECEIVED = (
    Property("received", TIME, "When the content was complete, UTC.", True),
    Property("hostname", TEXT, "Our name in the session.", True),
    Property("connection", OBJECT, "The session that the message came by, if not in a file.", False, _CONNECTION),
    Property("spool", OBJECT, "The file of the spool directory that the message came in.", False, _SPOOL),
    Property("size", COUNT, "Bytes of the content as received, before our `Received:` field.", True),
    Property("body", words(get_args(Body)), "What the client declared with BODY.", True),
    Property("smtputf8", {"const": True}, "The client asked for SMTPUTF8; only when it did."),
    Property("requiretls", {"const": True}, "The client demanded TLS on the whole way (RFC 8689); only when it did."),
    Property("ips", TEXTS, "Source addresses to leave from: those of `x-mq-ip` fields, or the mapped local address."),
    Property("tags", TEXTS, "Those of `smtp-tags`, and of `x-mq-tag` fields."),
    Property("dsn", OBJECT, "What the sender wants to be told (RFC 3461); only what it asked for.", properties=DSN),
    Property(
        "checks", OBJECTS, "What `smtp-check` found, an object each; with DKIM one each signature.", False, _CHECK
    ),
)

_REFUSED = (
    Property("code", {"type": "integer", "minimum": 500, "maximum": 599}, "Reply code.", True),
    Property("status", TEXT, "Enhanced status code; empty when the reply had none.", True),
    Property("reason", TEXT, "Why, more exactly than the client was told.", True),
    Property("stage", words(STAGES), "When: at which command, at the content, by a hook or by a check.", True),
)

INBOX: tuple[Property, ...] = (
    Property("message-id", MESSAGE_ID, "`<server-id>.<time-ordered id>.<n>`, unique per recipient.", True),
    Property("recipient", TEXT, "One forward-path; empty for a message that was refused before there was one.", True),
    Property("envelope", TEXT, "The reverse-path; empty for the null one.", True),
    *CONTENT,
    *_RECEIVED,
    Property("extracted", OBJECT, "What the content says, as far as `smtp-parse` has it read.", properties=EXTRACTED),
    Property("refused", OBJECT, "Why it was refused for good; only in `rabbitmq-refused`.", properties=_REFUSED),
)
"""A message that was received: usable unchanged in the outbox, unless it was refused."""
