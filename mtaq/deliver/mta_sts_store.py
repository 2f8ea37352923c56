"""MTA-STS policies on disk: a small file for each domain, shared by all processes of the instance.

A restart must not open the door that a policy had closed, so what was fetched is kept as long as it holds. A file that
cannot be read is none, one that cannot be written is written the next time. Functions here wait for the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mtaq.deliver.mta_sts import StsPolicy, from_json, to_json
from mtaq.model.times import format_time, parse_time

_FORMAT = 1
#: Policies kept. Beyond it those go first that end first.
MAX_FILES = 20_000
#: No policy that was kept is larger.
_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Kept:
    """A policy that was fetched.

    Attributes:
        domain: Whose it is.
        id: That of the TXT record it came with.
        fetched_at: When.
    """

    domain: str
    policy: StsPolicy
    id: str
    fetched_at: datetime

    def holds(self, now: datetime) -> bool:
        """Is it in force?"""
        return now < self.ends_at

    @property
    def ends_at(self) -> datetime:
        """Until when it holds."""
        return self.fetched_at + timedelta(seconds=self.policy.max_age_s)


class PolicyStore:
    """The files in *folder*, which is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, domain: str) -> Kept | None:
        """Return what is kept of *domain*."""
        kept = _read(self._path(domain))
        return kept if kept is not None and kept.domain == domain else None

    def write(self, kept: Kept) -> None:
        """
        Keep *kept*, in the place of what was kept before.

        Raises:
            OSError: It cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fields = {
            "format": _FORMAT,
            "domain": kept.domain,
            "id": kept.id,
            "fetched": format_time(kept.fetched_at),
            "policy": to_json(kept.policy),
        }
        path = self._path(kept.domain)
        unfinished = path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            unfinished.write_text(json.dumps(fields), "utf-8")
            os.replace(unfinished, path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    def all(self) -> Iterator[Kept]:
        """Yield everything that is kept."""
        for path in self._paths():
            kept = _read(path)
            if kept is not None:
                yield kept

    def prune(self, now: datetime) -> None:
        """Remove what holds no more, what was left half written a day ago, and what is too many."""
        ends: list[tuple[datetime, Path]] = []
        for path in self._paths():
            kept = _read(path)
            if kept is not None and kept.holds(now):
                ends.append((kept.ends_at, path))
            elif kept is not None or _is_old(path, now):
                path.unlink(missing_ok=True)
        for _, path in sorted(ends)[: max(0, len(ends) - MAX_FILES)]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        try:
            return sorted(self._folder.iterdir())
        except OSError:
            return []

    def _path(self, domain: str) -> Path:
        # A name may be longer than file names are.
        return self._folder / f"{hashlib.sha256(domain.encode()).hexdigest()[:40]}.json"


def _read(path: Path) -> Kept | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError), path.open("rb") as file:
        fields = json.loads(file.read(_MAX_BYTES))
        if fields["format"] == _FORMAT:
            policy, fetched_at = from_json(fields["policy"]), parse_time(fields["fetched"])
            return Kept(str(fields["domain"]), policy, str(fields["id"]), fetched_at)
    return None


def _is_old(path: Path, now: datetime) -> bool:
    with contextlib.suppress(OSError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) < now - timedelta(days=1)
    return False
