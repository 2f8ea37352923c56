"""Does this sender only ask whether addresses exist (``smtp-probe-senders``)?

Such a client is answered truthfully at RCPT, and ``codes.PROBES_ONLY`` at DATA: nothing is ever taken from it.
"""

from __future__ import annotations

from mtaq.config import ReceiveOptions
from mtaq.model.address import Address


def is_probe(path: Address | None, options: ReceiveOptions) -> bool:
    """Is *path* one of the probes' reverse-paths? The null one never is; case counts nowhere."""
    return path is not None and any(_folded(path) == _folded(probe) for probe in options.smtp_probe_senders)


def _folded(path: Address) -> tuple[str, str]:
    return path.local_part.casefold(), path.domain
