"""May they? Who may connect to a port and for whom it takes mail.

Pure decisions on the options of one port; the session asks, ``receive.connection`` carries. Each refusal is a
``Reply``, its reason for the log is the reply's text.
"""

from __future__ import annotations

from collections.abc import Collection

from mtaq.config import ReceiveOptions
from mtaq.model.parcel import BrokerState
from mtaq.model.reply import Reply
from mtaq.receive.checks import Checks
from mtaq.receive.ports import Hook, Hostnames, Logins, Pipeline, SpamFilter
from mtaq.smtp import codes
from mtaq.smtp.server_session import SessionOptions

#: Longest TLS handshake, unless ``smtp-timeout`` is shorter.
HANDSHAKE_S = 30.0

#: What the JSON adds to the content: addresses, ids, names. Generous.
JSON_OVERHEAD_BYTES = 16 * 1024


def announced_size(max_size_bytes: int, broker_max_bytes: int | None) -> int:
    """
    Return what SIZE announces (RFC 1870): the largest content that still fits once encoded.

    Content that is not UTF-8 travels as base64, four bytes for three. Text grows less, unless it is mostly control
    characters or line ends; such a message may still be refused with 552 once its JSON is known.

    Args:
        max_size_bytes: ``smtp-maxsize``.
        broker_max_bytes: Largest JSON the broker takes; ``None`` for no limit.
    """
    if broker_max_bytes is None:
        return max_size_bytes
    return max(0, min(max_size_bytes, (broker_max_bytes - JSON_OVERHEAD_BYTES) * 3 // 4))


class PortPolicy:
    """The decisions for connections accepted on one port.

    Attributes:
        options: Those of the port.
        port: Its number.
        logins: Who may log in, or ``None``.
        hook: The operator's code that is asked, or ``None``.
        pipeline: The steps that messages go through, or ``None``.
        checks: Who checks messages; ``None`` where nothing is checked.
        spam: The spam filter, or ``None``.
    """

    def __init__(
        self,
        options: ReceiveOptions,
        *,
        port: int,
        hostnames: Hostnames,
        broker_max_bytes: int | None,
        starttls: bool,
        logins: Logins | None = None,
        hook: Hook | None = None,
        pipeline: Pipeline | None = None,
        checks: Checks | None = None,
        spam: SpamFilter | None = None,
        own_names: Collection[str] = (),
        scram_secret: bytes = b"",
    ) -> None:
        self.options = options
        self.port = port
        self.logins = logins
        self.hook = hook
        self.pipeline = pipeline
        self.checks = checks
        self.spam = spam
        self._own_names = frozenset(own_names)
        self._scram_secret = scram_secret
        self._hostnames = hostnames
        self._starttls = starttls
        self._max_size_bytes = announced_size(options.smtp_maxsize, broker_max_bytes)
        self._range_is_known = not options.smtp_range.covers_internet and self.may_relay(logged_in=False)
        self._session_options: dict[tuple[str, bool], SessionOptions] = {}

    @property
    def handshake_timeout_s(self) -> float:
        """How long a client may take for its TLS handshake, where it can be told nothing."""
        return min(HANDSHAKE_S, float(self.options.smtp_timeout))

    def refuse_connection(
        self, remote_ip: str, broker: BrokerState, *, blocked: bool = False, any_ip: bool = False
    ) -> Reply | None:
        """Return why this client is not served, or ``None`` when it is; *any_ip* leaves the range out."""
        if blocked and self.options.smtp_protection:
            return codes.BLOCKED
        if not any_ip and not self.options.smtp_range.contains(remote_ip):
            return codes.NOT_ALLOWED
        if broker is not BrokerState.UP:
            return codes.UNAVAILABLE
        return None

    def refuse_recipient(self, *, is_local: bool, logged_in: bool) -> Reply | None:
        """Return why mail is not taken for an address that is ours or not, or ``None`` when it is."""
        relay = self.options.relay
        if is_local or relay == "range" or (relay == "authenticated" and logged_in):
            return None
        return codes.AUTH_REQUIRED if relay == "authenticated" else codes.RELAY_DENIED

    def may_relay(self, *, logged_in: bool) -> bool:
        """Is mail to others than local addresses taken from such a client, which the range has let in?"""
        return self.refuse_recipient(is_local=False, logged_in=logged_in) is None

    def _offers_dsn(self, remote_ip: str, *, logged_in: bool) -> bool:
        """To strangers notices would be a way to have mail sent to third parties: only who may relay gets them."""
        options = self.options
        if not options.dsn_advertise:
            return False
        return logged_in or self._range_is_known or options.smtp_extract_range.contains(remote_ip)

    def hostname(self, local_ip: str) -> str:
        """Return our name in sessions on *local_ip*: configured for it, for the port, or found."""
        return (
            self._hostnames.configured_for(local_ip)
            or self.options.smtp_hostname
            or self._hostnames.found_for(local_ip)
        )

    def authserv_id(self, hostname: str) -> str:
        """Return our name in Authentication-Results, of a session in which *hostname* is our name."""
        return self.options.smtp_authserv_id or hostname

    def claimed_ids(self, hostname: str) -> frozenset[str]:
        """Return all names that are ours in Authentication-Results, whoever of us would write them."""
        return self._own_names | {hostname, self.authserv_id(hostname)}

    def session_options(self, local_ip: str, remote_ip: str, *, logged_in: bool) -> SessionOptions:
        """Return what a session between these announces and enforces."""
        key = self.hostname(local_ip), self._offers_dsn(remote_ip, logged_in=logged_in)
        known = self._session_options.get(key)
        if known is None:
            hostname, dsn = key
            known = self._session_options[key] = SessionOptions(
                hostname=hostname,
                max_size_bytes=self._max_size_bytes,
                max_recipients=self.options.smtp_max_recipients,
                strict_addresses=self.options.smtp_validate_address == "strict",
                bare_senders=self.options.smtp_sender_domain == "any",
                bare_recipients=self.options.smtp_recipient_domain == "any",
                starttls=self._starttls,
                timeout_s=self.options.smtp_timeout,
                auth_mechanisms=self._mechanisms(),
                dsn=dsn,
                requiretls=True,
                limits=True,
                scram_secret=self._scram_secret,
            )
        return known

    def _mechanisms(self) -> tuple[str, ...]:
        if self.logins is None:
            return ()
        return ("PLAIN", "LOGIN", "SCRAM-SHA-256") if self.logins.knows_passwords else ("PLAIN", "LOGIN")

    def mapped_ips(self, local_ip: str) -> tuple[str, ...]:
        """Return the source address a message accepted on *local_ip* is to leave from, if that IP is mappable."""
        options = self.options
        if options.smtp_mappable_ips.contains(local_ip) and not options.smtp_unmappable_ips.contains(local_ip):
            return (local_ip,)
        return ()
