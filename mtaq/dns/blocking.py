"""dnspython's own resolver, for a library that wants to be given one and waits for it.

For verbs only: it blocks, and knows neither our cache nor our bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import dns.nameserver
import dns.resolver

from mtaq.dns.resolver import system_nameservers


def blocking_resolver(nameservers: Sequence[tuple[str, int]]) -> dns.resolver.Resolver:
    """Return a resolver that asks *nameservers*, ``(IP address, port)``; those of ``/etc/resolv.conf`` without any."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in nameservers or system_nameservers()]
    return resolver
