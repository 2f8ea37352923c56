"""Suppressions on their way from the database into memory, page by page.

Whoever has everything reads what changed, which is applied at once. Everything is read when nothing is known, or when
the database says so; until that is complete, what was known before stays in force.
"""

from __future__ import annotations

from datetime import datetime

from mtaq.state.control import LiveControl
from mtaq.state.recipients import Suppressions
from mtaq.state.suppression_store import Page


class SuppressionReader:
    """Where reading has come to.

    Attributes:
        known: The number up to which the table is known; 0 for nothing.
    """

    def __init__(self, control: LiveControl) -> None:
        self.known = 0
        self._control = control
        self._whole: Suppressions | None = None

    @property
    def is_begun(self) -> bool:
        """Is everything being read, and a part of it there?"""
        return self._whole is not None and self.known > 0

    def take(self, page: Page) -> bool:
        """Apply what was read after ``known``; was it the last page? Takes up to a tenth of a second."""
        if page.is_whole:
            self._whole = Suppressions()
        target = self._control.suppressions if self._whole is None else self._whole
        target.change(page.added, page.removed)
        self.known = page.version
        if page.is_last and self._whole is not None:
            self._control.suppressions, self._whole = self._whole, None
        return page.is_last

    def check(self, number: int, now: datetime) -> None:
        """Let go of what has ended; when there are not *number* entries then, everything is to be read again."""
        self._control.suppressions.forget_ended(now)
        if len(self._control.suppressions) != number:
            self.known = 0
