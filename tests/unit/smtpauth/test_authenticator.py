"""Order, bounds and memory of the forms of one ``smtp-auth``."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.smtp.scram import derive_keys
from mtaq.smtpauth import Authenticator, Verdict
from mtaq.smtpauth.authenticator import REMEMBER_S, may_be_asked
from mtaq.smtpauth.hardcoded import Hardcoded
from tests.unit.smtpauth.fakes import Scripted

ACCEPTED, REFUSED, UNAVAILABLE = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.UNAVAILABLE
IP = "192.0.2.1"


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def built(*backends, clock=None, timeout_s=10.0):
    """An authenticator of *backends*, and what it tells of those that cannot be asked."""
    told: list[tuple[str, str]] = []
    authenticator = Authenticator(
        backends, clock=clock or Clock(), on_unavailable=lambda *what: told.append(what), timeout_s=timeout_s
    )
    return authenticator, told


@pytest.mark.parametrize(
    ("says", "verdict", "asked"),
    [
        ([ACCEPTED, REFUSED], ACCEPTED, 1),
        ([REFUSED, ACCEPTED], ACCEPTED, 2),
        ([OSError("down"), ACCEPTED], ACCEPTED, 2),
        ([REFUSED, REFUSED], REFUSED, 2),
        ([OSError("down"), REFUSED], UNAVAILABLE, 2),
        ([REFUSED, OSError("down")], UNAVAILABLE, 2),
        ([UNAVAILABLE, REFUSED], UNAVAILABLE, 2),
        ([], REFUSED, 0),
    ],
)
async def test_order(says, verdict, asked):
    """The first that accepts decides; when none does and one could not be asked, nobody knows."""
    backends = [Scripted(word) for word in says]
    authenticator, _ = built(*backends)
    assert await authenticator.check("ada", "secret", client_ip=IP) is verdict
    assert sum(len(backend.asked) for backend in backends) == asked


async def test_the_reason_is_told():
    """What could not be asked is told with its reason; of a bug only its kind, for its words may be the password."""
    authenticator, told = built(Scripted(OSError("down")), Scripted(RuntimeError("secret")), Scripted(TimeoutError()))
    assert await authenticator.check("ada", "secret", client_ip=IP) is UNAVAILABLE
    assert told == [
        ("scripted://", "down"),
        ("scripted://", "a bug: RuntimeError"),
        ("scripted://", "no answer in time"),
    ]


async def test_a_silent_back_end():
    """A back end that never answers is left after its time, and the next is asked."""
    authenticator, told = built(Scripted(None), Scripted(ACCEPTED), timeout_s=0.01)
    assert await authenticator.check("ada", "secret", client_ip=IP) is ACCEPTED
    assert told == [("scripted://", "no answer in time")]


async def test_so_many_at_once():
    """No more than its share is asked of a back end at once; the others get their turn."""
    backend = Scripted(ACCEPTED, at_once=3)
    authenticator, _ = built(backend)
    verdicts = await asyncio.gather(*(authenticator.check(f"user{n}", "x", client_ip=IP) for n in range(20)))
    assert set(verdicts) == {ACCEPTED}
    assert backend.most_asked == 3


async def test_waiting_for_a_turn_is_bounded():
    """Who does not get a turn in time is not told yes."""
    backend = Scripted(None, at_once=1)
    authenticator, _ = built(backend, timeout_s=0.01)
    verdicts = await asyncio.gather(*(authenticator.check(f"user{n}", "x", client_ip=IP) for n in range(5)))
    assert set(verdicts) == {UNAVAILABLE}
    assert backend.most_asked == 1


async def test_an_accepted_login_is_remembered_for_a_minute():
    """The same login from the same address is not asked for again; another password, user or address is."""
    clock, backend = Clock(), Scripted(ACCEPTED)
    authenticator, _ = built(backend, clock=clock)
    for user, password, ip in [("ada", "x", IP), ("ada", "x", IP), ("adax", "", IP), ("ad", "ax", IP),
                               ("ada", "y", IP), ("ada", "x", "192.0.2.2")]:  # fmt: skip
        await authenticator.check(user, password, client_ip=ip)
    assert backend.asked == [("ada", "x", IP), ("ad", "ax", IP), ("ada", "y", IP), ("ada", "x", "192.0.2.2")]
    clock.now_s += REMEMBER_S - 1
    await authenticator.check("ada", "x", client_ip=IP)
    assert len(backend.asked) == 4
    clock.now_s += 1
    await authenticator.check("ada", "x", client_ip=IP)
    assert len(backend.asked) == 5


@pytest.mark.parametrize("says", [REFUSED, OSError("down")])
async def test_nothing_but_yes_is_remembered(says):
    """A no, or nobody's answer, is asked for again."""
    backend = Scripted(says)
    authenticator, _ = built(backend)
    for _ in range(2):
        await authenticator.check("ada", "x", client_ip=IP)
    assert len(backend.asked) == 2


@pytest.mark.parametrize(
    ("user", "password"),
    [("", "x"), ("ada", ""), ("ada\0", "x"), ("ada", "x\0"), ("a\nda", "x"), ("ada", "x\r"), ("a" * 256, "x"),
     ("é" * 128, "x"), ("ada", "x" * 1025), ("ada", "\ud800"), ("\udcff", "x")],
)  # fmt: skip
async def test_what_nobody_is_asked(user, password):
    """Empty, endless and broken names and passwords are refused before any back end sees them."""
    backend = Scripted(ACCEPTED)
    authenticator, _ = built(backend)
    assert await authenticator.check(user, password, client_ip=IP) is REFUSED
    assert backend.asked == []


def test_the_longest_that_may_be_asked():
    """255 bytes of a name and 1024 of a password pass."""
    assert may_be_asked("a" * 255, "ü" * 512)


async def test_scram_is_served_when_all_passwords_are_known():
    """SCRAM is offered when every form knows its passwords: else users of the others could not log in any more."""
    known, other = Hardcoded({"ada": "secret"}, scram_secret=b""), Scripted(ACCEPTED)
    assert built(known, Hardcoded({"bob": "x"}, scram_secret=b""))[0].knows_passwords
    assert not built(known, other)[0].knows_passwords
    assert not built(other)[0].knows_passwords
    assert not built()[0].knows_passwords


async def test_scram_keys():
    """The keys are those of the password, always with the same salt; of others there are none."""
    authenticator, _ = built(Hardcoded({"bob": "x"}, scram_secret=b""), Hardcoded({"ada": "secret"}, scram_secret=b""))
    keys = await authenticator.scram_keys("ada")
    assert keys is not None
    assert keys == derive_keys("secret", salt=keys.salt)
    assert await authenticator.scram_keys("ada") == keys
    assert await authenticator.scram_keys("eve") is None


async def test_close():
    """Every back end is closed."""
    backends = [Scripted(ACCEPTED), Scripted(REFUSED)]
    await built(*backends)[0].close()
    assert [backend.closed for backend in backends] == [True, True]


async def test_cancelling_gives_the_turn_back():
    """A client that leaves while it waits leaves its turn to others."""
    backend = Scripted(None, at_once=1)
    authenticator, _ = built(backend)
    waiting = asyncio.create_task(authenticator.check("ada", "x", client_ip=IP))
    while not backend.asked:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    backend.says = ACCEPTED
    assert await authenticator.check("bob", "x", client_ip=IP) is ACCEPTED
