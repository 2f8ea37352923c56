"""``mtaq check-message`` as the operator sees it, against a name server, and as the guide shows it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mtaq.cli import exits
from mtaq.cli.main import main
from mtaq.mailauth.authres import compose
from mtaq.mailauth.dmarc import check_dmarc
from mtaq.mailauth.spf import check_spf
from mtaq.model.address import Address
from tests.support.dns_server import DnsServer, Zones
from tests.support.zones import driven

GUIDE = (Path(__file__).parents[2] / "docs/guide/checks.md").read_text("utf-8")
ENVELOPE = ("--ip", "192.0.2.1", "--helo", "mail.example.net", "--from", "bounce@example.net")
ZONES: dict[str, Any] = {
    "example.net": {"TXT": ["v=spf1 ip4:192.0.2.0/24 -all"]},
    "mail.example.net": {"A": ["192.0.2.1"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mail.example.net"]},
    "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
}

Check = Callable[..., Awaitable[int]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the verb in a folder of its own, with a name server of its own."""
    for name in [name for name in os.environ if name.startswith("MTAQ_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    async def run(zones: Zones, *arguments: str) -> int:
        async with DnsServer(zones) as server:
            settings = (f"--dns-nameserver={server.host}:{server.port}", "--dns-timeout=3", "--user=")
            return await asyncio.to_thread(main, ["check-message", *arguments, *settings])

    return run


def blocks(heading: str) -> list[str]:
    """The blocks of the guide under a heading."""
    section = GUIDE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w*\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


async def test_the_example_of_the_guide(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """The guide's message and command give what the guide shows."""
    message, command, shown = blocks("What would they say?")
    Path("mail.eml").write_text(message)
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("mtaq", "check-message")
    assert await check(ZONES, *arguments) == exits.OK
    assert capsys.readouterr().out == shown


def test_the_field_of_the_guide() -> None:
    """The Authentication-Results that the guide shows is what is written for that message."""
    (shown,) = blocks("Authentication-Results")
    envelope = Address("bounce", "example.net")
    steps = check_spf(client_ip="192.0.2.1", helo="mail.example.net", envelope=envelope, receiver="mx.example.org")
    spf = driven(steps, ZONES)
    dmarc = driven(check_dmarc(b"From: ceo@bank.example\r\n\r\n", spf=(spf.domain, spf.word), dkim=[]), ZONES)
    field = compose("mx.example.org", [*spf.verdicts(), *dmarc.verdicts()])
    assert field.decode().replace("\r\n", "\n") == shown


async def test_json_and_the_refusal(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints checks[] and the reply that smtp-check-reject would have led to."""
    Path("mail.eml").write_bytes(b"From: ceo@bank.example\r\n\r\n")
    assert await check(ZONES, "mail.eml", *ENVELOPE, "--json", "--smtp-check-reject=dmarc", "--smtp-check=dmarc") == 0
    told = json.loads(capsys.readouterr().out)
    words = {name: word for item in told["checks"] for name, word in list(item.items())[:1]}
    assert words == {"spf": "pass", "dkim": "none", "dmarc": "fail", "arc": "none", "iprev": "pass"}
    assert told["reply"].startswith("550 5.7.1 ")


async def test_silence_is_told(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """What DNS does not answer is temperror, and nothing else fails for it."""
    Path("mail.eml").write_bytes(b"From: a@bank.example\n\n")
    assert await check(ZONES | {"_dmarc.bank.example": "SERVFAIL"}, "mail.eml", *ENVELOPE) == exits.OK
    assert "dmarc: temperror\n" in capsys.readouterr().out


async def test_null_reverse_path_and_standard_input(
    check: Check, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """<> is a bounce, whose sender is the HELO name; - is standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"From: a@mail.example.net\n\nhello\n")))
    zones = {
        "mail.example.net": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
        "_dmarc.example.net": {"TXT": ["v=DMARC1; p=none"]},
    }
    assert await check(zones, "-", "--ip", "192.0.2.1", "--helo", "mail.example.net", "--from", "<>") == exits.OK
    output = capsys.readouterr().out
    assert "spf: pass\n" in output
    assert "dmarc: pass\n  header.from: mail.example.net\n" in output


async def test_terminals_are_not_steered(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """What strangers wrote is printed without control characters."""
    Path("mail.eml").write_bytes(b"From: a@bank.example\nDKIM-Signature: v=1; d=\x1b[2J; s=\xe2\x80\xae\n\n")
    assert await check(ZONES, "mail.eml", *ENVELOPE, "--helo", "\x1b[2J\u202e") == exits.OK
    assert all(character.isprintable() or character == "\n" for character in capsys.readouterr().out)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (None, exits.NO_INPUT),
        (b"", exits.DATA),
        (b"\r\nbody", exits.DATA),
        (b"hello\nworld\n", exits.DATA),
        (b"From: a@b.test\n" + b"x" * 2048, exits.DATA),
    ],
)
async def test_what_is_no_message(
    check: Check, content: bytes | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is not there, holds no message or one that is too large is told apart from any verdict."""
    if content is not None:
        Path("mail.eml").write_bytes(content)
    assert await check({}, "mail.eml", *ENVELOPE, "--smtp-maxsize=1KB") == status
    told = capsys.readouterr()
    assert not told.out
    assert "mail.eml" in told.err


@pytest.mark.parametrize(
    "arguments",
    [("mail.eml",), ("mail.eml", "--ip", "nonsense", *ENVELOPE[2:]), ("mail.eml", *ENVELOPE, "--from", "a b"),
     ("mail.eml", *ENVELOPE, "--port", "x")],
)  # fmt: skip
async def test_usage(check: Check, arguments: tuple[str, ...]) -> None:
    """Wrong arguments are 64."""
    assert await check({}, *arguments) == exits.USAGE
