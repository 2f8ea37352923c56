"""What goes out is signed: by the keys that the message brings, and by those that operators gave its From domain.

``Signing.plan`` finds out, before there is a connection, what has to be done to a message and whether it can be done;
it is done when a server takes the message (``Transaction.variant_for``), because only then it is known whether that
takes binary content, and because what has to wait its turn would be signed for nothing. Nothing is changed behind it.

A message that asks for what cannot be signed fails, ``process``/``invalid``. A key of the operator's that cannot be
used defers it: mail that was to be signed does not go unsigned. Where RFC 8617 wants no seal, or nobody can tell whose
domain From claims, it goes without, and the log says so. Keys are in no error, no log line and no ``repr``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.ports import Control, DeliveryNames
from mtaq.deliver.signing_keys import KeyRing
from mtaq.mailauth.arc import check_arc
from mtaq.mailauth.arc_chain import find_chain, has_sets, highest_instance
from mtaq.mailauth.arc_seal import ChainVerdict, NotSealed, seal
from mtaq.mailauth.arc_seal_results import results_in, results_of_checks
from mtaq.mailauth.asking import answered
from mtaq.mailauth.dkim_canonical import parse_canonicalization
from mtaq.mailauth.dkim_message import SignedMessage, is_large
from mtaq.mailauth.dkim_sign import OVERSIGNED, CannotSign, Signer, signature_fields, signing_name
from mtaq.mailauth.dkim_sign_key import UnusableKey
from mtaq.mailauth.from_field import authors
from mtaq.mime.downconvert import CannotConvert, with_crlf_header, without_binary
from mtaq.model.control import DkimKey
from mtaq.model.dkim_property import DkimRequest
from mtaq.model.dns import Ask
from mtaq.model.message import OutboxMessage
from mtaq.smtp.client_commands import PeerExtensions, Transaction
from mtaq.smtp.data import normalise_line_ends
from mtaq.smtp.grammar import parse_domain
from mtaq.telemetry.events import EventLog

#: More signatures than this are left to a thread: each takes 0.3 ms.
QUICK_SIGNATURES = 3
#: What one signature adds to a message at most, as far as rates are concerned.
SIGNATURE_BYTES = 1_500

_VERDICTS: dict[str, ChainVerdict] = {"none": "none", "pass": "pass", "fail": "fail"}


@dataclass(frozen=True, slots=True)
class _Sealing:
    """An ARC set to be added: see ``arc_seal.seal``."""

    signer: Signer
    verdict: ChainVerdict
    results: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is done to a content for the server that takes it.

    Attributes:
        signers: The first one's signature is topmost.
        tell: Logs why it went without something.
    """

    signers: tuple[Signer, ...]
    sealing: _Sealing | None
    clock: Callable[[], datetime] = field(repr=False)
    tell: Callable[[str], None] = field(repr=False)

    async def variant(self, transaction: Transaction, peer: PeerExtensions) -> Transaction:
        """
        Return *transaction* as *peer* gets it.

        Raises:
            HostFailure: It cannot be signed.
        """
        try:
            if self._takes_time(transaction):
                made, untold = await asyncio.to_thread(self._made, transaction, peer)
            else:
                made, untold = self._made(transaction, peer)
        except CannotSign as error:
            raise _invalid(f"dkim: {error}", "5.6.0") from error
        if untold is not None:
            self.tell(untold)
        return made

    def _takes_time(self, transaction: Transaction) -> bool:
        keys = [signer.key for signer in self._all_signers()]
        return is_large(transaction.content) or len(keys) > QUICK_SIGNATURES or not all(key.is_quick for key in keys)

    def _all_signers(self) -> Iterable[Signer]:
        return self.signers if self.sealing is None else (*self.signers, self.sealing.signer)

    def _made(self, transaction: Transaction, peer: PeerExtensions) -> tuple[Transaction, str | None]:
        content, body, untold = transaction.content, transaction.body, None
        if body == "binarymime" and not (peer.chunking and peer.binarymime):
            try:
                content = without_binary(content)
                body = "7bit" if content.isascii() else "8bitmime"
            except CannotConvert:
                pass  # the session objects to binary content
        if self.signers or self.sealing is not None:
            content, untold = self._signed(with_crlf_header(content) if body == "binarymime" else content)
        return replace(transaction, content=content, body=body, variant_for=None, extra_bytes=0), untold

    def _signed(self, content: bytes) -> tuple[bytes, str | None]:
        now = self.clock()
        if self.signers:
            content = b"".join([*signature_fields(SignedMessage(content), self.signers, now=now), content])
        if self.sealing is None:
            return content, None
        asked = self.sealing
        try:
            added = seal(content, asked.signer, verdict=asked.verdict, results=asked.results, now=now)
        except NotSealed as error:
            return content, f"not sealed: {error}"
        return added + content, None


class Signing:
    """Finds out what is signed by whom."""

    def __init__(
        self,
        control: Control,
        names: DeliveryNames,
        *,
        inquire: Callable[[], Ask] | None,
        events: EventLog,
        clock: Callable[[], datetime],
    ) -> None:
        """Sign with the keys of messages and of *control*.

        Args:
            inquire: Gives DNS for one check; without it no chain is verified here, and so none prolonged that
                reception did not judge.
        """
        self._control = control
        self._names = names
        self._inquire = inquire
        self._events = events
        self._clock = clock
        self._keys = KeyRing()

    async def plan(self, message: OutboxMessage, transaction: Transaction) -> Transaction:
        """
        Return *transaction* with what makes its variants; itself when nothing is to be done to it.

        Args:
            message: As it is in the outbox.
            transaction: Made of it, header edits included.

        Raises:
            HostFailure: It asks for what cannot be signed, or a key of the runtime state cannot be used now.
        """
        ours = self._keys_for(message, transaction.content)
        if not message.dkim and not ours and transaction.body != "binarymime":
            return transaction
        signers = [await self._signer_asked(request) for request in message.dkim]
        sealing = await self._sealing(message, transaction, signers)
        own = [signer for signer, request in zip(signers, message.dkim, strict=True) if "dkim" in request.protocols]
        plan = _Plan(
            signers=_each_once([*own, *[await self._signer_of(key) for key in ours]]),
            sealing=sealing,
            clock=self._clock,
            tell=lambda reason: self._tell(message, reason),
        )
        return replace(
            transaction,
            variant_for=plan.variant,
            extra_bytes=_extra_bytes(plan, transaction),
        )

    def _tell(self, message: OutboxMessage, reason: str) -> None:
        self._events.delivery_unsigned(message_id=message.message_id, forward_path=message.recipient, reason=reason)

    def _keys_for(self, message: OutboxMessage, content: bytes) -> Sequence[DkimKey]:
        """Return the operator's keys for the domains that From claims."""
        if not self._control.has_dkim_keys:
            return ()
        claimed = authors(content)
        if claimed.problem is not None:
            self._tell(message, f"no key is looked for: {claimed.problem}")
        found = [key for domain in claimed.domains for key in self._control.dkim_keys(_spelled(domain))]
        return list(dict.fromkeys(found))

    async def _signer_asked(self, request: DkimRequest) -> Signer:
        """Return who signs as *request* says.

        Raises:
            HostFailure: Nobody can.
        """
        try:
            key = await self._keys.key(request.key)
        except UnusableKey as error:
            raise _invalid(f"{request.where}.key: {error}", "5.7.5") from None
        oversigned = () if request.oversign is True else _encoded(request.oversign)
        try:
            return Signer(
                domain=signing_name(request.domain, f"{request.where}.domain", 2),
                selector=signing_name(request.selector, f"{request.where}.selector", 1),
                key=key,
                canonicalization=parse_canonicalization(request.canonicalization),
                names=(*_encoded(request.headers), *oversigned),
                oversigned=None if request.oversign is True else OVERSIGNED.union(oversigned),
                expires_at=request.expires_at,
                lifetime=request.lifetime,
            )
        except CannotSign as error:
            raise _invalid(str(error), "5.7.5") from None

    async def _signer_of(self, key: DkimKey) -> Signer:
        """Return who signs with a key of the operator's.

        Raises:
            HostFailure: It cannot be used now.
        """
        try:
            return Signer(
                domain=signing_name(key.domain, "the domain", 2),
                selector=signing_name(key.selector, "the selector", 1),
                key=await self._keys.key(key.pem),
                names=_encoded(name.lower() for name in key.headers if ";" not in name),
            )
        except (UnusableKey, CannotSign) as error:
            text = f"the DKIM key {key.id} of this system cannot be used: {error}"
            ending = Ending(state="process", result="error", code=451, status="4.7.5", description=text)
            raise HostFailure(ending) from None

    async def _sealing(
        self, message: OutboxMessage, transaction: Transaction, signers: Sequence[Signer]
    ) -> _Sealing | None:
        """Return the set to be added; one at most, however many keys are for ARC."""
        signer = next(
            (signer for signer, request in zip(signers, message.dkim, strict=True) if "arc" in request.protocols), None
        )
        if signer is None:
            return None
        original = message.content if message.body == "binarymime" else normalise_line_ends(message.content)
        before = SignedMessage(original)
        told = _arc_check(message)
        found = _verdict_told(told, before)
        if found is None:
            found = await self._verified(before, len(original))
        if found not in _VERDICTS:
            self._tell(message, "not sealed: the keys of the chain cannot be looked up now")
            return None
        results = self._results(message, before, None if told.get("arc") == found else found)
        return _Sealing(signer, _VERDICTS[found], results)

    async def _verified(self, message: SignedMessage, size_bytes: int) -> str:
        """Verify the chain of *message* here and now."""
        if not has_sets(message):
            return "none"
        if self._inquire is None:
            return "temperror"
        chain = await asyncio.to_thread(find_chain, message)
        return (await answered(check_arc(chain, now=self._clock()), self._inquire())).word

    def _results(self, message: OutboxMessage, before: SignedMessage, arc: str | None) -> bytes:
        hostname = message.properties.get("hostname")
        fallback = hostname if isinstance(hostname, str) and hostname else self._names.ehlo_name(None)
        authserv_id = self._names.authserv_id or fallback
        checks = message.properties.get("checks")
        if isinstance(checks, list):
            return results_of_checks(authserv_id, checks, arc=arc, utf8=message.smtputf8)
        return results_in(before, authserv_id, arc=arc)


def _arc_check(message: OutboxMessage) -> dict[str, Any]:
    """Return what reception found of the chain; empty when it did not look."""
    checks = message.properties.get("checks")
    items = checks if isinstance(checks, list) else []
    return next((item for item in items if isinstance(item, dict) and isinstance(item.get("arc"), str)), {})


def _verdict_told(told: dict[str, Any], message: SignedMessage) -> str | None:
    """Return reception's verdict if it is about the chain that *message* has."""
    if not has_sets(message):
        return "none"
    is_about_it = told.get("instances") == highest_instance(message)
    return str(told["arc"]) if is_about_it and told["arc"] in ("pass", "fail", "temperror") else None


def _spelled(domain: str) -> str:
    """Return a domain as operators' entries are spelled."""
    try:
        return parse_domain(domain)
    except ValueError:
        return domain


def _encoded(names: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(name.encode("ascii", "replace") for name in names)


def _each_once(signers: Sequence[Signer]) -> tuple[Signer, ...]:
    """Of equal names the first: a message's own key goes before the operator's."""
    return tuple({(one.domain, one.selector, one.key.algorithm): one for one in reversed(signers)}.values())[::-1]


def _extra_bytes(plan: _Plan, transaction: Transaction) -> int:
    grown = len(transaction.content) * 2 // 5 if transaction.body == "binarymime" else 0
    sealed = 0 if plan.sealing is None else 2 * SIGNATURE_BYTES + len(plan.sealing.results)
    return grown + sealed + SIGNATURE_BYTES * len(plan.signers)


def _invalid(text: str, status: str) -> HostFailure:
    return HostFailure(Ending(state="process", result="invalid", code=554, status=status, description=text, final=True))
