"""Steps of a pipeline in Python, to be copied and changed.

    smtp-pipeline: python://python_pipeline:drop_out_of_office,python://python_pipeline:mark

The folder of this file must be in ``PYTHONPATH`` of the instance.
"""

from __future__ import annotations

from mtaq.hooks import Decision, Message, accept, drop


def drop_out_of_office(message: Message) -> Decision:
    """Nobody wants these (RFC 3834 §5): they are answered 250 and go nowhere."""
    return drop() if message.email().get("Auto-Submitted", "").lower() == "auto-replied" else accept()


def mark(message: Message) -> None:
    """Add a field in front, without touching a byte of what was received."""
    message.content = b"X-Passed: mark\r\n" + message.content
