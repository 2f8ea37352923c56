"""Settling in batches: the broker must end up knowing exactly what the consumer decided."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtaq.broker.rabbitmq.ledger import Ledger, Settlement


class _Channel:
    """What RabbitMQ makes of the frames: open deliveries, acknowledged, returned; refuses unknown tags."""

    def __init__(self, handed_out: int) -> None:
        self.open = set(range(1, handed_out + 1))
        self.acked: set[int] = set()
        self.returned: set[int] = set()

    def receive(self, frame: Settlement) -> None:
        assert frame.delivery_tag in self.open, "RabbitMQ closes the channel: unknown delivery tag"
        tags = {tag for tag in self.open if tag <= frame.delivery_tag} if frame.multiple else {frame.delivery_tag}
        self.open -= tags
        (self.returned if frame.requeue else self.acked).update(tags)


@given(st.data(), st.integers(min_value=1, max_value=30))
def test_broker_learns_the_truth(data: st.DataObject, count: int) -> None:
    """In whatever order, with whatever pauses: acked is acked, requeued is returned, open stays open."""
    order = data.draw(st.permutations(range(1, count + 1)))
    settled = order[: data.draw(st.integers(min_value=0, max_value=count))]
    ledger, channel = Ledger(), _Channel(count)
    expected: dict[bool, set[int]] = {False: set(), True: set()}
    for tag in settled:
        requeue = data.draw(st.booleans())
        expected[requeue].add(tag)
        assert ledger.settle(tag, requeue=requeue)
        if data.draw(st.booleans()):
            for frame in ledger.take():
                channel.receive(frame)
    for frame in ledger.take():
        channel.receive(frame)
    assert (channel.acked, channel.returned) == (expected[False], expected[True])


def test_one_frame_for_many() -> None:
    """Acks without a gap go out as one."""
    ledger = Ledger()
    for tag in range(1, 101):
        ledger.settle(tag, requeue=False)
    assert ledger.take() == [Settlement(100, multiple=True)]
    assert ledger.take() == []


def test_not_over_an_open_one() -> None:
    """Acks above a delivery that is still open go out one by one."""
    ledger = Ledger()
    for tag in (1, 2, 4, 5):
        ledger.settle(tag, requeue=False)
    assert ledger.take() == [Settlement(2, multiple=True), Settlement(4), Settlement(5)]


def test_returned_before_acked() -> None:
    """A return goes out before an ack for many that would swallow it."""
    ledger = Ledger()
    ledger.settle(1, requeue=False)
    ledger.settle(2, requeue=True)
    ledger.settle(3, requeue=False)
    assert ledger.take() == [Settlement(2, requeue=True), Settlement(3, multiple=True)]


def test_twice() -> None:
    """Settling twice is noticed and changes nothing, sent already or not."""
    ledger = Ledger()
    assert ledger.settle(1, requeue=False)
    assert not ledger.settle(1, requeue=True)
    assert ledger.take() == [Settlement(1)]
    assert not ledger.settle(1, requeue=True)
    assert ledger.take() == []
