"""Scripts of `mtaq sink` over real sockets: each word of docs/guide/sink.md as a client meets it."""

from __future__ import annotations

import base64
import os
import re
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from mtaq.cli import exits
from mtaq.cli.main import main
from mtaq.cli.sink_extensions import EXTENSIONS
from mtaq.cli.sink_faults import GARBAGE, STAGES
from mtaq.cli.sink_profile import CERTIFICATES, SETTINGS
from mtaq.cli.sink_script import CONDITIONS, MODIFIERS
from mtaq.cli.sink_texts import TEXTS
from tests.support.instance import ROOT, free_port, wait_until
from tests.support.running_sink import RunningSink
from tests.support.wire import Wire

CONTENT = b"Subject: test\r\n\r\n.dot\r\nbody\r\n"

Start = Callable[..., RunningSink]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start sinks with scripts."""
    started: list[RunningSink] = []

    def start_one(script: str, **more: object) -> RunningSink:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(RunningSink(folder, script=script, log_all=True, **more))  # type: ignore[arg-type]
        return started[-1]

    yield start_one
    for sink in started:
        sink.stop()


def greeted(sink: RunningSink) -> Wire:
    wire = Wire(sink.port)
    assert wire.say("EHLO client.test").startswith("250")
    return wire


def send(wire: Wire, to: str = "c@d.test", sender: str = "a@b.test", mail: str = "") -> str:
    """Send a message; return the first reply that is not positive, or the last."""
    for line in (f"MAIL FROM:<{sender}>{mail}", f"RCPT TO:<{to}>"):
        answer = wire.say(line)
        if answer[:1] not in "23" or not answer:
            wire.say("RSET")
            return answer
    return wire.data(CONTENT)


def connection_ends(wire: Wire) -> bool:
    try:
        return wire.reply() == ""
    except ConnectionResetError:
        return True


def test_a_session_is_logged_from_its_opening_to_its_end(start: Start) -> None:
    """With all logged, each connection has an id, each line its place and microseconds, each refusal its reply."""
    sink = start("rcpt to=bad@*: 550 5.1.1 no such user\n")
    with greeted(sink) as wire:
        assert send(wire, "bad@d.test").startswith("550")
        assert send(wire).startswith("250")
        wire.say("QUIT")
        assert connection_ends(wire)
    opened, refused, message, closed = sink.lines()
    assert [line["event"] for line in (opened, refused, message, closed)] == ["opened", "refused", "message", "closed"]
    assert len({line["connection"] for line in (opened, refused, message, closed)}) == 1
    assert opened["remote-port"] == closed["remote-port"]
    assert opened["helo"] == ""
    assert datetime.fromisoformat(message["time"]).tzinfo is not None
    assert re.search(r"\.\d{6}\+00:00$", message["time"])
    assert (refused["stage"], refused["reply"], refused["message"]) == ("rcpt", "550 5.1.1 no such user", 1)
    assert (refused["reverse-path"], refused["forward-paths"]) == ("a@b.test", ["bad@d.test"])
    assert (message["message"], message["helo"]) == (2, "client.test")
    assert (closed["how"], closed["messages"]) == ("quit", 2)


def test_parameters_are_logged(start: Start) -> None:
    """SIZE, BODY, SMTPUTF8, RET, ENVID, NOTIFY, ORCPT; REQUIRETLS and AUTH= where they are offered."""
    sink = start("certificate: self-signed\nlogin: ada:secret\n")
    with greeted(sink) as wire:
        wire.start_tls()
        announced = wire.say("EHLO client.test")
        assert {"REQUIRETLS", "DSN", "AUTH PLAIN LOGIN"} <= {line[4:] for line in announced.split("\n")}
        assert wire.say("AUTH PLAIN " + base64.b64encode(b"\0ada\0wrong").decode()).startswith("535")
        assert wire.say("AUTH LOGIN").startswith("334")
        assert wire.say(base64.b64encode(b"ada").decode()).startswith("334")
        assert wire.say(base64.b64encode(b"secret").decode()).startswith("235")
        wire.say("MAIL FROM:<a@b.test> SIZE=99 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2By REQUIRETLS AUTH=a@b.test")
        wire.say("RCPT TO:<c@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o@d.test")
        wire.say("RCPT TO:<e@d.test>")
        assert wire.data(CONTENT).startswith("250")
    [note] = sink.notes()
    assert (note["declared-size"], note["body"], note["smtputf8"], note["requiretls"]) == (99, "8bitmime", True, True)
    assert (note["auth"], note["user"], note["tls"]["version"]) == ("a@b.test", "ada", "TLSv1.3")
    assert note["dsn"] == {
        "ret": "HDRS",
        "envid": "x+y",
        "recipients": {"c@d.test": {"notify": ["SUCCESS", "DELAY"], "orcpt": "rfc822;o@d.test"}},
    }
    [refused] = sink.lines("refused")
    assert refused["stage"] == "auth"
    assert "secret" not in sink.log.read_text()


def test_replies_of_many_lines_and_texts_of_receivers(start: Start) -> None:
    """Lines are separated by a bar; a receiver's text names the client and the recipient."""
    sink = start("mail message=1: 550 5.7.1 one | two\nrcpt to=icloud.com: apple:unknown\nmail message=3: outlook:rate")
    with greeted(sink) as wire:
        assert wire.say("MAIL FROM:<a@b.test>") == "550-5.7.1 one\n550 5.7.1 two"
        assert send(wire, "x@icloud.com") == "550 5.1.1 <x@icloud.com>: user does not exist"
        assert "[127.0.0.1]" in wire.say("MAIL FROM:<a@b.test>")


@pytest.mark.parametrize("answer", ["drop", "reset"])
@pytest.mark.parametrize(
    "stage", ["connect", "ehlo", "starttls", "mail", "rcpt", "data", "message", "rset", "noop", "quit"]
)
def test_a_connection_ends_at_each_stage(start: Start, stage: str, answer: str) -> None:
    """Without an answer, and nothing is kept."""
    sink = start(f"{stage}: {answer}\n")
    lines = ["EHLO c.test", "STARTTLS"] if stage == "starttls" else [
        "EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA", "x\r\n.", "NOOP", "RSET", "QUIT",
    ]  # fmt: skip
    replies = []
    try:
        with socket.create_connection(("127.0.0.1", sink.port), 30) as sock, sock.makefile("rb") as reader:
            for line in ["", *lines]:
                sock.sendall(line.encode() + b"\r\n" if line else b"")
                while (reply := reader.readline())[3:4] == b"-":
                    pass
                replies.append(reply)
                if not reply:
                    break
    except ConnectionError:
        replies.append(b"")
    wait_until(lambda: sink.lines("closed"), "the end to be logged")
    assert replies[-1] == b""
    [fault] = sink.lines("fault")
    assert (fault["stage"], fault["fault"]) == (stage, answer)
    assert len(sink.contents()) == (stage in ("rset", "noop", "quit"))
    wait_until(lambda: sink.open == 0, "the connection to be gone")


def test_a_reply_and_then_the_end(start: Start) -> None:
    """``close`` ends the connection behind the answer, right or wrong."""
    sink = start("mail: close, ok\n")
    with greeted(sink) as wire:
        assert wire.say("MAIL FROM:<a@b.test>").startswith("250")
        assert connection_ends(wire)


def test_a_message_that_is_kept_and_not_answered(start: Start) -> None:
    """``keep`` takes the message, whatever is said about it: what a lost answer to the final dot looks like."""
    sink = start("message message=1: keep, 451 4.3.0 so it seems\nmessage message=2: keep, ok\nmessage: keep, drop\n")
    with greeted(sink) as wire:
        assert send(wire) == "451 4.3.0 so it seems"
        assert send(wire).startswith("250")
        for line in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"):
            wire.say(line)
        wire.send(b"x\r\n.\r\n")
        assert connection_ends(wire)
    assert sink.contents() == [CONTENT, CONTENT, b"x\r\n"]


def test_the_middle_of_content(start: Start) -> None:
    """``after`` counts octets of content, by DATA and over chunks of BDAT."""
    sink = start("content message=1: after 1000, 552 5.3.4 enough\ncontent: after 1000, drop\n")
    with greeted(sink) as wire:
        for line in ("MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"):
            wire.say(line)
        wire.send(b"x" * 900)
        wire.send(b"x" * 200)
        assert wire.reply() == "552 5.3.4 enough"
    with greeted(sink) as wire:
        wire.say("MAIL FROM:<a@b.test>")
        wire.say("RSET")
        wire.say("MAIL FROM:<a@b.test>")
        wire.say("RCPT TO:<c@d.test>")
        wire.send(b"BDAT 600\r\n" + b"x" * 600)
        assert wire.reply().startswith("250")
        wire.send(b"BDAT 600 LAST\r\n" + b"x" * 500)
        assert connection_ends(wire)
    assert sink.contents() == []


def test_short_content_is_not_met_by_the_fault_of_long_content(start: Start) -> None:
    """Commands pipelined behind the final dot are commands."""
    sink = start("content: after 1000, drop\ncontent: read 100000\n")
    with greeted(sink) as wire:
        wire.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nx\r\n.\r\nNOOP\r\nMAIL FROM:<a@b.test>\r\n")
        assert [wire.reply()[:3] for _ in range(6)] == ["250", "250", "354", "250", "250", "250"]
    assert sink.contents() == [b"x\r\n"]


def test_slow_answers_and_slow_reading(start: Start) -> None:
    """Octet by octet, later, and content at so many octets a second: everything arrives all the same."""
    sink = start("ehlo: pace 0.001, ok\nmail: wait 0.01, pace 0.001, 250 slow\ncontent: read 1000000\n")
    with greeted(sink) as wire:
        wire.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n")
        assert [wire.reply(), wire.reply()[:3]] == ["250 slow", "250"]
        assert wire.data(b"x" * 900 + b"\r\n").startswith("250")
    assert len(sink.contents()) == 1


@pytest.mark.parametrize(
    ("act", "begins"),
    [
        ("noise", bytes(range(256))),
        ("nul", b"\0" * 1000 + b"\r\n"),
        ("lines", b"220-one of many\r\n" * 9_999),
        ("endless", b"220-and so on "),
        ("line", b"220 and so on "),
        ("plaintext", b"220 2.0.0 this is in clear\r\n"),
    ],
)
def test_garbage(start: Start, act: str, begins: bytes) -> None:
    """What is no SMTP is said in place of the greeting, nothing follows it, and the connection can be closed."""
    sink = start(f"connect: {act}\n")
    with socket.create_connection(("127.0.0.1", sink.port), 30) as sock, sock.makefile("rb") as reader:
        assert reader.read(len(begins)) == begins
    wait_until(lambda: sink.open == 0, "the sink to notice")


def test_silence_ends_with_the_client(start: Start) -> None:
    """A stalled session says nothing, and is gone when the client is."""
    sink = start("ehlo: stall\n")
    with Wire(sink.port) as wire:
        wire.send(b"EHLO x\r\n")
        wait_until(lambda: sink.lines("fault"), "the stall")
        assert sink.open == 1
    wait_until(lambda: sink.open == 0, "the sink to notice")
    assert sink.lines("closed")[0]["how"] == "stall"


def test_replies_that_nobody_asked_for(start: Start) -> None:
    """Behind the right answer, and between transactions; 421 then ends the connection."""
    sink = start("noop: unasked\nidle message=1: 250 2.0.0 still here\nidle message=2: wait 0.01, 421 4.4.2 bye\n")
    with greeted(sink) as wire:
        assert wire.say("NOOP").startswith("250")
        assert [wire.reply(), wire.reply()] == ["250 2.0.0 nobody asked for this", "250 2.0.0 nor for this"]
        assert send(wire).startswith("250")
        assert wire.reply() == "250 2.0.0 still here"
        assert send(wire).startswith("250")
        assert wire.reply() == "421 4.4.2 bye"
        assert connection_ends(wire)


def test_421_ends_the_connection_at_every_command(start: Start) -> None:
    """RFC 5321 §3.8."""
    for stage, lines in {"ehlo": ["EHLO x"], "noop": ["NOOP"], "rset": ["RSET"], "auth": ["AUTH PLAIN"]}.items():
        with Wire(start(f"{stage}: 421 4.3.2 going\n").port) as wire:
            assert wire.say(lines[0]) == "421 4.3.2 going"
            assert connection_ends(wire)


def test_extensions_are_switched_off(start: Start) -> None:
    """Neither announced nor known; without PIPELINING clients have to wait, without EHLO there is HELO."""
    sink = start("without: PIPELINING, CHUNKING, DSN\nsize: 1000\n")
    with greeted(sink) as wire:
        announced = wire.say("EHLO x")
        assert "SIZE 1000" in announced
        assert not {"PIPELINING", "CHUNKING", "DSN", "BINARYMIME"} & set(announced.split())
        assert wire.say("MAIL FROM:<a@b.test> RET=HDRS").startswith("555")
        assert wire.say("MAIL FROM:<a@b.test> SIZE=1001").startswith("552")
        assert wire.say("BDAT 0 LAST").startswith("500")
        wire.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n")
        assert wire.reply().startswith("503 5.5.0 PIPELINING")
        assert wire.say("NOOP").startswith("250")
        assert send(wire).startswith("250")
    with Wire(start("without: EHLO\n").port) as wire:
        assert wire.say("EHLO x").startswith("500")
        assert wire.say("HELO x") == "250 sink.test"
        assert send(wire).startswith("250")


def test_limits_of_the_sink_itself(start: Start) -> None:
    """Connections of a client, messages on a connection and in a minute; the log proves each refusal."""
    sink = start("connections: 1\nmessages: 2\nrate: 3\n")
    with greeted(sink) as wire:
        assert Wire(sink.port).greeting.startswith("421")
        assert [send(wire)[:3] for _ in range(2)] == ["250", "250"]
        assert wire.say("MAIL FROM:<a@b.test>").startswith("421")
        assert connection_ends(wire)
    wait_until(lambda: sink.open == 0, "the connection to be gone")
    with greeted(sink) as wire:
        assert [send(wire)[:3] for _ in range(2)] == ["250", "451"]
    assert Counter(line["stage"] for line in sink.lines("refused")) == {"connect": 1, "mail": 2}


# TLS


def handshake(sink: RunningSink, folder: Path, *, maximum: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    """Say STARTTLS and shake hands as a client that trusts the sink's authority."""
    sink.authority.write(folder / "ca.pem")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if maximum is not None:
        context.maximum_version = maximum
    sock = socket.create_connection(("127.0.0.1", sink.port), 30)
    reader = sock.makefile("rb")
    reader.readline()
    sock.sendall(b"EHLO c.test\r\n")
    while reader.readline()[3:4] == b"-":
        pass
    sock.sendall(b"STARTTLS\r\n")
    assert reader.readline().startswith(b"220")
    return context.wrap_socket(sock, server_hostname="sink.test")


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("good", ""),
        ("wrong-name", "Hostname mismatch"),
        ("expired", "certificate has expired"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_certificates(start: Start, tmp_path: Path, kind: str, complaint: str) -> None:
    """Each is as bad as its name says, and the good one satisfies a client that trusts the authority."""
    sink = start(f"certificate: {kind}\n")
    if not complaint:
        with handshake(sink, tmp_path) as secure:
            assert secure.version() == "TLSv1.3"
        return
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        handshake(sink, tmp_path)


def test_versions_of_tls(start: Start, tmp_path: Path) -> None:
    """A floor and a ceiling."""
    with handshake(start("certificate: good\ntls-max: 1.2\n"), tmp_path) as secure:
        assert secure.version() == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(start("certificate: good\ntls-min: 1.3\n"), tmp_path, maximum=ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("answer", ["drop", "reset", "plaintext", "noise", "454 4.7.0 no"])
def test_handshakes_that_break(start: Start, tmp_path: Path, answer: str) -> None:
    """A rule about the handshake offers STARTTLS by itself."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(start(f"handshake: {answer}\n"), tmp_path)


def test_starttls_refused(start: Start) -> None:
    """The session goes on in clear."""
    with greeted(start("starttls: 454 4.7.0 TLS not available\n")) as wire:
        assert wire.say("STARTTLS") == "454 4.7.0 TLS not available"
        assert send(wire).startswith("250")


@pytest.mark.parametrize("script", ["", "mail 0%: drop\n"])
def test_commands_under_tls(start: Start, tmp_path: Path, script: str) -> None:
    """Commands and large content go through TLS of both kinds of connections."""
    sink = start("certificate: good\n" + script)
    with handshake(sink, tmp_path) as secure, secure.makefile("rb") as reader:
        secure.sendall(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
        secure.sendall(b"x" * 900 + b"\r\n" + (b"y" * 900 + b"\r\n") * 800 + b".\r\nQUIT\r\n")
        codes = [line[:3] for line in reader if line[3:4] == b" "]
    assert codes == [b"250", b"250", b"250", b"354", b"250", b"221"]
    assert sink.notes()[0]["size"] == 902 * 801


@pytest.mark.parametrize("script", ["certificate: good\n", "mail 0%: drop\n", "handshake: drop\n"])
@pytest.mark.parametrize("log_all", [False, True])
def test_implicit_tls(tmp_path: Path, script: str, log_all: bool) -> None:
    """TLS from the first byte; a fault of the handshake comes before anything else."""
    sink = RunningSink(tmp_path, script=script, implicit_tls=True, log_all=log_all)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", sink.port), 30) as plain:
            if "handshake" in script:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    context.wrap_socket(plain)
                return
            with context.wrap_socket(plain) as secure, secure.makefile("rb") as reader:
                assert reader.readline().startswith(b"220")
                secure.sendall(b"EHLO c.test\r\nQUIT\r\n")
                assert b"STARTTLS" not in reader.read()
    finally:
        sink.stop()


# The program


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--rule", "lunch: drop"], exits.USAGE, "--rule 'lunch: drop': 'lunch' is neither a stage"),
        (["--texts", "gmail:lunch"], exits.USAGE, "'gmail:lunch' is not one of gmail:rate"),
        (["--script", "/nonexistent"], exits.CONFIG, "/nonexistent: No such file"),
        (["--script", "{script}"], exits.CONFIG, "trial.sink:2: 'supper' is neither a stage"),
        (["--log-all"], exits.USAGE, "--log-all needs --log"),
        (["--listen", "127.0.0.9-2:0"], exits.USAGE, "127.0.0.2-9:PORT"),
        (["--rule", "certificate: /nonexistent.pem"], exits.CONFIG, "/nonexistent.pem"),
        (["--ca", "/nonexistent/ca.pem"], exits.CANNOT_CREATE, "/nonexistent/ca.pem"),
    ],
)
def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    """What is wrong on the command line is 64, what is wrong in a file is 78, and every line of it is named."""
    script = tmp_path / "trial.sink"
    script.write_text("mail: drop\nsupper: drop\nrcpt: maybe\n")
    assert main(["sink", "--listen", "127.0.0.1:0", *(each.format(script=script) for each in arguments)]) == status
    errors = capsys.readouterr().err
    assert words in errors
    assert ("trial.sink:3:" in errors) is (words.startswith("trial"))


GUIDE = ROOT / "docs" / "guide" / "sink.md"


def test_guide_examples(tmp_path: Path) -> None:
    """Every command of the guide runs as it stands, and prints what the guide says."""
    port = str(free_port())
    text = GUIDE.read_text().replace("2526", port)
    (tmp_path / "trial.sink").write_text(re.findall(r"```text\n(# trial\.sink\n.*?)```", text, re.DOTALL)[0])
    blocks = re.findall(r"```sh\n(.*?)```(?:\n+```text\n(.*?)```)?", text, re.DOTALL)
    assert len(blocks) > 5
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "BASH_ENV": ""}
    running: subprocess.Popen[bytes] | None = None
    for command, output in [*blocks, ("", "")]:
        if not command or command.startswith("mtaq sink"):
            if running is not None:
                running.terminate()
                assert running.wait(60) == exits.OK
            if command:
                running = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=tmp_path, env=environment)
                wait_until(lambda: listens(int(port)), command)
            continue
        ran = subprocess.run(
            ["bash", "-c", f"exec 2>&1\n{command}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert ran.stdout == output, command


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.2", port), 1).close()
    except OSError:
        return False
    return True


def test_every_word_is_in_the_guide() -> None:
    """Nothing that a script can say is missing in its page."""
    text = GUIDE.read_text()
    words = {*STAGES, *GARBAGE, *SETTINGS, *CERTIFICATES, *MODIFIERS, *(f"{name}=" for name in CONDITIONS)}
    assert [word for word in words if f"`{word}" not in text] == []
    assert [name for name in TEXTS if f"`{name}`" not in text] == []
    assert [name for name in EXTENSIONS if name not in text] == []
