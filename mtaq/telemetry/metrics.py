"""Numbers for Prometheus, declared beside the code that counts.

Several processes of an instance count into files of one folder that their supervisor names in
``PROMETHEUS_MULTIPROC_DIR``; it must stand in the environment before this module is imported. Without it a process
counts for itself. Looking up a labelled child costs about as much as counting: keep what ``labels()`` returns.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What ``render`` returns."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Buckets for durations, up to the longest attempt."""


def counter(name: str, help: str, labels: Sequence[str] = ()) -> Counter:
    """Declare something that only grows; ``_total`` is added to *name*."""
    return Counter(name, help, labels)


def gauge(name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
    """Declare something that rises and falls; the live processes' values are added up."""
    return Gauge(name, help, labels, multiprocess_mode="livesum")


def histogram(name: str, help: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS) -> Histogram:
    """Declare a distribution, of seconds unless *buckets* says otherwise."""
    return Histogram(name, help, labels, buckets=buckets)


def forget_process(folder: str, pid: int) -> None:
    """Take a process that ended out of the gauges; what it counted stays."""
    multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # published without types


def render(folder: str | None = None) -> bytes:
    """Return all numbers in Prometheus's text format: of every process that counts into *folder*, or of this one."""
    if folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # published without types
    return generate_latest(registry)
