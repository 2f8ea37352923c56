"""``mtaq.smtp.scram``: the example of RFC 7677 §3, a client of our own, and everything that must fail."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp.scram import (
    ITERATIONS,
    ChannelBindingWanted,
    ScramKeys,
    ServerExchange,
    derive_keys,
    fake_keys,
    new_nonce,
    salt_for,
)

SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PENCIL = derive_keys("pencil", salt=SALT)
CLIENT_NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def client_final(
    password: str, client_first: str, server_first: bytes, *, binding: str | None = None, nonce: str = ""
) -> bytes:
    """What a client that knows *password* answers."""
    fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
    header = client_first[: client_first.index(",", client_first.index(",") + 1) + 1]
    without_proof = f"c={binding or b64encode(header.encode()).decode()},r={nonce or fields['r']}"
    message = ",".join((client_first[len(header) :], server_first.decode(), without_proof)).encode()
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(fields["s"]), int(fields["i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    mask = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, mask, strict=True))
    return f"{without_proof},p={b64encode(proof).decode()}".encode()


def begun(client_first: bytes = CLIENT_FIRST, keys: ScramKeys = PENCIL) -> tuple[ServerExchange, bytes]:
    exchange = ServerExchange(client_first)
    return exchange, exchange.server_first(keys, nonce=SERVER_NONCE)


def test_the_example_of_the_standard() -> None:
    """RFC 7677 §3, octet for octet."""
    exchange, server_first = begun()
    assert exchange.user == "user"
    assert server_first == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    assert exchange.server_final(CLIENT_FINAL) == SERVER_FINAL


@pytest.mark.parametrize(
    ("client_first", "user"),
    [
        ("n,,n=user,r=abc", "user"),
        ("y,,n=user,r=abc", "user"),
        ("n,a=user,n=user,r=abc", "user"),
        ("n,,n=a=2Cb=3Dc,r=abc", "a,b=c"),
        ("n,,n=\u2168,r=abc", "IX"),
        ("n,,n=user,r=abc,x=extension", "user"),
    ],
)
def test_a_client_that_knows_the_password(client_first: str, user: str) -> None:
    """Flags, escapes, an equal authorization identity and unknown extensions are understood."""
    exchange, server_first = begun(client_first.encode())
    assert exchange.user == user
    assert exchange.server_final(client_final("pencil", client_first, server_first)) is not None


def test_a_client_that_does_not_know_the_password() -> None:
    """A wrong password proves nothing."""
    exchange, server_first = begun()
    assert exchange.server_final(client_final("Pencil", CLIENT_FIRST.decode(), server_first)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"r=rOpr", b"r=rOps"),
        (b"FIlj)hNlF$k0", b"FIlj)hNlF$k1"),
        (b"c=biws", b"c=eSws"),
        (b"p=dHzb", b"p=dHzc"),
        (b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", b"p=dHzb"),
        (b",p=", b",x=y,p="),
    ],
)
def test_a_message_that_was_changed(old: bytes, new: bytes) -> None:
    """Another nonce, channel binding, proof or field than was agreed on proves nothing."""
    exchange, _ = begun()
    assert old in CLIENT_FINAL
    assert exchange.server_final(CLIENT_FINAL.replace(old, new)) is None


def test_the_flag_y_cannot_be_taken_out() -> None:
    """RFC 5802 §6: the header that the client repeats must be the one that came."""
    exchange, server_first = begun(b"y,,n=user,r=abc")
    assert exchange.server_final(client_final("pencil", "y,,n=user,r=abc", server_first, binding="biws")) is None


@pytest.mark.parametrize("nonce", [CLIENT_NONCE, CLIENT_NONCE + "x", SERVER_NONCE])
def test_the_nonce_must_be_ours(nonce: str) -> None:
    """RFC 5802 §5.1: a proof over another nonce than the exchange's is none, however right the password."""
    exchange, server_first = begun()
    assert exchange.server_final(client_final("pencil", CLIENT_FIRST.decode(), server_first, nonce=nonce)) is None


def test_channel_binding_is_not_offered() -> None:
    """A client that insists on it is told so."""
    with pytest.raises(ChannelBindingWanted):
        ServerExchange(b"p=tls-unique,,n=user,r=abc")


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"n", b"n,,", b"n,,n=user", b"n,,n=user,r=", b"n,,n=,r=abc", b"x,,n=user,r=abc", b"n,n=user,r=abc"),
        *(b"n,,m=x,n=user,r=abc", b"n,,n=a=b,r=abc", b"n,,n=a=2c,r=abc", b"n,,n=\xff,r=abc", b"n,,n=user,r=a\x01"),
        *(b"n,a=other,n=user,r=abc", b"n,,n=a\nb,r=abc", b"n,,n=\xc2\xad,r=abc", b"n=x,,n=user,r=abc"),
    ],
)
def test_what_is_no_first_message(message: bytes) -> None:
    """Anything else is refused, another authorization identity included."""
    with pytest.raises(ValueError, match=r".") as caught:
        ServerExchange(message)
    assert not isinstance(caught.value, ChannelBindingWanted)


@pytest.mark.parametrize("message", [b"", b"c=biws", b"c=biws,r=abc", b"c=,r=a,p=a", b"c=biws,r=a,p=%", b"v=x"])
def test_what_is_no_final_message(message: bytes) -> None:
    """Anything else is refused."""
    exchange, _ = begun()
    with pytest.raises(ValueError, match=r"message"):
        exchange.server_final(message)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_octets(first: bytes, final: bytes) -> None:
    """Nothing but ``ValueError`` comes out, and random octets prove nothing."""
    try:
        exchange = ServerExchange(first)
    except ValueError:
        exchange, _ = begun()
    else:
        exchange.server_first(PENCIL, nonce=SERVER_NONCE)
    with contextlib.suppress(ValueError):
        assert exchange.server_final(final) is None


def test_a_user_that_does_not_exist_looks_like_one_that_does() -> None:
    """The fake salt is the same every time, depends on the user and the secret, and no password fits it."""
    fake = fake_keys("nobody", secret=b"secret")
    assert fake == fake_keys("nobody", secret=b"secret")
    assert fake.salt == salt_for("nobody", secret=b"secret")
    assert len(fake.salt) == len(SALT)
    assert fake.iterations == ITERATIONS
    assert len({fake_keys(user, secret=key).salt for user in ("a", "b") for key in (b"1", b"2")}) == 4
    exchange, server_first = begun(keys=fake)
    assert exchange.server_final(client_final("pencil", CLIENT_FIRST.decode(), server_first)) is None


def test_keys_do_not_show_themselves() -> None:
    """Nothing by which one could log in stands in a ``repr``."""
    assert repr(PENCIL) == f"ScramKeys(salt={SALT!r}, iterations=4096)"


def test_passwords_are_prepared() -> None:
    """What is typed differently and means the same has the same keys; what cannot be prepared has none."""
    assert derive_keys("I\u00adX", salt=SALT) == derive_keys("\u2168", salt=SALT)
    with pytest.raises(ValueError, match="character"):
        derive_keys("a\x00", salt=SALT)


def test_nonces_differ_and_are_printable() -> None:
    """RFC 5802 §5.1: printable, without a comma."""
    nonces = {new_nonce() for _ in range(50)}
    assert len(nonces) == 50
    assert all(nonce.isascii() and nonce.isprintable() and "," not in nonce for nonce in nonces)
