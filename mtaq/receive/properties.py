"""What do ``x-mq-*`` header fields say? Each becomes a property of the JSON, or the message is refused.

Pure. Which clients are believed is the option's matter (``treatment``); the fields themselves are found and taken out
by ``mime.mq_fields``. What the session knows better than any field stays: reserved names are taken out and ignored. Any
other field that cannot be understood raises ``BadField``, because a message whose orders are guessed goes the wrong
way, and one with properties of the wrong form would only be found out after it was accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from mtaq.config import ReceiveOptions
from mtaq.config.ranges import plain_address
from mtaq.config.values import boolean, choice, integer, queue_name
from mtaq.mime.mq_fields import PREFIX, read_mq_field, split_mq_fields
from mtaq.mime.words import decode_words
from mtaq.model.address import address_text
from mtaq.model.errors import MtaqError
from mtaq.model.message import InboxRecipient, Security
from mtaq.model.reply import Reply, reply
from mtaq.model.times import format_time, parse_time
from mtaq.smtp.grammar import parse_reverse_path

#: Bounds of one message: fields, octets of all their lines, characters of a name.
MOST_FIELDS = 100
MOST_BYTES = 65_536
LONGEST_NAME = 64

_YEAR_S = 366 * 86_400

RESERVED = frozenset(
    (
        "mime", "mime-base64", "key", "recipient", "recipients", "message-id", "received", "hostname", "connection",
        "spool", "size", "checks", "extracted", "results", "refused", "report", "seen", "dkim", "headers", "data",
        "body", "smtputf8", "requiretls",
    )
)  # fmt: skip
"""Names that no field sets: what the session knows, what delivery writes, what only JSON can express."""

_SET_OTHERWISE = {
    "ips": "set by x-mq-ip",
    "tags": "set by x-mq-tag",
    "nextattempt": "set by x-mq-delayed",
    "queues": "set by x-mq-results-queue and its siblings",
    "smarthost": "set by x-mq-smarthost-hostname and its siblings",
    "dsn": "set by x-mq-dsn-notify and its siblings",
}
"""Properties that are no strings, so that a field of their name is a mistake."""

_is_name = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*").fullmatch
# Control characters, what other software takes for line ends, and what has no UTF-8.
_find_control = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_is_time = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})?"
).fullmatch
_is_host = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.:-]{0,253}[A-Za-z0-9_.])?").fullmatch
_is_orcpt = re.compile(r"[A-Za-z0-9-]{1,32};[^ ].*").fullmatch
_NOTIFY = ("FAILURE", "DELAY", "SUCCESS")


class BadField(MtaqError):
    """A field that cannot be understood.

    Attributes:
        name: The whole name of the field, in lower case; shortened when it is no name.
        why: What is expected; never the value.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why

    @property
    def reply(self) -> Reply:
        """What the client is told after the content."""
        return reply(550, "5.6.0", str(self))


class Extraction(NamedTuple):
    """What became of a content's fields.

    Attributes:
        content: Without the fields; the same object when there were none.
        properties: What the JSON of every recipient gets.
        ignored: Reserved names that were given, for the log; each a plain word.
    """

    content: bytes
    properties: dict[str, Any]
    ignored: tuple[str, ...] = ()


def treatment(options: ReceiveOptions, *, remote_ip: str, user: str | None) -> Literal["take", "strip", "leave"]:
    """Say what is done with the fields of a client: believed, taken out and ignored, or left where they are."""
    if options.smtp_extract == "false":
        return "leave"
    if options.smtp_extract == "true" or user is not None or options.smtp_extract_range.contains(remote_ip):
        return "take"
    return "strip"


def take_properties(content: bytes, *, now: datetime, strict: bool = True) -> Extraction:
    """
    Take the ``x-mq-*`` fields out of *content* and say what they mean.

    Args:
        content: As the client sent it.
        now: When it was complete; ``x-mq-maxdelivertime`` may be given in seconds from then.
        strict: Syntax demanded of ``x-mq-envelope``, as ``smtp-validate-address`` has it.

    Raises:
        BadField: A field of the wrong form, too many of them, or one that contradicts another.
    """
    remaining, fields = split_mq_fields(content, MOST_FIELDS + 1)
    if not fields:
        return Extraction(content, {})
    taking = _Taking(now, strict)
    for lines in fields:
        taking.take(lines)
    return Extraction(remaining, taking.finished(), tuple(dict.fromkeys(taking.ignored)))


def laid_over(
    shared: Mapping[str, Any], recipients: Iterable[InboxRecipient], properties: Mapping[str, Any]
) -> tuple[dict[str, Any], list[InboxRecipient]]:
    """
    Return what a message's JSON says when *properties*, from its fields, are laid over what reception wrote.

    Tags are added to those that are there. ``ips`` or ``pool`` take the place of the mapped address. ``dsn`` wins over
    the parameters of MAIL and RCPT, item by item, and stands with each recipient.
    """
    merged = {**shared, **{name: value for name, value in properties.items() if name != "dsn"}}
    if "pool" in properties and "ips" not in properties:
        merged.pop("ips", None)
    if "tags" in properties:
        merged["tags"] = list(dict.fromkeys([*shared.get("tags", ()), *properties["tags"]]))
    dsn = properties.get("dsn", {})
    return merged, [_with_dsn(recipient, dsn) if dsn else recipient for recipient in recipients]


def _with_dsn(recipient: InboxRecipient, dsn: Mapping[str, Any]) -> InboxRecipient:
    return replace(
        recipient, properties={**recipient.properties, "dsn": {**recipient.properties.get("dsn", {}), **dsn}}
    )


class _Taking:
    """The properties while fields come in, one after the other."""

    def __init__(self, now: datetime, strict: bool) -> None:
        self._now = now
        self._strict = strict
        self._properties: dict[str, Any] = {}
        self._seen: set[str] = set()
        self._fields = 0
        self._bytes = 0
        self.ignored: list[str] = []

    def take(self, lines: bytes) -> None:
        self._fields += 1
        self._bytes += len(lines)
        if self._fields > MOST_FIELDS or self._bytes > MOST_BYTES:
            raise BadField(_shown(lines), f"more than {MOST_FIELDS} x-mq fields, or {MOST_BYTES} octets in them")
        field = read_mq_field(lines)
        name, shown = field.name, _shown(lines)
        if name is None:
            raise BadField(shown, "not a header field")
        if not _is_name(name) or len(name) > LONGEST_NAME:
            raise BadField(shown, f"expected a name of 1 to {LONGEST_NAME} letters, digits and single dashes")
        if name in RESERVED:
            self.ignored.append(name)
            return
        if name in _SET_OTHERWISE:
            raise BadField(shown, _SET_OTHERWISE[name])
        row = FIELDS.get(name) or _Row((name,), lambda text, _: text, "")
        if name in self._seen and not row.repeats:
            raise BadField(shown, "given more than once")
        self._seen.add(name)
        self._put(row, self._parsed(row, shown, field.value))

    def _parsed(self, row: _Row, shown: str, value: bytes) -> Any:
        try:
            text = decode_words(value.decode("utf-8")).replace("\t", " ").strip(" ")
        except UnicodeDecodeError:
            raise BadField(shown, "UTF-8 or encoded-words are expected") from None
        if _find_control(text):
            raise BadField(shown, "control characters are not allowed")
        try:
            return row.parse(text, self)
        except (ValueError, OverflowError):
            raise BadField(shown, f"expected {row.expected}") from None

    def _put(self, row: _Row, value: Any) -> None:
        inner = self._properties
        for name in row.path[:-1]:
            inner = inner.setdefault(name, {})
        if not row.repeats:
            inner[row.path[-1]] = value
            return
        values = inner.setdefault(row.path[-1], [])
        if value not in values:
            values.append(value)

    def finished(self) -> dict[str, Any]:
        smarthost = self._properties.get("smarthost")
        if smarthost is not None and "hostname" not in smarthost:
            raise BadField(f"{PREFIX}smarthost-{next(iter(smarthost))}", "needs x-mq-smarthost-hostname as well")
        return self._properties

    # Forms that need to know more than the value.

    def envelope(self, text: str) -> str:
        path = text[1:-1] if text.startswith("<") and text.endswith(">") else text
        return address_text(parse_reverse_path(path.encode(), strict=self._strict, smtputf8=True))

    def deadline(self, text: str) -> str:
        if text.isdecimal():
            return format_time(self._now + timedelta(seconds=integer(1, 10 * _YEAR_S)(text)))
        return _time(text)


class _Row(NamedTuple):
    """What a field means: where it goes in the JSON, how its text is read, what is expected, whether it repeats."""

    path: tuple[str, ...]
    parse: Callable[[str, _Taking], Any]
    expected: str
    repeats: bool = False


def _shown(lines: bytes) -> str:
    """Return the name of a field as a reply may show it, whatever it is."""
    name = lines[: LONGEST_NAME + len(PREFIX)].partition(b":")[0].decode("latin-1").lower().strip()
    return re.sub("[^a-z0-9-]", "?", name)


def _plain(parse: Callable[[str], Any]) -> Callable[[str, _Taking], Any]:
    return lambda text, _: parse(text)


def _some(longest: int) -> Callable[[str, _Taking], str]:
    """Any text that is not empty, of a bounded length."""

    def parse(text: str, _: _Taking) -> str:
        if not 1 <= len(text) <= longest:
            raise ValueError
        return text

    return parse


def _matching(pattern: Callable[[str], object]) -> Callable[[str, _Taking], str]:
    def parse(text: str, _: _Taking) -> str:
        if not pattern(text):
            raise ValueError
        return text

    return parse


def _time(text: str) -> str:
    if not _is_time(text):
        raise ValueError
    return format_time(parse_time(text))


def _retries(text: str) -> list[int]:
    intervals = [integer(0, _YEAR_S)(item.strip()) for item in text.split(",")]
    if len(intervals) > MOST_FIELDS:
        raise ValueError
    return intervals


def _notify(text: str) -> str:
    """RFC 3461 §4.1."""
    words = [word.strip().upper() for word in text.split(",")]
    if words != ["NEVER"] and (not set(words) <= set(_NOTIFY) or len(set(words)) != len(words)):
        raise ValueError
    return ",".join(words)


def _orcpt(text: str) -> str:
    """RFC 3461 §4.2; MailerQ's clients give the address alone."""
    if "@" in text and ";" not in text:
        text = f"{'rfc822' if text.isascii() else 'utf-8'};{text}"
    if len(text) > 500 or not _is_orcpt(text):
        raise ValueError
    return text


_QUEUE = "the name of a queue: 1 to 255 octets, not beginning with amq."
_YES_NO = "true, false, yes, no, 1 or 0"

FIELDS: Mapping[str, _Row] = {
    "envelope": _Row(("envelope",), lambda text, taking: taking.envelope(text), "an address, or <>"),
    "ip": _Row(("ips",), _plain(lambda text: str(plain_address(text))), "an IP address", repeats=True),
    "pool": _Row(("pool",), _some(255), "the name of a pool: 1 to 255 characters"),
    "tag": _Row(("tags",), _some(255), "a tag of 1 to 255 characters", repeats=True),
    "delayed": _Row(("nextattempt", "time"), _plain(_time), "a time as YYYY-MM-DD HH:MM:SS, UTC"),
    "maxdelivertime": _Row(
        ("maxdelivertime",),
        lambda text, taking: taking.deadline(text),
        "a time as YYYY-MM-DD HH:MM:SS, UTC, or seconds from 1",
    ),
    "maxattempts": _Row(("maxattempts",), _plain(integer(0, 1_000_000)), "a whole number from 0 to 1000000"),
    "retries": _Row(("retries",), _plain(_retries), f"up to {MOST_FIELDS} seconds, separated by commas"),
    "idempotency-key": _Row(("idempotency-key",), _some(1000), "1 to 1000 characters"),
    "inlinecss": _Row(("inlinecss",), _plain(boolean), _YES_NO),
    "keepmime": _Row(("keepmime",), _plain(boolean), _YES_NO),
    "priority": _Row(("priority",), _plain(integer(0, 255)), "a whole number from 0 to 255"),
    "security": _Row(("security",), _plain(choice(*get_args(Security))), f"one of {', '.join(get_args(Security))}"),
    "results-queue": _Row(("queues", "results"), _plain(queue_name), _QUEUE),
    "success-queue": _Row(("queues", "success"), _plain(queue_name), _QUEUE),
    "failure-queue": _Row(("queues", "failure"), _plain(queue_name), _QUEUE),
    "retry-queue": _Row(("queues", "retry"), _plain(queue_name), _QUEUE),
    "dsn-queue": _Row(("queues", "dsn"), _plain(queue_name), _QUEUE),
    "smarthost-hostname": _Row(("smarthost", "hostname"), _matching(_is_host), "a host name or an IP address"),
    "smarthost-port": _Row(("smarthost", "port"), _plain(integer(1, 65535)), "a whole number from 1 to 65535"),
    "smarthost-username": _Row(("smarthost", "username"), _some(512), "1 to 512 characters"),
    "smarthost-password": _Row(("smarthost", "password"), _some(512), "1 to 512 characters"),
    "dsn-notify": _Row(("dsn", "notify"), _plain(_notify), "NEVER, or FAILURE, DELAY and SUCCESS with commas"),
    "dsn-ret": _Row(("dsn", "ret"), _plain(choice("FULL", "HDRS")), "FULL or HDRS"),
    "dsn-orcpt": _Row(("dsn", "orcpt"), _plain(_orcpt), "a type and an address, such as rfc822;ada@example.com"),
    "dsn-envid": _Row(("dsn", "envid"), _matching(re.compile("[!-~]{1,100}").fullmatch), "1 to 100 ASCII characters"),
}
"""What follows ``x-mq-`` → what it means; any other name is a property of its own, with the value as a string."""
