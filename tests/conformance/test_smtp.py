"""Recorded dialogs of other servers, and the classic attacks, against the session.

Classes of replies are compared, not their texts. The peers take any address, so their dialogs are played with
``smtp-validate-address: loose``.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

import pytest

from mtaq.smtp.server_session import SessionOptions
from tests.conformance.vectors import cases, departs
from tests.support.dialog import DEFAULT_OPTIONS, SessionTransport

LOOSE = replace(DEFAULT_OPTIONS, strict_addresses=False)
#: Limits that the peer had in that test.
CASE_OPTIONS = {
    "SMTPDChannelWithDataSizeLimitTest.test_data_limit_dialog_too_much_data": {"max_size_bytes": 32},
    "SMTPDChannelTest.test_MAIL_size_parameter_larger_than_default_data_size_limit": {"max_size_bytes": 2048},
    "SMTPDChannelTest.test_MAIL_command_limit_extended_with_SIZE": {"max_line_bytes": 538},
    "TestSMTPWithController::test_too_long_body_then_too_long_lines": {"max_size_bytes": 2048},
    "TestLimits::test_limit_bogus": {"max_errors": 4},
}


def options(case: dict[str, Any]) -> SessionOptions:
    return replace(LOOSE, **CASE_OPTIONS.get(case["id"], {}))


class Player:
    """Sends, and tells the code of each reply; the last one again while there is no new one."""

    def __init__(self, session_options: SessionOptions) -> None:
        self.transport = SessionTransport(session_options)
        self.last = "none"

    async def send(self, data: bytes) -> None:
        await self.transport.send(data)

    async def code(self) -> str:
        """Return the next reply's code, or ``closed``, or ``none`` while the session waits for more."""
        try:
            lines = await self.transport.read_reply()
        except AssertionError:
            return "none"
        return lines[0][:3] if lines else "closed"

    async def last_code(self) -> str:
        """Return the code of the last of all replies."""
        while (code := await self.code()) not in ("none", "closed"):
            self.last = code
        return self.last


def same_class(got: str, wanted: str) -> bool:
    return got[0] == wanted[0]


def params(suite: str) -> Any:
    return pytest.mark.parametrize("case", cases(suite), ids=lambda case: str(case["id"]))


def settle(suite: str, case: dict[str, Any], differences: list[str]) -> None:
    """Fail unless the case is met, or is listed as not met and is not."""
    assert bool(differences) is departs(suite, case["id"]), differences or "listed as a departure, and met"


@params("smtp/aiosmtpd")
async def test_aiosmtpd(case: dict[str, Any]) -> None:
    """A dialog of aiosmtpd goes the same way here, but for listed departures."""
    player = Player(options(case))
    differences: list[str] = []
    before: dict[str, Any] = {}
    for step in case["steps"]:
        if "c" in step:
            await player.send(step["c"].encode())
        elif step != before:  # some replies were recorded twice
            wanted = "closed" if "closed" in step else str(step["code"])
            got = await player.code()
            if not same_class(got, wanted):
                differences.append(f"{got} for {wanted}")
        before = step
    settle("smtp/aiosmtpd", case, differences)


@params("smtp/cpython-smtpd")
async def test_cpython_smtpd(case: dict[str, Any]) -> None:
    """A dialog of CPython's smtpd goes the same way here, but for listed departures."""
    player = Player(options(case))
    differences = []
    for step in case["steps"]:
        await player.send(step["c"].encode("latin-1") + b"\r\n")
        got = await player.last_code()
        if not same_class(got, step["s"]):
            differences.append(f"{got} for {step['s']} after {step['c'][:40]}")
    settle("smtp/cpython-smtpd", case, differences)


@params("smtp/chasquid")
async def test_chasquid(case: dict[str, Any]) -> None:
    """A dialog of chasquid's integration tests goes the same way here, but for listed departures."""
    player = Player(LOOSE)
    differences = []
    for step in case["steps"]:
        kind, value = next(iter(step.items()))
        if kind == "connect":
            player = Player(replace(LOOSE, starttls=value == "plain"))
        elif kind == "send_line":
            await player.send(value.encode() + b"\r\n")
        elif kind == "send_expr":
            await player.send(ast.literal_eval(value).encode("latin-1"))
        elif kind != "close":
            wanted = "250" if kind == "read_until_line_with" else value
            got = await player.code()
            if not same_class(got, wanted):
                differences.append(f"{got} for {wanted}")
    settle("smtp/chasquid", case, differences)


@params("smtp/state")
@pytest.mark.parametrize("strict", [True, False])
async def test_state(case: dict[str, Any], strict: bool) -> None:
    """Order, parameters and limits are as the RFCs have them."""
    player = Player(replace(LOOSE, strict_addresses=strict))
    assert await player.code() == "220"
    differences = []
    for command, wanted in zip(case["commands"], case["expect"], strict=True):
        await player.send(command.encode() + b"\r\n")
        got = await player.code()
        if not re.search(rf"\b(?:{got}|{got[0]}xx)\b", wanted):
            differences.append(f"{got} for {wanted}")
    settle("smtp/state", case, differences)


@params("smtp/smuggling")
@pytest.mark.parametrize("block_bytes", [0, 1, 3])
async def test_smuggling(case: dict[str, Any], block_bytes: int) -> None:
    """A message with a false end inside is refused whole, and no second one exists."""
    transport = SessionTransport(LOOSE, block_bytes=block_bytes)
    await transport.send(b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@local.example>\r\nDATA\r\n")
    await transport.send(
        b"Subject: x\r\n\r\nbody" + bytes.fromhex(case["eod_hex"]) + b"MAIL FROM:<smuggled@evil.test>\r\n"
        b"RCPT TO:<victim@local.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nbody\r\n.\r\n"
    )
    codes = [(await transport.read_reply() or [""])[0][:10] for _ in range(6)]
    assert codes[-1] == "550 5.6.11"
    assert transport.messages == []
    assert not departs("smtp/smuggling", case["id"])


#: Replies in the clear, then inside TLS, to what each case writes and then ``RCPT``.
STARTTLS = {
    "starttls-then-noop": ["220", "250", "220", "503"],
    "starttls-then-mail": ["220", "250", "220", "503"],
    "state-forgotten": ["220", "250", "250", "220", "503", "503"],
    "ehlo-needed-after-tls": ["220", "250", "220", "503", "503"],
}


@params("smtp/starttls")
async def test_starttls(case: dict[str, Any]) -> None:
    """Nothing said before TLS, in its own packet or behind STARTTLS, is known inside."""
    player = Player(LOOSE)
    got = [await player.code()]
    for write in [*case["write"].split(" | "), "RCPT TO:<b@local.example>"]:
        line = write.removeprefix("(TLS) ").replace("\\r\\n", "\r\n").encode()
        await player.send(line if line.endswith(b"\r\n") else line + b"\r\n")
        got.append(await player.code())
        if b"STARTTLS" in line:
            assert await player.code() == "none"
            await player.transport.start_tls()
    assert got == STARTTLS[case["id"]]
    assert not departs("smtp/starttls", case["id"])
