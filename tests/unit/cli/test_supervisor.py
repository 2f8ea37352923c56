"""The supervisor, where a worker cannot even be started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from mtaq.cli.supervisor import Supervisor
from mtaq.config import Settings
from mtaq.telemetry.events import EventLog
from tests.unit.receive.fakes import event_log, settings


async def no_queues(_settings: Settings, _events: EventLog) -> None:
    """Nothing to prepare."""


async def test_a_worker_that_cannot_be_forked_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system has no process to give: that is logged, tried again, and the end is still in order."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    events, lines = event_log()
    descriptors = len(os.listdir("/proc/self/fd"))
    supervisor = Supervisor(
        settings(smtp_threads="1"), roles=("receive",), listeners=[], events=events, reload=settings,
        prepare_queues=no_queues, metrics_folder=str(tmp_path),
    )  # fmt: skip
    running = asyncio.create_task(supervisor.run())
    while len(died := [record for record in lines.records if record["event"] == "worker.died"]) < 2:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert str(tmp_path / "absent") in died[0]["error"]
    assert died[1]["restart_s"] > died[0]["restart_s"]
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
