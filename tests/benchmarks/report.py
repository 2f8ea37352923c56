"""What the measurements say: a table for people, JSON for comparing runs. Medians, because runs disturb each other."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.load import Case
from tests.benchmarks.measure import Measurement
from tests.support.rabbitmq import RabbitNode


def machine_facts(node: RabbitNode | None) -> dict[str, Any]:
    """Return what a reader must know to compare: processor, memory, kernel, file system, versions."""
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": int(_field(Path("/proc/meminfo"), "MemTotal").split()[0]) * 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "rabbitmq": node.ctl("version").strip() if node is not None else None,
        "postfix": _told("postconf", "-h", "mail_version"),
    }


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _told(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def of_case(measurements: Sequence[Measurement], case: Case) -> dict[str, list[Measurement]]:
    """Return the measurements of *case* by server, in the order they were made."""
    found: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        if measurement.case == case:
            found.setdefault(measurement.server, []).append(measurement)
    return found


def case_lines(measurements: Sequence[Measurement], case: Case) -> list[str]:
    """Return the table of one case."""
    servers = of_case(measurements, case)
    peers = {name: median(run.per_s for run in runs) for name, runs in servers.items() if name.startswith("postfix")}
    lines = [f"{case}"]
    for name, runs in servers.items():
        rates = [run.per_s for run in runs]
        line = f"  {name:<13}{median(rates):>9,.0f}/s  ({min(rates):,.0f} to {max(rates):,.0f})"
        if name == "mtaq":
            line += "".join(f"  {median(rates) / rate:.2f} × {peer}" for peer, rate in peers.items())
        lines.append(line)
        for group in runs[0].cpu_us:
            cpu = median(run.cpu_us[group] for run in runs)
            after = median(run.cpu_after_us.get(group, 0.0) for run in runs)
            peak = median(run.peak_bytes[group] for run in runs)
            lines.append(f"      {group:<16}{cpu:>8,.0f} µs{after:>8,.0f} µs after{peak / 2**20:>8,.0f} MB")
        lines.append(f"      {'together':<16}{median(sum(run.cpu_us.values()) for run in runs):>8,.0f} µs")
        other, stolen = (
            100 * max(values) for values in zip(*((r.other_share, r.stolen_share) for r in runs), strict=True)
        )
        lines.append(f"      anything else    {other:>6.1f} % of the machine, host {stolen:.1f} %, at most")
        if any(run.arrived != run.messages for run in runs):
            lines.append(
                f"      counted          {sum(r.arrived for r in runs)} for {sum(r.messages for r in runs)} sent"
            )
    return lines


def as_json(
    what: str, measurements: Sequence[Measurement], machine: dict[str, Any], *, began_at: datetime
) -> dict[str, Any]:
    """Return everything, each run for itself."""
    return {
        "what": what,
        "date": began_at.isoformat(timespec="seconds"),
        "machine": machine,
        "runs": [
            {
                "server": run.server,
                "size_bytes": run.case.size_bytes,
                "connections": "reused" if run.case.reuse else "new",
                "sessions": run.case.sessions,
                "messages": run.messages,
                "arrived": run.arrived,
                "seconds": round(run.seconds, 3),
                "messages_per_s": round(run.per_s, 1),
                "cpu_us_per_message": run.cpu_us,
                "cpu_us_per_message_after": run.cpu_after_us,
                "peak_bytes": run.peak_bytes,
                "other_share": round(run.other_share, 3),
                "stolen_share": round(run.stolen_share, 3),
            }
            for run in measurements
        ],
    }


def write_json(folder: Path, report: dict[str, Any], *, began_at: datetime) -> Path:
    """Write *report* to a file of its own in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report['what']}-{began_at:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path
