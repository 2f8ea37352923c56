"""What a ``python://`` hook is handed: the JSON of the three points, with names.

Made from our own JSON, so nothing here can fail. A ``Message`` is the hook's own copy: what it does with it after its
time is over changes nothing.
"""

from __future__ import annotations

import copy
import email
import email.policy
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from mtaq.model.codec import content_of, content_property


@dataclass(frozen=True, slots=True)
class Client:
    """Who is talking to us.

    Attributes:
        ip: The client's address.
        port: The client's port.
        helo: The name it gave in EHLO or HELO.
        secure: Whether the session is encrypted.
        user: Who logged in, or ``None``.
    """

    ip: str
    port: int
    helo: str
    secure: bool
    user: str | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Client:
        """Make one from ``client`` of the JSON."""
        return cls(facts["ip"], facts["port"], facts["helo"], facts["secure"], facts.get("user"))


@dataclass(frozen=True, slots=True)
class Sender:
    """MAIL was given: who wants to send, in whose name; *envelope* is the reverse-path, empty for the null one."""

    client: Client
    envelope: str

    @classmethod
    def of(cls, session: Mapping[str, Any]) -> Sender:
        """Make one from the JSON of the point."""
        return cls(Client.of(session["client"]), session["envelope"])


@dataclass(frozen=True, slots=True)
class Recipient:
    """RCPT was given: *recipient* is its forward-path."""

    client: Client
    envelope: str
    recipient: str

    @classmethod
    def of(cls, session: Mapping[str, Any]) -> Recipient:
        """Make one from the JSON of the point."""
        return cls(Client.of(session["client"]), session["envelope"], session["recipient"])


class Message(dict[str, Any]):
    """A message with its content: the inbox JSON, ``recipients`` in place of ``recipient``. Changes to it count."""

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> Message:
        """Make a copy that shares nothing that can be changed."""
        return cls(copy.deepcopy(dict(properties)))

    @property
    def envelope(self) -> str:
        """The reverse-path; empty for the null one."""
        return str(self["envelope"])

    @property
    def recipients(self) -> list[str]:
        """The forward-paths."""
        found: list[str] = self["recipients"]
        return found

    @recipients.setter
    def recipients(self, addresses: list[str]) -> None:
        self["recipients"] = addresses

    @property
    def content(self) -> bytes:
        """Header section and body, as received; assign to it to replace them."""
        return content_of(self)

    @content.setter
    def content(self, content: bytes) -> None:
        name, text = content_property(content)
        self.pop("mime", None)
        self.pop("mime-base64", None)
        self[name] = text

    def email(self) -> EmailMessage:
        """Return the content as Python's ``email`` sees it; what is done to that does not change the message."""
        return email.message_from_bytes(self.content, policy=email.policy.SMTP)
