"""May this message carry the domain that its From shows, and what does the owner of that domain want else (RFC 9989)?

Decides from the verdicts of SPF and DKIM and asks DNS for policies only. The disposition is what that policy asks for;
whether it is done is the operator's choice. How it fails: what DNS did not answer is ``temperror`` and no policy is
applied (RFC 9989 §5.3.6); a message of which nobody can tell whose it claims to be is outside of the standard
(§4.4, §11.5), and would be the way around it, so that is ``permerror`` with the disposition ``reject``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mtaq.mailauth.asking import Steps
from mtaq.mailauth.dmarc_record import POLICIES, DmarcRecord, Policy
from mtaq.mailauth.dmarc_walk import DmarcTree, Unanswered
from mtaq.mailauth.from_field import a_label_domain, authors
from mtaq.mailauth.verdict import Verdict, Word

#: Signing domains looked at: each of them may need a tree walk, and the questions of a check are bounded.
MAX_IDENTIFIERS = 8


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """What DMARC says.

    Attributes:
        result: ``none``: there is no policy, and nothing is known.
        domain: The Author Domain, A-labels; of several the one that decided; ``None`` when there is none.
        policy: What the owner asks for: ``p``, or ``sp`` or ``np`` of a domain above; ``None`` when that is not known.
        policy_domain: Where the record was found (RFC 9989 §3.2.5).
        test: It says ``t=y``: one step less is to be applied.
        spf_aligned: SPF passed for an aligned domain.
        dkim_aligned: So did a signature.
        reason: For people; ``None`` when the rest says all.
    """

    result: Word
    domain: str | None = None
    policy: Policy | None = None
    policy_domain: str | None = None
    test: bool = False
    spf_aligned: bool = False
    dkim_aligned: bool = False
    reason: str | None = None

    @property
    def policy_in_force(self) -> Policy | None:
        """The policy, a step milder in test mode (RFC 9989 §4.7)."""
        if self.policy is None or not self.test:
            return self.policy
        return POLICIES[max(0, POLICIES.index(self.policy) - 1)]

    @property
    def disposition(self) -> Policy:
        """What is to be done with the message: nothing, unless it failed or cannot be judged."""
        if self.result == "permerror":
            return "reject"
        return (self.policy_in_force or "none") if self.result == "fail" else "none"

    def to_json(self) -> Sequence[dict[str, Any]]:
        """Return the item of ``checks[]``."""
        item: dict[str, Any] = {"dmarc": self.result}
        known = {"header.from": self.domain, "policy": self.policy, "reason": self.reason}
        item |= {key: value for key, value in known.items() if value is not None}
        item |= {"disposition": self.disposition, "aligned": {"spf": self.spf_aligned, "dkim": self.dkim_aligned}}
        return [item]

    def verdicts(self) -> Sequence[Verdict]:
        """Return the part of Authentication-Results (RFC 9989 §9.1)."""
        properties = [("header.from", self.domain)] if self.domain is not None else []
        if self.policy is not None:
            properties.append(("policy.dmarc", self.disposition))
        return [Verdict("dmarc", self.result, self.reason, tuple(properties))]


@dataclass(frozen=True, slots=True)
class AuthorPolicy:
    """What was found out about an author's domain, before anything is known of SPF and DKIM.

    Attributes:
        known: The result as far as it goes.
        record: What the evidence is measured by; ``None`` when ``known`` is all that there is to say.
        tree: What is known of DNS.
        doubt: Why the policy is not known, so that a message may pass and must not fail.
    """

    known: DmarcResult
    record: DmarcRecord | None
    tree: DmarcTree
    doubt: str | None = None


def check_dmarc(content: bytes, *, spf: tuple[str, str] | None, dkim: Sequence[tuple[str, str]]) -> Steps[DmarcResult]:
    """
    Check *content* (RFC 9989 §5.3), one question after the other where evidence and policies are there anyway.

    Args:
        content: The message, or at least its header section.
        spf: As for ``judge``.
        dkim: The same.
    """
    claimed = authors(content)
    if claimed.problem is not None:
        return nobody(claimed.problem)
    tree, policies = DmarcTree(), []
    for author in claimed.domains:
        policies.append((yield from find_policy(author, tree)))
    return (yield from judge(policies, spf=spf, dkim=dkim))


def nobody(problem: str) -> DmarcResult:
    """Return the result where nobody can tell whose a message claims to be."""
    return DmarcResult("permerror", reason=problem)


def find_policy(author: str, tree: DmarcTree) -> Steps[AuthorPolicy]:
    """
    Return what the owner of *author* wants (RFC 9989 §4.10.1).

    No evidence is needed for it, and nobody should wait for any first: who sends a message chooses whom SPF and DKIM
    ask, and could keep them waiting until there is no time left to ask for the policy.

    Args:
        tree: What is learned is kept in it. It serves one after the other, not two at a time.
    """
    try:
        found = yield from tree.policy_record(author)
    except Unanswered as failure:
        return AuthorPolicy(DmarcResult("temperror", author, reason=str(failure)), None, tree)
    if found is None:
        return AuthorPolicy(DmarcResult("none", author), None, tree)
    policy_domain, record = found
    if record.policy is None:
        reason = f"the record of {policy_domain} has no valid policy"
        return AuthorPolicy(DmarcResult("none", author, reason=reason), None, tree)
    try:
        policy = yield from _policy(author, policy_domain, record, tree)
    except Unanswered as failure:
        return AuthorPolicy(DmarcResult("none", author, None, policy_domain), record, tree, str(failure))
    return AuthorPolicy(DmarcResult("none", author, policy, policy_domain, record.test), record, tree)


def judge(
    policies: Sequence[AuthorPolicy], *, spf: tuple[str, str] | None, dkim: Sequence[tuple[str, str]]
) -> Steps[DmarcResult]:
    """
    Measure the evidence by what the owner of each author's domain wants; return what counts (RFC 9989 §11.5).

    Args:
        policies: What ``find_policy`` returned; never empty.
        spf: Domain and result word of the MAIL FROM identity, which for the null reverse-path is that of the
            HELO name (RFC 7208 §2.4); the HELO identity alone does not count (RFC 9989 §4.4.2).
        dkim: Signing domain (``d=``) and result word of every signature.
    """
    evidence, tree = _Evidence.of(spf, dkim), DmarcTree.joined([policy.tree for policy in policies])
    results = []
    for policy in policies:
        results.append((yield from _judged(policy, evidence, tree)))
    return max(results, key=_severity)


def _severity(result: DmarcResult) -> int:
    """Of several authors the strictest policy that is asked for counts (RFC 9989 §11.5), and the worst result else."""
    if result.disposition != "none":
        return 10 + POLICIES.index(result.disposition)
    return ("pass", "none", "fail", "temperror").index(result.result)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Domains by mechanism: those that passed, and those of which DNS did not say."""

    spf: tuple[str, ...]
    dkim: tuple[str, ...]
    spf_unknown: tuple[str, ...]
    dkim_unknown: tuple[str, ...]

    @classmethod
    def of(cls, spf: tuple[str, str] | None, dkim: Sequence[tuple[str, str]]) -> _Evidence:
        from_spf = [spf] if spf is not None else []
        signers = _with(dkim, "pass")[:MAX_IDENTIFIERS]
        unknown = _with(dkim, "temperror")[: MAX_IDENTIFIERS - len(signers)]
        return cls(_with(from_spf, "pass"), signers, _with(from_spf, "temperror"), unknown)


def _with(identities: Sequence[tuple[str, str]], word: str) -> tuple[str, ...]:
    domains = (a_label_domain(domain) for domain, result in identities if result == word)
    return tuple(dict.fromkeys(domain for domain in domains if domain is not None))


def _judged(policy: AuthorPolicy, evidence: _Evidence, tree: DmarcTree) -> Steps[DmarcResult]:
    if policy.record is None:
        return policy.known
    judged = yield from _aligned(policy.known, policy.record, evidence, tree)
    if policy.doubt is None or judged.result == "pass":
        return judged
    return replace(judged, result="temperror", reason=policy.doubt)


def _policy(author: str, policy_domain: str, record: DmarcRecord, tree: DmarcTree) -> Steps[Policy | None]:
    """Return what *record* asks for (RFC 9989 §4.10.1)."""
    if author == policy_domain:
        return record.policy
    if record.missing_subdomains == record.subdomains or (yield from tree.exists(author)):
        return record.subdomains
    return record.missing_subdomains


def _aligned(known: DmarcResult, record: DmarcRecord, evidence: _Evidence, tree: DmarcTree) -> Steps[DmarcResult]:
    """Return *known* with its result: any identifier that passed and is aligned will do (RFC 9989 §5.3.5)."""
    author = known.domain or ""
    spf = yield from tree.aligned(author, evidence.spf, strict=record.strict_spf)
    dkim = yield from tree.aligned(author, evidence.dkim, strict=record.strict_dkim)
    known = replace(known, spf_aligned=spf is True, dkim_aligned=dkim is True)
    if spf is True or dkim is True:
        return replace(known, result="pass")
    if spf is None or dkim is None:
        return replace(known, result="temperror", reason="the domains to align with were not found out")
    # What DNS did not let SPF or DKIM say counts only where it could have made the message pass.
    if (yield from tree.aligned(author, evidence.spf_unknown, strict=record.strict_spf)) is not False:
        return replace(known, result="temperror", reason="SPF of an aligned domain was not found out")
    if (yield from tree.aligned(author, evidence.dkim_unknown, strict=record.strict_dkim)) is not False:
        return replace(known, result="temperror", reason="a signature of an aligned domain could not be checked")
    return replace(known, result="fail", reason=_why(known, evidence))


def _why(known: DmarcResult, evidence: _Evidence) -> str:
    passed = ", ".join([*(f"spf {name}" for name in evidence.spf), *(f"dkim {name}" for name in evidence.dkim)])
    reason = f"not aligned: {passed}" if passed else "neither SPF nor DKIM passed"
    return f"{reason}; policy of {known.policy_domain}" + (", in test mode" if known.test else "")
