"""``mtaq.smtp.server_auth``: AUTH in a session."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.model.errors import LocalProtocolError
from mtaq.smtp import codes
from mtaq.smtp.server_session import Event, Login, LoginProved, ScramKeysWanted, ServerSession, StartTls
from tests.support.dialog import DEFAULT_OPTIONS, SCRAM_KEYS, SCRAM_NONCE, respond
from tests.unit.smtp.test_scram import CLIENT_FINAL, CLIENT_FIRST

OPTIONS = replace(
    DEFAULT_OPTIONS, auth_mechanisms=("PLAIN", "LOGIN", "SCRAM-SHA-256"), dsn=True, requiretls=True, limits=True
)


def base64(octets: bytes) -> bytes:
    return b64encode(octets)


PLAIN = b"AUTH PLAIN " + base64(b"\0user\0pencil") + b"\r\n"
WRONG = b"AUTH PLAIN " + base64(b"\0user\0guess") + b"\r\n"
SCRAM = b"AUTH SCRAM-SHA-256 " + base64(CLIENT_FIRST) + b"\r\n"
SCRAM_FINAL = base64(CLIENT_FINAL) + b"\r\n"


def introduced(**changes: object) -> ServerSession:
    session = ServerSession(replace(OPTIONS, **changes), secure=True)  # type: ignore[arg-type]  # as the tests name them
    session.greet()
    session.receive_data(b"EHLO c.test\r\n")
    assert session.next_event() is None
    session.data_to_send()
    return session


def play(session: ServerSession, *blocks: bytes) -> tuple[list[str], list[Event]]:
    """Feed blocks; return code and enhanced code of each reply, and the events."""
    events, output = [], b""
    for block in blocks:
        session.receive_data(block)
        while (event := session.next_event()) is not None or session.must_send:
            if event is not None:
                events.append(event)
                respond(session, event)
            output += session.data_to_send()
        output += session.data_to_send()
    return re.findall(r"^(\d{3}(?: \d\.\d+\.\d+)?) ", output.decode(), re.MULTILINE), events


def test_a_login() -> None:
    """A positive answer makes the client a user, until TLS begins anew."""
    session = introduced()
    replies, events = play(session, PLAIN)
    assert replies == ["235 2.7.0"]
    assert events == [Login("PLAIN", "user", "pencil")]
    assert session.user == "user"
    session.reset_for_tls()
    assert session.user is None


def test_a_refused_login() -> None:
    """Nobody is logged in, and the next attempt may come."""
    session = introduced()
    assert play(session, WRONG)[0] == ["535 5.7.8"]
    assert session.user is None
    assert play(session, PLAIN)[0] == ["235 2.7.0"]


def test_bad_logins_are_errors_of_the_session() -> None:
    """One more than the errors allowed ends it."""
    session = introduced(max_errors=2)
    assert play(session, WRONG * 4)[0] == ["535 5.7.8", "535 5.7.8", "421 4.7.0"]
    assert session.finished


def test_a_back_end_that_is_down_is_no_error_of_the_client() -> None:
    """454 is never counted."""
    session = introduced(max_errors=1)
    away = b"AUTH PLAIN " + base64(b"\0away\0x") + b"\r\n"
    assert play(session, away * 3)[0] == ["454 4.7.0"] * 3
    assert session.user is None


def test_scram() -> None:
    """Keys are asked for, then whether the client may log in."""
    session = introduced()
    replies, events = play(session, SCRAM, SCRAM_FINAL, b"\r\n")
    assert replies == ["334", "334", "235 2.7.0"]
    assert events == [ScramKeysWanted("SCRAM-SHA-256", "user"), LoginProved("SCRAM-SHA-256", "user", ok=True)]
    assert session.user == "user"


def test_scram_of_an_unknown_user() -> None:
    """Goes as far as that of a known one, and fails; the salt told is the same every time."""
    first = b"AUTH SCRAM-SHA-256 " + base64(b"n,,n=nobody,r=abc") + b"\r\n"
    told = []
    for _ in range(2):
        session = introduced()
        session.receive_data(first)
        assert session.next_event() == ScramKeysWanted("SCRAM-SHA-256", "nobody")
        session.give_scram_keys(None, nonce=SCRAM_NONCE)
        told.append(session.data_to_send())
        final = base64(b"c=biws,r=abc%b,p=%b" % (SCRAM_NONCE.encode(), base64(b"x" * 32)))
        replies, events = play(session, final + b"\r\n")
        assert replies == ["535 5.7.8"]
        assert events == [LoginProved("SCRAM-SHA-256", "nobody", ok=False)]
    assert told[0] == told[1]


def test_nonces_are_drawn() -> None:
    """Without one given two exchanges have different nonces."""
    told = set()
    for _ in range(2):
        session = introduced()
        session.receive_data(SCRAM)
        session.next_event()
        session.give_scram_keys(SCRAM_KEYS["user"])
        told.add(session.data_to_send())
    assert len(told) == 2


def test_keys_that_cannot_be_had() -> None:
    """A refusal in place of the keys ends the exchange."""
    session = introduced()
    first = b"AUTH SCRAM-SHA-256 " + base64(b"n,,n=away,r=abc") + b"\r\nNOOP\r\n"
    assert play(session, first)[0] == ["454 4.7.0", "250 2.0.0"]


@pytest.mark.parametrize("answer", [codes.LOGGED_IN, codes.OK])
def test_nobody_is_let_in_by_mistake(answer: codes.Reply) -> None:
    """A positive answer where nothing is proved is a bug of the carrier, and logs nobody in."""
    session = introduced()
    session.receive_data(SCRAM)
    session.next_event()
    with pytest.raises(LocalProtocolError):
        session.answer(answer)
    session.give_scram_keys(SCRAM_KEYS["user"], nonce=SCRAM_NONCE)
    session.receive_data(SCRAM_FINAL.replace(b"Yz1i", b"Yz1j"))
    assert session.next_event() == LoginProved("SCRAM-SHA-256", "user", ok=False)
    with pytest.raises(LocalProtocolError):
        session.answer(answer)
    session.answer(codes.LOGIN_FAILED)
    assert session.user is None


def test_keys_that_nobody_asked_for() -> None:
    """``give_scram_keys`` refuses to speak out of turn."""
    with pytest.raises(LocalProtocolError):
        introduced().give_scram_keys(SCRAM_KEYS["user"])


def test_a_session_may_be_refused_in_an_exchange() -> None:
    """A shutdown may come at any time."""
    for stream in (b"AUTH LOGIN\r\n", SCRAM, PLAIN):
        session = introduced()
        session.receive_data(stream)
        session.next_event()
        session.refuse(codes.SHUTTING_DOWN)
        assert (session.finished, session.awaiting_answer) == (True, False)


def test_long_lines_belong_to_the_exchange() -> None:
    """12288 octets are read in an exchange, 2048 for a command before, behind, and for AUTH itself."""
    response = base64(b"\0user\0" + b"x" * 9205)
    assert len(response) == 12288 - 4  # with CRLF two octets less; base64 comes in fours
    for blocks in ((response + b"\r\n",), octets(response + b"\r\n")):
        session = introduced()
        assert play(session, b"AUTH PLAIN\r\n")[0] == ["334"]
        assert play(session, *blocks)[0] == ["535 5.7.8"]
        assert play(session, b"NOOP " + b"x" * 2042 + b"\r\n")[0] == ["500 5.5.2"]
        assert play(session, b"NOOP " + b"x" * 2041 + b"\r\n")[0] == ["250 2.0.0"]
    assert play(introduced(), b"AUTH PLAIN " + response + b"\r\n")[0] == ["500 5.5.2"]


@pytest.mark.parametrize("size", [12287, 12288, 100_000])
def test_longer_lines_end_the_exchange(size: int) -> None:
    """Nothing of them is kept, and what follows is a command again."""
    for blocks in ((b"A" * size + b"\r\nNOOP\r\n",), octets(b"A" * size + b"\r\nNOOP\r\n")):
        session = introduced()
        play(session, b"AUTH PLAIN\r\n")
        assert play(session, *blocks)[0] == ["500 5.5.6", "250 2.0.0"]
        assert session.buffered_bytes == 0


def test_an_endless_line_is_not_kept() -> None:
    """However much comes without a line end."""
    session = introduced()
    play(session, b"AUTH PLAIN\r\n")
    for _ in range(100):
        play(session, b"A" * 10_000)
        assert session.buffered_bytes < 13_000


def test_other_options_hold_from_the_next_command_on() -> None:
    """A client that has logged in is offered DSN, from the next EHLO on."""
    session = introduced(dsn=False)
    assert play(session, b"MAIL FROM:<a@b.test> RET=FULL\r\n")[0] == ["555 5.5.4"]
    play(session, PLAIN)
    session.reconfigure(OPTIONS)
    session.receive_data(b"EHLO c.test\r\n")
    assert session.next_event() is None
    assert b"250-DSN\r\n" in session.data_to_send()
    assert session.user == "user"
    assert play(session, b"MAIL FROM:<a@b.test> RET=FULL\r\n")[0] == ["250 2.1.0"]


def test_passwords_do_not_show_themselves() -> None:
    """No ``repr`` of an event, the session or its options holds one, nor the secret of the salts."""
    session = introduced(scram_secret=b"hush-hush")
    session.receive_data(PLAIN)
    event = session.next_event()
    assert repr(event) == "Login(mechanism='PLAIN', user='user')"
    for thing in (event, session, session.options):
        assert "pencil" not in repr(thing)
        assert "hush" not in repr(thing)


# Any octets


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


_LINES = [
    *(b"EHLO c.test", b"HELO c", b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH SCRAM-SHA-256", b"AUTH X", b"AUTH", b"*", b"="),
    *(PLAIN.strip(), WRONG.strip(), SCRAM.strip(), SCRAM_FINAL.strip(), b"", base64(b"user"), base64(b"pencil")),
    *(b"AUTH LOGIN dXNlcg==", b"AUTH PLAIN =", b"NOOP", b"MAIL FROM:<a@b.test> AUTH=<> REQUIRETLS", b"RSET", b"A" * 70),
    *(b"MAIL FROM:<a@b.test> RET=FULL ENVID=a+2Bb", b"RCPT TO:<c@d.test> NOTIFY=NEVER ORCPT=rfc822;x", b"QUIT"),
    *(b"AUTH PLAIN \xff", b"dXNlcg=", b"STARTTLS", b"DATA", b"."),
]
streams = st.one_of(
    st.lists(st.sampled_from(_LINES), max_size=25).map(lambda lines: b"EHLO c\r\n" + b"\r\n".join(lines) + b"\r\n"),
    st.lists(st.sampled_from([*_LINES, b"\r\n", b"\n", b"\0"]), max_size=15).map(b"".join),
)


@given(streams, st.data())
def test_whole_octet_by_octet_and_in_blocks_are_the_same(stream: bytes, data: st.DataObject) -> None:
    """Replies and events do not depend on how the octets were cut; nothing raises."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    blocks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = introduced(max_errors=8, max_line_bytes=200)
    expected = play(whole, stream)
    for cut in (octets(stream), blocks):
        session = introduced(max_errors=8, max_line_bytes=200)
        assert play(session, *cut) == expected
        assert (session.user, session.finished, session.transaction) == (whole.user, whole.finished, whole.transaction)


@given(streams)
def test_in_clear_nobody_is_asked_for_a_password(stream: bytes) -> None:
    """Whatever is sent, a session without TLS asks nothing about logins."""
    session = ServerSession(OPTIONS)
    session.greet()
    _, events = play(session, stream.replace(b"STARTTLS", b"NOOP"))
    assert not any(isinstance(event, Login | ScramKeysWanted | LoginProved | StartTls) for event in events)
    assert session.user is None
