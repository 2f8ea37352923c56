"""``mtaq.smtp.sasl``: what responses mean, and which are refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp import codes
from mtaq.smtp.sasl import MECHANISMS, BadResponse, Mechanism, ScramSha256
from mtaq.smtp.server_events import Login, LoginProved, ScramKeysWanted
from tests.unit.smtp.test_scram import CLIENT_FINAL, CLIENT_FIRST, PENCIL, SERVER_FINAL, SERVER_NONCE


def refusal(mechanism: Mechanism, response: bytes) -> str:
    with pytest.raises(BadResponse) as caught:
        mechanism.respond(response)
    return f"{caught.value.reply.code} {caught.value.reply.status}"


def plain() -> Mechanism:
    return MECHANISMS["PLAIN"]()


def test_plain() -> None:
    """RFC 4616: user and password, asked for by an empty challenge."""
    mechanism = plain()
    assert mechanism.respond(None) == b""
    assert mechanism.respond(b"\0tim\0tanstaaftanstaaf") == Login("PLAIN", "tim", "tanstaaftanstaaf")


def test_plain_in_utf8() -> None:
    """Names and passwords are UTF-8 and stay as they are."""
    assert plain().respond("\0tím\0\U0001f511 ".encode()) == Login("PLAIN", "tím", "\U0001f511 ")


def test_an_equal_authorization_identity() -> None:
    """A client may say that it acts for itself."""
    assert plain().respond(b"tim\0tim\0x") == Login("PLAIN", "tim", "x")


@pytest.mark.parametrize(
    ("response", "code"),
    [
        *((response, "501 5.5.2") for response in (b"", b"tim", b"\0tim", b"\0tim\0x\0", b"a\0b\0c\0d")),
        *((response, "501 5.5.2") for response in (b"\0\xff\0x", b"\0tim\0\xff", b"\0ti\nm\0x", b"\0tim\0x\r\ny")),
        *((response, "501 5.5.2") for response in (b"\0tim\0\x1b[2J", b"\0\xc2\x85\0x", "\0a\u2028\0x".encode())),
        *((response, "535 5.7.8") for response in (b"kurt\0tim\0x", b"\0\0x", b"\0tim\0", b"\0\0")),
        (b"\0" + b"x" * 256 + b"\0x", "535 5.7.8"),
    ],
)
def test_what_plain_refuses(response: bytes, code: str) -> None:
    """Another's identity, control characters, an empty name or password, and what has not three parts."""
    assert refusal(plain(), response) == code


def test_login() -> None:
    """LOGIN asks for the user, then for the password."""
    mechanism = MECHANISMS["LOGIN"]()
    assert mechanism.respond(None) == b"Username:"
    assert mechanism.respond(b"tim") == b"Password:"
    assert mechanism.respond(b"x") == Login("LOGIN", "tim", "x")


@pytest.mark.parametrize(
    ("user", "password", "code"),
    [(b"", b"x", "535 5.7.8"), (b"tim", b"", "535 5.7.8"), (b"a\0b", b"x", "501 5.5.2"), (b"a", b"\n", "501 5.5.2")],
)
def test_what_login_refuses(user: bytes, password: bytes, code: str) -> None:
    """What PLAIN refuses LOGIN refuses too, NUL included."""
    mechanism = MECHANISMS["LOGIN"]()
    assert mechanism.respond(user) == b"Password:"
    assert refusal(mechanism, password) == code


def begun() -> ScramSha256:
    mechanism = ScramSha256()
    assert mechanism.respond(CLIENT_FIRST) == ScramKeysWanted("SCRAM-SHA-256", "user")
    assert mechanism.give_keys(PENCIL, nonce=SERVER_NONCE).startswith(b"r=")
    return mechanism


def test_scram() -> None:
    """The proof is answered by ours, and the client's empty response ends the exchange."""
    mechanism = begun()
    assert mechanism.respond(CLIENT_FINAL) == SERVER_FINAL
    assert mechanism.respond(b"") == LoginProved("SCRAM-SHA-256", "user", ok=True)


def test_scram_without_initial_response() -> None:
    """The client speaks first, after an empty challenge."""
    assert ScramSha256().respond(None) == b""


def test_a_wrong_proof_ends_scram_at_once() -> None:
    """No signature of ours is given away."""
    assert begun().respond(CLIENT_FINAL.replace(b"p=dHz", b"p=eHz")) == LoginProved("SCRAM-SHA-256", "user", ok=False)


def test_scram_ends_with_an_empty_response() -> None:
    """Anything behind the signature is an error, and logs nobody in."""
    mechanism = begun()
    mechanism.respond(CLIENT_FINAL)
    assert refusal(mechanism, b"x") == "501 5.5.2"


@pytest.mark.parametrize(
    ("response", "code"),
    [(b"", "501 5.5.2"), (b"p=tls-exporter,,n=a,r=b", "504 5.5.4"), (b"n,,n=" + b"x" * 256 + b",r=b", "535 5.7.8")],
)
def test_what_scram_refuses(response: bytes, code: str) -> None:
    """What is no message, a demand for channel binding, a name without end."""
    assert refusal(ScramSha256(), response) == code


def test_a_malformed_final_message() -> None:
    """Is an error, not a failed login."""
    assert refusal(begun(), b"c=biws") == "501 5.5.2"


@given(st.sampled_from(sorted(MECHANISMS)), st.lists(st.binary(max_size=30), max_size=4))
def test_any_responses(name: str, responses: list[bytes]) -> None:
    """Nothing but ``BadResponse`` comes out."""
    mechanism = MECHANISMS[name]()
    with contextlib.suppress(BadResponse):
        for response in responses:
            following = mechanism.respond(response)
            if isinstance(following, ScramKeysWanted):
                assert isinstance(mechanism, ScramSha256)
                mechanism.give_keys(PENCIL, nonce=SERVER_NONCE)
            elif not isinstance(following, bytes):
                assert following != LoginProved("SCRAM-SHA-256", "user", ok=True)
                return


def test_replies_of_refusals_are_ready_made() -> None:
    """Nothing that a client sent stands in them."""
    with pytest.raises(BadResponse) as caught:
        plain().respond(b"secret")
    assert caught.value.reply is codes.BAD_RESPONSE
    assert "secret" not in str(caught.value)
