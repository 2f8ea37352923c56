"""A whole relay between a client and a sink: what goes in comes out, byte for byte, on both queues."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.support.instance import Relay, Sink, wait_until
from tests.support.rabbitmq import RabbitNode
from tests.support.wire import Wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Whole:
    """A relay and its sink."""

    def __init__(self, relay: Relay, sink: Sink) -> None:
        self.relay = relay
        self.sink = sink

    def arrived(self, count: int) -> list[tuple[dict[str, object], bytes]]:
        """Wait for *count* messages; return note and content of each, and empty the sink."""
        wait_until(lambda: len(self.sink.notes()) >= count, f"{count} messages at the sink", 120)
        notes, contents = self.sink.notes(), self.sink.contents()
        assert len(notes) == len(contents) == count
        for path in (self.sink.maildir / "new").iterdir():
            path.unlink()
        self.sink.noted.write_text("")
        by_size = {len(content): content for content in contents}
        return [(note, by_size[note["size"]]) for note in notes]


@pytest.fixture(scope="module", params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Run relay and sink for all tests of this file, once on each queue."""
    folder = tmp_path_factory.mktemp("whole")
    address = f"embedded://{folder / 'queue'}"
    if request.param == "rabbitmq":
        node: RabbitNode = request.getfixturevalue("rabbitmq")
        address = node.address
    sink = Sink(folder)
    relay = Relay(
        folder, address, smtp_sink_address="127.0.0.1", smtp_sink_port=sink.port, rabbitmq_inbox="e2e.outbox",
        rabbitmq_outbox="e2e.outbox", rabbitmq_dead="e2e.dead", rabbitmq_maxsize="128MB", smtp_maxsize="100MB",
    )  # fmt: skip
    try:
        sink.start()
        relay.start()
        relay.wait_ready()
        yield Whole(relay, sink)
    finally:
        relay.cleanup()
        sink.cleanup()


HEADER = b"From: <ada@example.org>\r\nSubject: fidelity\r\n\r\n"
LATIN_1 = "Grüße aus Köln\r\n".encode("latin-1")
CONTENTS = {
    "text": HEADER + b"hello\r\n",
    "utf-8": HEADER + "Grüße ✓ 你好\r\n".encode(),
    "8-bit that is not UTF-8": HEADER + LATIN_1 * 100,
    "every byte but NUL, CR and LF": HEADER + bytes(set(range(1, 256)) - {10, 13}) + b"\r\n",
    "lines of 998": HEADER + (b"y" * 998 + b"\r\n") * 20,
    "dots at line starts": HEADER + b".\r\n..\r\n...\r\n.dot\r\n" * 3,
    "a dot first": b".first\r\nline\r\n",
    "no header section": b"\r\nonly a body\r\n",
    "empty": b"",
    "header section only": b"Subject: nothing else\r\n",
    "one empty line": b"\r\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_arrives_byte_for_byte_over_data(whole: Whole, name: str) -> None:
    """What came by DATA is delivered unchanged behind our Received field."""
    content = CONTENTS[name]
    with Wire(whole.relay.port) as wire:
        wire.say("EHLO client.test")
        assert wire.say("MAIL FROM:<ada@example.org> BODY=8BITMIME").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        assert wire.data(content).startswith("250")
    [(note, arrived)] = whole.arrived(1)
    assert note["reverse-path"] == "ada@example.org"
    assert note["forward-paths"] == ["grace@example.com"]
    assert arrived.startswith(b"Received: from client.test ([127.0.0.1])")
    assert arrived.endswith(content)
    assert arrived[: len(arrived) - len(content)].count(b"\nReceived:") == 0


def test_binary_content_arrives_byte_for_byte_over_bdat(whole: Whole) -> None:
    """BINARYMIME content with NULs, bare CRs and LFs and no line end at its end is delivered unchanged."""
    content = HEADER + random.Random(1).randbytes(300_000) + b"\0\r\n.\r\n\n.\n\r.\rend"
    with Wire(whole.relay.port) as wire:
        wire.say("EHLO client.test")
        assert wire.say("MAIL FROM:<ada@example.org> BODY=BINARYMIME").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        assert wire.bdat(content, 70_001).startswith("250")
    [(_, arrived)] = whole.arrived(1)
    assert arrived.endswith(content)


def test_content_without_a_final_line_end_arrives_as_it_is(whole: Whole) -> None:
    """DATA would add a line end; BDAT does not need to, and a peer that has it gets the content as it came."""
    content = HEADER + b"no line end"
    with Wire(whole.relay.port) as wire:
        wire.say("EHLO client.test")
        assert wire.say("MAIL FROM:<ada@example.org> BODY=8BITMIME").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        assert wire.bdat(content).startswith("250")
    [(_, arrived)] = whole.arrived(1)
    assert arrived.endswith(content)


def test_utf8_addresses_arrive(whole: Whole) -> None:
    """SMTPUTF8 addresses go through to a peer that announces it."""
    with Wire(whole.relay.port) as wire:
        wire.say("EHLO client.test")
        assert wire.say("MAIL FROM:<jürgen@bücher.example> SMTPUTF8 BODY=8BITMIME").startswith("250")
        assert wire.say("RCPT TO:<用户@例子.example>").startswith("250")
        reply = wire.data(HEADER + "Grüße\r\n".encode())
        assert reply.startswith("250"), reply
        assert "用户@例子.example" in reply
    [(note, _)] = whole.arrived(1)
    assert note["reverse-path"] == "jürgen@bücher.example"
    assert note["forward-paths"] == ["用户@例子.example"]


def test_the_null_reverse_path_arrives(whole: Whole) -> None:
    """A notice from <> stays one from <>."""
    with Wire(whole.relay.port) as wire:
        wire.say("EHLO client.test")
        wire.say("MAIL FROM:<>")
        wire.say("RCPT TO:<grace@example.com>")
        assert wire.data(CONTENTS["text"]).startswith("250")
    [(note, _)] = whole.arrived(1)
    assert note["reverse-path"] == ""


def test_fifty_megabytes_arrive(whole: Whole) -> None:
    """A large message is delivered unchanged."""
    line = bytes(random.Random(2).choices(b"abcdefghijklmnopqrstuvwxyz.", k=996)) + b"\r\n"
    content = HEADER + (b"." + line) * (50 * 1024 * 1024 // 999)
    with Wire(whole.relay.port, timeout_s=120) as wire:
        wire.say("EHLO client.test")
        assert wire.say(f"MAIL FROM:<ada@example.org> SIZE={len(content)}").startswith("250")
        assert wire.say("RCPT TO:<grace@example.com>").startswith("250")
        reply = wire.data(content)
        assert reply.startswith("250"), reply
    [(_, arrived)] = whole.arrived(1)
    assert arrived.endswith(content)


def test_a_thousand_recipients_get_one_message_each(whole: Whole) -> None:
    """One transaction for 1,000 recipients becomes 1,000 deliveries; the reply names the range of their ids."""
    recipients = [f"r{number}@example.com" for number in range(1000)]
    with Wire(whole.relay.port) as wire:
        wire.say("EHLO client.test")
        wire.say("MAIL FROM:<ada@example.org>")
        for recipient in recipients:
            wire.send(f"RCPT TO:<{recipient}>\r\n".encode())
        assert all(wire.reply().startswith("250") for _ in recipients)
        assert wire.say("RCPT TO:<onemore@example.com>").startswith("452 4.5.3")
        reply = wire.data(CONTENTS["text"])
    assert reply.startswith("250 2.6.0 test.")
    assert reply.endswith(".1-1000 accepted")
    notes = [note for note, _ in whole.arrived(1000)]
    assert sorted(path for note in notes for path in note["forward-paths"]) == sorted(recipients)
