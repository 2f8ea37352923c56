"""Is an address ours?

Answers for every recipient while its client waits, so an answer must take microseconds whatever the operator wrote:
exact addresses and whole domains are looked up, wildcards are kept by their domain, and patterns are RE2's
(``patterns``).

Letters are the same in either case, as with every server that receives mail; what RFC 5321 §2.4 allows beyond that,
nobody uses. A pattern must match the whole address: one that only has to match somewhere in it takes
``ann@example.com.evil.example`` as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from mtaq.model.address import Address
from mtaq.state.entries import LocalAddress, plain_local_part
from mtaq.state.patterns import Matcher, compiled

_REMEMBERED = 4096


class LocalAddresses:
    """An immutable set of patterns."""

    def __init__(self, entries: Iterable[LocalAddress] = ()) -> None:
        """Compile *entries*. One that does not compile matches nothing: it was refused when it was added."""
        self._exact: dict[str, LocalAddress] = {}
        self._domains: dict[str, LocalAddress] = {}
        self._by_domain: dict[str, list[tuple[Matcher, LocalAddress]]] = {}
        self._anywhere: list[tuple[Matcher, LocalAddress]] = []
        self._answers: dict[str, LocalAddress | None] = {}
        for entry in entries:
            self._add(entry)

    def _add(self, entry: LocalAddress) -> None:
        local_part, _, domain = entry.pattern.rpartition("@")
        is_bound = entry.kind == "wildcard" and not set(domain) & set("*?")
        if entry.kind == "exact":
            self._exact[entry.pattern] = entry
        elif is_bound and local_part == "*":
            self._domains[domain] = entry
        else:
            try:
                matcher = compiled(entry.pattern, entry.kind)
            except ValueError:
                return
            (self._by_domain.setdefault(domain, []) if is_bound else self._anywhere).append((matcher, entry))

    def find(self, address: Address) -> LocalAddress | None:
        """Return an entry that makes *address* local, or ``None``."""
        text = plain_text(address)
        found = self._exact.get(text) or self._domains.get(address.domain)
        if found is not None or not (self._anywhere or address.domain in self._by_domain):
            return found
        try:
            return self._answers[text]
        except KeyError:
            pass
        if len(self._answers) >= _REMEMBERED:
            self._answers.clear()
        answer = self._answers[text] = self._match(text, address.domain)
        return answer

    def _match(self, text: str, domain: str) -> LocalAddress | None:
        octets = text.encode()
        for matchers in (self._by_domain.get(domain, ()), self._anywhere):
            for matcher, entry in matchers:
                if matcher.fullmatch(octets) is not None:
                    return entry
        return None


def plain_text(address: Address) -> str:
    """Return *address* as it is compared: without quotes, in lower case; the domain is so already."""
    local_part = plain_local_part(address.local_part)
    return f"{local_part}@{address.domain}" if address.domain else local_part
