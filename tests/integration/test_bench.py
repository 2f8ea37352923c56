"""``./scripts/bench``: that it measures everything, counts right and cleans up. Never how fast anything is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.load import PROGRAM
from tests.benchmarks.peers import PACKAGE
from tests.benchmarks.postfix import can_run_postfix
from tests.support.instance import ROOT, wait_until
from tests.support.rabbitmq import is_installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peers,
    pytest.mark.rabbitmq,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path(PROGRAM).exists(), reason=f"install {PACKAGE} (Debian package)"),
    pytest.mark.skipif(not is_installed(), reason="install rabbitmq-server (Debian package)"),
]

RECEPTION = {"mtaq receive", "mtaq supervisor", "rabbitmq"}
SERVERS: dict[str, dict[str, set[str]]] = {
    "intake": {"smtp-sink": set(), "postfix-hold": {"postfix"}, "postfix": {"postfix"}, "mtaq": RECEPTION},
    "relay": {
        "smtp-sink": set(),
        "postfix": {"postfix", "smtp-sink"},
        "mtaq": RECEPTION | {"mtaq deliver", "smtp-sink"},
    },
    "checks": {"mtaq": RECEPTION, "mtaq-checks": RECEPTION},
}
"""What is measured, each with the groups of processes it consists of."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for temporary files that Postfix's user can go through; pytest's own is closed to him."""
    path = Path(tempfile.mkdtemp(prefix="test-bench-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def bench(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"TMPDIR": str(folder)}
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "bench"), *arguments, "--results", str(folder / "results")],
            env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def processes_of(folder: Path) -> list[str]:
    """Return the command lines that name *folder*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in command:
                found.append(command)
    return found


def left_behind(folder: Path) -> list[str]:
    """Return what a benchmark left in *folder*, its output and results aside."""
    return [path.name for path in folder.iterdir() if path.name not in ("output", "results")]


@pytest.mark.parametrize("what", ["intake", "relay", "checks"])
def test_every_server_is_measured_and_every_message_counted(folder: Path, what: str) -> None:
    """One load on each server for each kind of connection, all of it in the JSON, and nothing is left running."""
    process = bench(folder, what, "--quick", "--size", "10")
    assert process.wait(280) == 0, (folder / "output").read_text()
    (path,) = (folder / "results").iterdir()
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["what"] == what
    assert all(report["machine"][name] for name in ("cpu", "cores", "memory_bytes", "kernel", "python", "rabbitmq"))
    runs = report["runs"]
    servers = [name for name in SERVERS[what] if can_run_postfix() or not name.startswith("postfix")]
    assert [(run["connections"], run["server"]) for run in runs] == [
        (connections, server) for connections in ("reused", "new") for server in servers
    ]
    for run in runs:
        assert run["arrived"] == run["messages"] == 200
        assert run["size_bytes"] == 10240
        assert run["messages_per_s"] > 0
        assert set(run["cpu_us_per_message"]) == set(run["peak_bytes"])
        assert set(run["cpu_us_per_message"]) >= SERVERS[what][run["server"]] | {"smtp-source"}
        assert all(peak > 0 for peak in run["peak_bytes"].values())
    assert left_behind(folder) == []
    assert processes_of(folder) == []


def test_ctrl_c_stops_and_removes_everything(folder: Path) -> None:
    """Interrupted in the middle of a load, it leaves no process and no folder."""
    process = bench(folder, "relay", "--size", "10", "--messages", "1000000", "--only", "mtaq")

    def loading() -> bool:
        assert process.poll() is None, (folder / "output").read_text()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return any(os.path.realpath(f"/proc/{pid}/exe") == PROGRAM for pid in children)

    wait_until(loading, "the load to begin")
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130, (folder / "output").read_text()
    assert left_behind(folder) == []
    assert processes_of(folder) == []
