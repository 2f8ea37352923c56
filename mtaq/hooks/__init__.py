"""The operator's own decisions and steps; what a ``python://`` hook imports to look at mail and to answer."""

from mtaq.hooks.objects import Client, Message, Recipient, Sender
from mtaq.model.decision import Decision, accept, defer, drop, reject

__all__ = ["Client", "Decision", "Message", "Recipient", "Sender", "accept", "defer", "drop", "reject"]
