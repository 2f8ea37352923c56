"""`mtaq sink` over real sockets: what it takes and keeps, and how it misbehaves when asked to."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.cli import exits
from mtaq.cli.sink_faults import parse_faults
from tests.support.instance import ROOT, Sink
from tests.support.running_sink import RunningSink
from tests.support.wire import Wire

CONTENT = b"Subject: test\r\n\r\n.dot\r\n..\r\n\xff 8 bit\r\n"


Start = Callable[..., RunningSink]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "sink.pem"
    trustme.CA().issue_cert("sink.test").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start sinks, with faults as on the command line."""
    started: list[RunningSink] = []

    def start_one(
        replies: list[str] | None = None,
        drops: list[str] | None = None,
        delays: list[str] | None = None,
        percent: float = 100.0,
        certificate: Path | None = None,
        **more: Any,
    ) -> RunningSink:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        rules = parse_faults(replies or [], drops or [], delays or [])
        started.append(RunningSink(folder, rules, certificate, percent=percent, **more))
        return started[-1]

    yield start_one
    for sink in started:
        sink.stop()


def opened(wire: Wire) -> Wire:
    """Say EHLO, MAIL and RCPT."""
    assert wire.say("EHLO client.test").startswith("250")
    assert wire.say("MAIL FROM:<a@b.test>") == "250 2.1.0 sender ok"
    assert wire.say("RCPT TO:<c@d.test>") == "250 2.1.5 recipient ok"
    return wire


def test_message_is_kept(start: Start) -> None:
    """A message's content is kept byte for byte, and noted with its envelope."""
    sink = start()
    with Wire(sink.port) as wire:
        assert wire.greeting.startswith("220 sink.test")
        assert "CHUNKING" in wire.say("EHLO client.test")
        wire.say("MAIL FROM:<> BODY=8BITMIME")
        wire.say("RCPT TO:<c@d.test>")
        wire.say("RCPT TO:<e@f.test>")
        assert wire.data(CONTENT).startswith("250 2.6.0")
        assert wire.say("QUIT").startswith("221")
    assert sink.contents() == [CONTENT]
    [note] = sink.notes()
    assert datetime.fromisoformat(note.pop("time")).tzinfo is not None
    assert (sink.folder / "mail" / "new" / note.pop("file")).read_bytes() == CONTENT
    assert note.pop("connection").endswith(".1")
    assert (note.pop("local-port"), note.pop("remote-port") > 0) == (sink.port, True)
    assert note == {
        "event": "message",
        "local-ip": "127.0.0.1",
        "remote-ip": "127.0.0.1",
        "helo": "client.test",
        "tls": None,
        "user": None,
        "message": 1,
        "reverse-path": "",
        "forward-paths": ["c@d.test", "e@f.test"],
        "declared-size": None,
        "body": "8bitmime",
        "smtputf8": False,
        "requiretls": False,
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
    }


def test_files_sort_in_order_of_arrival(start: Start) -> None:
    """Of several messages on one connection, the names of the files keep the order."""
    sink = start()
    contents = [b"%d\r\n" % number for number in range(12)]
    with Wire(sink.port) as wire:
        wire.say("EHLO client.test")
        for content in contents:
            wire.say("MAIL FROM:<a@b.test>")
            wire.say("RCPT TO:<c@d.test>")
            wire.data(content)
    assert sink.contents() == contents


def test_binary_by_bdat(start: Start) -> None:
    """BDAT with BINARYMIME is kept as it is, NULs and bare line ends included."""
    sink = start()
    content = bytes(range(256)) * 1000
    with Wire(sink.port) as wire:
        wire.say("EHLO client.test")
        wire.say("MAIL FROM:<a@b.test> BODY=BINARYMIME")
        wire.say("RCPT TO:<c@d.test>")
        assert wire.bdat(content, 70_001).startswith("250 2.6.0")
    assert sink.contents() == [content]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("faults", [[], ["data=451 never"]])
def test_pipelined_in_any_pieces(start: Start, faults: list[str], size: int) -> None:
    """Two transactions in one write, or byte by byte, get the same replies; so they do while commands are watched."""
    sink = start(replies=faults, percent=0)
    one = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nDATA\r\nEHLO x\r\n..\r\n.\r\n"
    dialog = b"EHLO client.test\r\n" + one + one + b"QUIT\r\n"
    with Wire(sink.port) as wire:
        for position in range(0, len(dialog), size):
            wire.send(dialog[position : position + size])
        codes = [wire.reply()[:3] for _ in range(10)]
    assert codes == ["250", "250", "250", "354", "250", "250", "250", "354", "250", "221"]
    assert sink.contents() == [b"DATA\r\nEHLO x\r\n.\r\n"] * 2


def under_tls(port: int) -> ssl.SSLSocket:
    """Connect and say STARTTLS."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), 30)
    reader = plain.makefile("rb")
    reader.readline()
    plain.sendall(b"EHLO client.test\r\n")
    while reader.readline()[3:4] == b"-":
        pass
    plain.sendall(b"STARTTLS\r\n")
    assert reader.readline().startswith(b"220")
    return context.wrap_socket(plain)


@pytest.mark.parametrize("faults", [[], ["data=451 never"]])
def test_starttls(start: Start, certificate: Path, faults: list[str]) -> None:
    """STARTTLS is offered with a certificate, commands sent with the end of the handshake count, TLS is noted."""
    sink = start(replies=faults, percent=0, certificate=certificate)
    for _ in range(5):
        with under_tls(sink.port) as secure, secure.makefile("rb") as reader:
            secure.sendall(b"EHLO again.test\r\n")
            lines = [reader.readline()]
            while lines[-1][3:4] == b"-":
                lines.append(reader.readline())
            assert not any(b"STARTTLS" in line for line in lines)
            secure.sendall(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
            assert [reader.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
            secure.sendall(CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            assert reader.readline().startswith(b"250")
    assert {note["tls"]["version"] for note in sink.notes()} == {"TLSv1.3"}
    assert sink.notes()[0]["helo"] == "again.test"


def test_replies_instead(start: Start) -> None:
    """Each stage can be refused with a given reply, an enhanced status code and text."""
    with Wire(start(replies=["connect=554 5.7.1 go away"]).port) as wire:
        assert wire.greeting == "554 5.7.1 go away"
        assert wire.reply() == ""
    with Wire(start(replies=["ehlo=502 no"]).port) as wire:
        assert wire.say("EHLO a.test") == "502 no"
        assert wire.say("HELO a.test") == "502 no"
        assert wire.say("NOOP").startswith("250")
    with Wire(start(replies=["mail=421 4.7.0 bye"]).port) as wire:
        wire.say("EHLO a.test")
        assert wire.say("MAIL FROM:<a@b.test>") == "421 4.7.0 bye"
        assert wire.reply() == ""
    with Wire(start(replies=["rcpt=550 5.1.1 unknown", "message=250 2.0.0 queued as 1"]).port) as wire:
        wire.say("EHLO a.test")
        wire.say("MAIL FROM:<a@b.test>")
        assert wire.say("RCPT TO:<c@d.test>") == "550 5.1.1 unknown"
        assert wire.say("DATA").startswith("554")
    with Wire(start(replies=["data=451 4.3.0 later"]).port) as wire:
        assert opened(wire).say("DATA") == "451 4.3.0 later"
        assert wire.say("RSET").startswith("250")
    sink = start(replies=["message=552 5.2.2 full"])
    with Wire(sink.port) as wire:
        assert opened(wire).data(CONTENT) == "552 5.2.2 full"
    assert sink.contents() == []
    assert sink.notes() == []


@pytest.mark.parametrize(
    ("stage", "commands"),
    [
        ("connect", []),
        ("ehlo", ["EHLO a.test"]),
        ("mail", ["EHLO a.test", "MAIL FROM:<a@b.test>"]),
        ("rcpt", ["EHLO a.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>"]),
        ("data", ["EHLO a.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"]),
        ("message", ["EHLO a.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA", "text\r\n."]),
    ],
)
def test_dropped_connections(start: Start, stage: str, commands: list[str]) -> None:
    """A connection ends at the stage that was named, without a reply, and the message is not kept."""
    sink = start(drops=[stage])
    with socket.create_connection(("127.0.0.1", sink.port), 30) as sock, sock.makefile("rb") as reader:
        wanted = [b"220"] + [b"250"] * 3 + [b"354"]
        seen = []
        try:
            for command in [None, *commands]:
                if command is not None:
                    sock.sendall(command.encode() + b"\r\n")
                line = reader.readline()
                while line[3:4] == b"-":
                    line = reader.readline()
                seen.append(line[:3])
        except ConnectionResetError:
            seen.append(b"")
        assert seen == [*wanted[: len(commands)], b""]
    assert sink.contents() == []


def test_delays(start: Start) -> None:
    """A delayed answer comes, in order, and so does what was pipelined behind it."""
    sink = start(delays=[f"{stage}=0.01" for stage in ("connect", "ehlo", "mail", "rcpt", "data", "message")])
    with Wire(sink.port) as wire:
        assert wire.greeting.startswith("220")
        wire.send(b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
        assert [wire.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        wire.send(b"text\r\n.\r\nNOOP\r\nQUIT\r\n")
        assert [wire.reply()[:3] for _ in range(4)] == ["250", "250", "221", ""]
    assert sink.contents() == [b"text\r\n"]


def test_percentage(start: Start) -> None:
    """With 25 per cent every fourth occasion of a stage misbehaves, exactly."""
    with Wire(start(replies=["rcpt=450 busy"], percent=25).port) as wire:
        wire.say("EHLO a.test")
        wire.say("MAIL FROM:<a@b.test>")
        codes = [wire.say(f"RCPT TO:<c{number}@d.test>")[:3] for number in range(8)]
    assert codes == ["250", "250", "250", "450"] * 2


def test_not_stored_is_not_taken(start: Start) -> None:
    """When the folder cannot be written, the message is refused for now."""
    sink = start()
    with Wire(sink.port) as wire:
        opened(wire)
        for folder in ("tmp", "new", "cur"):
            (sink.folder / "mail" / folder).rmdir()
        assert wire.data(CONTENT).startswith("451")


def test_program(tmp_path: Path) -> None:
    """The program listens, prints a line for each message, and ends with 0 on SIGTERM, telling open sessions."""
    sink = Sink(tmp_path)
    sink.start()
    try:
        with Wire(sink.port) as wire:
            opened(wire).data(CONTENT)
            assert sink.contents() == [CONTENT]
            assert len(sink.notes()) == 1
            assert sink.stop() == exits.OK
            assert wire.reply().startswith("421")
        output = sink.log.read_text()
        assert f"listening on 127.0.0.1:{sink.port}" in output
        assert f"{len(CONTENT)} bytes from <a@b.test> to <c@d.test>" in output
        assert "1 messages taken" in output
    finally:
        sink.cleanup()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--reply", "lunch=450"], exits.USAGE, "'lunch' is not one of connect, ehlo, starttls"),
        (["--reply", "mail"], exits.USAGE, "STAGE=CODE"),
        (["--reply", "mail=99"], exits.USAGE, "three digits"),
        (["--drop", "lunch"], exits.USAGE, "'lunch' is not one of"),
        (["--delay", "mail=soon"], exits.USAGE, "seconds"),
        (["--delay", "mail=-1"], exits.USAGE, "seconds"),
        (["--percent", "200"], exits.USAGE, "0 to 100"),
        (["--listen", "somewhere"], exits.USAGE, "IP:PORT"),
        (["--listen", "127.0.0.1:99999"], exits.USAGE, "IP:PORT"),
        (["--listen", "203.0.113.1:0"], exits.OS_ERROR, "cannot listen on 203.0.113.1"),
        (["--maxsize", "big"], exits.USAGE, ""),
        (["--discard", "--maildir", "x"], exits.USAGE, "contradict"),
        (["--certificate", "/nonexistent.pem"], exits.CONFIG, "/nonexistent.pem"),
        (["--maildir", "/dev/null/x"], exits.CANNOT_CREATE, "/dev/null"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str) -> None:
    """A mistake on the command line, and what cannot be opened, is said in words with the right status."""
    from mtaq.cli.main import main

    assert main(["sink", "--listen", "127.0.0.1:0", *arguments]) == status
    assert words in capsys.readouterr().err


def test_closed_standard_output(tmp_path: Path) -> None:
    """Nobody reading its output any more does not keep it from taking mail."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "mtaq", "sink", "--listen", "127.0.0.1:0", "--maildir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writing)
    try:
        with os.fdopen(reading) as output:
            port = int(output.readline().rpartition(":")[2])
        with Wire(port) as wire:
            assert opened(wire).data(CONTENT).startswith("250")
        assert len(list((tmp_path / "new").iterdir())) == 1
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (exits.OK, b"")
