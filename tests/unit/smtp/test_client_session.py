"""The client's side of SMTP: what is sent when, and what each answer means for each forward-path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.model.address import Address
from mtaq.model.errors import LocalProtocolError, RemoteProtocolError
from mtaq.smtp.client_commands import Transaction
from mtaq.smtp.client_session import BLOCK_BYTES, Answer, ClientSession

ADA = Address("ada", "example.org")
BOB, CEM, DAN = (Address(name, "example.com") for name in ("bob", "cem", "dan"))
CONTENT = b"Subject: hi\r\n\r\n.dot\r\n"
STUFFED = b"Subject: hi\r\n\r\n..dot\r\n.\r\n"
EHLO = b"250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 8BITMIME\r\n"


def transaction(*recipients: Address, content: bytes = CONTENT, **properties: object) -> Transaction:
    return Transaction(reverse_path=ADA, forward_paths=recipients or (BOB,), content=content, **properties)


def sent(session: ClientSession) -> bytes:
    """Everything the session has to say now."""
    data = b""
    while block := session.data_to_send():
        data += block
    return data


def opened(ehlo: bytes = EHLO) -> ClientSession:
    session = ClientSession("out.test")
    session.receive_data(b"220 mx.test ESMTP\r\n")
    assert sent(session) == b"EHLO out.test\r\n"
    session.receive_data(ehlo)
    assert session.ready
    return session


def begun(session: ClientSession, *recipients: Address, **properties: object) -> bytes:
    session.begin(transaction(*recipients, **properties))
    return sent(session)


def codes(session: ClientSession) -> list[tuple[str, int] | None]:
    return [answer and (answer.state, answer.reply.code) for answer in session.answers]


class TestOpening:
    def test_greeting_then_ehlo_then_ready(self):
        """The 220 names the server, EHLO what it can."""
        session = ClientSession("out.test")
        assert (session.phase, session.state, session.waiting) == ("banner", "intro", True)
        assert sent(session) == b""
        session.receive_data(b"220 mx.example.com ESMTP hello\r\n")
        assert sent(session) == b"EHLO out.test\r\n"
        assert (session.phase, session.state) == ("ehlo", "ehlo")
        session.receive_data(b"250-mx\r\n250-size 42\r\n250-Pipelining\r\n250-STARTTLS\r\n250 DSN\r\n")
        assert session.ready
        assert session.banner_name == "mx.example.com"
        peer = session.extensions
        assert (peer.pipelining, peer.size, peer.size_bytes, peer.starttls, peer.dsn) == (True, True, 42, True, True)
        assert not any((peer.eightbitmime, peer.smtputf8, peer.chunking, peer.binarymime))

    @pytest.mark.parametrize("ehlo", [b"500 what?\r\n", b"502 no\r\n", b"550 no\r\n"])
    def test_a_server_without_ehlo_gets_helo(self, ehlo):
        """A 5yz to EHLO is followed by HELO, and no extension is used (RFC 5321 §3.2)."""
        session = ClientSession("out.test")
        session.receive_data(b"220 mx\r\n")
        sent(session)
        session.receive_data(ehlo)
        assert sent(session) == b"HELO out.test\r\n"
        session.receive_data(b"250 mx\r\n")
        assert session.ready
        assert not session.extensions.pipelining

    @pytest.mark.parametrize(
        ("replies", "state", "code"),
        [
            ([b"554 5.7.1 go away\r\n"], "intro", 554),
            ([b"421 4.3.2 later\r\n"], "intro", 421),
            ([b"450 busy\r\n"], "intro", 450),
            ([b"250 this is no greeting\r\n"], "intro", 250),
            ([b"220 mx\r\n", b"450 later\r\n"], "ehlo", 450),
            ([b"220 mx\r\n", b"421 later\r\n"], "ehlo", 421),
            ([b"220 mx\r\n", b"502 no EHLO\r\n", b"550 no HELO\r\n"], "ehlo", 550),
        ],
    )
    def test_refusals_of_the_session_are_kept(self, replies, state, code):
        """Who is not wanted learns it from the greeting or from EHLO, and begins no transaction."""
        session = ClientSession("out.test")
        for reply in replies:
            sent(session)
            session.receive_data(reply)
        assert session.refusal is not None
        assert (session.refusal.state, session.refusal.reply.code) == (state, code)
        assert session.closing
        with pytest.raises(LocalProtocolError):
            session.begin(transaction())

    def test_an_answer_to_what_was_not_asked_is_an_error(self):
        """A second reply behind the greeting cannot be the answer to an EHLO that was not sent."""
        session = ClientSession("out.test")
        with pytest.raises(RemoteProtocolError):
            session.receive_data(b"220 mx\r\n250 you are welcome\r\n")
        assert session.closing

    def test_an_idle_session_takes_no_answers(self):
        """A server that speaks although nothing was asked makes the session unusable."""
        session = opened()
        with pytest.raises(RemoteProtocolError):
            session.receive_data(b"4")
        assert not session.ready

    def test_quit_takes_leave(self):
        """QUIT is sent also after a refusal."""
        session = ClientSession("out.test")
        session.receive_data(b"554 no\r\n")
        session.quit()
        assert sent(session) == b"QUIT\r\n"
        session.receive_data(b"221 bye\r\n")
        assert not session.waiting


class TestTls:
    EHLO = b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n"

    def test_after_the_handshake_everything_begins_anew(self):
        """Extensions told in clear are forgotten (RFC 3207 §4.2)."""
        session = opened(self.EHLO)
        session.start_tls()
        assert sent(session) == b"STARTTLS\r\n"
        assert (session.phase, session.state) == ("tls", "starttls")
        session.receive_data(b"220 go\r\n")
        assert session.tls_answer is not None
        assert session.tls_answer.code == 220
        session.tls_started()
        assert not session.ready
        assert not session.extensions.pipelining
        assert sent(session) == b"EHLO out.test\r\n"
        session.receive_data(b"250-mx\r\n250 SIZE\r\n")
        assert session.ready
        assert session.extensions.size

    def test_bytes_behind_the_answer_to_starttls_are_an_attack(self):
        """What came in clear is never taken for what TLS protects."""
        session = opened(self.EHLO)
        session.start_tls()
        sent(session)
        with pytest.raises(RemoteProtocolError):
            session.receive_data(b"220 go\r\n250-mx\r\n250 AUTH PLAIN\r\n")

    def test_refused_tls_leaves_a_session_in_clear(self):
        """454 is an answer; what follows from it is not the session's matter."""
        session = opened(self.EHLO)
        session.start_tls()
        sent(session)
        session.receive_data(b"454 4.7.0 not now\r\n")
        assert session.tls_answer is not None
        assert session.tls_answer.code == 454
        assert session.ready


class TestPipelined:
    def test_one_write_up_to_data_and_one_for_the_content(self):
        """RFC 2920: MAIL, every RCPT and DATA go out together, then the content, dots doubled."""
        session = opened()
        session.begin(transaction(BOB, CEM))
        assert session.data_to_send() == (
            b"MAIL FROM:<ada@example.org> SIZE=21\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<cem@example.com>\r\nDATA\r\n"
        )
        assert session.data_to_send() == b""
        session.receive_data(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        assert session.data_to_send() == STUFFED
        assert (session.phase, session.state) == ("dot", "message")
        session.receive_data(b"250 2.0.0 queued as 42\r\n")
        assert all(answer is not None and answer.accepted for answer in session.answers)
        assert session.ready

    def test_each_forward_path_has_its_own_answer(self):
        """Refused ones keep their refusal, the others get the answer to the content."""
        session = opened()
        begun(session, BOB, CEM, DAN)
        session.receive_data(b"250 ok\r\n250 ok\r\n550 5.1.1 who?\r\n452 4.5.3 later\r\n354 go\r\n")
        assert sent(session) == STUFFED
        session.receive_data(b"250 ok\r\n")
        assert codes(session) == [("message", 250), ("rcptto", 550), ("rcptto", 452)]

    def test_all_refused_and_data_granted_sends_an_empty_content(self):
        """RFC 2920 §3.1: 354 although nobody is left is answered with a lone dot, whose answer means nothing."""
        session = opened()
        begun(session, BOB, CEM)
        session.receive_data(b"250 ok\r\n550 no\r\n550 no\r\n354 go\r\n")
        assert sent(session) == b".\r\n"
        session.receive_data(b"250 took it\r\n")
        assert codes(session) == [("rcptto", 550), ("rcptto", 550)]
        assert not any(answer is not None and answer.accepted for answer in session.answers)
        assert session.ready

    def test_all_refused_and_data_too(self):
        """The next transaction then begins with RSET, in the same write."""
        session = opened()
        begun(session, BOB)
        session.receive_data(b"250 ok\r\n450 4.7.1 greylisted\r\n554 no recipients\r\n")
        assert codes(session) == [("rcptto", 450)]
        assert begun(session, CEM).startswith(b"RSET\r\nMAIL FROM:<ada@example.org>")

    def test_a_refused_sender_answers_for_everybody(self):
        """What the server says to RCPT and DATA after that does not count."""
        session = opened()
        begun(session, BOB, CEM)
        session.receive_data(b"550 5.1.8 bad sender\r\n503 no MAIL\r\n503 no MAIL\r\n503 no RCPT\r\n")
        assert codes(session) == [("mailfrom", 550), ("mailfrom", 550)]
        assert session.ready

    def test_refused_data_answers_for_the_accepted(self):
        """A 4yz or 5yz to DATA is the answer of those whose RCPT was taken."""
        session = opened()
        begun(session, BOB, CEM)
        session.receive_data(b"250 ok\r\n250 ok\r\n550 no\r\n451 4.3.0 disk\r\n")
        assert codes(session) == [("data", 451), ("rcptto", 550)]

    @pytest.mark.parametrize("code", [451, 552, 554])
    def test_a_refused_content_answers_for_the_accepted(self, code):
        """The answer to the final dot is the message's."""
        session = opened()
        begun(session)
        session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        sent(session)
        session.receive_data(b"%d no\r\n" % code)
        assert codes(session) == [("message", code)]
        assert session.ready

    def test_after_success_the_next_transaction_needs_no_reset(self):
        """Two messages on one session: nothing between them."""
        session = opened()
        begun(session)
        session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        sent(session)
        session.receive_data(b"250 ok\r\n")
        assert begun(session, CEM).startswith(b"MAIL FROM:<ada@example.org>")

    @pytest.mark.parametrize(
        ("replies", "expected"),
        [
            (b"421 4.3.2 bye\r\n", [("mailfrom", 421), ("mailfrom", 421)]),
            (b"250 ok\r\n421 bye\r\n", [("rcptto", 421), ("rcptto", 421)]),
            (b"250 ok\r\n550 no\r\n421 bye\r\n", [("rcptto", 550), ("rcptto", 421)]),
            (b"250 ok\r\n250 ok\r\n250 ok\r\n421 bye\r\n", [("data", 421), ("data", 421)]),
        ],
    )
    def test_421_answers_everything_that_is_outstanding(self, replies, expected):
        """RFC 5321 §3.8: the server may say so at any time, and is gone then."""
        session = opened()
        begun(session, BOB, CEM)
        session.receive_data(replies)
        assert codes(session) == expected
        assert session.closing
        assert not session.waiting
        assert sent(session) == b""

    def test_421_to_the_final_dot_is_the_answer_to_the_content(self):
        """It is no success and it ends the session."""
        session = opened()
        begun(session)
        session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        sent(session)
        session.receive_data(b"421 4.7.0 too much\r\n")
        assert codes(session) == [("message", 421)]
        assert session.closing

    def test_what_was_answered_stands_when_the_server_goes_mad(self):
        """A surplus reply behind the answer to the content ends the session, not the message."""
        session = opened()
        begun(session)
        session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        sent(session)
        with pytest.raises(RemoteProtocolError):
            session.receive_data(b"250 queued\r\n250 queued again\r\n")
        assert codes(session) == [("message", 250)]
        assert session.closing

    @pytest.mark.parametrize(
        "replies",
        [
            b"354 go\r\n",
            b"250 ok\r\n354 go\r\n",
            b"250 ok\r\n250 ok\r\n250 no 354\r\n",
            b"250 ok\r\nnonsense\r\n",
        ],
    )
    def test_a_reply_of_the_wrong_kind_is_an_error(self, replies):
        """3yz belongs to DATA alone, and DATA is not answered 2yz."""
        session = opened()
        begun(session)
        with pytest.raises(RemoteProtocolError):
            session.receive_data(replies)
        assert codes(session) == [None]
        assert session.closing

    def test_the_answer_to_the_content_cannot_come_before_the_content(self):
        """A 250 right behind the 354 accepts nothing."""
        session = opened()
        begun(session)
        with pytest.raises(RemoteProtocolError):
            session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n")
        assert codes(session) == [None]


class TestStepByStep:
    EHLO = b"250 mx\r\n"

    def test_without_pipelining_each_command_waits(self):
        """A server that does not announce PIPELINING gets one command at a time."""
        session = opened(self.EHLO)
        session.begin(transaction(BOB, CEM))
        dialog = [
            (b"MAIL FROM:<ada@example.org>\r\n", b"250 ok\r\n"),
            (b"RCPT TO:<bob@example.com>\r\n", b"550 no\r\n"),
            (b"RCPT TO:<cem@example.com>\r\n", b"250 ok\r\n"),
            (b"DATA\r\n", b"354 go\r\n"),
            (STUFFED, b"250 ok\r\n"),
        ]
        for ours, theirs in dialog:
            assert session.data_to_send() == ours
            assert session.data_to_send() == b""
            session.receive_data(theirs)
        assert codes(session) == [("rcptto", 550), ("message", 250)]
        assert session.ready

    def test_a_refused_sender_ends_the_transaction(self):
        """No RCPT and no DATA follow; the next transaction begins with RSET, alone."""
        session = opened(self.EHLO)
        session.begin(transaction())
        sent(session)
        session.receive_data(b"451 later\r\n")
        assert sent(session) == b""
        assert session.ready
        session.begin(transaction())
        assert sent(session) == b"RSET\r\n"

    def test_no_data_when_everybody_was_refused(self):
        """DATA is for those who were accepted."""
        session = opened(self.EHLO)
        session.begin(transaction())
        sent(session)
        session.receive_data(b"250 ok\r\n")
        sent(session)
        session.receive_data(b"550 no\r\n")
        assert sent(session) == b""
        assert session.ready

    def test_phases_follow_the_commands(self):
        """The time-outs of RFC 5321 §4.5.3.2 each have their phase."""
        session = opened(self.EHLO)
        session.begin(transaction())
        seen = []
        for reply in (b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n", b"250 ok\r\n"):
            sent(session)
            seen.append((session.phase, session.state))
            session.receive_data(reply)
        assert seen == [("mail", "mailfrom"), ("rcpt", "rcptto"), ("data", "data"), ("dot", "message")]


class TestContent:
    def test_a_large_content_goes_out_in_blocks(self):
        """Until the last block is handed out the phase is block and the state data."""
        session = opened()
        content = b"x" * 1000 + b"\r\n"
        begun(session, content=content * 600)
        session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        blocks = []
        while session.sending_content:
            assert (session.phase, session.state) == ("block", "data")
            blocks.append(session.data_to_send())
        assert b"".join(blocks) == content * 600 + b".\r\n"
        assert all(len(block) <= BLOCK_BYTES for block in blocks)
        assert len(blocks) == 3
        assert (session.phase, session.state) == ("dot", "message")
        assert session.content_bytes_sent == len(content) * 600 + 3

    def test_an_early_refusal_stops_the_content(self):
        """What the server says in the middle holds; as it waits for the end still, the session is over."""
        session = opened()
        begun(session, content=b"y" * 900_000 + b"\r\n")
        session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        session.data_to_send()
        session.receive_data(b"552 5.3.4 enough\r\n")
        assert codes(session) == [("data", 552)]
        assert sent(session) == b""
        assert session.closing

    def test_an_early_acceptance_is_no_acceptance(self):
        """A server cannot take responsibility for what it did not get."""
        session = opened()
        begun(session, content=b"y" * 900_000 + b"\r\n")
        session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        session.data_to_send()
        with pytest.raises(RemoteProtocolError):
            session.receive_data(b"250 thanks\r\n")
        assert codes(session) == [None]
        assert session.closing

    def test_binary_content_goes_by_bdat(self):
        """BINARYMIME needs BDAT (RFC 3030 §3): no DATA, nothing doubled, sent once a recipient is accepted."""
        session = opened(b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n")
        content = b"\x00.\r\n.\n\r.\r\n"
        commands = begun(session, BOB, CEM, content=content, body="binarymime")
        assert commands == (
            b"MAIL FROM:<ada@example.org> BODY=BINARYMIME\r\nRCPT TO:<bob@example.com>\r\nRCPT TO:<cem@example.com>\r\n"
        )
        session.receive_data(b"250 ok\r\n550 no\r\n250 ok\r\n")
        assert sent(session) == b"BDAT 10 LAST\r\n" + content
        session.receive_data(b"250 ok\r\n")
        assert codes(session) == [("rcptto", 550), ("message", 250)]

    def test_binary_content_is_not_sent_to_nobody(self):
        """BDAT waits for the recipients."""
        session = opened(b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n")
        begun(session, content=b"\x00", body="binarymime")
        session.receive_data(b"250 ok\r\n550 no\r\n")
        assert sent(session) == b""
        assert session.ready


class TestLogin:
    """RFC 4954."""

    def offered(self, mechanisms: bytes) -> ClientSession:
        return opened(b"250-mx.test\r\n250-PIPELINING\r\n250 AUTH " + mechanisms + b"\r\n")

    def test_plain_takes_one_line(self):
        """User and password together, and then transactions may begin."""
        session = self.offered(b"LOGIN PLAIN")
        assert session.log_in("ada", "s\xe9cret")
        assert sent(session) == b"AUTH PLAIN AGFkYQBzw6ljcmV0\r\n"
        assert (session.phase, session.state, session.mechanism) == ("auth", "auth", "PLAIN")
        assert not session.ready
        session.receive_data(b"235 2.7.0 welcome\r\n")
        assert session.ready
        assert session.login_answer is not None
        assert session.login_answer.code == 235

    def test_login_asks_twice(self):
        """Each line waits for its challenge."""
        session = self.offered(b"LOGIN")
        assert session.log_in("ada", "secret")
        said = [sent(session)]
        for challenge in (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"):
            session.receive_data(challenge)
            said.append(sent(session))
        assert said == [b"AUTH LOGIN\r\n", b"YWRh\r\n", b"c2VjcmV0\r\n"]
        session.receive_data(b"235 ok\r\n")
        assert session.ready

    def test_a_long_password_has_a_line_of_its_own(self):
        """A command line has 512 octets at most."""
        session = self.offered(b"PLAIN")
        session.log_in("ada", "x" * 500)
        assert sent(session) == b"AUTH PLAIN\r\n"
        session.receive_data(b"334 \r\n")
        assert len(sent(session)) > 600

    @pytest.mark.parametrize("reply", [b"535 5.7.8 no\r\n", b"454 4.7.0 later\r\n", b"421 4.3.2 bye\r\n"])
    def test_a_refused_login_is_told(self, reply):
        """What follows from it is decided elsewhere."""
        session = self.offered(b"PLAIN")
        session.log_in("ada", "wrong")
        sent(session)
        session.receive_data(reply)
        assert session.login_answer is not None
        assert session.login_answer.code == int(reply[:3])

    def test_without_a_common_mechanism_nothing_is_said(self):
        """Not the password in another way."""
        session = self.offered(b"CRAM-MD5 GSSAPI")
        assert not session.log_in("ada", "secret")
        assert sent(session) == b""

    @pytest.mark.parametrize("mechanisms", [b"PLAIN", b"LOGIN"])
    def test_endless_challenges_are_an_error(self, mechanisms):
        """What is not in the mechanism is not answered."""
        session = self.offered(mechanisms)
        session.log_in("ada", "secret")
        for _ in range({b"PLAIN": 0, b"LOGIN": 2}[mechanisms]):
            sent(session)
            session.receive_data(b"334 more\r\n")
        sent(session)
        with pytest.raises(RemoteProtocolError):
            session.receive_data(b"334 more\r\n")


def test_an_answer_is_a_success_only_behind_the_content():
    """2yz anywhere else accepts nothing."""
    session = opened()
    begun(session)
    session.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
    sent(session)
    session.receive_data(b"250 ok\r\n")
    [answer] = session.answers
    assert isinstance(answer, Answer)
    assert answer.accepted
    assert not Answer("rcptto", answer.reply).accepted


DIALOG = b"220 mx\r\n" + EHLO + b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n250 2.0.0 done\r\n"


def drive(blocks: list[bytes]) -> tuple[object, ...]:
    """Feed *blocks* as a carrier would, and tell everything that came of it."""
    session, written, error = ClientSession("out.test"), b"", False
    for block in blocks:
        try:
            session.receive_data(block)
        except RemoteProtocolError:
            error = True
            break
        if session.ready and not session.answers:
            session.begin(transaction(BOB, CEM))
        written += sent(session)
    return written, codes(session), error, session.refusal, session.closing


def paced(data: bytes) -> list[bytes]:
    """Cut *data* where a server would wait: behind the greeting, EHLO, the group, the content."""
    ends = [data.index(b"220 mx\r\n") + 8, data.index(b"8BITMIME\r\n") + 10, data.index(b"354 go\r\n") + 8, len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def test_a_whole_session_byte_by_byte():
    """Answers in one piece, or in single bytes, come to the same."""
    whole = drive(paced(DIALOG))
    assert whole[1] == [("message", 250), ("rcptto", 550)]
    assert drive([DIALOG[i : i + 1] for i in range(len(DIALOG))]) == whole


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from(DIALOG.splitlines(keepends=True))), max_size=25))
def test_any_answers_give_results_or_a_protocol_error(blocks):
    """Whatever a server says, nothing but ``RemoteProtocolError`` comes out, and nobody is accepted by accident."""
    written, answers, *_ = drive(blocks)
    accepted = [answer for answer in answers if answer == ("message", 250)]
    assert not accepted or written.endswith(b".\r\n")
