"""What is written above a message, for whom, in which order."""

from __future__ import annotations

import pytest

from mtaq.receive.checks import Checks
from mtaq.receive.trace import TraceFields
from tests.unit.receive.checking import CONTENT, ORIGIN, Dns
from tests.unit.receive.fakes import event_log, facts, policy
from tests.unit.receive.test_steps import draft


def names(fields: bytes) -> list[str]:
    """Return the names of the fields."""
    return [line.split(b":")[0].decode() for line in fields.splitlines() if not line.startswith((b" ", b"\t"))]


async def trace(**options: str) -> TraceFields:
    """Return the fields of a message that was checked."""
    session = facts(policy(smtp_hostname="relay.test", smtp_check="spf,dmarc", **options))
    made = draft(CONTENT)
    wanted = session.policy.options.smtp_check
    made.report = await Checks(Dns(), events=event_log()[0]).run(CONTENT, ORIGIN, wanted)
    return TraceFields(made, session)


@pytest.mark.parametrize(
    ("wanted", "local", "others"),
    [
        ("", ["Return-Path", "Received"], ["Received"]),
        ("local", ["Return-Path", "Authentication-Results", "Received"], ["Received"]),
        ("nonlocal", ["Return-Path", "Received"], ["Authentication-Results", "Received"]),
        (
            "local,nonlocal",
            ["Return-Path", "Authentication-Results", "Received"],
            ["Authentication-Results", "Received"],
        ),
    ],
)
async def test_for_whom(wanted: str, local: list[str], others: list[str]) -> None:
    """Results stand above our Received, for the recipients that the option names; Return-Path is the first."""
    fields = await trace(smtp_auth_results=wanted)
    assert names(fields.above(is_local=True)) == local
    assert names(fields.above(is_local=False)) == others


async def test_received_spf() -> None:
    """The same recipients get Received-SPF, where it is wanted."""
    fields = await trace(smtp_auth_results="local", smtp_received_spf="true")
    assert names(fields.above(is_local=True)) == [
        "Return-Path",
        "Authentication-Results",
        "Received-SPF",
        "Received",
    ]
    assert names(fields.above(is_local=False)) == ["Received"]
    assert b"Received-SPF: pass" in fields.above(is_local=True)


async def test_what_it_says() -> None:
    """Under the name of the session, or that of the option."""
    field = (await trace(smtp_auth_results="nonlocal")).above(is_local=False).split(b"Received:")[0]
    assert field.startswith(b"Authentication-Results: relay.test;\r\n spf=pass")
    assert b"dmarc=pass header.from=example.org" in field.replace(b"\r\n", b"")
    named = (await trace(smtp_auth_results="nonlocal", smtp_authserv_id="example.net")).above(is_local=False)
    assert named.startswith(b"Authentication-Results: example.net;")


def test_what_was_not_checked() -> None:
    """Nothing is said of it."""
    fields = TraceFields(draft(CONTENT), facts(policy(smtp_auth_results="local,nonlocal")))
    assert names(fields.above(is_local=False)) == ["Received"]


@pytest.mark.parametrize("blank", [b" ", b"\t"])
def test_nobody_goes_on_with_our_fields(blank: bytes) -> None:
    """Content that begins in the middle of a field is no part of ours: the header section ends before it."""
    made = draft(blank + b"by mx.trusted.test with ESMTPA; today\r\n" + CONTENT)
    above = TraceFields(made, facts(policy())).above(is_local=False)
    assert above.endswith(b"\r\n\r\n")
    assert names(above) == ["Received", ""]
    assert not TraceFields(draft(CONTENT), facts(policy())).above(is_local=False).endswith(b"\r\n\r\n")
