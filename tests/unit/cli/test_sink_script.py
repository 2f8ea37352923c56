"""Scripts of the sink as text: what the words mean, and what is said about mistakes."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mtaq.cli.sink_addresses import Place, Places, parse_places
from mtaq.cli.sink_extensions import announced, objection, submitter
from mtaq.cli.sink_faults import Fault, Faults, Scene
from mtaq.cli.sink_limits import MINUTE_S, Limits
from mtaq.cli.sink_profile import Profile, profile_at
from mtaq.cli.sink_script import ScriptError, parse_line, parse_script, text_rule
from mtaq.cli.sink_scripted import content_size
from mtaq.cli.sink_texts import KINDS, TEXTS
from mtaq.model.reply import reply

HERE = Place("127.0.0.2", 25)


def scene(**changes: object) -> Scene:
    usual: dict[str, object] = {"place": HERE, "client_ip": "127.0.0.9", "message": 1, "sender": "ada@example.org"}
    return Scene(**(usual | {"recipients": ["bob@example.com"]} | changes))  # type: ignore[arg-type]  # of its fields


def fault_of(line: str) -> Fault:
    [rule] = parse_line(line).rules
    return rule.fault


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("rcpt: 450 4.2.0 later, please", Fault(reply=reply(450, "4.2.0", "later, please"))),
        ("rcpt: 550 no | not ever", Fault(reply=reply(550, None, "no", "not ever"))),
        ("mail: drop", Fault(act="drop")),
        ("connect: endless", Fault(act="endless")),
        ("data: wait 1.5, ok", Fault(delay_s=1.5)),
        ("data: wait 1.5", Fault(delay_s=1.5)),
        ("ehlo: pace 0.1, close, 250 mx", Fault(pace_s=0.1, close=True, reply=reply(250, None, "mx"))),
        ("message: keep, drop", Fault(keep=True, act="drop")),
        ("content: after 1000, reset", Fault(after_bytes=1000, act="reset")),
        ("content: read 500", Fault(bytes_per_s=500)),
        ("noop: unasked", Fault(unasked=True)),
        ("rcpt: apple:unknown", Fault(reply=reply(550, "5.1.1", "<{to}>: user does not exist"))),
        ("idle: wait 2, 421 4.4.2 bye", Fault(delay_s=2, reply=reply(421, "4.4.2", "bye"))),
    ],
)  # fmt: skip
def test_answers(line: str, fault: Fault) -> None:
    """What stands behind the colon is modifiers and an answer."""
    assert fault_of(line) == fault


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rcpt 450 later", "STAGE: ANSWER or SETTING: VALUE is expected"),
        ("lunch: drop", "'lunch' is neither a stage (connect, ehlo,"),
        ("rcpt: maybe", "'maybe': a reply such as"),
        ("rcpt: wait soon, drop", "'soon': seconds are expected"),
        ("rcpt: keep, drop", "'keep' means something at message only"),
        ("rcpt: close now, ok", "'now': no value is expected"),
        ("rcpt: 99 bottles", "a reply code of three digits"),
        ("content: after 0, drop", "'0': a number of octets"),
        ("content: after 5, 250 fine", "4yz or 5yz"),
        ("idle: ok", "at idle a reply"),
        ("rcpt 150%: drop", "0% to 100%"),
        ("rcpt x: drop", "'x': N% or one of at=, client="),
        ("connect to=*: drop", "nothing is known of that at connect"),
        ("rcpt message=0: drop", "'0': a number such as 2"),
        ("rcpt tls=maybe: drop", "yes or no"),
        ("rcpt client=everybody: drop", "an IP address or CIDR range"),
        ("rcpt at=here: drop", "'here': IP, IP:PORT"),
        ("without: SPEED", "'SPEED' is not one of EHLO, PIPELINING"),
        ("tls-min: 1.1", "1.2 or 1.3"),
        ("certificate: bad", "good, wrong-name, expired, self-signed or a PEM file"),
        ("login: ada", "USER:PASSWORD"),
        ("size: big", "size: 'big' is not a size"),
        ("rate: 0", "rate: '0' is out of place"),
        ("hostname: a b", "a host name"),
        ("rate from=*: 3", "at=IP[:PORT] only"),
    ],
)
def test_mistakes(line: str, words: str) -> None:
    """A mistake is told in words, with what is expected."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_line(line)


def test_all_mistakes_of_a_script_are_told_with_their_lines() -> None:
    """Empty lines and comments count as lines and are nothing else."""
    with pytest.raises(ScriptError) as error:
        parse_script("# a comment\n\nlunch: drop\nrcpt: drop\n  rate: x\n", "trial.sink")
    first, second = str(error.value).splitlines()
    assert first.startswith("trial.sink:3: 'lunch'")
    assert second.startswith("trial.sink:5: ")


@pytest.mark.parametrize(
    ("condition", "holds", "does_not"),
    [
        ("at=127.0.0.2", scene(), scene(place=Place("127.0.0.3", 25))),
        ("at=127.0.0.1-3:25", scene(), scene(place=Place("127.0.0.2", 26))),
        ("client=127.0.0.8/31", scene(), scene(client_ip="127.0.0.10")),
        ("connection=2-", scene(connection=3), scene(connection=1)),
        ("message=2", scene(message=2), scene(message=3)),
        ("message=2-3", scene(message=3), scene(message=4)),
        ("helo=*.test", scene(helo="MX.test"), scene(helo="mx.example")),
        ("tls=yes", scene(secure=True), scene()),
        ("from=example.org", scene(), scene(sender="ada@sub.example.org")),
        ("from=<>", scene(sender=""), scene()),
        ("to=BOB@*", scene(), scene(recipients=["rob@example.com"])),
        ("to=*.com", scene(recipients=["a@x.org", "b@y.com"]), scene(recipients=["a@x.org"])),
    ],
)
def test_conditions(condition: str, holds: Scene, does_not: Scene) -> None:
    """A rule applies only where all of its conditions hold."""
    faults = Faults(parse_line(f"message {condition} from=*: drop").rules)
    assert faults.next("message", holds) == Fault(act="drop")
    assert faults.next("message", does_not) is None


def test_at_rcpt_the_recipient_in_question_counts() -> None:
    """Later any of them does."""
    faults = Faults(parse_script("rcpt to=bad@x: drop\nmessage to=bad@x: drop", "").rules)
    both = scene(recipients=["bad@x", "good@x"])
    assert faults.next("rcpt", both) is None
    assert faults.next("message", both) is not None


def test_the_first_rule_whose_turn_it_is_counts() -> None:
    """A rule that lets an occasion pass leaves it to the next one."""
    faults = Faults(parse_script("rcpt 50%: 450 half\nrcpt: 550 rest", "").rules)
    given = [fault.reply for _ in range(4) if (fault := faults.next("rcpt", scene())) and fault.reply]
    assert [each.code for each in given] == [550, 450, 550, 450]


def test_chance_is_repeated_by_its_seed() -> None:
    """The same seed gives the same occasions, another one others, and about as many as were asked for."""
    [rule] = parse_line("rcpt 30%: drop").rules

    def occasions(seed: int) -> list[bool]:
        faults = Faults([rule], seed=seed)
        return [faults.next("rcpt", scene()) is not None for _ in range(1000)]

    assert occasions(1) == occasions(1) != occasions(2)
    assert 250 < sum(occasions(1)) < 350


def test_settings_hold_where_they_are_meant() -> None:
    """The last word counts, and logins and extensions add up."""
    text = "size: 1MB\nsize at=127.0.0.3-9: 2MB\nwithout: DSN, size\nwithout: chunking\nlogin: a:b:c\nlogin: d:e\n"
    script = parse_script(text, "")
    profile = profile_at(HERE, Profile(), script.settings)
    assert profile.max_size_bytes == 1 << 20
    assert profile.without == {"DSN", "SIZE", "CHUNKING"}
    assert profile.logins == {"a": "b:c", "d": "e"}
    assert "b:c" not in repr(profile)
    assert profile_at(Place("127.0.0.9", 25), Profile(), script.settings).max_size_bytes == 2 << 20


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_replies_of_their_kind(name: str) -> None:
    """Each is a refusal at a stage where a script can give it, under a kind that the guide explains."""
    rule = text_rule(name)
    assert rule.fault.reply is not None
    assert rule.fault.reply.code >= 400
    assert rule.fault.reply.status is None or rule.fault.reply.status[0] == str(rule.fault.reply.code)[0]
    assert name.partition(":")[2] in KINDS
    assert parse_line(f"{rule.stage}: {name}").rules[0] == rule


def test_no_text_of_that_name() -> None:
    """The names that exist are told."""
    with pytest.raises(ValueError, match="gmail:rate"):
        text_rule("gmail:lunch")


def test_places() -> None:
    """One address, or several in a row; IPv6 in brackets."""
    assert parse_places("127.0.0.1:25") == [Place("127.0.0.1", 25)]
    assert parse_places("[::1]:25") == [Place("::1", 25)]
    assert [place.ip for place in parse_places("127.0.0.2-4:25")] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    assert Place("::1", 25) in Places.parse("::1")
    assert Place("::1", 25) in Places.parse("[::1]:25")
    assert Place("127.0.0.3", 25) not in Places.parse("::1")
    for text in ("127.0.0.4-2:25", "127.0.0.2-300:25", "[::1]-5:25", "127.0.0.1", "x:25", "127.0.0.1:70000"):
        with pytest.raises(ValueError, match="is expected"):
            parse_places(text)


# Extensions

EHLO = b"250-mx\r\n250-PIPELINING\r\n250-SIZE 10\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"


def test_extensions_that_are_off_are_not_announced() -> None:
    """The last line that is left ends the reply; BINARYMIME goes with CHUNKING."""
    assert announced(EHLO, frozenset()) == EHLO
    assert announced(EHLO, frozenset({"SIZE", "CHUNKING"})) == b"250-mx\r\n250 PIPELINING\r\n"
    assert announced(EHLO, frozenset({"SIZE", "CHUNKING", "PIPELINING"})) == b"250 mx\r\n"


@pytest.mark.parametrize(
    ("line", "without", "code"),
    [
        (b"MAIL FROM:<a@b> BODY=8BITMIME\r\n", "8BITMIME", 555),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n", "CHUNKING", 555),
        (b"mail from:<a@b> size=5\r\n", "SIZE", 555),
        (b"MAIL FROM:<a@b> SMTPUTF8\r\n", "SMTPUTF8", 555),
        (b"RCPT TO:<a@b> NOTIFY=NEVER\r\n", "DSN", 555),
        (b"BDAT 5 LAST\r\n", "CHUNKING", 500),
        (b"EHLO x\r\n", "EHLO", 500),
        (b"HELO x\r\n", "EHLO", None),
        (b"MAIL FROM:<a@b> SIZE=5\r\n", "DSN", None),
        (b"MAIL FROM:<SIZE@b>\r\n", "SIZE", None),
    ],
)
def test_what_was_not_announced_is_refused(line: bytes, without: str, code: int | None) -> None:
    """Parameters of MAIL and RCPT with 555, commands with 500."""
    answer = objection(line, frozenset({without}))
    assert (answer.code if answer else None) == code
    assert objection(line, frozenset()) is None


def test_submitter() -> None:
    """AUTH= of MAIL is xtext, or a pair of brackets."""
    assert submitter(b"MAIL FROM:<a@b> SIZE=5 AUTH=e+3Dmc2@example.com\r\n") == "e=mc2@example.com"
    assert submitter(b"MAIL FROM:<a@b> auth=<>\r\n") == "<>"
    assert submitter(b"MAIL FROM:<a@b> AUTH=+zz\r\n") is None
    assert submitter(b"MAIL FROM:<a@b>\r\n") is None


# Limits


def test_connections_of_a_client_are_counted() -> None:
    """One too many is refused, counted all the same, and gone when it is closed."""
    limits = Limits(Profile(connections=1))
    assert limits.opened("a") is None
    assert limits.opened("b") is None
    refusal = limits.opened("a")
    assert refusal is not None
    assert refusal.code == 421
    limits.closed("a")
    limits.closed("a")
    assert limits.opened("a") is None
    assert limits.open == Counter(a=1, b=1)
    assert limits.accepted == 4


def test_messages_are_counted_by_connection_and_by_minute() -> None:
    """No window of a minute has more than the rate; what was refused does not count."""
    limits = Limits(Profile(messages=5, rate=2))
    codes = []
    for second in (0.0, 1.0, 2.0, MINUTE_S, MINUTE_S, MINUTE_S + 1):
        refusal = limits.begins("a", 1, second)
        codes.append(refusal.code if refusal else 250)
    assert codes == [250, 250, 451, 250, 451, 250]
    too_many = limits.begins("b", 6, 0.0)
    assert too_many is not None
    assert too_many.code == 421
    assert limits.begins("b", 5, 0.0) is None


# Content


@pytest.mark.parametrize(
    "content", [b".\r\n", b"a\r\n.\r\n", b"..\r\n\r\n.\r\n", b"\r\n.\r\n", b"a\r\n.b\r\n.\n.\r\n.\r\n"]
)
def test_content_ends_at_its_dot_however_it_comes(content: bytes) -> None:
    """Commands behind the final dot are never taken for content, whole or byte by byte."""
    behind = b"MAIL FROM:<a@b>\r\n.\r\n"
    assert content_size(content + behind, begins=True) == len(content)
    held, taken = bytearray(), b""
    for octet in content + behind:
        held.append(octet)
        size = content_size(held, begins=not taken)
        taken += bytes(held[:size])
        del held[:size]
        if taken.endswith(b"\r\n.\r\n") or taken == b".\r\n":
            break
    assert taken == content
