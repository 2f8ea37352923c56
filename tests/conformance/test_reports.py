"""Reports that others collected: which kind each is, and what it says.

Bounces of no standard are given to us as they travel: with the null reverse-path. What others find in a
machine-readable part is compared without comments, brackets, and runs of blanks where lines were folded.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from mtaq.model.schema import schema
from mtaq.reports import may_be_report, recognise
from tests.conformance.vectors import HERE, departs, home, params

SCHEMA = Draft202012Validator(schema("report")["properties"]["report"])
TYPES = {"dmarc-aggregate": "dmarc", "dmarc-aggregate-invalid": "dmarc", "dmarc-failure": "arf"}
#: What others call a bounce and is none: answers of absent people.
ANSWERS = {"vacation"}

Json = dict[str, Any]


def read(content: bytes, envelope: str = "") -> Json:
    """Return the report in *content*, or an empty one; CRLF and LF give the same, and the quick look agrees."""
    report = recognise(content, envelope=envelope)
    assert report is None or may_be_report(content, envelope)
    found = {} if report is None else report.to_json()
    assert not found or [error.message for error in SCHEMA.iter_errors(found)] == []
    assert orjson.loads(orjson.dumps(found)) == found
    if b"\r\n" not in content and b"\n\n" in content and b"Encoding: binary" not in content:
        on_the_wire = recognise(content.replace(b"\n", b"\r\n"), envelope=envelope)
        assert (on_the_wire.to_json() if on_the_wire else {}).keys() == found.keys()
    return found


def message(suite: str, case: Json) -> bytes:
    return (home(suite) / case["file"]).read_bytes()


def settle(suite: str, case: Json, got: object, wanted: object) -> None:
    """Fail unless the case is met, or is listed as not met and is not."""
    assert (got == wanted) is not departs(suite, case["id"]), f"{got} for {wanted}"


@pytest.mark.parametrize("case", params("reports/own"))
def test_own(case: Json) -> None:
    """Each kind of report is read; what only looks like one, and one that is cut off, is ordinary mail."""
    found = read(message("reports/own", case), "someone@reporter.example")
    settle("reports/own", case, found.get("type"), case["type"])
    for name, value in case["expect"].items():
        if name == "recipients":
            names = ("final-recipient", "action", "status")
            assert [[one[name] for name in names] for one in found["recipients"]] == value
        elif name == "policies":
            assert len(found["tls-report"]["policies"]) == value
        elif name == "feedback_type":
            assert found["feedback-type"] == value


@pytest.mark.parametrize("case", params("reports/aggregate"))
def test_aggregate(case: Json) -> None:
    """One DMARC report in four carriers says the same."""
    found = read(message("reports/aggregate", case), "a@b.example")
    settle("reports/aggregate", case, found.get("type"), "dmarc")
    assert found["feedback"]["report_metadata"]["date_range"].keys() == {"begin", "end"}
    assert [record["row"]["count"] for record in found["feedback"]["record"]] == [1]


def zipped(octets: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.xml", octets)
    return held.getvalue()


CARRIERS = {
    "application/octet-stream": lambda octets: octets,
    "application/gzip": gzip.compress,
    "application/zip": zipped,
}


def mails(suite: str, case: Json) -> list[bytes]:
    """Return the case's mail, or mails that carry its document."""
    content = message(suite, case)
    if case["form"] == "mail":
        return [content]
    head = "Content-Transfer-Encoding: binary\nContent-Type: "
    return [f"{head}{kind}\n\n".encode() + pack(content) for kind, pack in CARRIERS.items()]


@pytest.mark.parametrize("case", params("reports/parsedmarc"))
def test_parsedmarc(case: Json) -> None:
    """Reports of all sorts of reporters are recognised, whatever carries them."""
    wanted = TYPES.get(case["type"], case["type"])
    found = [read(mail, "a@b.example") for mail in mails("reports/parsedmarc", case)]
    settle("reports/parsedmarc", case, {one.get("type") for one in found}, {wanted})
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("case", params("reports/mail-auth"))
def test_mail_auth(case: Json) -> None:
    """Every value that another reader found is there, by the standard's own name for it."""
    theirs = orjson.loads((home("reports/mail-auth") / case["parsed"]).read_bytes())
    for mail in mails("reports/mail-auth", case):
        found = read(mail, "a@b.example")
        settle("reports/mail-auth", case, found.get("type"), TYPES.get(case["type"], case["type"]))
        if found["type"] == "tlsrpt":
            assert found["tls-report"] == theirs
        elif found["type"] == "dmarc":
            assert missing(theirs, found["feedback"]) == []
        else:
            assert missing({name.replace("_", "-"): value for name, value in theirs.items()}, found) == []


#: Theirs to the standard's.
WORDS = {"relaxed": "r", "strict": "s", "authfailure": "auth-failure", "mailfrom": "mfrom", "other": "sampled_out"}
#: Derived by that reader, or given a value when the report has none.
THEIR_OWN = {"version", "testing", "arrival-date", "message", "headers", "incidents", "source-port", "extensions"}


def missing(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """Return what is in theirs and not in ours."""
    if isinstance(theirs, dict):
        inner = ours if isinstance(ours, dict) else {}
        return [
            text
            for key, value in theirs.items()
            if key not in THEIR_OWN
            for text in missing(value, inner.get(key.rstrip("_")), key)
        ]
    if isinstance(theirs, list):
        items = ours if isinstance(ours, list) else [ours] * len(theirs)
        return [text for one, other in zip(theirs, items, strict=True) for text in missing(one, other, name)]
    if theirs in (None, "", "Unspecified"):
        return []
    if isinstance(ours, list):
        return [] if plain(theirs) in map(plain, ours) else [f"{name}: {theirs!r} not in {ours!r}"]
    words = [plain(theirs), WORDS.get(plain(theirs), plain(theirs))]
    return [] if plain(ours) in words else [f"{name}: {theirs!r}, not {ours!r}"]


def plain(value: Any) -> str:
    text = re.sub(r"\s+", " ", str(value)).strip().lower()
    return text.removeprefix("<").removesuffix(">")


@pytest.mark.parametrize("suite", ["reports/flufl", "reports/sisimai"])
def test_both_are_run(suite: str) -> None:
    """The cases of the two large collections are parametrised below."""
    assert len(params(suite)) > 50


@pytest.mark.parametrize("case", params("reports/flufl"))
def test_flufl(case: Json) -> None:
    """What a machine-readable part says is read; of other bounces the recipients are those of flufl.bounce."""
    found = read(message("reports/flufl", case))
    if case["mime"]["type"]:
        settle("reports/flufl", case, summary(found), wanted_summary(case["mime"], found))
    else:
        wanted = {(address, "failed") for address in case["flufl"]["permanent"]}
        wanted |= {(address, "delayed") for address in case["flufl"]["temporary"]}
        got = {(one["final-recipient"], one["action"]) for one in found.get("recipients", ())}
        settle("reports/flufl", case, got, wanted)


@pytest.mark.parametrize("case", params("reports/sisimai"))
def test_sisimai(case: Json) -> None:
    """What a machine-readable part says is read; of other bounces the recipients are found that Sisimai finds."""
    found = read(message("reports/sisimai", case))
    if case["mime"]["type"]:
        settle("reports/sisimai", case, summary(found), wanted_summary(case["mime"], found))
    else:
        bounces = [one for one in case["sisimai"] if one["reason"] not in ANSWERS]
        wanted = {one["recipient"].lower() for one in bounces}
        got = {one["final-recipient"].lower() for one in found.get("recipients", ())}
        settle("reports/sisimai", case, (found.get("type"), got), ("dsn" if wanted else None, wanted))


def summary(found: Json) -> tuple[Any, ...]:
    """Return of a report what the vectors say of it."""
    if found.get("type") == "arf":
        return "arf", found["feedback-type"]
    rows = [
        (one["final-recipient"], one.get("action"), one.get("status"), one.get("diagnostic-code", "")[:200])
        for one in found.get("recipients", ())
        if "final-recipient" in one and "recognised-by" not in found
    ]
    return found.get("type"), rows


def wanted_summary(mime: Json, found: Json) -> tuple[Any, ...]:
    if mime["type"] == "arf":
        assert missing(mime["fields"], found) == []
        return "arf", mime["feedback_type"]
    rows = [
        (
            one["final_recipient"].strip("<>"),
            re.sub(r"\(.*?\)", "", one["action"]).strip().lower() if one["action"] else None,
            one["status"] and re.sub(r"\(.*?\)", "", one["status"]).strip(),
            re.sub(r"\s+", " ", one["diagnostic"] or "")[:200],
        )
        for one in mime.get("recipients", ())
    ]
    return mime["type"], rows


@pytest.mark.parametrize("name", sorted(path.name for path in (HERE / "reports" / "sisimai-not").iterdir()))
def test_sisimai_not(name: str) -> None:
    """Mails that Sisimai takes for no bounces are none, also with the null reverse-path."""
    content = (HERE / "reports" / "sisimai-not" / name).read_bytes()
    assert read(content, "shironeko@example.com") == {}
    assert read(content) == {}
