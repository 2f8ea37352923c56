"""Numbers of one process, and of several together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mtaq.telemetry import metrics

ROOT = Path(__file__).resolve().parents[3]

COUNTING = """
import os
from mtaq.telemetry.metrics import counter, gauge, histogram
counter("mtaq_test", "Things.", ("code",)).labels("250").inc(2)
gauge("mtaq_test_open", "Open things.").set(3)
histogram("mtaq_test_seconds", "Durations.").observe(0.3)
print(os.getpid())
"""


def test_one_process_counts_for_itself():
    """Without a common folder a process renders what it counted."""
    metrics.counter("mtaq_alone", "Things.").inc()
    assert b"mtaq_alone_total 1.0" in metrics.render()


def test_processes_of_an_instance_are_added_up(tmp_path):
    """Counters, gauges and distributions of several processes are added up; the dead keep only what they counted."""
    folder = str(tmp_path)
    pids = [
        int(
            subprocess.run(
                [sys.executable, "-c", COUNTING],
                env={"PROMETHEUS_MULTIPROC_DIR": folder, "PYTHONPATH": str(ROOT)},
                check=True,
                capture_output=True,
            ).stdout
        )
        for _ in range(2)
    ]
    text = metrics.render(folder).decode()
    assert 'mtaq_test_total{code="250"} 4.0' in text
    assert "mtaq_test_open 6.0" in text
    assert 'mtaq_test_seconds_bucket{le="0.5"} 2.0' in text
    metrics.forget_process(folder, pids[0])
    text = metrics.render(folder).decode()
    assert 'mtaq_test_total{code="250"} 4.0' in text
    assert "mtaq_test_open 3.0" in text
