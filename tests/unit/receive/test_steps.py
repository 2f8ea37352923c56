"""What happens to a message before it is published: fields, what is read of it, the operator's code."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from mtaq.mailauth.authres_forged import without_forged
from mtaq.model.address import Address
from mtaq.model.decision import Decision, accept
from mtaq.receive import steps
from mtaq.receive.checks import Checks
from mtaq.receive.draft import Draft, Refusal
from mtaq.receive.policy import PortPolicy
from mtaq.receive.steps import prepare
from mtaq.smtp.server_events import Transaction
from tests.unit.receive.checking import SPAM, Dns, Filter
from tests.unit.receive.fakes import NOW, Names, event_log, facts, policy, settings

CONTENT = b"Subject: hello\r\nX-MQ-Tag: a\r\nX-MQ-Mime: evil\r\n\r\nhello\r\n"
HTML = b"Content-Type: text/html\r\n\r\n<p>hello</p>\r\n"


def draft(content: bytes) -> Draft:
    transaction = Transaction(
        reverse_path=Address("ada", "example.org"), forward_paths=[Address("grace", "example.com")]
    )
    return Draft.of(transaction, content, facts(policy()), identity="srv.id", now=NOW)


async def prepared(content: bytes = CONTENT, **options: str) -> Draft:
    made = draft(content)
    await prepare(made, facts(policy(**options)))
    return made


async def test_fields_are_taken() -> None:
    """Fields become properties and leave the content; reserved ones leave it only."""
    made = await prepared()
    assert made.content == b"Subject: hello\r\n\r\nhello\r\n"
    assert made.properties["tags"] == ["a"]
    assert "mime" not in made.properties


async def test_fields_of_strangers_are_taken_out_and_ignored() -> None:
    """Under `trusted`, whoever is no friend sets nothing and is not refused either."""
    made = await prepared(CONTENT.replace(b"X-MQ-Tag: a", b"X-MQ-Priority: no number"), smtp_extract="trusted")
    assert made.content == b"Subject: hello\r\n\r\nhello\r\n"
    assert "priority" not in made.properties
    made = await prepared(smtp_extract="trusted", smtp_extract_range="198.51.100.0/24")
    assert made.properties["tags"] == ["a"]


async def test_fields_are_left_where_they_are() -> None:
    """Under `false` they are fields like all others."""
    made = await prepared(smtp_extract="false")
    assert made.content == CONTENT
    assert made.properties["extracted"]["headers"]["x-mq-tag"] == "a"


async def test_a_wrong_value_is_refused() -> None:
    """The reply names the field."""
    with pytest.raises(Refusal) as caught:
        await prepared(b"X-MQ-Priority: urgent\r\n\r\n")
    assert caught.value.reply.text == "x-mq-priority: expected a whole number from 0 to 255"


async def test_what_is_read() -> None:
    """`smtp-parse` says how much of the content is read: nothing, its header section, all of it."""
    assert "extracted" not in (await prepared(smtp_parse="none")).properties
    headers = (await prepared()).properties["extracted"]
    assert headers["subject"] == "hello"
    assert headers["envelope"] == {"local": "ada", "domain": "example.org"}
    assert "x-mq-tag" not in headers["headers"]
    assert "text" not in headers
    assert (await prepared(smtp_parse="full")).properties["extracted"] == headers | {
        "text": "hello\r\n",
        "attachments": [],
    }


async def test_envelope_of_a_field_counts() -> None:
    """What is read follows what the fields said."""
    made = await prepared(b"X-MQ-Envelope: <>\r\n\r\n")
    assert made.properties["extracted"]["envelope"] == {"local": "", "domain": ""}


async def test_a_large_body_is_described_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says the same."""
    small = (await prepared(smtp_parse="full")).properties["extracted"]
    monkeypatch.setattr(steps, "LARGE_BYTES", 1)
    assert (await prepared(smtp_parse="full")).properties["extracted"] == small


# Checks.

GUARDED = b"From: ada@example.org\r\nX-MQ-Tag: a\r\n\r\nhello\r\n"


async def checked(
    content: bytes = GUARDED, *, dns: Dns | None = None, spam: Filter | None = None, **options: str
) -> Draft:
    """Return a draft that was prepared on a port with checks."""
    port_policy = policy(**options)
    port_policy.checks = Checks(dns or Dns(), events=event_log()[0])
    port_policy.spam = spam
    made = draft(content)
    await prepare(made, facts(port_policy))
    return made


async def test_checks_see_the_content_as_it_came() -> None:
    """They come before anything is taken out, and stand in the JSON."""
    spam = Filter()
    made = await checked(spam=spam, smtp_check="spf,spam")
    assert spam.seen == [GUARDED]
    assert made.content == GUARDED.replace(b"X-MQ-Tag: a\r\n", b"")
    assert [next(iter(item)) for item in made.properties["checks"]] == ["spf", "spam"]
    assert made.properties["checks"][0]["smtp.mailfrom"] == "ada@example.org"
    assert made.to_json()["checks"] == made.properties["checks"]


async def test_without_checks_nothing_is_said() -> None:
    """There is no `checks` where nothing is checked."""
    assert "checks" not in (await checked()).properties


async def test_a_message_that_is_refused() -> None:
    """The reason stands in the log, the results in the evidence."""
    options = {"smtp_check": "spf,spam", "smtp_check_reject": "spam"}
    with pytest.raises(Refusal) as caught:
        await checked(spam=Filter(SPAM), **options)
    assert (caught.value.stage, str(caught.value.reply)) == ("check", "550 5.7.1 the message looks like spam")
    assert (await checked(spam=Filter(), **options)).properties["checks"][1]["spam"] == "ham"


async def test_a_large_header_section_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged results are looked for in a thread there, and here where that is quicker."""
    looked: list[bool] = []

    def look(content: bytes, name: str) -> bytes:
        looked.append(threading.current_thread() is threading.main_thread())
        return without_forged(content, name)

    monkeypatch.setattr(steps, "without_forged", look)
    forged = b"Authentication-Results: relay.test; dmarc=pass\r\n"
    fields = b"X-Filler: y\r\n" * (steps.LARGE_BYTES // 10)
    assert forged not in (await prepared(fields + forged + b"\r\n", smtp_hostname="relay.test")).content
    assert looked
    assert not any(looked)
    looked.clear()
    await prepared(forged + b"\r\n" + fields, smtp_hostname="relay.test")
    assert looked
    assert all(looked)


async def test_forged_results_are_taken_out() -> None:
    """Whatever is checked, nobody else speaks in the name of a port of ours; other names stay."""
    forged = b"Authentication-Results: %s; dmarc=pass\r\n"
    content = b"".join(forged % name for name in (b"relay.test", b"FOUND.test", b"mx.example")) + GUARDED
    port_policy = PortPolicy(
        settings().receive(25), port=25, hostnames=Names(), broker_max_bytes=None, starttls=False,
        own_names=("found.test",),
    )  # fmt: skip
    made = draft(content)
    await prepare(made, facts(port_policy))
    assert made.content == forged % b"mx.example" + GUARDED.replace(b"X-MQ-Tag: a\r\n", b"")


async def test_nobody_changes_what_was_found() -> None:
    """Operators' code sees the results, and what it makes of them does not count."""
    port_policy = policy(smtp_check="spf")
    port_policy.checks = Checks(Dns(), events=event_log()[0])
    seen: list[Any] = []

    def change(message: dict[str, Any]) -> dict[str, Any]:
        seen.append(message["checks"][0]["spf"])
        return message | {"checks": [], "tags": ["b"]}

    port_policy.pipeline = Pipeline(change)  # type: ignore[assignment]  # run is all that is asked of it
    made = draft(GUARDED)
    await prepare(made, facts(port_policy))
    assert seen == ["pass"]
    assert (made.properties["checks"][0]["spf"], made.properties["tags"]) == ("pass", ["b"])


# After the operator's code.

Change = Callable[[dict[str, Any]], dict[str, Any]]


class Pipeline:
    """A pipeline of one function."""

    def __init__(self, change: Change) -> None:
        self._change = change

    async def run(self, message: dict[str, Any]) -> Decision:
        """Change the message."""
        return accept(self._change(dict(message)))


async def piped(change: Change, **options: str) -> dict[str, Any]:
    """Return `extracted` after a step changed the message."""
    made, session = draft(HTML), facts(policy(**options))
    session.policy.pipeline = Pipeline(change)  # type: ignore[assignment]  # run is all that is asked of it
    await prepare(made, session)
    found: dict[str, Any] = made.properties.get("extracted", {})
    return found


async def test_changed_content_is_read_again() -> None:
    """HTML that a step took out of the content is not left in `extracted`."""
    plain = {"mime": "Subject: new\r\n\r\nplain\r\n"}
    found = await piped(lambda message: message | plain, smtp_parse="full")
    assert (found["subject"], found["text"]) == ("new", "plain\r\n")
    assert "html" not in found
    assert await piped(lambda message: message | plain, smtp_parse="none") == {}


async def test_what_a_step_described_is_described_again() -> None:
    """When a step had the body described, a later change of it counts, whatever `smtp-parse` says."""
    stale = {"html": "<script>", "attachments": [], "own": 1}
    changed = {"mime": "\r\nplain", "extracted": stale}
    for wanted in ("none", "headers"):
        found = await piped(lambda message: message | changed, smtp_parse=wanted)
        assert "html" not in found
        assert (found["text"], found["own"]) == ("plain", 1)


async def test_unchanged_content_is_not_read_again() -> None:
    """What a step wrote into `extracted` stays when it left the content alone."""
    found = await piped(lambda message: message | {"extracted": {"subject": "mine"}})
    assert found == {"subject": "mine"}
