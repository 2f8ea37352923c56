"""What operators want done about replies."""

from __future__ import annotations

import random
from datetime import timedelta

from mtaq.deliver.ending import Ending, PeerFacts
from mtaq.deliver.orders import Orders, Way
from mtaq.model.codec import decode_outbox
from mtaq.model.control import FloodPattern, Limits, ReplyPattern
from mtaq.telemetry.events import EventLog
from tests.support.delivery import START, Lines, live_control, set_entries

BUSY = Ending(state="mailfrom", result="error", code=421, description="too many", peer=PeerFacts(host="mx"))


def test_only_what_a_flood_changes_has_everything_looked_at_again():
    """Reply after reply says the same, and all that waits would be routed anew for each."""
    lines = Lines()
    took_effect: list[None] = []
    control = live_control(lambda: START)
    orders = Orders(
        control,
        events=EventLog(lines, node="test", clock=lambda: START + timedelta(seconds=1)),
        rng=random.Random(1),
        on_flood=lambda: took_effect.append(None),
    )
    pattern = FloodPattern(
        id="busy", created_at=START, position=1, reply=ReplyPattern(code="421"),
        limits=Limits(messages_per_minute=60), limits_s=600,
    )  # fmt: skip
    set_entries(control, "flood_patterns", pattern)
    message = decode_outbox(b'{"recipient": "bob@example.com", "mime": "Subject: x\\r\\n\\r\\n"}')
    for _ in range(10):
        orders.hear(BUSY, Way(domain="example.com", site="mx"), message)
    assert len(took_effect) == 1
    assert len(lines.of("delivery.flood")) == 10
