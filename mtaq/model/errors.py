"""What can go wrong, by who must act on it.

Expected answers are values (``mtaq.model.outcome``); these exceptions are for surprises and for refusals that end
a step. Foreign exceptions stop at the adapter that met them and are re-raised as one of these, ``from`` the original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtaq.model.reply import Reply


class MtaqError(Exception):
    """The root: catching it catches everything mtaq raises on purpose."""


class ConfigError(MtaqError):
    """One mistake in the configuration, in words for the operator.

    Attributes:
        source: Where the value stands: a file's path, ``environment`` or ``command line``.
        line: Line in that file, or ``None`` outside a file.
        key: The option's published spelling, or ``None`` when the line has none.
        problem: What is wrong and what is expected.
    """

    def __init__(self, problem: str, *, source: str = "", line: int | None = None, key: str | None = None) -> None:
        self.problem = problem
        self.source = source
        self.line = line
        self.key = key
        where = f"{source}:{line}" if line is not None else source
        super().__init__(": ".join(part for part in (where, key, problem) if part))


class ProtocolError(MtaqError):
    """Somebody left the SMTP protocol."""


class LocalProtocolError(ProtocolError):
    """Our own illegal step: a bug."""


class RemoteProtocolError(ProtocolError):
    """The peer's illegal step.

    Attributes:
        reply: What to answer, or ``None`` when the peer is a server or must only be dropped.
    """

    def __init__(self, message: str, reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply


class Refusal(MtaqError):
    """Policy said no.

    Attributes:
        reply: For the peer.
        reason: For the log; may name what the peer must not learn.
    """

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply
        self.reason = reason


class BrokerError(MtaqError):
    """The queue did not do what was asked."""


class BrokerUnavailable(BrokerError):
    """No broker, a blocked one, or none in time. The same call may succeed later."""


class UnconfirmedPublish(BrokerError):
    """The broker refused, returned or did not confirm a message: it must count as not stored."""


class TooLarge(UnconfirmedPublish):
    """A message is larger than the broker takes: the same one will never be stored."""


class TopologyMismatch(BrokerError):
    """A queue or exchange exists with other arguments than ours; says which, and how to mend it."""


class BadMessage(MtaqError):
    """A message in the outbox that cannot be understood; ``str()`` is the reason for ``rabbitmq-dead``."""


class ResolverError(MtaqError):
    """DNS gave no usable answer."""


class NoSuchDomain(ResolverError):
    """The name does not exist or has no mail host.

    Attributes:
        null_mx: The domain says that it takes no mail (RFC 7505).
    """

    def __init__(self, message: str, *, null_mx: bool = False) -> None:
        super().__init__(message)
        self.null_mx = null_mx


class ResolverTimeout(ResolverError):
    """DNS was silent or failed (SERVFAIL): the same question may be answered later."""
