"""Limits of the sink's own: how many connections at a time from one client, how many messages a minute.

Pure; ``now`` is an argument. Bounded by the number of clients, all of which are the tester's.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque

from mtaq.cli.sink_profile import Profile
from mtaq.model.reply import Reply, reply

MINUTE_S = 60.0

TOO_MANY_CONNECTIONS = reply(421, "4.7.0", "too many connections from your address")
TOO_MANY_MESSAGES = reply(421, "4.7.0", "too many messages on this connection")
TOO_FAST = reply(451, "4.7.1", "too many messages in a minute from your address")


class Limits:
    """What one address of the sink counts.

    Attributes:
        accepted: Connections so far.
        open: Those that are open, by client.
    """

    def __init__(self, profile: Profile) -> None:
        self.accepted = 0
        self.open: Counter[str] = Counter()
        self._profile = profile
        self._begun: defaultdict[str, deque[float]] = defaultdict(deque)

    def opened(self, client_ip: str) -> Reply | None:
        """Count a connection, for which ``closed`` must be called; return its refusal if there is one too many."""
        self.accepted += 1
        self.open[client_ip] += 1
        most = self._profile.connections
        return TOO_MANY_CONNECTIONS if most is not None and self.open[client_ip] > most else None

    def closed(self, client_ip: str) -> None:
        """Count it no more."""
        self.open[client_ip] -= 1
        if not self.open[client_ip]:
            del self.open[client_ip]

    def begins(self, client_ip: str, message: int, now: float) -> Reply | None:
        """
        Count the beginning of a transaction, or return its refusal, which does not count.

        Args:
            message: Which it is on its connection, from 1.
            now: Seconds, of a clock that does not go back.
        """
        profile = self._profile
        if profile.messages is not None and message > profile.messages:
            return TOO_MANY_MESSAGES
        if profile.rate is None:
            return None
        begun = self._begun[client_ip]
        while begun and begun[0] <= now - MINUTE_S:
            begun.popleft()
        if len(begun) >= profile.rate:
            return TOO_FAST
        begun.append(now)
        return None
