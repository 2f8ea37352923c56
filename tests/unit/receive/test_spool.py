"""The spool directory with real files; what takes the messages, and the clock, are the test's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtaq.config.spool import SpoolOptions
from mtaq.model.reply import Reply
from mtaq.receive import spool as spool_module
from mtaq.receive.spool import Spool
from mtaq.receive.spool_folder import SpooledMessage, SpoolFolder, Unsettled
from mtaq.smtp import codes
from mtaq.telemetry.events import EventLog

MESSAGE = b"From: ada@example.org\nTo: grace@example.com\nSubject: hello\n\nhello\n"
DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, so that tests are quick."""
    monkeypatch.setattr(spool_module, "LOOK_EVERY_S", 0.02)


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, level: int, record: dict[str, Any]) -> None:
        """Keep it."""
        self.records.append(record)


class Desk:
    """A directory, what takes its messages, and a clock that is moved by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "spool"
        self.folder.mkdir()
        self.now = time.time()
        self.lines = Lines()
        self.taken: list[SpooledMessage] = []
        self.answers: list[Reply] = []
        self.ready = True

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what was logged under a name."""
        return [record for record in self.lines.records if record["event"] == name]

    async def take(self, message: SpooledMessage) -> Reply:
        """Take it, unless another answer was prepared."""
        answer = self.answers.pop(0) if self.answers else codes.ACCEPTED
        if answer.is_positive:
            self.taken.append(message)
        return answer

    def clock(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(self.now, UTC)

    def write(self, name: str, content: bytes = MESSAGE) -> Path:
        """Put a file into the directory."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def spool(self, *, max_bytes: int = 1_000_000, **options: Any) -> Spool:
        """Return a service for the directory."""
        return Spool(
            SpoolOptions(spool_directory=str(self.folder), **options), str(self.folder), take=self.take,
            is_ready=lambda: self.ready, max_bytes=max_bytes, strict=True, clock=self.clock,
            events=EventLog(self.lines, node="test", clock=self.clock),
        )  # fmt: skip

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Spool]:
        """Have a service run on the directory."""
        spool = self.spool(**options)
        spool.start()
        try:
            yield spool
        finally:
            await spool.stop(DEADLINE_S)

    def names(self, *parts: str) -> set[str]:
        """Return the names in the directory, or in one inside it, but for those that are ours."""
        return {path.name for path in self.folder.joinpath(*parts).iterdir() if not path.name.startswith(".")}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A directory with nothing in it."""
    return Desk(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that is bound to happen."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def looks(desk: Desk, count: int = 3) -> None:
    """Wait until the service has looked that often: each look asks whether mail can be taken."""
    asked = 0

    class Counting:
        def __bool__(self) -> bool:
            nonlocal asked
            asked += 1
            return True

    desk.ready = Counting()  # type: ignore[assignment]  # true, and counts
    await until(lambda: asked > count)


async def test_a_file_is_taken_and_removed(desk: Desk) -> None:
    """Its content has CRLF line ends; who wrote it, and how it was called, is known."""
    desk.write("one.eml")
    async with desk.running():
        await until(lambda: desk.taken and not desk.names())
    [message] = desk.taken
    assert message.said.content == MESSAGE.replace(b"\n", b"\r\n")
    assert (message.file, message.directory, message.size_bytes) == ("one.eml", str(desk.folder), len(MESSAGE))
    assert message.user
    assert [path.name for path in (desk.folder / ".taken").iterdir()] == [".lock"]


async def test_many_files_are_taken_once_each(desk: Desk) -> None:
    """More files than are worked on at once."""
    for number in range(50):
        desk.write(f"{number}.eml", MESSAGE.replace(b"hello", b"%d" % number))
    async with desk.running():
        await until(lambda: not desk.names())
    assert sorted(message.file for message in desk.taken) == sorted(f"{number}.eml" for number in range(50))


async def test_a_file_without_a_last_line_end_gets_one(desk: Desk) -> None:
    """A message ends with a line."""
    desk.write("one.eml", MESSAGE.rstrip(b"\n"))
    async with desk.running():
        await until(lambda: desk.taken)
    assert desk.taken[0].said.content.endswith(b"\r\nhello\r\n")


async def test_files_may_be_kept(desk: Desk) -> None:
    """``spool-remove: false`` moves them into the folder ``done``; equal names get numbers."""
    async with desk.running(spool_remove=False):
        desk.write("one.eml")
        await until(lambda: len(desk.taken) == 1)
        desk.write("one.eml")
        await until(lambda: len(desk.taken) == 2 and desk.names() == {"done"})
    assert desk.names("done") == {"one.eml", "one.eml.1"}


async def test_files_being_written_are_left_alone(desk: Desk) -> None:
    """A name that begins with a dot is not looked at; renamed it is taken."""
    path = desk.write(".one.eml")
    async with desk.running():
        await looks(desk)
        assert not desk.taken
        path.rename(desk.folder / "one.eml")
        await until(lambda: desk.taken)


async def test_spool_delay_leaves_young_files(desk: Desk) -> None:
    """A file is taken once it has been left alone for that long; a clock set back does not delay it."""
    desk.write("one.eml")
    desk.now = time.time()
    async with desk.running(spool_delay=60):
        await looks(desk)
        assert not desk.taken
        desk.now += 61
        await until(lambda: desk.taken)
        desk.write("two.eml")
        desk.now -= 10_000
        await until(lambda: len(desk.taken) == 2)


async def test_an_empty_file_is_given_time(desk: Desk) -> None:
    """It may just have been created; after some seconds it is no message."""
    desk.write("one.eml", b"")
    desk.now = time.time()
    async with desk.running():
        await looks(desk)
        assert not desk.events("spool.refused")
        desk.now += 11
        await until(lambda: desk.events("spool.refused"))
    assert desk.events("spool.refused")[0]["reason"] == "is empty"


async def test_bad_files_go_to_the_fail_directory_with_a_reason(desk: Desk, tmp_path: Path) -> None:
    """The file is there as it was, and beside it why; nothing that is there already is overwritten."""
    failed = tmp_path / "failed"
    failed.mkdir()
    for _ in range(2):
        desk.write("bad.eml", b"no message\n")
        async with desk.running(spool_fail_directory=str(failed)):
            await until(lambda: not desk.names())
    assert {path.name for path in failed.iterdir()} == {
        "bad.eml", "bad.eml.reason", "bad.eml.1", "bad.eml.1.reason",
    }  # fmt: skip
    assert (failed / "bad.eml").read_bytes() == b"no message\n"
    assert (failed / "bad.eml.reason").read_text() == "does not begin with a header field\n"
    assert not desk.taken


async def test_bad_files_stay_where_they_are_without_one(desk: Desk) -> None:
    """They are told of once, and are tried again when they change."""
    path = desk.write("bad.eml", b"no message\n")
    async with desk.running():
        await until(lambda: desk.events("spool.refused"))
        await looks(desk)
        assert len(desk.events("spool.refused")) == 1
        assert desk.names() == {"bad.eml"}
        path.write_bytes(MESSAGE)
        await until(lambda: desk.taken)


async def test_a_permanent_refusal_is_a_bad_file(desk: Desk, tmp_path: Path) -> None:
    """What intake does not take has intake's words as its reason."""
    desk.answers = [codes.MAIL_LOOP]
    desk.write("loop.eml")
    async with desk.running(spool_fail_directory=str(tmp_path)):
        await until(lambda: (tmp_path / "loop.eml.reason").exists())
    assert "5.4.6" in (tmp_path / "loop.eml.reason").read_text()


async def test_a_transient_refusal_is_tried_again_later(desk: Desk) -> None:
    """The file is neither removed nor refused, waits, and goes through when the answer is another."""
    desk.answers = [codes.TRY_LATER, codes.TRY_LATER]
    desk.write("one.eml")
    async with desk.running():
        await until(lambda: len(desk.answers) == 1)
        await looks(desk)
        assert len(desk.answers) == 1
        desk.now += 2.1
        await until(lambda: not desk.answers)
        desk.now += 2.1
        await looks(desk)
        assert not desk.taken
        desk.now += 2.1
        await until(lambda: desk.taken)
    assert desk.taken[0].file == "one.eml"


async def test_nothing_is_touched_while_mail_cannot_be_taken(desk: Desk) -> None:
    """The broker is away: files stay where they are, under their names."""
    desk.write("one.eml")
    desk.ready = False
    async with desk.running():
        await asyncio.sleep(0)
        assert desk.names() == {"one.eml"}
        desk.ready = True
        await until(lambda: desk.taken)


async def test_what_a_crash_left_is_taken_again(desk: Desk) -> None:
    """A file that was claimed by a process that died is found, under its own name."""
    folder = SpoolFolder(SpoolOptions(), str(desk.folder), max_bytes=1000, strict=True, report=lambda *_: None)
    assert folder.acquire()
    desk.write("one.eml")
    [waiting] = folder.waiting(time.time(), 10)
    assert folder.claim(waiting) is not None
    folder.release()
    async with desk.running():
        await until(lambda: desk.taken)
    assert desk.taken[0].file == "one.eml"


async def test_one_process_works_the_others_wait(desk: Desk) -> None:
    """Two services on one directory take each file once; the second goes on when the first is gone."""
    first, second = desk.spool(), desk.spool()
    first.start()
    desk.write("one.eml")
    await until(lambda: desk.taken)
    second.start()
    desk.write("two.eml")
    await until(lambda: len(desk.taken) == 2)
    await first.stop(DEADLINE_S)
    desk.write("three.eml")
    await until(lambda: len(desk.taken) == 3)
    await second.stop(DEADLINE_S)


async def test_the_next_file_of_the_same_name_is_another_one(desk: Desk) -> None:
    """Whoever writes a new file while the old one is worked on loses nothing."""
    started, gate = asyncio.Event(), asyncio.Event()

    async def take(message: SpooledMessage) -> Reply:
        started.set()
        await gate.wait()
        desk.taken.append(message)
        return codes.ACCEPTED

    desk.take = take  # type: ignore[method-assign]  # this test's own
    desk.write("one.eml")
    async with desk.running():
        await started.wait()
        desk.write("one.eml", MESSAGE.replace(b"hello", b"other"))
        gate.set()
        await until(lambda: len(desk.taken) == 2)
    assert [b"other" in message.said.content for message in desk.taken] == [False, True]


@pytest.mark.parametrize("kind", ["symlink", "fifo", "dangling"])
async def test_what_is_no_regular_file_is_left_and_told_once(desk: Desk, tmp_path: Path, kind: str) -> None:
    """Links are not followed: nobody has a file mailed that he cannot read. Nothing hangs on a FIFO."""
    odd = desk.folder / "odd.eml"
    (tmp_path / "secret").write_bytes(MESSAGE)
    if kind == "fifo":
        os.mkfifo(odd)
    else:
        odd.symlink_to(tmp_path / ("secret" if kind == "symlink" else "nothing"))
    async with desk.running():
        await until(lambda: desk.events("spool.refused"))
        await looks(desk)
        desk.write("good.eml")
        await until(lambda: desk.taken)
    assert len(desk.events("spool.refused")) == 1
    assert [message.file for message in desk.taken] == ["good.eml"]
    assert odd.is_symlink() or odd.is_fifo()


async def test_a_huge_file_is_not_read(desk: Desk, tmp_path: Path) -> None:
    """Beyond ``smtp-maxsize`` it is put aside without having been in memory."""
    huge = desk.write("huge.eml")
    os.truncate(huge, 10**12)
    async with desk.running(spool_fail_directory=str(tmp_path), max_bytes=1000):
        await until(lambda: (tmp_path / "huge.eml.reason").exists())
    assert "larger than 1000" in (tmp_path / "huge.eml.reason").read_text()
    assert (tmp_path / "huge.eml").stat().st_size == 10**12


def test_a_file_that_grows_while_it_is_read_is_read_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer was not ready: the next try finds it whole."""
    folder = SpoolFolder(SpoolOptions(), str(desk.folder), max_bytes=10_000, strict=True, report=lambda *_: None)
    assert folder.acquire()
    path = desk.write("one.eml", MESSAGE)
    [waiting] = folder.waiting(time.time(), 10)
    claimed = folder.claim(waiting)
    assert claimed is not None
    read = os.read

    def growing(file: int, size: int) -> bytes:
        block = read(file, size)
        if not block:
            with claimed.path.open("ab") as writer:
                writer.write(b"more\n")
        return block

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(Unsettled):
        folder.read(claimed)
    monkeypatch.setattr(os, "read", read)
    assert folder.read(claimed).said.content.endswith(b"more\r\n")
    assert not path.exists()
    folder.release()


async def test_a_file_that_cannot_be_read_is_a_bad_file(
    desk: Desk, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The folder is ours, the file is not."""
    path = desk.write("one.eml")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root can read everything, unless it is forbidden to itself
        assert "UNPRIVILEGED" not in os.environ
        again = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", request.node.nodeid]
        await asyncio.to_thread(
            subprocess.run, ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *again],
            check=True, timeout=60, cwd=request.config.rootpath, stdout=subprocess.DEVNULL,
            env=os.environ | {"UNPRIVILEGED": "1"},
        )  # fmt: skip
        return
    async with desk.running(spool_fail_directory=str(tmp_path)):
        await until(lambda: (tmp_path / "one.eml.reason").exists())


async def test_names_of_any_octets(desk: Desk) -> None:
    """Long names, and names that are not UTF-8, are taken; what is told of them is text."""
    names = [b"\xff\xfe.eml", b"x" * 255, ("ü" * 127).encode()]
    for name in names:
        with open(os.path.join(os.fsencode(desk.folder), name), "wb") as file:
            file.write(MESSAGE)
    async with desk.running():
        await until(lambda: len(desk.taken) == len(names))
    for message in desk.taken:
        assert message.file.encode()


async def test_a_directory_that_is_gone_is_told_once_and_looked_for(desk: Desk) -> None:
    """No traceback, and work goes on when it is back."""
    desk.folder.rmdir()
    async with desk.running():
        await until(lambda: desk.events("spool.held"))
        await looks(desk)
        assert len(desk.events("spool.held")) == 1
        desk.folder.mkdir()
        desk.write("one.eml")
        await until(lambda: desk.taken)
    assert not desk.events("bug")


async def test_stopping_waits_for_what_is_under_way(desk: Desk) -> None:
    """A message that is being stored is finished, and its file removed; the rest stays for later."""
    started, gate = asyncio.Event(), asyncio.Event()

    async def take(message: SpooledMessage) -> Reply:
        started.set()
        await gate.wait()
        return codes.ACCEPTED

    desk.take = take  # type: ignore[method-assign]  # this test's own
    desk.write("one.eml")
    spool = desk.spool()
    spool.start()
    await started.wait()
    stopping = asyncio.create_task(spool.stop(DEADLINE_S))
    await asyncio.sleep(0)
    assert not stopping.done()
    gate.set()
    await stopping
    assert [path.name for path in (desk.folder / ".taken").iterdir()] == [".lock"]
