"""What one delivery process is doing, for whoever looks: its sites and its connections. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mtaq.deliver.dispatch import Dispatcher
from mtaq.deliver.offline import OfflineAddresses
from mtaq.deliver.pool import Pool
from mtaq.deliver.ports import Control

#: More rows than this are of no use to anybody; how many were left out is told.
MOST_ROWS = 5000

Row = Mapping[str, Any]


def sites(dispatcher: Dispatcher, offline: OfflineAddresses, control: Control) -> list[Row]:
    """Return a row for each site and source with work or connections, and one for each address that is offline."""
    rows = [_site(pool, control) for pool in dispatcher.pools()]
    rows += [{"offline": ip, "source": source, "seconds": round(left_s)} for source, ip, left_s in offline.listed()]
    return rows[:MOST_ROWS]


def connections(dispatcher: Dispatcher, now: float) -> list[Row]:
    """Return a row for each connection to a mail host; *now* is the loop's time."""
    rows: list[Row] = []
    for pool in dispatcher.pools():
        for connection, since in pool.carriers.items():
            facts = connection.facts
            rows.append(
                {
                    "direction": "out",
                    "site": pool.route.site,
                    "remote": facts.destination,
                    "host": facts.host,
                    "local": facts.source,
                    "state": "busy" if connection.is_busy else "idle",
                    "seconds": round(now - since, 1),
                    "messages": connection.messages,
                    "tls": facts.cipher["version"] if facts.cipher is not None else None,
                }
            )
    return rows[:MOST_ROWS]


def _site(pool: Pool, control: Control) -> Row:
    limits = pool.gate.limits
    pools: Sequence[str] = control.pools_of(pool.source)
    pause = control.pause_for(
        source=pool.source, pools=pools, domain="", site=pool.route.site, tags=(), sender_domain=""
    )
    in_force = {each.name: getattr(limits, each.name) for each in fields(limits)}
    return {
        "site": pool.route.site,
        "source": pool.source,
        "ready": len(pool.ready),
        "connections": pool.open,
        "opening": pool.opening,
        "idle": len(pool.idle),
        "messages-per-minute": round(pool.pace * 60, 1),
        "limits": {name.replace("_", "-"): limit.amount for name, limit in in_force.items() if limit is not None},
        "paused": pause is not None,
    }
