"""What a file of the spool directory says: from whom, to whom, and the content to send.

Pure. Recipients are the addresses in ``To``, ``Cc`` and ``Bcc``; the reverse-path is the first that is one in
``x-mq-envelope`` (where those fields count), ``Return-Path``, ``From`` and ``Sender``. What SMTP would refuse is
refused here too, and so is a file whose recipients cannot all be told: nothing is sent to some of them alone. A file
that is no message raises ``Unfit`` with the reason for whoever put it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mtaq.mime.edit import edit_headers
from mtaq.mime.extract import ADDRESS_LIMIT, addresses_in
from mtaq.mime.headers import FIELD_LIMIT, HEADER_LIMIT_BYTES, Field, fields, header_end
from mtaq.mime.words import text_of
from mtaq.model.address import Address
from mtaq.model.errors import MtaqError
from mtaq.smtp.data import LINE_MAX, has_long_line
from mtaq.smtp.grammar import parse_mailbox, parse_reverse_path

_RECIPIENT_FIELDS = (b"to", b"cc", b"bcc")
_ENVELOPE_FIELD = b"x-mq-envelope"
_SENDER_FIELDS = (b"return-path", b"from", b"sender")
_begins_with_field = re.compile(rb"[!-9;-~]++[ \t]*+:").match


class Unfit(MtaqError):
    """A file that is no message; ``str()`` is the reason."""


class SpooledContent(NamedTuple):
    """What a file says.

    Attributes:
        envelope: Reverse-path; ``None`` for the null one.
        recipients: Forward-paths, each once, in the order written.
        content: With CRLF line ends, without ``Bcc`` fields.
    """

    envelope: Address | None
    recipients: tuple[Address, ...]
    content: bytes


class LineEnds:
    """Makes every line end of a text CRLF, a block at a time, so that none takes long."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, block: bytes) -> bytes:
        """Return *block* with CRLF line ends; a CR at its end is held back until what follows is known."""
        block = self._held + block
        self._held = b"\r" if block.endswith(b"\r") else b""
        whole = block[: len(block) - len(self._held)]
        return whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")

    def finish(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return b"\r\n" if held else b""


def read_spooled(content: bytes, *, extract: bool, strict: bool = True) -> SpooledContent:
    """
    Understand *content*, whose line ends are CRLF.

    Args:
        extract: Do ``x-mq-*`` fields count?
        strict: Syntax demanded of addresses, as ``smtp-validate-address`` has it.

    Raises:
        Unfit: It is no message, or not one for anybody.
    """
    if not _begins_with_field(content):
        raise Unfit("does not begin with a header field")
    if b"\0" in content:
        raise Unfit("holds a NUL")
    if has_long_line(content):
        raise Unfit(f"has a line longer than {LINE_MAX} octets")
    if header_end(content, HEADER_LIMIT_BYTES + 1) > HEADER_LIMIT_BYTES:
        raise Unfit(f"the header section is longer than {HEADER_LIMIT_BYTES} octets")
    found = list(fields(content))
    if len(found) >= FIELD_LIMIT:
        raise Unfit(f"the header section has {FIELD_LIMIT} fields or more")
    recipients = _recipients(found, strict=strict)
    envelope = _envelope(found, extract=extract, strict=strict)
    return SpooledContent(envelope, recipients, edit_headers(content, {"remove": "Bcc"}))


def _recipients(found: Iterable[Field], *, strict: bool) -> tuple[Address, ...]:
    written: list[str] = []
    for field in found:
        if field.name.lower() in _RECIPIENT_FIELDS:
            written += addresses_in(text_of(field.value))
            if len(written) >= ADDRESS_LIMIT:
                raise Unfit(f"is for {ADDRESS_LIMIT} recipients or more")
    try:
        recipients = [parse_mailbox(text, strict=strict, smtputf8=True) for text in written]
    except ValueError as error:
        raise Unfit(f"a recipient is no address: {error}") from error
    if not recipients:
        raise Unfit("no address in To, Cc or Bcc")
    return tuple(dict.fromkeys(recipients))


def _envelope(found: Iterable[Field], *, extract: bool, strict: bool) -> Address | None:
    by_name: dict[bytes, list[bytes]] = {}
    for field in found:
        by_name.setdefault(field.name.lower(), []).append(field.value)
    for name in (_ENVELOPE_FIELD, *_SENDER_FIELDS) if extract else _SENDER_FIELDS:
        for value in by_name.get(name, ()):
            for path in _paths(value):
                try:
                    return parse_reverse_path(path, strict=strict, smtputf8=True)
                except ValueError:
                    continue
    raise Unfit("no sender: expected an address in Return-Path, From or Sender")


def _paths(value: bytes) -> Iterator[bytes]:
    """Yield what may be a reverse-path in a field: the null one, or addresses without their display names."""
    if value == b"<>":
        yield b""
    yield from (address.encode("utf-8", "replace") for address in addresses_in(text_of(value)))
