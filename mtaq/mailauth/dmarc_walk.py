"""The DNS Tree Walk (RFC 9989 §4.10): which record applies to a domain, and whose domain is it?

One ``DmarcTree`` serves all walks of a message that follow each other, so that no name is asked for twice. The names
above a domain are asked for at the same time: a walk then takes one round trip instead of eight, for at most a few
questions more than needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from mtaq.mailauth.asking import Steps
from mtaq.mailauth.dmarc_record import DmarcRecord, parse_records
from mtaq.model.dns import DnsAnswer, Found, Question

#: A walk asks no more than eight questions, however many labels a domain has (RFC 9989 §4.10).
MAX_LABELS_ABOVE = 7
#: RFC 1035 §2.3.4, as text without the last dot.
MAX_NAME = 253


class Unanswered(Exception):
    """DNS did not answer what had to be known; the text says what."""


def walk_names(domain: str) -> list[str]:
    """Return the names of a walk that begins at *domain*, in the order of their records' rank (RFC 9989 §4.10)."""
    labels = domain.split(".")
    above = labels[-min(len(labels) - 1, MAX_LABELS_ABOVE) :] if len(labels) > 1 else []
    return [domain, *(".".join(above[start:]) for start in range(len(above)))]


class DmarcTree:
    """What is known of the tree of names so far."""

    def __init__(self) -> None:
        self._records: dict[str, DmarcRecord | Unanswered | None] = {}

    @classmethod
    def joined(cls, trees: Sequence[DmarcTree]) -> DmarcTree:
        """Return one that knows what any of *trees* does."""
        tree = cls()
        for other in trees:
            for name, record in other._records.items():
                if isinstance(tree._records.get(name), Unanswered) or name not in tree._records:
                    tree._records[name] = record
        return tree

    def policy_record(self, author: str) -> Steps[tuple[str, DmarcRecord] | None]:
        """
        Return the record that applies to mail from *author*, and the domain that has it (RFC 9989 §4.10.1).

        Raises:
            Unanswered: It may be where DNS did not answer.
        """
        # All of the walk at once, also where the first name has the record: whose domain it is must be known as well.
        yield from self._learn(walk_names(author))
        if (own := self._record(author)) is not None:
            return author, own
        found = self._walk(author)
        if not found:
            return None
        name, record = found[-1]
        if record.psd == "y":  # it is not used where the Organizational Domain has its own
            organizational = _one_below(name, author)
            return next((place for place in found if place[0] == organizational), (name, record))
        return name, record

    def exists(self, domain: str) -> Steps[bool]:
        """
        Is there such a name (RFC 9989 §3.2.13)?

        Any type of record would do to ask, but an alias to a name that does not exist is itself there.

        Raises:
            Unanswered: DNS did not say.
        """
        (answer,) = yield [Question(domain, "CNAME")]
        if answer.found is Found.FAILED:
            raise Unanswered(f"{domain}: {answer.reason}")
        return answer.found is not Found.NO_NAME

    def aligned(self, author: str, identifiers: Sequence[str], *, strict: bool) -> Steps[bool | None]:
        """Return whether one of *identifiers* is aligned with *author* (RFC 9989 §4.10.2); ``None`` when DNS failed."""
        if author in identifiers:
            return True
        related = [name for name in identifiers if _last_label(name) == _last_label(author)]
        if strict or not related:
            return False
        yield from self._learn(walk_names(author))
        try:
            organizational = self._organizational_domain(author)
        except Unanswered:
            return None
        related = [name for name in related if f".{name}".endswith(f".{organizational}")]
        yield from self._learn([name for start in related for name in walk_names(start)])
        answers = [self._belongs(name, organizational) for name in related]
        return True if True in answers else None if None in answers else False

    def _belongs(self, name: str, organizational: str) -> bool | None:
        try:
            return self._organizational_domain(name) == organizational
        except Unanswered:
            return None

    def _organizational_domain(self, domain: str) -> str:
        found = self._walk(domain)
        if not found:
            return domain
        name, record = found[-1]
        return _one_below(name, domain) if record.psd == "y" and name != domain else name

    def _walk(self, domain: str) -> list[tuple[str, DmarcRecord]]:
        """Return the records of the walk from *domain*, the longest name first, to where a ``psd`` ends it."""
        found = []
        for name in walk_names(domain):
            if (record := self._record(name)) is not None:
                found.append((name, record))
                if record.psd != "u":
                    break
        return found

    def _record(self, name: str) -> DmarcRecord | None:
        record = self._records[name]
        if isinstance(record, Unanswered):
            raise record
        return record

    def _learn(self, names: Sequence[str]) -> Steps[None]:
        missing = [name for name in dict.fromkeys(names) if name not in self._records]
        self._records.update(dict.fromkeys(missing))
        askable = [name for name in missing if len(name) <= MAX_NAME - len("_dmarc.")]  # longer ones cannot exist
        if askable:
            answers = yield [Question(f"_dmarc.{name}", "TXT") for name in askable]
            self._records.update(zip(askable, map(_read, askable, answers), strict=True))


def _read(name: str, answer: DnsAnswer) -> DmarcRecord | Unanswered | None:
    if answer.found is Found.FAILED:
        return Unanswered(f"_dmarc.{name}: {answer.reason}")
    return parse_records(answer.records)


def _one_below(suffix: str, domain: str) -> str:
    """Return the name one label longer than *suffix* on the way down to *domain*."""
    return ".".join(domain.split(".")[-(suffix.count(".") + 2) :])


def _last_label(name: str) -> str:
    return name.rpartition(".")[2]
