"""Running the operator's program."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mtaq.hooks.ports import HookFailure
from mtaq.hooks.process import ENVIRONMENT, Ended, Program


def program(folder: Path, script: str) -> str:
    """Write a shell script and return its path."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def wait_gone(pid: int) -> None:
    """Return when a process is dead; whose parent is gone waits for process 1 to notice."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        time.sleep(0.01)


def run(folder: Path, script: str, given: bytes = b"", *, arguments: tuple[str, ...] = (), limit: int = 1000) -> Ended:
    return Program((program(folder, script), *arguments), given, max_output_bytes=limit).run()


def test_input_output_and_status(tmp_path):
    """What is given is read to its end, what is written comes back, and so does the status."""
    given = bytes(range(256)) * 2000
    assert run(tmp_path, "cat; echo bad >&2; exit 77", given, limit=len(given)) == Ended(77, given, b"bad\n")


def test_input_that_nobody_reads(tmp_path):
    """A program need not read what it is given."""
    assert run(tmp_path, "exit 0", b"x" * 1_000_000) == Ended(0, b"", b"")


def test_arguments_and_surroundings(tmp_path):
    """The program has its arguments, a clean environment, the root folder, and no file of ours."""
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    ended = run(tmp_path, 'echo "$1"; pwd; env -0 | tr "\\0" "\\n" | sort; ls /proc/self/fd', arguments=("message",))
    os.close(reader)
    os.close(writer)
    lines = ended.output.decode().splitlines()
    assert lines[:2] == ["message", "/"]
    assert {line for line in lines if "=" in line} - {"PWD=/", "OLDPWD=/", "SHLVL=0", "_=/usr/bin/env"} == {
        f"{name}={value}" for name, value in ENVIRONMENT.items()
    }
    assert [line for line in lines if line.isdigit()] == ["0", "1", "2", "3"]  # 3 is the listing's own


def test_no_shell(tmp_path):
    """Arguments are arguments, whatever stands in them."""
    assert run(tmp_path, 'echo "$1"', arguments=("$(id); `id` | id",)).output == b"$(id); `id` | id\n"


def test_too_much_output(tmp_path):
    """A program that writes 100 MB is stopped when it has written too much."""
    with pytest.raises(HookFailure, match="1000 bytes"):
        run(tmp_path, "exec head -c 100000000 /dev/zero")


def test_too_much_on_standard_error(tmp_path):
    """Of the standard error the beginning is kept, and the program is not held up."""
    ended = run(tmp_path, "head -c 1000000 /dev/zero | tr '\\0' 'e' >&2; echo done")
    assert ended == Ended(0, b"done\n", b"e" * 500)


def test_output_without_end_on_standard_error(tmp_path):
    """A child that goes on writing when the program has ended holds nobody up."""
    assert run(tmp_path, "yes >&2 & echo done").output == b"done\n"


@pytest.mark.parametrize("script", ["kill -KILL $$", "exec 1>&- 2>&-; kill -KILL $$"])
def test_killed_by_a_signal(tmp_path, script):
    """A signal is told as a negative status."""
    assert run(tmp_path, script).status == -signal.SIGKILL


def test_children_end_with_the_program(tmp_path):
    """What the program leaves behind is killed, whether or not it holds on to the output."""
    ended = run(tmp_path, "sleep 600 & echo $!; sleep 600 >/dev/null 2>&1 & echo $!")
    assert ended.status == 0
    for child in ended.output.split():
        wait_gone(int(child))


def test_killed_with_its_children(tmp_path):
    """A program that is given up on is gone with all that it started, also what ignores signals."""
    fifo = tmp_path / "started"
    os.mkfifo(fifo)
    script = f"trap '' TERM HUP INT\nsh -c 'sleep 600 & echo $! $$ > {fifo}; wait'"
    running = Program((program(tmp_path, script),), b"", max_output_bytes=1000)
    ended: list[Ended] = []

    def run_it() -> None:
        with contextlib.suppress(HookFailure):  # killed before its start was noted
            ended.append(running.run())

    thread = threading.Thread(target=run_it)
    thread.start()
    children = fifo.read_text().split()
    running.kill()
    thread.join()
    assert all(end.status == -signal.SIGKILL for end in ended)
    for child in children:
        wait_gone(int(child))
    running.kill()  # late, and harmless


def test_killed_before_it_began(tmp_path):
    """A program that is given up on while it is started does nothing."""
    mark = tmp_path / "mark"
    running = Program((program(tmp_path, f"sleep 1; touch {mark}"),), b"", max_output_bytes=1000)
    running.kill()
    with pytest.raises(HookFailure):
        running.run()
    assert not mark.exists()


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_what_cannot_be_started(tmp_path, mode):
    """A file that is no program is an error of the system."""
    path = tmp_path / "text"
    path.write_text("no program\n", encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(OSError, match="text"):
        Program((str(path),), b"", max_output_bytes=1000).run()


def test_no_descriptor_stays_open(tmp_path):
    """Whatever happens to a program, nothing of it stays open here."""
    before = os.listdir("/proc/self/fd")
    run(tmp_path, "echo x")
    with pytest.raises(HookFailure):
        run(tmp_path, "exec yes")
    with pytest.raises(OSError, match="nothing"):
        Program((str(tmp_path / "nothing"),), b"", max_output_bytes=1).run()
    assert len(os.listdir("/proc/self/fd")) == len(before)
