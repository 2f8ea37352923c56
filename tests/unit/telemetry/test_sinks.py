"""Where lines go, and what happens when they cannot."""

from __future__ import annotations

import json
import os
import pty
import syslog
from contextlib import suppress

import pytest

from mtaq.telemetry.format import json_line
from mtaq.telemetry.sinks import DescriptorSink, FileSink, SyslogSink, open_sink
from mtaq.telemetry.vocabulary import ERROR, INFO


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(path) -> list[int]:
    """The numbers of the lines in a log."""
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_file_gets_every_line_at_once(tmp_path):
    """A line is in the file when ``write`` returns, behind what was there."""
    path = tmp_path / "mtaq.log"
    path.write_text('{"n":0}\n')
    sink = open_sink([str(path)])
    sink.write(INFO, {"n": 1})
    assert lines(path) == [0, 1]


def test_new_file_is_not_for_everybody(tmp_path):
    """A log is made without permissions for others."""
    open_sink([str(tmp_path / "mtaq.log")])
    assert (tmp_path / "mtaq.log").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("rotate", ["move", "remove"])
def test_rotated_file_is_opened_anew_within_a_second(tmp_path, rotate):
    """After logrotate moved or removed the file, lines go to the new one a second later, and none is lost."""
    path, old, clock = tmp_path / "mtaq.log", tmp_path / "mtaq.log.1", Clock()
    sink = FileSink(str(path), json_line, clock)
    sink.write(INFO, {"n": 1})
    if rotate == "move":
        path.rename(old)
    else:
        os.link(path, old)
        path.unlink()
    clock.now = 0.9
    sink.write(INFO, {"n": 2})
    clock.now = 1.0
    sink.write(INFO, {"n": 3})
    assert lines(old) == [1, 2]
    assert lines(path) == [3]


def test_rotation_is_looked_for_once_a_second(tmp_path, monkeypatch):
    """However many lines a second, the file is looked at once."""
    looks = []
    clock = Clock()
    sink = FileSink(str(tmp_path / "mtaq.log"), json_line, clock)
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path: looks.append(path) or real(path))
    for tenth in range(30):
        clock.now = tenth / 10
        sink.write(INFO, {"n": 1})
    assert len(looks) == 2


def test_folder_that_is_gone_keeps_the_old_file(tmp_path):
    """When no new file can be made, the old one takes the lines."""
    folder, clock = tmp_path / "log", Clock()
    folder.mkdir()
    sink = FileSink(str(folder / "mtaq.log"), json_line, clock)
    folder.rename(tmp_path / "moved")
    clock.now = 2.0
    sink.write(INFO, {"n": 1})
    assert lines(tmp_path / "moved" / "mtaq.log") == [1]
    assert sink.dropped == 0


def test_a_file_that_cannot_be_opened_is_said_at_start(tmp_path):
    """A log in a folder that does not exist is an error when it is opened, not later."""
    with pytest.raises(OSError, match="No such file"):
        open_sink([str(tmp_path / "none" / "mtaq.log")])


def test_nothing_is_raised_when_nobody_reads():
    """A broken pipe costs lines, never an exception."""
    reading, writing = os.pipe()
    sink = DescriptorSink(writing, json_line)
    os.close(reading)
    sink.write(INFO, {"n": 1})
    assert sink.dropped == 1
    os.close(writing)
    sink.write(INFO, {"n": 2})
    assert sink.dropped == 2


def test_a_line_that_was_cut_does_not_spoil_the_next():
    """After a line that fitted only in part, the next one starts on a line of its own."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = DescriptorSink(writing, json_line)
    sink.write(INFO, {"n": 1, "error": "x" * 1_000_000})
    assert sink.dropped == 1
    os.set_blocking(reading, False)
    with suppress(BlockingIOError):
        while os.read(reading, 65536):
            pass
    sink.write(INFO, {"n": 2})
    sink.write(INFO, {"n": 3})
    os.close(writing)
    assert os.read(reading, 65536) == b'\n{"n":2}\n{"n":3}\n'
    os.close(reading)


def test_several_logs_get_each_line(tmp_path):
    """Every log named gets every line."""
    sink = open_sink([str(tmp_path / "a"), str(tmp_path / "b")])
    sink.write(INFO, {"n": 1})
    assert lines(tmp_path / "a") == lines(tmp_path / "b") == [1]


def test_no_log_takes_everything():
    """An empty list of logs writes nothing and takes any line."""
    open_sink([]).write(INFO, {"n": 1})


def test_standard_streams(capfd):
    """stdout and stderr are written to directly."""
    open_sink(["stdout", "stderr"]).write(INFO, {"n": 1})
    assert capfd.readouterr() == ('{"n":1}\n', '{"n":1}\n')


@pytest.mark.parametrize(("log_format", "readable"), [("auto", True), ("json", False), ("console", True)])
def test_terminal_gets_the_readable_form(monkeypatch, log_format, readable):
    """On a terminal the automatic form is the readable one; a form that is named holds everywhere."""
    master, terminal = pty.openpty()
    monkeypatch.setattr("mtaq.telemetry.sinks._STANDARD", {"stderr": terminal})
    open_sink(["stderr"], log_format=log_format).write(INFO, {"at": "now", "event": "bug"})
    written = os.read(master, 1000)
    assert written.startswith(b"now" if readable else b"{")
    os.close(master)
    os.close(terminal)


def test_console_form_in_a_file(tmp_path):
    """The readable form can be asked for in files, too."""
    open_sink([str(tmp_path / "log")], log_format="console").write(INFO, {"at": "now", "event": "bug"})
    assert (tmp_path / "log").read_text().startswith("now")


def test_syslog_gets_text_and_importance(monkeypatch):
    """The system's log gets each line with its level, without line end."""
    said = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, text: said.append((priority, text)))
    sink = SyslogSink(json_line)
    sink.write(ERROR, {"n": 1})
    assert said == [(syslog.LOG_ERR, '{"n":1}')]
    sink.write(99, {"n": 1})
    assert sink.dropped == 1
