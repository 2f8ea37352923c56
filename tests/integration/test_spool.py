"""The spool directory of a running relay, as docs/guide/spool.md describes it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.support.instance import ROOT, Relay, wait_until
from tests.support.received import example, received, write

MESSAGE = "From: ada@example.org\nTo: grace@example.com\nSubject: hello\n\nhello\n"


class Spooling:
    """A relay that only receives, with the two folders of the document."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.address = f"embedded://{folder / 'queue'}"
        self.spool, self.failed = folder / "spool", folder / "failed"
        self.spool.mkdir()
        self.failed.mkdir()
        self.relay = Relay(folder, self.address, verb="receive")
        replaced = {"/var/spool/mtaq-failed": self.failed, "/var/spool/mtaq": self.spool}
        self.relay.options |= example("spool.md", "spool-directory", replaced) | options

    def names(self) -> set[str]:
        """Return what lies in the directory, but for what is being written or worked on."""
        return {path.name for path in self.spool.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def spooling(tmp_path: Path) -> Iterator[Spooling]:
    """A relay with a spool directory; each test starts it."""
    spooling = Spooling(tmp_path)
    yield spooling
    spooling.relay.cleanup()


def test_the_example_of_the_guide(spooling: Spooling) -> None:
    """The message of the guide goes to its three recipients, without its Bcc, and the file is gone."""
    page = (ROOT / "docs" / "guide" / "spool.md").read_text(encoding="utf-8")
    [message] = re.findall(r"^```mail\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    spooling.relay.start()
    spooling.relay.wait_ready()
    write(spooling.spool / "order-1.eml", message)
    found = received(spooling.address, 3)
    assert {one["recipient"] for one in found} == {"ann@example.com", "bob@example.net", "archive@shop.example"}
    schema = json.loads((ROOT / "docs" / "schema" / "inbox.json").read_text(encoding="utf-8"))
    for one in found:
        assert not list(Draft202012Validator(schema).iter_errors(one))
        assert one["envelope"] == "news@shop.example"
        assert one["tags"] == ["orders"]
        assert one["hostname"] == "relay.example.org"
        assert "connection" not in one
        assert one["spool"]["file"] == "order-1.eml"
        assert one["spool"]["directory"] == str(spooling.spool)
        assert one["spool"]["size"] == len(message)
        assert one["mime"].startswith("Received: ")
        assert "Bcc" not in one["mime"]
        assert "x-mq" not in one["mime"]
        assert one["mime"].endswith("\r\n\r\nIt is on its way.\r\n")
    wait_until(lambda: not spooling.names(), "the file to be removed")


def test_what_is_no_message_is_put_aside(spooling: Spooling) -> None:
    """Bad files and bad fields end in the fail directory with their reasons; good files go on."""
    spooling.relay.start()
    spooling.relay.wait_ready()
    write(spooling.spool / "noise.bin", b"\x7fELF\x00")
    write(spooling.spool / "field.eml", "x-mq-maxattempts: many\n" + MESSAGE)
    os.mkfifo(spooling.spool / "fifo.eml")
    (spooling.spool / "link.eml").symlink_to("/etc/passwd")
    wait_until(lambda: len(list(spooling.failed.glob("*.reason"))) == 2, "the reasons")
    write(spooling.spool / "good.eml", MESSAGE)
    [one] = received(spooling.address, 1)
    assert one["spool"]["file"] == "good.eml"
    assert "header field" in (spooling.failed / "noise.bin.reason").read_text()
    assert "x-mq-maxattempts" in (spooling.failed / "field.eml.reason").read_text()
    assert (spooling.failed / "noise.bin").read_bytes() == b"\x7fELF\x00"
    wait_until(lambda: spooling.names() == {"fifo.eml", "link.eml"}, "the good file to be removed")
    refused = [event["file"] for event in spooling.relay.events("spool.refused")]
    assert sorted(Path(file).name for file in refused) == ["field.eml", "fifo.eml", "link.eml", "noise.bin"]


def test_every_message_comes_though_workers_are_killed(spooling: Spooling) -> None:
    """kill -9 in the middle: another worker goes on, and every file's message is there at least once."""
    spooling.relay.options["rabbitmq-inbox"] = "inbox"
    spooling.relay.start()
    spooling.relay.wait_ready()
    for number in range(60):
        write(spooling.spool / f"{number}.eml", MESSAGE.replace("hello", f"number {number}"))
        if number in (20, 40):
            for pid in spooling.relay.worker_pids("receive"):
                os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not spooling.names() and not taken(spooling), "the last file to be taken")
    found: set[str] = set()
    while len(found) < 60:
        [one] = received(spooling.address, 1)
        found.add(one["spool"]["file"])
    assert found == {f"{number}.eml" for number in range(60)}


def taken(spooling: Spooling) -> list[str]:
    """Return the files being worked on."""
    return [path.name for path in (spooling.spool / ".taken").iterdir() if path.name != ".lock"]


def test_folders_that_do_not_fit_end_the_start(tmp_path: Path) -> None:
    """A folder that is not there, and one that is both, are told with all other mistakes; exit status 78."""
    spooling = Spooling(tmp_path)
    spooling.relay.options |= {"spool-directory": tmp_path / "nothing", "spool-fail-directory": tmp_path / "nothing"}
    spooling.relay.start()
    try:
        assert spooling.relay.wait() == 78
        log = spooling.relay.log.read_text()
        assert "spool-directory: " in log
        assert "is not a folder" in log
        assert "is the watched folder itself" in log
    finally:
        spooling.relay.cleanup()
