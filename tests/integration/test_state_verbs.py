"""``mtaq local``, ``block`` and ``source``: what they print, what they change, how they end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mtaq.broker import BrokerOptions, open_broker
from mtaq.broker.address import parse_addresses
from mtaq.cli import exits
from mtaq.cli.main import main
from mtaq.state import Database
from tests.integration.test_ports_and_users import python_for_everybody
from tests.support.queues import PATIENCE_S, fresh_name

PROJECT = Path(__file__).parents[2]

Mtaq = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return {
        "data-directory": str(tmp_path / "data"),
        "run-directory": str(tmp_path / "run"),
        "rabbitmq-address": f"embedded://{tmp_path}/queue",
    }


@pytest.fixture
def mtaq(settings: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Mtaq:
    """Runs one command line; returns exit status, standard output and standard error."""
    if os.geteuid() != 0:
        Path(settings["data-directory"]).mkdir()

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, *(f"--{key}={value}" for key, value in settings.items())])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def listed(mtaq: Mtaq, group: str) -> list[dict[str, object]]:
    status, out, _ = mtaq(group, "list", "--json")
    assert status == exits.OK
    rows: list[dict[str, object]] = json.loads(out)
    return rows


def test_local_addresses(mtaq):
    """Patterns are added in one spelling, listed, and removed again."""
    status, out, _ = mtaq("local", "add", "Ann@Example.com", "*@example.org", "--comment", "ours")
    assert (status, out) == (exits.OK, "added ann@example.com (exact)\nadded *@example.org (wildcard)\n")
    assert mtaq("local", "add", "ann@example.com")[1] == "there already: ann@example.com (exact)\n"
    rows = [(row["pattern"], row["kind"], row["comment"]) for row in listed(mtaq, "local")]
    assert rows == [("ann@example.com", "exact", ""), ("*@example.org", "wildcard", "ours")]
    status, out, err = mtaq("local", "remove", "ANN@example.com", "bob@example.com")
    assert (status, out, err) == (exits.FAILURE, "removed ann@example.com\n", "mtaq: there is no bob@example.com\n")
    assert [row["pattern"] for row in listed(mtaq, "local")] == ["*@example.org"]


def test_testing_local_addresses(mtaq):
    """The test names the pattern; one address that is not local makes the exit status 1."""
    assert mtaq("local", "add", "--kind", "regex", r"a+@example\.com")[0] == exits.OK
    assert mtaq("local", "test", "AAA@example.com")[0] == exits.OK
    status, out, _ = mtaq("local", "test", "aaa@example.com", "postmaster", "--json")
    assert status == exits.FAILURE
    assert json.loads(out) == [
        {"address": "aaa@example.com", "local": True, "pattern": r"a+@example\.com", "kind": "regex"},
        {"address": "postmaster", "local": False, "pattern": None, "kind": None},
    ]


def test_blocks(mtaq):
    """Networks are blocked with reason and end, listed by address, and let in again."""
    assert mtaq("block", "add", "2001:db8::/32", "192.0.2.1", "--reason", "spam", "--for", "1d")[0] == exits.OK
    assert mtaq("block", "add", "192.0.2.0/24")[1] == "blocked 192.0.2.0/24\n"
    rows = listed(mtaq, "block")
    assert [(row["network"], row["reason"], row["automatic"], row["expires"] is None) for row in rows] == [
        ("192.0.2.0/24", "", False, True),
        ("192.0.2.1/32", "spam", False, False),
        ("2001:db8::/32", "spam", False, False),
    ]
    status, out, _ = mtaq("block", "remove", "192.0.2.1", "10.0.0.0/8", "--json")
    assert status == exits.FAILURE
    assert json.loads(out) == {"removed": ["192.0.2.1/32"], "missing": ["10.0.0.0/8"]}


def test_sources(mtaq):
    """An address has one name at a time."""
    for name in ("a.example.com", "B.example.com"):
        assert mtaq("source", "set", "2001:DB8::1", name)[0] == exits.OK
    assert [(row["ip"], row["name"]) for row in listed(mtaq, "source")] == [("2001:db8::1", "b.example.com")]
    assert mtaq("source", "remove", "2001:db8::1") == (exits.OK, "removed 2001:db8::1\n", "")
    assert mtaq("source", "remove", "2001:db8::1")[0] == exits.FAILURE


@pytest.mark.parametrize(
    ("group", "words"),
    [("local", "no address is local"), ("block", "nobody is blocked"), ("source", "no address has a name of its own")],
)
def test_nothing_there(mtaq, group, words):
    """An empty list says so, and is an empty list in JSON."""
    assert mtaq(group, "list") == (exits.OK, f"{words}\n", "")
    assert listed(mtaq, group) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("local", "add", "no-address"),
        ("local", "add", "--kind", "regex", "("),
        ("local", "add", "--kind", "wildcard", "*"),
        ("local", "add", "ann@example.com", "--comment", "two\nlines"),
        ("local", "add"),
        ("local", "test", "no-address"),
        ("local", "test", "\udcff@example.com"),
        ("block", "add", "192.0.2.1/24"),
        ("block", "add", "192.0.2.1", "--for", "soon"),
        ("block", "add", "192.0.2.1", "--reason", "x" * 501),
        ("source", "set", "192.0.2.0/24", "a.example.com"),
        ("source", "set", "192.0.2.1", "not a name"),
    ],
)
def test_wrong_usage(mtaq, arguments):
    """What cannot be meant is told, ends with 64, and nothing is touched."""
    status, out, err = mtaq(*arguments)
    assert (status, out) == (exits.USAGE, "")
    assert err
    assert listed(mtaq, "local") == []


def test_the_hand_of_root(mtaq, settings, tmp_path):
    """Root's verbs leave nothing behind that the folder's owner could not write."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of others")
    data = Path(settings["data-directory"])
    data.mkdir()
    os.chown(data, 12345, 12345)
    assert mtaq("source", "set", "192.0.2.1", "a.example.com")[0] == exits.OK
    assert {path.stat().st_uid for path in data.iterdir()} == {12345}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_user_is_dropped_to(settings, tmp_path):
    """With ``user`` the verbs are that user, folders included; somebody else is refused with 77."""
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    python, environment = python_for_everybody()
    arguments = [f"--{key}={value}" for key, value in settings.items()]

    def run(*more: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*python, "-m", "mtaq", "local", *more, *arguments], user=user, group=user, extra_groups=[],
            cwd=PROJECT, env=os.environ | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    made = run("add", "ann@example.com", "--user=nobody")
    assert made.returncode == exits.OK, made.stderr
    data = Path(settings["data-directory"])
    assert {path.stat().st_uid for path in (data, *data.iterdir())} == {65534}
    data.chmod(0o755)
    stranger = run("list", user=12345)
    assert stranger.returncode == exits.NO_PERMISSION
    assert "Permission denied" in stranger.stderr
    assert "Traceback" not in stranger.stderr


def test_no_database(mtaq, settings):
    """A database that cannot be used is 78, one that does not answer 69; the password is not told."""
    settings["database-address"] = "sqlite:///no/such/folder/mtaq.db"
    assert mtaq("block", "list")[0] == exits.CONFIG
    settings["database-address"] = "postgresql://mtaq:hunter2@127.0.0.1:1/mtaq"
    status, out, err = mtaq("block", "list")
    assert (status, out) == (exits.UNAVAILABLE, "")
    assert "hunter2" not in err


@pytest.mark.peers
def test_postgresql(mtaq, settings, postgresql):
    """The verbs work on PostgreSQL as they do on SQLite."""
    settings["database-address"] = postgresql.create_database()
    test_local_addresses(mtaq)
    test_blocks(mtaq)
    test_sources(mtaq)


@pytest.mark.rabbitmq
async def test_running_processes_are_told(settings, rabbitmq, tmp_path):
    """A change is told over the exchange; one that nobody can be told of is made all the same."""
    exchange, notices = fresh_name("cluster"), list[bytes]()
    settings |= {"rabbitmq-address": rabbitmq.address, "cluster-exchange": exchange}
    broker = open_broker(BrokerOptions(addresses=parse_addresses(rabbitmq.address)))
    await broker.start()
    broker.subscribe(exchange, notices.append)
    await until(lambda: notices == [b""])
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    assert await asyncio.to_thread(main, ["source", "set", "192.0.2.1", "a.example.com", *arguments]) == exits.OK
    await until(lambda: notices == [b"", b"changed"])
    await broker.close()
    settings["rabbitmq-address"] = "amqp://127.0.0.1:1/"
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    assert await asyncio.to_thread(main, ["source", "set", "192.0.2.2", "b.example.com", *arguments]) == exits.OK
    database = Database(f"sqlite://{tmp_path}/data/mtaq.db")
    database.open()
    assert len(database.read().sources or ()) == 2
    database.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)
