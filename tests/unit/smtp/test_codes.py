"""``mtaq.smtp.codes``: the replies we give."""

from __future__ import annotations

import re

from mtaq.model.reply import Reply, reply
from mtaq.smtp import codes

READY = {name: value for name, value in vars(codes).items() if isinstance(value, Reply)}


def test_codes_and_enhanced_codes_agree() -> None:
    """Every reply has an enhanced status code of its own class, but where RFC 2034 §4 wants none."""
    assert len(READY) > 30
    for name, ready in READY.items():
        if ready.status is None:
            assert name in ("START_INPUT", "BAD_HELO")
        else:
            assert re.fullmatch(rf"{ready.code // 100}\.\d\.\d{{1,2}}", ready.status), name


def test_replies_fit_a_line() -> None:
    """No reply line is longer than 512 octets (RFC 5321 §4.5.3.1.5), and all are ASCII."""
    for ready in READY.values():
        assert ready.encode().isascii()
        assert len(ready.encode()) <= 512


def test_encoding_is_that_of_the_reply() -> None:
    """A ready reply and an equal one made elsewhere are the same octets."""
    for ready in [*READY.values(), codes.greeting("mx.test"), codes.chunk_received(5)]:
        assert codes.encode(ready) == ready.encode() == codes.encode(reply(ready.code, ready.status, *ready.lines))
