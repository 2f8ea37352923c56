"""The verbs about delivery: what they print, what they change, how they end."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mtaq.cli import exits
from mtaq.cli.control import parse_end
from mtaq.cli.main import main
from mtaq.state import control_store
from mtaq.state.dkim_keys import generate

Mtaq = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mtaq(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mtaq:
    """Runs one command line; returns exit status, standard output and standard error."""
    settings = {
        "data-directory": str(tmp_path / "data"),
        "run-directory": str(tmp_path / "run"),
        "rabbitmq-address": f"embedded://{tmp_path}/queue",
    }
    if os.geteuid() != 0:
        Path(settings["data-directory"]).mkdir()

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, *(f"--{key}={value}" for key, value in settings.items())])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def asked(mtaq: Mtaq, *arguments: str) -> object:
    """What a verb prints as JSON."""
    status, out, err = mtaq(*arguments, "--json")
    assert (status, err) == (exits.OK, "")
    return json.loads(out)


def listed(mtaq: Mtaq, verb: str) -> list[dict[str, object]]:
    """The entries of a verb."""
    rows = asked(mtaq, verb, "list")
    assert isinstance(rows, list)
    return rows


ADDED = {
    "throttle": ["--domain", "Example.com", "--messages", "30/h", "--connections", "0", "--together", "both"],
    "pause": ["--site", "*.example.net", "--tag", "spring", "--sender-domain", "<>"],
    "force-error": ["*@example.com", "--code", "450"],
    "rewrite": ["--recipient", "*@a.example", "--new-recipient", r"\1@b.example", "--set", "my_name=1", "--last"],
    "flood": ["--code", "421", "--pause", "10m", "--connections", "1", "--for", "1h"],
    "response": ["--status", "5.7", "--state", "rcptto", "--action", "retry", "--delay", "1h"],
    "warm-up": ["--pool", "new", "--first", "50", "--growth", "double", "--to", "150", "--then-unlimited"],
    "pool": ["bulk", "192.0.2.1=3", "2001:DB8::1"],
    "dns-override": ["*.example.com", "mx.example.net:2525", "[2001:db8::1]:25"],
    "tls": ["dane-only", "--site", "*.Example.net"],
}
SAID = {
    "throttle": {"limits": {"messages-per-minute": 0.5, "connections": 0}, "one-for-sources": True},
    "pause": {"tag": "spring", "sender-domain": ""},
    "force-error": {"pattern": "example.com", "code": 450, "status": "4.0.0"},
    "rewrite": {"new-recipient": r"\1@b.example", "properties": {"my_name": 1}, "is-last": True, "position": 100},
    "flood": {"pause-s": 600, "limits-s": 3600, "limits": {"connections": 1}, "one-for-sources": False},
    "response": {"action": "retry", "delay-s": 3600, "state": "rcptto"},
    "warm-up": {"steps": [50, 100, 150, 0]},
    "pool": {"members": [{"ip": "192.0.2.1", "weight": 3}, {"ip": "2001:db8::1", "weight": 1}]},
    "dns-override": {"hosts": [{"host": "mx.example.net", "port": 2525}, {"host": "2001:db8::1", "port": 25}]},
    "tls": {"level": "dane-only"},
}


def holds(whole: object, part: object) -> bool:
    """Does *whole* say all that *part* says?"""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and holds(whole[name], value) for name, value in part.items())
    return whole == part


@pytest.mark.parametrize("verb", ADDED)
def test_the_life_of_an_entry(mtaq, verb):
    """It is added, listed, shown, replaced by the same again, and removed; what is not there is told."""
    entry = asked(mtaq, verb, "add", *ADDED[verb], "--reason", "because", "--expires", "2h")
    assert holds(entry, SAID[verb] | {"reason": "because", "automatic": False})
    assert listed(mtaq, verb) == [entry] == [asked(mtaq, verb, "show", entry["id"])]
    status, out, _ = mtaq(verb, "add", *ADDED[verb])
    assert (status, out) == (exits.OK, f"replaced {out.split(' ', 1)[1].rsplit(' ', 1)[0]} {entry['id']}\n")
    (replaced,) = listed(mtaq, verb)
    assert (replaced["expires"], replaced["reason"]) == (None, "")
    for ending in ("list", "show"):
        status, out, err = mtaq(verb, ending, *([entry["id"]] if ending == "show" else []))
        assert (status, err) == (exits.OK, "")
        assert entry["id"] in out
    status, out, err = mtaq(verb, "remove", entry["id"], "none")
    assert (status, out) == (exits.FAILURE, f"removed {entry['id']}\n")
    assert err.startswith("mtaq: there is no ")
    assert mtaq(verb, "show", entry["id"])[0] == exits.FAILURE
    assert listed(mtaq, verb) == []
    assert mtaq(verb, "list")[1].strip()


@pytest.mark.parametrize(
    "arguments",
    [
        ["throttle", "add", "--domain", "example.com"],
        ["throttle", "add", "--source", "192.0.2.1", "--pool", "bulk", "--messages", "1"],
        ["throttle", "add", "--domain", "a..b", "--messages", "1"],
        ["throttle", "add", "--messages", "many"],
        ["throttle", "add", "--messages", "1", "--expires", "2000-01-01 00:00:00"],
        ["throttle", "add", "--messages", "1", "--expires", "soon"],
        ["throttle", "test"],
        ["pause", "add"],
        ["pause", "add", "--all", "--domain", "example.com"],
        ["resume"],
        ["resume", "--all", "0123456789"],
        ["force-error", "add", "example.com", "--code", "250"],
        ["rewrite", "add", "--recipient", "*@a.example"],
        ["rewrite", "add", "--kind", "regex", "--recipient", "(", "--last"],
        ["rewrite", "add", "--recipient", "*@a.example", "--set", "mime=x"],
        ["flood", "add", "--code", "421"],
        ["flood", "add", "--pause", "5m"],
        ["response", "add", "--action", "fail"],
        ["response", "add", "--state", "nowhere", "--action", "fail"],
        ["warm-up", "add", "--pool", "new"],
        ["warm-up", "add", "--pool", "new", "--steps", "5,10", "--first", "5"],
        ["warm-up", "add", "--pool", "new", "--first", "5", "--growth", "wild", "--to", "10"],
        ["warm-up", "add", "--pool", "new", "--first", "5", "--growth", "nan", "--to", "10"],
        ["warm-up", "add", "--steps", "5,10"],
        ["pool", "add", "bulk"],
        ["pool", "add", "bulk", "192.0.2.1", "192.0.2.1=2"],
        ["dns-override", "add", "example.com", "host:0"],
        ["tls", "add", "--domain", "example.com"],
        ["tls", "add", "encrypted"],
        ["tls", "add", "required", "--domain", "example.com", "--site", "mx.example.com"],
        ["tls", "add", "required", "--source", "192.0.2.1"],
        ["suppress", "add", "ann@"],
        ["dkim", "generate", "example.com", "a b"],
    ],
    ids=" ".join,
)
def test_mistakes(mtaq, arguments):
    """What cannot be meant is wrong usage, and says why."""
    status, out, err = mtaq(*arguments)
    assert (status, out) == (exits.USAGE, "")
    assert err.strip()


def test_ends():
    """An end is a duration or a time of day in UTC."""
    later = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    assert parse_end("2h") == 7200
    assert parse_end(f"{later:%Y-%m-%d %H:%M:%S}") == later


def test_there_is_an_end(mtaq, monkeypatch):
    """Too many entries are told as such."""
    monkeypatch.setattr(control_store, "MOST_ENTRIES", 1)
    assert mtaq("pause", "add", "--tag", "a")[0] == exits.OK
    status, _, err = mtaq("pause", "add", "--tag", "b")
    assert (status, err) == (exits.CANNOT_CREATE, "mtaq: more than 1 pauses; remove some, or use wildcards\n")


def test_resuming(mtaq):
    """Pauses end by their ids, by what was paused, or all at once."""
    one = asked(mtaq, "pause", "add", "--domain", "example.com")["id"]
    other = asked(mtaq, "pause", "add", "--domain", "example.com", "--tag", "spring")["id"]
    everything = asked(mtaq, "pause", "add", "--all")["id"]
    assert asked(mtaq, "resume", "--domain", "example.com") == {"removed": [one], "missing": []}
    status, out, err = mtaq("resume", "--domain", "example.com")
    assert (status, out, err) == (exits.FAILURE, "", "mtaq: nothing was paused with these conditions\n")
    assert asked(mtaq, "resume", other) == {"removed": [other], "missing": []}
    assert asked(mtaq, "resume", "--all") == {"removed": [everything], "missing": []}


def test_limits_in_force(mtaq):
    """The test names for each limit the throttle that set it."""
    wide = asked(mtaq, "throttle", "add", "--messages", "100", "--connections", "5")["id"]
    narrow = asked(mtaq, "throttle", "add", "--pool", "bulk", "--site", "*.example.net", "--messages", "10")["id"]
    where = ["--pool", "bulk", "--domain", "example.com", "--site", "mx.example.net"]
    assert asked(mtaq, "throttle", "test", *where) == [
        {"limit": "messages per minute", "amount": "10", "throttle": narrow},
        {"limit": "connections", "amount": "5", "throttle": wide},
    ]


def test_the_level_in_force(mtaq):
    """The test names the most specific entry; without one the exit status is 1."""
    assert mtaq("tls", "test", "--domain", "example.com")[:2] == (
        exits.FAILURE,
        "no level holds there; delivery-security does\n",
    )
    wide = asked(mtaq, "tls", "add", "required")["id"]
    narrow = asked(mtaq, "tls", "add", "optional", "--site", "*.example.net")["id"]
    assert asked(mtaq, "tls", "test", "--domain", "example.com") == [{"id": wide, "level": "required"}]
    where = ["--domain", "example.com", "--site", "mx.example.net"]
    assert asked(mtaq, "tls", "test", *where) == [{"id": narrow, "level": "optional"}]


def test_what_rules_make_of_a_message(mtaq):
    """The test prints the message as it would be delivered; without a rule the exit status is 1."""
    assert mtaq("rewrite", "add", "--recipient", "*@a.example", "--new-recipient", r"\1@b.example")[0] == exits.OK
    assert asked(mtaq, "rewrite", "test", "ann@a.example")["recipient"] == "ann@b.example"
    assert "ann@b.example" in mtaq("rewrite", "test", "ann@a.example")[1]
    assert mtaq("rewrite", "test", "ann@c.example")[:2] == (exits.FAILURE, "no rule applies\n")


@pytest.mark.parametrize("verb", ["flood", "response"])
def test_patterns_of_replies(mtaq, verb):
    """The test prints the patterns that a reply matches; without any the exit status is 1."""
    effect = ["--pause", "5m"] if verb == "flood" else ["--action", "fail"]
    entry = asked(mtaq, verb, "add", "--code", "4xx", "--text", "too many", *effect)
    assert asked(mtaq, verb, "test", "--code", "421", "Too many connections") == [entry]
    assert mtaq(verb, "test", "--code", "521", "Too many connections")[0] == exits.FAILURE


def test_suppressions(mtaq):
    """Recipients are suppressed and told, and get mail again."""
    status, out, _ = mtaq("suppress", "add", "Ann@example.com", "*@example.org", "--tag", "spring", "--reason", "asked")
    assert (status, out) == (exits.OK, "suppressed ann@example.com\nsuppressed example.org\n")
    (found,) = asked(mtaq, "suppress", "show", "ANN@example.com")
    assert (found["pattern"], found["tag"], found["reason"]) == ("ann@example.com", "spring", "asked")
    status, out, _ = mtaq("suppress", "show", "bob@example.com")
    assert (status, out) == (exits.FAILURE, "bob@example.com is not suppressed\n")
    assert [row["pattern"] for row in asked(mtaq, "suppress", "list", "--limit", "1")] == ["ann@example.com"]
    assert mtaq("suppress", "remove", "ann@example.com")[0] == exits.FAILURE
    assert mtaq("suppress", "remove", "ann@example.com", "--tag", "spring")[:2] == (
        exits.OK,
        "removed ann@example.com\n",
    )


FILE = """\
\ufeffpattern,reason,expires,sender-domain,tag
# from the old system

Ann@example.com
bob@example.com,"bounced, often",2036-01-01 00:00:00,<>,spring
*.example.org,,,shop.example
no such thing
c@example.com,a,b,c,d,e
d@example.com,x,yesterday
"unfinished
"""


def test_importing_and_exporting(mtaq, tmp_path):
    """A file is taken line by line, wrong lines are told, and what is exported is what was imported."""
    (tmp_path / "list.csv").write_text(FILE, "utf-8")
    status, out, err = mtaq("suppress", "import", str(tmp_path / "list.csv"), "--reason", "imported")
    assert (status, out) == (exits.DATA, "imported 3, 4 lines were wrong\n")
    assert [line.split(":")[1] for line in err.splitlines()] == ["7", "8", "9", "10"]
    status, exported, _ = mtaq("suppress", "export")
    assert (status, exported) == (
        exits.OK,
        "pattern,reason,expires,sender-domain,tag\n"
        "*.example.org,imported,,shop.example,\n"
        "ann@example.com,imported,,,\n"
        'bob@example.com,"bounced, often",2036-01-01 00:00:00,<>,spring\n',
    )
    for pattern, *conditions in (
        ("*.example.org", "--sender-domain", "shop.example"),
        ("ann@example.com",),
        ("bob@example.com", "--sender-domain", "<>", "--tag", "spring"),
    ):
        assert mtaq("suppress", "remove", pattern, *conditions)[0] == exits.OK
    assert mtaq("suppress", "export", "--json")[1] == ""
    (tmp_path / "again.csv").write_text(exported, "utf-8")
    assert asked(mtaq, "suppress", "import", str(tmp_path / "again.csv")) == {"imported": 3, "wrong": 0}
    assert mtaq("suppress", "export")[1] == exported


def test_exporting_odd_addresses(mtaq, tmp_path):
    """What needs quotes in SMTP has them in the file, and comes back the same."""
    odd = r'"a \"b\" \\ c,d"@example.com'
    assert mtaq("suppress", "add", odd)[0] == exits.OK
    exported = mtaq("suppress", "export")[1]
    (tmp_path / "list.csv").write_text(exported, "utf-8")
    assert asked(mtaq, "suppress", "import", str(tmp_path / "list.csv")) == {"imported": 1, "wrong": 0}
    assert mtaq("suppress", "export")[1] == exported
    assert len(asked(mtaq, "suppress", "list")) == 1
    assert mtaq("suppress", "show", odd)[0] == exits.OK


def test_importing_from_a_pipe(mtaq, monkeypatch):
    """Standard input is a file as well; a line without end is wrong and not held in memory."""
    monkeypatch.setattr("sys.stdin", io.StringIO("a@example.com\n" + "x" * 100_000 + "\nb@example.com\n"))
    status, out, err = mtaq("suppress", "import", "-")
    assert (status, out.startswith("imported 2")) == (exits.DATA, True)
    assert len(err) < 20_000


def test_a_file_that_is_not_there(mtaq, tmp_path):
    """A file that cannot be read is told by its name."""
    for arguments in (["suppress", "import"], ["dkim", "add", "example.com", "s1", "--key"]):
        status, _, err = mtaq(*arguments, str(tmp_path / "none"))
        assert status == exits.OS_ERROR
        assert "none: No such file" in err


def test_dkim_keys(mtaq, tmp_path):
    """A key is made, its record printed, and the key itself only when it is asked for by name."""
    status, out, _ = mtaq("dkim", "generate", "example.com", "s1", "--algorithm", "ed25519", "--signs", "*.example.com")
    assert status == exits.OK
    assert out.startswith('s1._domainkey.example.com. IN TXT ( "v=DKIM1; k=ed25519; p=')
    record = asked(mtaq, "dkim", "record", "s1._domainkey.example.com")
    assert (record["type"], len(base64.b64decode(record["content"].rpartition("p=")[2]))) == ("TXT", 32)
    pem = mtaq("dkim", "reveal", "s1._domainkey.example.com")[1]
    assert pem.startswith("-----BEGIN PRIVATE KEY-----")
    secret = pem.splitlines()[1]
    for verb in ("list", "show", "remove"):
        for flag in ([], ["--json"]):
            status, out, err = mtaq("dkim", verb, *([] if verb == "list" else ["s1._domainkey.example.com"]), *flag)
            assert secret not in out + err
    assert mtaq("dkim", "reveal", "s1._domainkey.example.com")[0] == exits.FAILURE
    (tmp_path / "key.pem").write_text(pem)
    shown = asked(mtaq, "dkim", "add", "example.com", "s2", "--key", str(tmp_path / "key.pem"), "--header", "List-Id")
    assert (shown["algorithm"], shown["headers"], "pem" in shown) == ("ed25519-sha256", ["list-id"], False)
    assert asked(mtaq, "dkim", "record", shown["id"])["content"] == record["content"]


def test_dkim_mistakes(mtaq, monkeypatch):
    """A key in use is not overwritten by a new one; what is no key is refused without being repeated."""
    assert mtaq("dkim", "generate", "example.com", "s1", "--algorithm", "ed25519")[0] == exits.OK
    status, _, err = mtaq("dkim", "generate", "example.com", "s1")
    assert status == exits.USAGE
    assert "there is a key" in err
    monkeypatch.setattr("sys.stdin", io.StringIO(generate("ed25519-sha256").replace("BEGIN", "SECRET")))
    status, _, err = mtaq("dkim", "add", "example.com", "s2", "--key", "-")
    assert status == exits.USAGE
    assert "SECRET" not in err
