"""What large receivers say when they do not want a message: the replies of ``NAME:KIND`` in a sink's script.

Data only. The wordings are those that senders have seen in their logs and that the receivers' own pages for
postmasters describe; receivers change them without notice, so they are good for trying out patterns, and no promise.
``{ip}`` stands for the client's address and ``{to}`` for the recipient.
"""

from __future__ import annotations

from typing import NamedTuple

from mtaq.model.reply import Reply, reply

KINDS = {
    "greylist": "come again later, as everybody whom it does not know",
    "rate": "too much at a time",
    "unknown": "no such user",
    "quota": "mailbox full",
    "reputation": "your address or domain is not trusted",
    "spam": "the message is not wanted",
    "auth": "the sender is not authenticated",
    "connections": "too many connections",
}


class Text(NamedTuple):
    """A reply, and the stage at which it is usual."""

    stage: str
    reply: Reply


_GMAIL_HELP = "For more information, go to"
_GMX_SEE = "For explanation visit https://postmaster.gmx.net/en/case"

TEXTS: dict[str, Text] = {
    "gmail:rate": Text(
        "message",
        reply(
            421, "4.7.28", "Gmail has detected an unusual rate of unsolicited mail originating",
            "from your IP address [{ip}]. To protect our users from spam, mail sent from",
            "your IP address has been temporarily rate limited.",
            f"{_GMAIL_HELP} https://support.google.com/mail/?p=UnsolicitedRateLimitError - gsmtp",
        ),
    ),
    "gmail:greylist": Text("connect", reply(421, "4.7.0", "Try again later, closing connection. - gsmtp")),
    "gmail:connections": Text(
        "connect", reply(421, "4.7.0", "Too many concurrent connections from {ip}, try again later. - gsmtp")
    ),
    "gmail:unknown": Text(
        "rcpt",
        reply(
            550, "5.1.1", "The email account that you tried to reach does not exist. Please try",
            "double-checking the recipient's email address for typos or",
            f"unnecessary spaces. {_GMAIL_HELP}", "https://support.google.com/mail/?p=NoSuchUser - gsmtp",
        ),
    ),
    "gmail:quota": Text(
        "rcpt",
        reply(
            452, "4.2.2", "The recipient's inbox is out of storage space. Please direct the",
            "recipient to", "https://support.google.com/mail/?p=OverQuotaTemp - gsmtp",
        ),
    ),
    "gmail:reputation": Text(
        "message",
        reply(
            550, "5.7.1", "[{ip}] Gmail has detected that this message is likely",
            "suspicious due to the very low reputation of the sending IP address. To best",
            "protect our users from spam, the message has been blocked.",
            f"{_GMAIL_HELP} https://support.google.com/mail/answer/188131 - gsmtp",
        ),
    ),
    "gmail:spam": Text(
        "message",
        reply(
            550, "5.7.1", "[{ip}] Gmail has detected that this message is likely",
            "unsolicited mail. To reduce the amount of spam sent to Gmail, this message",
            f"has been blocked. {_GMAIL_HELP}",
            "https://support.google.com/mail/?p=UnsolicitedMessageError - gsmtp",
        ),
    ),
    "gmail:auth": Text(
        "message",
        reply(
            550, "5.7.26", "Your email has been blocked because the sender is unauthenticated.",
            "Gmail requires all senders to authenticate with either SPF or DKIM.",
            f"{_GMAIL_HELP} https://support.google.com/mail/answer/81126#authentication - gsmtp",
        ),
    ),
    "outlook:rate": Text(
        "mail",
        reply(
            451, "4.7.650",
            "The mail server [{ip}] has been temporarily rate limited due to IP reputation. For e-mail delivery "
            "information, see https://aka.ms/postmaster (S775)",
        ),
    ),
    "outlook:greylist": Text(
        "rcpt", reply(451, "4.7.500", "Server busy. Please try again later from [{ip}]. (S77719)")
    ),
    "outlook:connections": Text(
        "connect",
        reply(
            421, None, "RP-001 Unfortunately, some messages from {ip} weren't sent. Please try again. We have limits "
            "for how many messages can be sent per hour and per day.",
        ),
    ),
    "outlook:unknown": Text(
        "rcpt", reply(550, "5.5.0", "Requested action not taken: mailbox unavailable (S2017062302).")
    ),
    "outlook:quota": Text("message", reply(452, "4.2.2", "The email account that you tried to reach is over quota")),
    "outlook:reputation": Text(
        "mail",
        reply(
            550, "5.7.1", "Unfortunately, messages from [{ip}] weren't sent. Please contact your Internet service "
            "provider since part of their network is on our block list (S3150). You can also refer your provider to "
            "http://mail.live.com/mail/troubleshooting.aspx#errors.",
        ),
    ),
    "outlook:spam": Text(
        "message", reply(550, "5.7.1", "Message rejected as spam by Content Filtering. (AS780090)")
    ),
    "outlook:auth": Text(
        "message",
        reply(
            550, "5.7.515",
            "Access denied, sending domain does not meet the required authentication level.",
        ),
    ),
    "yahoo:rate": Text(
        "mail",
        reply(
            421, "4.7.0", "[TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user complaints "
            "- 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
        ),
    ),
    "yahoo:greylist": Text(
        "mail", reply(451, None, "Resources temporarily unavailable. Please try again later [#4.16.1].")
    ),
    "yahoo:connections": Text(
        "mail", reply(421, None, "Max message per connection reached, closing transmission channel")
    ),
    "yahoo:unknown": Text(
        "message", reply(554, None, "delivery error: dd This user doesn't have a yahoo.com account ({to}) [0]")
    ),
    "yahoo:quota": Text("message", reply(552, None, "1 Requested mail action aborted: mailbox is over quota ({to})")),
    "yahoo:reputation": Text(
        "connect",
        reply(
            553, "5.7.1", "[BL21] Connections will not be accepted from {ip}, because the ip is in Spamhaus's list; "
            "see http://postmaster.yahoo.com/550-bl23.html",
        ),
    ),
    "yahoo:spam": Text(
        "message",
        reply(
            554, None, "Message not allowed - [PH01] Email not accepted for policy reasons. Please visit "
            "https://postmaster.yahooinc.com/error-codes",
        ),
    ),
    "apple:rate": Text(
        "rcpt",
        reply(
            421, "4.7.1", "Messages to {to} deferred due to excessive volume. Try again later - "
            "https://support.apple.com/en-us/HT204137",
        ),
    ),
    "apple:greylist": Text("mail", reply(451, "4.7.1", "Service unavailable - try again later")),
    "apple:unknown": Text("rcpt", reply(550, "5.1.1", "<{to}>: user does not exist")),
    "apple:quota": Text("rcpt", reply(552, "5.2.2", "<{to}>: user is over quota")),
    "apple:spam": Text(
        "message",
        reply(
            550, "5.7.1",
            "[CS01] Message rejected due to local policy. Please visit https://support.apple.com/en-us/HT204137",
        ),
    ),
    "gmx:rate": Text(
        "mail", reply(421, None, "Rate limit reached. Please try again later", f"{_GMX_SEE}?i=ip&v={{ip}}")
    ),
    "gmx:greylist": Text(
        "rcpt", reply(450, None, "Requested mail action not taken: mailbox unavailable", "Try again later", _GMX_SEE)
    ),
    "gmx:unknown": Text(
        "rcpt", reply(550, None, "<{to}>: Requested action not taken: mailbox unavailable", _GMX_SEE)
    ),
    "gmx:quota": Text(
        "rcpt", reply(552, None, "<{to}>: Requested mail action aborted: exceeded storage allocation", _GMX_SEE)
    ),
    "gmx:reputation": Text(
        "connect",
        reply(
            554, None, "gmx.net (mxgmx104) Nemesis ESMTP Service not available", "No SMTP service",
            "IP address is block listed.", f"{_GMX_SEE}?c=r0201&i=ip&v={{ip}}",
        ),
    ),
    "gmx:spam": Text(
        "message", reply(554, None, "Transaction failed", "Reject due to policy restrictions.", _GMX_SEE)
    ),
    "t-online:unknown": Text("rcpt", reply(550, "5.1.1", "user unknown")),
    "t-online:quota": Text("rcpt", reply(552, "5.2.2", "Over STORAGE quota")),
    "t-online:reputation": Text(
        "connect",
        reply(
            554, None, "IP={ip} - A problem occurred. (Ask your postmaster for help or to contact "
            "tosa@rx.t-online.de to clarify.) (BL)",
        ),
    ),
    "t-online:spam": Text("message", reply(550, "5.7.0", "Message considered as spam or virus, rejected")),
    "orange:connections": Text("connect", reply(421, None, "Too many connections, slow down. OFR004_104 [104]")),
    "orange:unknown": Text("rcpt", reply(550, "5.1.1", "Adresse d au moins un destinataire invalide. "
                                         "Invalid recipient. OFR204_416 [416]")),
    "orange:reputation": Text(
        "connect", reply(550, "5.7.1", "Service refuse. Veuillez essayer plus tard. Service refused, please try later. "
                         "OFR006_501 [501]")
    ),
    "postgrey:greylist": Text(
        "rcpt",
        reply(
            450, "4.2.0",
            "<{to}>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.com.html",
        ),
    ),
    "spamhaus:reputation": Text(
        "rcpt",
        reply(
            554, "5.7.1",
            "Service unavailable; Client host [{ip}] blocked using zen.spamhaus.org; "
            "https://www.spamhaus.org/query/ip/{ip}",
        ),
    ),
}  # fmt: skip
