"""The replies that we give, ready made (RFC 5321 §4.2, RFC 3463, RFC 2034).

Wording is for people; programs read the codes. Nothing here says why a stranger was refused in more detail than the
code itself does: that is for the log. Replies that name a number or an address are built where they are given.
"""

from __future__ import annotations

from binascii import b2a_base64
from functools import cache

from mtaq.model.reply import Reply, reply

# 2yz, 3yz
OK = reply(250, "2.0.0", "ok")
RESET = reply(250, "2.0.0", "reset")
LOGGED_IN = reply(235, "2.7.0", "logged in")
SENDER_OK = reply(250, "2.1.0", "sender ok")
RECIPIENT_OK = reply(250, "2.1.5", "recipient ok")
ACCEPTED = reply(250, "2.6.0", "accepted")
START_TLS = reply(220, "2.0.0", "go ahead")
GOODBYE = reply(221, "2.0.0", "goodbye")
CANNOT_VERIFY = reply(252, "2.0.0", "cannot verify, send mail to find out")
HELP_TEXT = reply(214, "2.0.0", "EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT")
START_INPUT = reply(354, None, "end with <CRLF>.<CRLF>")

# 4yz: try again
SHUTTING_DOWN = reply(421, "4.3.2", "shutting down, try again later")
UNAVAILABLE = reply(421, "4.3.2", "no mail can be taken now, try again later")
TIMEOUT = reply(421, "4.4.2", "silent for too long")
TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "too many connections, try again later")
TOO_MANY_FROM_CLIENT = reply(421, "4.7.0", "too many connections from your address, try again later")
TOO_MANY_LOGINS = reply(421, "4.7.0", "too many failed logins, try again later")
TOO_MANY_ERRORS = reply(421, "4.7.0", "too many errors")
DNS_SILENT = reply(451, "4.4.3", "the domain cannot be looked up now, try again later")
RATE_EXCEEDED = reply(450, "4.7.1", "too many messages from your address, try again later")
TRY_LATER = reply(451, "4.3.0", "cannot be taken now, try again later")
NO_MEMORY = reply(452, "4.3.1", "too much mail at once, try again later")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "too many recipients, send the others in another transaction")
NO_TLS_NOW = reply(454, "4.7.0", "TLS not available now")
NO_LOGIN_NOW = reply(454, "4.7.0", "login not available now, try again later")

# 5yz: syntax and order
LINE_TOO_LONG = reply(500, "5.5.2", "line too long")
BAD_OCTETS = reply(500, "5.5.2", "control characters in a command")
AUTH_LINE_TOO_LONG = reply(500, "5.5.6", "authentication exchange line too long")
UNKNOWN_COMMAND = reply(500, "5.5.1", "command not recognised")
BAD_ARGUMENT = reply(501, "5.5.4", "bad argument")
BAD_PARAMETER = reply(501, "5.5.4", "bad parameter")
BAD_BASE64 = reply(501, "5.5.2", "not base64")
BAD_RESPONSE = reply(501, "5.5.2", "not what this mechanism expects")
AUTH_CANCELLED = reply(501, "5.7.0", "authentication cancelled")
BAD_CHUNK_SIZE = reply(501, "5.5.4", "bad chunk size; what follows cannot be told from commands")
# RFC 2034 §4 wants no enhanced status code in any reply to HELO or EHLO.
BAD_HELO = reply(501, None, "a domain or an address literal is wanted")
NOT_IMPLEMENTED = reply(502, "5.5.1", "not implemented")
NOT_HTTP = reply(502, "5.7.0", "this is not HTTP")
NEED_HELO = reply(503, "5.5.1", "send EHLO first")
NEED_MAIL = reply(503, "5.5.1", "send MAIL first")
NEED_RECIPIENT = reply(503, "5.5.1", "send RCPT first")
IN_TRANSACTION = reply(503, "5.5.1", "a transaction is open")
IN_CHUNKS = reply(503, "5.5.1", "BDAT has begun")
NEED_BDAT = reply(503, "5.5.1", "BODY=BINARYMIME needs BDAT")
TLS_ALREADY = reply(503, "5.5.1", "TLS is on already")
LOGGED_IN_ALREADY = reply(503, "5.5.1", "logged in already")
UNKNOWN_MECHANISM = reply(504, "5.5.4", "authentication mechanism not supported")
NO_CHANNEL_BINDING = reply(504, "5.5.4", "channel binding not supported")
UNKNOWN_PARAMETER = reply(555, "5.5.4", "parameter not recognised")

# 5yz: policy and content
NEED_TLS = reply(530, "5.7.0", "send STARTTLS first")  # RFC 3207 §4
AUTH_REQUIRED = reply(530, "5.7.0", "authentication required")
LOGIN_FAILED = reply(535, "5.7.8", "user or password wrong")
AUTH_NEEDS_TLS = reply(538, "5.7.11", "encryption required: send STARTTLS first")
SENDER_DOMAIN_BAD = reply(550, "5.1.8", "no mail can be sent to the domain of the sender")
RECIPIENT_DOMAIN_BAD = reply(550, "5.1.2", "the domain of the recipient takes no mail")
RELAY_DENIED = reply(550, "5.7.1", "relaying denied")
BARE_LINE_END = reply(550, "5.6.11", "bare CR or LF in the content: only CRLF ends a line")
LONG_CONTENT_LINE = reply(550, "5.6.0", "a line of the content is longer than 998 octets")
NUL_IN_CONTENT = reply(550, "5.6.0", "NUL in the content, which needs BODY=BINARYMIME")
SPAM = reply(550, "5.7.1", "the message looks like spam")
TOO_BIG = reply(552, "5.3.4", "message too big")
NEED_SMTPUTF8 = reply(553, "5.6.7", "the address needs SMTPUTF8")
NO_RECIPIENTS = reply(554, "5.5.1", "no valid recipients")
BLOCKED = reply(554, "5.7.1", "your address is blocked here")
EARLY_TALKER = reply(554, "5.5.1", "you spoke before the greeting")
NOT_ALLOWED = reply(554, "5.7.1", "not allowed")
PROBES_ONLY = reply(554, "5.7.1", "this sender only asks whether addresses exist")
MAIL_LOOP = reply(554, "5.4.6", "too many Received fields: a mail loop")  # RFC 5321 §6.3

# The constants above live as long as the program, so their ids are never given to another object.
_KEPT: list[Reply] = []
_WIRE = {id(ready): ready.encode() for ready in list(globals().values()) if isinstance(ready, Reply)}


def keep(answer: Reply) -> Reply:
    """Have *answer* encoded once for all; for replies that are as lasting as the configuration."""
    _WIRE[id(answer)] = answer.encode()
    _KEPT.append(answer)  # an id is good only as long as its object lives
    return answer


@cache
def greeting(hostname: str) -> Reply:
    """Return the 220 that opens a session (RFC 5321 §4.2); no enhanced status code (RFC 2034 §4)."""
    return keep(reply(220, None, f"{hostname} ESMTP mtaq"))


@cache
def introduction(hostname: str) -> Reply:
    """Return the answer to HELO (RFC 5321 §4.1.1.1); no enhanced status code (RFC 2034 §4)."""
    return keep(reply(250, None, hostname))


def bad_sender(reason: str) -> Reply:
    """Return the refusal of a reverse-path that is no address."""
    return reply(501, "5.1.7", reason)


def bad_recipient(reason: str) -> Reply:
    """Return the refusal of a forward-path that is no address."""
    return reply(501, "5.1.3", reason)


def spf_failed(reason: str) -> Reply:
    """Return the refusal of who may not send for the reverse-path's domain (RFC 7372 §3.2)."""
    return reply(550, "5.7.23", reason)


def dmarc_failed(domain: str | None) -> Reply:
    """Return the refusal that the owner of the author's domain asks for; its code is that of RFC 7489 §10.3.

    Args:
        domain: The author's; ``None`` when there is none to be named.
    """
    if domain is None:
        return reply(550, "5.7.1", "the message does not say whose it is, so no DMARC policy can be found")
    return reply(550, "5.7.1", f"rejected per DMARC policy for {domain}")


def chunk_received(size_bytes: int) -> Reply:
    """Return the answer to a BDAT chunk that is not the last (RFC 3030 §4.2)."""
    return reply(250, "2.0.0", f"{size_bytes} octets received")


def challenge(octets: bytes) -> Reply:
    """Return the 334 that asks for the client's next response (RFC 4954 §4)."""
    return reply(334, None, b2a_base64(octets, newline=False).decode("ascii"))


def encode(answer: Reply) -> bytes:
    """Return ``answer.encode()``, without encoding anew what stands ready in this module."""
    return _WIRE.get(id(answer)) or answer.encode()
