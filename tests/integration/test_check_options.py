"""What follows from checks, as clients, readers of the queues and readers of the mail see it."""

from __future__ import annotations

import contextlib
import json
import smtplib
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from jsonschema import Draft202012Validator

from tests.support.checking import Checking, Client, inbox, running_checks
from tests.support.dkim_signer import Key, ed25519_key, record, rsa_key, signed
from tests.support.instance import ROOT, free_port
from tests.support.received import example
from tests.support.spam_servers import GTUBE, RSPAMD, SPAMD, running_rspamd, running_spamd

pytestmark = pytest.mark.slow

CONTENT = (
    b"From: Ada <ada@example.org>\r\nTo: Grace <grace@example.com>\r\nSubject: lunch on Friday\r\n"
    b"Date: " + format_datetime(datetime.now(UTC)).encode() + b"\r\nMessage-ID: <abcdef.1234567@example.org>\r\n\r\n"
    b"Shall we meet at noon, at the place by the river?\r\n"
)
FORGED = b"Authentication-Results: %s;\r\n dmarc=pass header.from=example.org\r\n"
GOOD, BAD = "192.0.2.1", "192.0.2.66"
ZONES: dict[str, Any] = {
    "example.org": {"TXT": ["v=spf1 ip4:192.0.2.1 exp=why.example.org -all"]},
    "why.example.org": {"TXT": ["%{i} is not ours"]},
    "_dmarc.example.org": {"TXT": ["v=DMARC1; p=reject"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["client.test"]},
    "client.test": {"A": ["192.0.2.1"]},
}
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs" / "schema" / "inbox.json").read_text("utf-8")))
QUEUES = {"rabbitmq_local": "local", "rabbitmq_refused": "refused", "rabbitmq_outbox": "out"}


@contextlib.contextmanager
def running(folder: Path, **options: object) -> Iterator[Checking]:
    """Run a relay with *options* and the zones above."""
    with running_checks(folder, **(QUEUES | options)) as relay:
        relay.dns.zones = dict(ZONES)
        yield relay


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checking]:
    """A relay that refuses for SPF and DMARC, has a local address, and tells local readers of its checks."""
    with running(
        tmp_path_factory.mktemp("relay"),
        smtp_check_reject="spf,dmarc",
        smtp_auth_results="local",
        smtp_received_spf="true",
        local="grace@example.com",
    ) as relay:
        yield relay


def taken(relay: Checking, queue: str) -> dict[str, Any]:
    """Take one message out of *queue*; it is valid by its schema."""
    with contextlib.closing(inbox(relay, queue)) as messages:
        message = next(messages)
    assert [error.message for error in SCHEMA.iter_errors(message)] == []
    return message


def hand_over(relay: Checking, client_ip: str, content: bytes = CONTENT, **more: str) -> str:
    """Send a message of ada@example.org and return the reply."""
    with Client(relay.port, client_ip) as client:
        return client.hand_over(content, more.get("mail_from", "ada@example.org"), more.get("to", "joan@example.com"))


def names(message: dict[str, Any]) -> list[str]:
    """Return the names of the header fields."""
    head = message["mime"].split("\r\n\r\n")[0].split("\r\n")
    return [line.split(":")[0] for line in head if line[0] not in " \t"]


def test_for_a_local_reader(relay: Checking) -> None:
    """Results stand between Return-Path and our Received; what claimed to be ours is gone, what is others' stays."""
    forged = FORGED % b"relay.test" + FORGED % b"(x) RELAY.test 1" + FORGED % b"mx.example"
    assert hand_over(relay, GOOD, forged + CONTENT, to="grace@example.com").startswith("250")
    message = taken(relay, "local")
    assert names(message)[:5] == [
        "Return-Path",
        "Authentication-Results",
        "Received-SPF",
        "Received",
        "Authentication-Results",
    ]
    unfolded = message["mime"].replace("\r\n ", " ")
    assert "Authentication-Results: relay.test; spf=pass" in unfolded
    assert "iprev=pass" in unfolded
    assert "dmarc=pass header.from=example.org" in unfolded.split("Received-SPF")[0]
    assert unfolded.count("Authentication-Results:") == 2
    assert "RELAY" not in unfolded
    assert [next(iter(item)) for item in message["checks"]] == ["spf", "dkim", "dmarc", "arc", "iprev"]


def test_for_others(relay: Checking) -> None:
    """Others are not told in the header, and what was forged is gone for them as well; the JSON tells."""
    assert hand_over(relay, GOOD, FORGED % b"relay.test" + CONTENT).startswith("250")
    message = taken(relay, "inbox")
    assert names(message)[:2] == ["Received", "From"]
    assert message["checks"][0]["spf"] == "pass"


def test_refused_for_spf(relay: Checking) -> None:
    """The client is told what the domain has to say, and the evidence has what was found."""
    answer = hand_over(relay, BAD)
    assert answer == "550 5.7.23 SPF: example.org explains: 192.0.2.66 is not ours"
    message = taken(relay, "refused")
    assert message["refused"] == {
        "code": 550,
        "status": "5.7.23",
        "reason": "SPF: 192.0.2.66 is not ours",
        "stage": "check",
    }
    assert message["checks"][0]["spf"] == "fail"


def test_refused_for_dmarc(relay: Checking) -> None:
    """A message that only claims to be from the domain is refused as its owner wants it."""
    assert hand_over(relay, BAD, mail_from="") == "550 5.7.1 rejected per DMARC policy for example.org"
    assert taken(relay, "refused")["refused"]["stage"] == "check"
    line = next(line for line in reversed(relay.events("message.refused")) if line.get("dmarc"))
    assert (line["spf"], line["dkim"], line["dmarc"]) == ("none", "none", "fail")


def test_silence_refuses_nobody(relay: Checking) -> None:
    """A server that does not answer is no reason to refuse."""
    relay.dns.zones = ZONES | {"silent.test": "SERVFAIL", "_dmarc.silent.test": "SERVFAIL"}
    content = CONTENT.replace(b"ada@example.org", b"ada@silent.test")
    assert hand_over(relay, BAD, content, mail_from="ada@silent.test").startswith("250")
    checks = {next(iter(item)): next(iter(item.values())) for item in taken(relay, "inbox")["checks"]}
    assert (checks["spf"], checks["dmarc"]) == ("temperror", "temperror")
    undecided = [event["check"] for event in relay.events("check.undecided")]
    assert undecided == ["spf", "dmarc"]


def test_a_large_message_with_two_signatures(relay: Checking) -> None:
    """An Ed25519 and an RSA signature over 2 MB pass; with one octet changed on the way none does."""
    large = CONTENT + b"a line of mail, and another one after it, until it is large\r\n" * 35_000
    keys: dict[str, Key] = {"s1": ed25519_key(), "s2": rsa_key()}
    for selector, key in keys.items():
        large = signed(large, key, {"d": "example.org", "s": selector})
    texts = {selector: record(key) for selector, key in keys.items()}
    relay.dns.zones = ZONES | {
        f"{selector}._domainkey.example.org": {"TXT": [[text[at : at + 255] for at in range(0, len(text), 255)]]}
        for selector, text in texts.items()
    }
    for content, word in ((large, "pass"), (large[:-3] + b"X\r\n", "fail")):
        assert hand_over(relay, GOOD, content).startswith("250")
        checks = taken(relay, "inbox")["checks"]
        assert [(item["dkim"], item["selector"]) for item in checks if "dkim" in item] == [(word, "s2"), (word, "s1")]
        assert next(item["aligned"] for item in checks if "dmarc" in item) == {"spf": True, "dkim": word == "pass"}


def test_who_has_logged_in(tmp_path: Path) -> None:
    """Mail of users is checked as the port says, and never refused for SPF and DMARC."""
    issued = trustme.CA().issue_cert("relay.test")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    pem = tmp_path / "relay.pem"
    with running(
        tmp_path, smtp_check_reject="spf,dmarc", smtp_auth="hardcoded://ada:secret", smtp_certificate=pem, smtp_key=pem,
        smtp_proxy="", smtp_relay="range",
    ) as relay:  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=60) as client:
            client.starttls(context=context)
            with pytest.raises(smtplib.SMTPDataError) as caught:
                client.sendmail("ada@example.org", ["joan@example.com"], CONTENT)
            assert caught.value.smtp_code == 550
            client.login("ada", "secret")
            client.sendmail("ada@example.org", ["joan@example.com"], CONTENT)
        message = taken(relay, "inbox")
    assert (message["connection"]["user"], message["checks"][0]["spf"]) == ("ada", "fail")


@pytest.mark.peers
def test_spam(tmp_path: Path) -> None:
    """A real spamd decides: spam is refused, ham is taken; and what it does not say refuses nobody."""
    if not Path(SPAMD).exists():
        pytest.skip("install spamd (Debian package) to run this")
    (tmp_path / "spamd").mkdir()
    (tmp_path / "spamd").chmod(0o777)
    with running_spamd(tmp_path / "spamd") as port:
        options = {"smtp_check": "spam", "smtp_check_reject": "spam", "spamassassin_port": port}
        with running(tmp_path, **options) as relay:
            spam = CONTENT + GTUBE + b"\r\n"
            assert hand_over(relay, GOOD, spam) == "550 5.7.1 the message looks like spam"
            refused = taken(relay, "refused")
            assert (refused["checks"][0]["spam"], "GTUBE" in refused["checks"][0]["rules"]) == ("spam", True)
            assert hand_over(relay, GOOD).startswith("250")
            assert taken(relay, "inbox")["checks"][0]["spam"] == "ham"
            relay.options["spamassassin-port"] = free_port()
            relay.write_configuration()
            relay.verb("reload")
            deadline = time.monotonic() + 30
            while (answer := hand_over(relay, GOOD, spam)).startswith("550") and time.monotonic() < deadline:
                time.sleep(0.1)
            assert answer.startswith("250")
            assert taken(relay, "inbox")["checks"] == [
                {"spam": "temperror", "engine": "spamassassin", "reason": "the filter did not answer"}
            ]
            assert relay.events("spam.filter_lost")


def test_the_block_of_the_guide(tmp_path: Path) -> None:
    """The configuration in the guide works as it stands: checked, refused for DMARC, and told."""
    options = example("checks.md", "smtp-auth-results", {})
    assert options["smtp-check-reject"] == "dmarc"
    with running(tmp_path, **{key.replace("-", "_"): value for key, value in options.items()}) as relay:
        assert hand_over(relay, BAD).startswith("550 5.7.1")
        assert hand_over(relay, GOOD).startswith("250")
        assert names(taken(relay, "inbox"))[:2] == ["Authentication-Results", "Received"]


@pytest.mark.peers
def test_the_block_of_the_guide_about_rspamd(tmp_path: Path) -> None:
    """The configuration in the guide has a real Rspamd asked, and mail refused for what it says."""
    if not Path(RSPAMD).exists():
        pytest.skip("install rspamd (Debian package) to run this")
    (tmp_path / "rspamd").mkdir()
    with running_rspamd(tmp_path / "rspamd") as port:
        options = example("checks.md", "rspamd-address", {"127.0.0.1:11333": f"127.0.0.1:{port}"})
        wanted: dict[str, object] = {key.replace("-", "_"): value for key, value in options.items()}
        with running(tmp_path, smtp_auth_results="nonlocal", **wanted) as relay:
            assert hand_over(relay, GOOD, CONTENT + GTUBE + b"\r\n") == "550 5.7.1 the message looks like spam"
            assert hand_over(relay, GOOD, CONTENT + b"bargain\r\n").startswith("250")
            message = taken(relay, "inbox")
    spam = next(item for item in message["checks"] if "spam" in item)
    assert (spam["spam"], spam["action"], spam["engine"]) == ("ham", "add header", "rspamd")
    assert "x-spam=ham policy.score=7.5 policy.threshold=15" in message["mime"].replace("\r\n ", " ")
