"""What rewrite rules make of a message."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mtaq.state.control_entries import rewrite_rule
from mtaq.state.rewriting import LONGEST_PATH, MOST_APPLIED
from tests.support.control import START, Clock, about, control


def rule(position: int = 1, **fields: object):
    return rewrite_rule(**({"position": position, "about": about()} | fields))


def recipients(*rules, recipient: str, envelope: str = "a@sender.example", tags: tuple[str, ...] = ()):
    done = control(*rules).rewrite(envelope, recipient, tags=tags)
    return None if done is None else done.recipient


def test_no_rule_applies():
    """Without a rule that holds there is nothing to tell."""
    assert recipients(recipient="ann@example.com") is None
    assert recipients(rule(recipient="*@example.org", new_recipient="x@example.org"), recipient="a@example.com") is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"recipient": "*@old.example", "new_recipient": r"\1@new.example"}, "Ann.B@new.example"),
        ({"recipient": "ann?b@old.example", "new_recipient": r"\1\\x@new.example"}, ".\\x@new.example"),
        (
            {"kind": "regex", "recipient": r"(\w+)\.(\w+)@.*", "new_recipient": r"\2-\1@new.example"},
            "B-Ann@new.example",
        ),
        ({"kind": "exact", "recipient": "ann.b@old.example", "new_recipient": "bob@new.example"}, "bob@new.example"),
        ({"kind": "regex", "recipient": r"(x)?ann.*", "new_recipient": r"\1y@new.example"}, "y@new.example"),
        ({"recipient": "*", "new_recipient": r"all@new.example"}, "all@new.example"),
    ],
)
def test_new_recipients(fields, expected):
    """What the pattern matched can be taken over, as it was written."""
    assert recipients(rule(**fields), recipient="Ann.B@old.example") == expected


def test_reverse_paths():
    """A pattern of reverse-paths is a condition, and what it matched can be taken over."""
    live = control(
        rule(1, envelope="*@shop.example", new_envelope=r"\1@mail.shop.example"),
        rule(2, envelope="", recipient="*@example.com", properties={"pool": "notices"}),
    )
    assert live.rewrite("news@shop.example", "ann@example.com", tags=()).envelope == "news@mail.shop.example"
    assert live.rewrite("", "ann@example.com", tags=()).properties == {"pool": "notices"}
    assert live.rewrite("", "ann@example.org", tags=()) is None


def test_each_at_most_once_in_order():
    """Rules see what those before them made; none is applied twice, so two that undo each other come to an end."""
    there = rule(1, recipient="*@a.example", new_recipient=r"\1@b.example")
    back = rule(2, recipient="*@b.example", new_recipient=r"\1@a.example")
    longer = rule(3, recipient="*@a.example", new_recipient=r"x\1@a.example")
    done = control(longer, back, there).rewrite("", "ann@a.example", tags=())
    assert (done.recipient, done.rules) == ("xann@a.example", (there.id, back.id, longer.id))


def test_the_last_rule():
    """Behind a rule that says so no other is looked at."""
    rules = [rule(1, recipient="*@a.example", is_last=True), rule(2, recipient="*@*", new_recipient="x@b.example")]
    assert recipients(*rules, recipient="ann@a.example") == "ann@a.example"
    assert recipients(*rules, recipient="ann@c.example") == "x@b.example"


def test_tags_and_properties():
    """Tags are conditions, and are put on and taken off; properties are set and taken out."""
    live = control(
        rule(1, recipient="*@example.com", tag="spring", remove_tags=["spring"], add_tags=["summer"]),
        rule(2, recipient="*@example.com", tag="summer", properties={"ips": ["192.0.2.1"], "pool": None}),
        rule(3, recipient="*@example.com", tag="spring", properties={"pool": "never"}),
    )
    done = live.rewrite("", "ann@example.com", tags=("a", "spring"))
    assert (done.tags, done.properties) == (("a", "summer"), {"ips": ["192.0.2.1"], "pool": None})
    assert live.rewrite("", "ann@example.com", tags=("a",)) is None


def test_bounds():
    """A path that is too long is left alone, and would not be made; there is an end to the number of rules."""
    longer = rule(1, recipient="*@a.example", new_recipient=r"\1\1@a.example")
    assert recipients(longer, recipient="x" * LONGEST_PATH + "@a.example") is None
    assert recipients(longer, recipient="x" * 200 + "@a.example") is None
    many = [rule(number, recipient=f"*{'*' * number}@a.example", add_tags=[str(number)]) for number in range(60)]
    done = control(*many).rewrite("", "ann@a.example", tags=())
    assert len(done.rules) == MOST_APPLIED


def test_the_end_of_a_rule():
    """A rule ends by the clock."""
    clock = Clock()
    live = control(rule(recipient="*@a.example", add_tags=["x"], about=about(for_s=60)), clock=clock)
    assert live.rewrite("", "ann@a.example", tags=()) is not None
    clock.now = START + timedelta(seconds=60)
    assert live.rewrite("", "ann@a.example", tags=()) is None
