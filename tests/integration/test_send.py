"""`mtaq send` over real sockets, to the sink; and the examples of the guide, run as they stand."""

from __future__ import annotations

import getpass
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from mtaq.cli import exits
from mtaq.cli.main import main
from mtaq.cli.send import NO_USER
from mtaq.cli.sink_faults import parse_faults
from tests.support.instance import ROOT, free_port, wait_until
from tests.support.running_sink import RunningSink
from tests.support.wire import Wire

MESSAGE = (
    b"Date: d\nFrom: f@x.test\nMessage-ID: m\nTo: to@x.test\nBcc: Secret <bcc@x.test>\nSubject: test\n\n.dot\n.\nrest\n"
)

Start = Callable[..., RunningSink]
Send = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start sinks, with replies as on the command line."""
    started: list[RunningSink] = []

    def start_one(*replies: str, percent: float = 100, certificate: Path | None = None) -> RunningSink:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(RunningSink(folder, parse_faults(replies, [], []), certificate, percent=percent))
        return started[-1]

    yield start_one
    for sink in started:
        sink.stop()


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Send:
    """Run `mtaq send` with a message on its standard input."""

    def run(*arguments: str, message: bytes = MESSAGE) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(message)))
        return main(["send", *arguments])

    return run


def at(sink: RunningSink) -> list[str]:
    return ["--server", f"127.0.0.1:{sink.port}"]


def test_message_arrives(start: Start, send: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole message arrives byte for byte with CRLF, ended by a lone dot; the server's words are printed."""
    sink = start("message=250 2.6.0 relay.abc.1 for <a@x.test>")
    assert send(*at(sink), "-f", "f@x.test", "a@x.test", "B <b@x.test>", "a@x.test") == exits.OK
    assert sink.contents() == [MESSAGE.partition(b"\n.\n")[0].replace(b"\n", b"\r\n") + b"\r\n"]
    [note] = sink.notes()
    assert (note["reverse-path"], note["forward-paths"]) == ("f@x.test", ["a@x.test", "b@x.test"])
    assert capsys.readouterr().out == "2.6.0 relay.abc.1 for <a@x.test>\n"


def test_lone_dot_is_text_with_i(start: Start, send: Send) -> None:
    """With -i, or -oi, a lone dot is text like any other."""
    sink = start()
    assert send(*at(sink), "-i", "a@x.test") == exits.OK
    assert send(*at(sink), "-oi", "a@x.test") == exits.OK
    assert sink.contents() == [MESSAGE.replace(b"\n", b"\r\n")] * 2


def test_recipients_from_fields(start: Start, send: Send) -> None:
    """With -t the recipients stand in the message, beside those named; Bcc is not sent."""
    sink = start()
    assert send(*at(sink), "-t", "a@x.test") == exits.OK
    assert sink.notes()[0]["forward-paths"] == ["a@x.test", "to@x.test", "bcc@x.test"]
    assert b"bcc" not in sink.contents()[0].lower()
    assert send(*at(sink), "-t", message=b"Subject: nobody\n\n") == exits.DATA


def test_missing_fields(start: Start, send: Send) -> None:
    """A text without header section becomes a message, from the user of this host."""
    sink = start()
    assert send(*at(sink), "a@x.test", message=b"just text\n") == exits.OK
    [content] = sink.contents()
    assert content.endswith(b"\r\n\r\njust text\r\n")
    assert sink.notes()[0]["reverse-path"].startswith(f"{getpass.getuser()}@")
    assert f"From: {getpass.getuser()}@".encode() in content


@pytest.mark.parametrize("text", ["", "<>"])
def test_null_reverse_path(start: Start, send: Send, text: str) -> None:
    """-f with nothing, or with <>, is the null reverse-path."""
    sink = start()
    assert send(*at(sink), "-f", text, "a@x.test") == exits.OK
    assert sink.notes()[0]["reverse-path"] == ""


def test_addresses_are_not_changed(start: Start, send: Send) -> None:
    """Unusual addresses reach the server as they were written, UTF-8 with SMTPUTF8, 8-bit content with its BODY."""
    sink = start()
    unusual = ['"a b"@x.test', "a,b@x.test", "jörg@bücher.test"]
    assert send(*at(sink), *unusual, message="Subject: grün\n\n".encode()) == exits.OK
    [note] = sink.notes()
    assert note["forward-paths"] == unusual
    assert note["smtputf8"]
    assert note["body"] == "8bitmime"


def test_starttls_is_used(start: Start, send: Send, tmp_path: Path) -> None:
    """Where the server offers STARTTLS it is used, whatever its certificate."""
    certificate = tmp_path / "sink.pem"
    trustme.CA().issue_cert("sink.test").private_key_and_cert_chain_pem.write_to_path(certificate)
    sink = start(certificate=certificate)
    assert send(*at(sink), "a@x.test") == exits.OK
    assert sink.notes()[0]["tls"]["version"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("connect=554 5.7.1 no", exits.UNAVAILABLE),
        ("connect=421 4.3.2 later", exits.TEMPORARY),
        ("mail=550 5.7.1 no", exits.UNAVAILABLE),
        ("mail=451 4.3.0 later", exits.TEMPORARY),
        ("rcpt=550 5.1.1 unknown", NO_USER),
        ("rcpt=450 4.2.0 later", exits.TEMPORARY),
        ("data=554 5.3.0 no", exits.UNAVAILABLE),
        ("message=552 5.3.4 too big", exits.UNAVAILABLE),
        ("message=451 4.3.0 later", exits.TEMPORARY),
    ],
)
def test_refusals(start: Start, send: Send, capsys: pytest.CaptureFixture[str], reply: str, status: int) -> None:
    """A refusal is said with the server's words and told apart: for good, or to be tried again."""
    sink = start(reply)
    assert send(*at(sink), "a@x.test", "b@x.test") == status
    assert reply.partition("=")[2] in capsys.readouterr().err
    assert sink.contents() == []


def test_ehlo_refused(start: Start, send: Send) -> None:
    """A server that knows neither EHLO nor HELO is a failure for good."""
    assert send(*at(start("ehlo=502 5.5.1 no")), "a@x.test") == exits.UNAVAILABLE


def test_some_recipients_refused(start: Start, send: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """The others get the message; the refused ones are named, and the status tells."""
    sink = start("rcpt=550 5.1.1 unknown", percent=50)
    assert send(*at(sink), "a@x.test", "b@x.test") == NO_USER
    assert sink.notes()[0]["forward-paths"] == ["a@x.test"]
    errors = capsys.readouterr().err
    assert "b@x.test: 550 5.1.1 unknown" in errors
    assert "sent to the other recipients" in errors


def test_nobody_listens(send: Send, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a server the message may be tried again."""
    port = free_port()
    assert send("--server", f"127.0.0.1:{port}", "a@x.test") == exits.TEMPORARY
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_server_of_the_configuration(start: Start, send: Send, tmp_path: Path) -> None:
    """Without --server it is the first plain port of the configuration, on this host."""
    sink = start()
    path = tmp_path / "mtaq.conf"
    path.write_text(f"smtp-port: {sink.port}\n")
    assert send("--config", str(path), "a@x.test") == exits.OK
    assert len(sink.contents()) == 1
    path.write_text("smtp-prot: 25\n")
    assert send("--config", str(path), "a@x.test") == exits.CONFIG


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], exits.USAGE),
        (["--server", "host:port", "a@x.test"], exits.USAGE),
        (["--server", ":25", "a@x.test"], exits.USAGE),
        (["--server", "127.0.0.1:1", "a@"], exits.DATA),
        (["--server", "127.0.0.1:1", "a@b.test\r\nDATA"], exits.DATA),
        (["--server", "127.0.0.1:1", "-f", "a@", "c@d.test"], exits.DATA),
        (["-x", "a@x.test"], exits.USAGE),
    ],
)
def test_mistakes(send: Send, arguments: list[str], status: int) -> None:
    """Wrong usage and bad addresses are refused before anything is sent."""
    assert send(*arguments) == status


GUIDE = ROOT / "docs" / "guide" / "sending.md"


def test_guide_examples(tmp_path: Path) -> None:
    """Every command of the guide runs as it stands, and prints what the guide says."""
    port = str(free_port())
    blocks = re.findall(r"```sh\n(.*?)```(?:\n+```text\n(.*?)```)?", GUIDE.read_text().replace("2526", port), re.DOTALL)
    assert len(blocks) > 3
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "BASH_ENV": ""}
    (sink_command, _), *examples = blocks
    sink = subprocess.Popen(
        ["bash", "-c", f"exec {sink_command}"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    try:
        wait_until(lambda: _listens(int(port)), "the sink of the guide")
        for command, output in examples:
            ran = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            assert ran.stdout == output, command
    finally:
        sink.terminate()
        sink.communicate(timeout=60)
    assert sink.returncode == exits.OK


def _listens(port: int) -> bool:
    try:
        Wire(port).close()
    except OSError:
        return False
    return True
