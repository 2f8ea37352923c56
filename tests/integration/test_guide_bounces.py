"""The examples of docs/guide/bounces.md, delivered as they stand there."""

from __future__ import annotations

import email
import email.policy
import json
import re
from dataclasses import replace
from pathlib import Path

from mtaq.model.schema import CATEGORIES
from mtaq.receive.properties import FIELDS
from tests.support.delivery import NAMES, World, options
from tests.support.fake_mx import FakeMx, Script

PAGE = Path(__file__).parents[2] / "docs/guide/bounces.md"
NO_USER = Script(replies={"RCPT": b"550 5.1.1 <grace@example.net>: user unknown\r\n"})


def blocks(language: str) -> list[str]:
    """Return what stands in the page's blocks of this kind."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


async def test_the_examples_do_what_the_page_says() -> None:
    """The first makes no notice; the second makes the one that stands below it."""
    names = replace(NAMES, dsn="outbox", ehlo_name=lambda source: "mail.example.com")
    async with FakeMx(NO_USER) as mx:
        changed = options(delivery_port=mx.port, dsn_from="postmaster@example.com")
        async with World(options=changed, names=names) as world:
            world.resolver.add("example.net", (10, "mx.example.net", mx.ip))
            silent, told = map(json.loads, blocks("json"))
            await world.deliver(silent)
            assert world.queues.stored["outbox"] == []
            world.queues.stored.clear()
            await world.deliver(told)
            [stored] = world.queues.stored["outbox"]
            notice = email.message_from_string(stored.json["mime"], policy=email.policy.default)
            text, _, returned = notice.iter_parts()
            assert [text.get_content().splitlines()] == [block.splitlines() for block in blocks("text")]
            assert notice["To"] == "ada@example.com"
            assert "Subject: Your order" in returned.get_content()
            result = world.result("failure")
            assert (result["category"], result["notice"]) == ("bad-mailbox", "failure")


def test_every_word_is_explained() -> None:
    """In the order of the page; and the field that it names is one."""
    words = re.findall(r"^\| `([a-z-]+)` \| .* \| .* \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert set(words) == set(CATEGORIES)
    assert "dsn-notify" in FIELDS
