"""What the documents say exists: files, names, keys, verbs, events, metrics, replies, error texts, links."""

from __future__ import annotations

import ast
import importlib
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from mtaq.cli.main import VERBS, build_full_parser
from mtaq.config.table import ALIASES, OPTIONS, replacement
from mtaq.model.reply import Reply
from mtaq.smtp import codes
from mtaq.telemetry.vocabulary import EVENTS, FIELD_MEANINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})
GENERATED = {"cli.md", "configuration.md", "events.md", "message-json.md", "standards.md"}
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
GUIDES = [page for page in WRITTEN if page.parent.name in ("guide", "operations") or page.name == "README.md"]
FOLDERS = ("mtaq/", "scripts/", "tests/", "docs/", "docker/", "requirements/")
KEY_WORDS = ("smtp", "rabbitmq", "delivery", "dns", "max", "retry", "smarthost", "metrics", "log", "application", "run",
             "data", "server", "validate")  # fmt: skip


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages(which: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", which, ids=name_of)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def prose_of(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> list[str]:
    """Everything that stands in backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", prose_of(page))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), flags=re.MULTILINE | re.DOTALL)


# Links and files.


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of them everywhere."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE):
        kept = [letter for letter in heading.lower() if letter in " -_" or unicodedata.category(letter)[0] in "LN"]
        found.add("".join(kept).replace(" ", "-"))
    return found


@pages(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link between the documents leads to a file that exists, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pages(WRITTEN)
def test_files_named_exist(page: Path) -> None:
    """A path of the repository in backticks is there; ``<…>`` and ``…`` stand for something that varies."""
    for words in quoted(page):
        path = words.partition(" ")[0].removeprefix("./").partition(":")[0]
        if path.startswith(FOLDERS) and not re.search("[<*…]", path):
            assert (ROOT / path).exists(), words


@pages(WRITTEN)
def test_names_of_the_code_exist(page: Path) -> None:
    """A dotted name that begins with ``mtaq.`` can be imported."""
    for words in quoted(page):
        if re.fullmatch(r"mtaq(\.[a-z_]+)+(\.[A-Za-z_]\w*)*(\(.*\))?", words) and "conf" not in words:
            assert resolves(words.partition("(")[0]), words


MESSAGE_TYPES = {"mtaq.inbox.v1", "mtaq.report.v1", "mtaq.outbox.v1", "mtaq.result.v1"}


def resolves(name: str) -> bool:
    if name in MESSAGE_TYPES:
        return True
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_every_page_is_in_the_index() -> None:
    """No document is lost: the index leads to each of them."""
    index = text_of(ROOT / "docs" / "README.md")
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "README.md":
            assert f"({page.relative_to(ROOT / 'docs')})" in index


def test_every_package_has_its_room() -> None:
    """ARCHITECTURE.md walks through every package."""
    rooms = {path.parent.name for path in (ROOT / "mtaq").glob("*/__init__.py")}
    headings = re.findall(r"^### (.+)$", text_of(ROOT / "ARCHITECTURE.md"), flags=re.MULTILINE)
    assert rooms == {word for heading in headings for word in heading.split(" and ")}


@pages(WRITTEN)
def test_one_sentence_per_line(page: Path) -> None:
    """A line of prose holds one sentence, so that a change to one is a change of one line."""
    for line in prose_of(page).splitlines():
        if not line.startswith(("|", "- ", "    ")):
            without_code = re.sub(r"`[^`]*`", "x", line)
            assert not re.search(r"[a-z)][.?!] [A-Z][a-z]", without_code), line


# Words of the program.


@pages(WRITTEN)
def test_keys_named_exist(page: Path) -> None:
    """A configuration key in backticks is a key."""
    for words in quoted(page):
        name = re.match(r"([a-z]+(?:-[a-z]+)+)(?:@\d+)?(?::.*|)$", words)
        if name and name[1].partition("-")[0] in KEY_WORDS and name[1] not in NOT_KEYS:
            assert name[1] in OPTIONS or name[1] in ALIASES or replacement(name[1]), words


NOT_KEYS = {"rabbitmq-server"}


@pages(WRITTEN)
def test_samples_of_configuration_are_right(page: Path) -> None:
    """In a block that is a configuration, every key exists and every value is one."""
    for block in blocks(page, ""):
        if not re.search(r"^(smtp|rabbitmq)-[a-z-]+(@\d+)?:", block, flags=re.MULTILINE):
            continue
        for line in re.findall(r"^[^#\n].*$", block, flags=re.MULTILINE):
            key, colon, value = line.partition(":")
            assert colon, line
            OPTIONS[key.partition("@")[0]].parser(value.strip())


@pages(WRITTEN)
def test_environment_variables_are_keys(page: Path) -> None:
    """``MTAQ_…`` is a key in capitals, or names its file."""
    for variable in re.findall(r"\bMTAQ_([A-Z][A-Z_0-9]*)", text_of(page)):
        name = variable.partition("__")[0].removesuffix("_FILE").lower().replace("_", "-")
        assert name in OPTIONS or variable in GIVEN_TO_PROGRAMS, variable


GIVEN_TO_PROGRAMS = {"CLIENT_IP"}
"""What programs of `smtp-auth` find in their environment beside names that are keys as well."""


@pages(WRITTEN)
def test_verbs_named_exist(page: Path) -> None:
    """What follows ``mtaq`` in backticks or in a shell block is a verb, with arguments that it takes."""
    shell = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    commands = [words for words in quoted(page) if words.startswith("mtaq ")]
    commands += re.findall(r"(?:^|\| |\s)(mtaq [a-z][^|<>#;\n]*)", shell, flags=re.MULTILINE)
    for command in commands:
        verb = command.split()[1]
        if verb not in ("--version", "VERB"):
            assert verb in VERBS, command


def test_configuration_verbs_exist() -> None:
    """``mtaq config`` and its verbs are spelled as the parser has them."""
    parser = build_full_parser()
    for page in WRITTEN:
        for words in {words for words in quoted(page) if re.fullmatch(r"mtaq config [a-z]+", words)}:
            parser.parse_args(words.split()[1:])


@pages(GUIDES)
def test_events_and_fields_named_exist(page: Path) -> None:
    """``kind.event`` is in the vocabulary of the log, and so are fields called ``peer_ip`` and the like."""
    known = {event.name for event in EVENTS}
    kinds = {name.partition(".")[0] for name in known}
    for words in quoted(page):
        if re.fullmatch(r"[a-z]+\.[a-z]+", words) and words.partition(".")[0] in kinds and words not in NOT_EVENTS:
            assert words in known, words
        if re.fullmatch(r"(peer|reply|mx|remote|local)_[a-z]+", words):
            assert words in FIELD_MEANINGS, words


NOT_EVENTS = {"message.envelope", "message.recipient", "message.content", "message.queue", "message.redelivered",
              "message.tries", "report.type", "report.original", "report.verp"}  # fmt: skip


def test_metrics_named_are_all_there_are() -> None:
    """The page on monitoring lists every metric, under the name that it is served by."""
    text = text_of(ROOT / "docs" / "operations" / "monitoring.md")
    listed = set(re.findall(r"^\| `(mtaq_\w+)` \|", text, flags=re.MULTILINE))
    assert listed == set(metrics())
    assert set(re.findall(r"`(mtaq_\w+)", text)) == listed


def metrics() -> Iterator[str]:
    for path in (ROOT / "mtaq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("counter", "gauge", "histogram"):
                name = ast.literal_eval(node.args[0])
                yield f"{name}_total" if node.func.id == "counter" else name  # type: ignore[attr-defined]  # a Name


REPLIES = [reply for reply in vars(codes).values() if isinstance(reply, Reply)]
BUILT = {
    (451, "4.7.1"),
    (501, "5.1.3"),
    (501, "5.1.7"),
    (250, "2.6.0"),
    (550, "5.1.2"),
    (550, "5.7.10"),
    (550, "5.7.30"),
    (550, "5.7.23"),
    (556, "5.1.10"),
}
"""Replies and result codes that are built where they are given."""


@pages(GUIDES)
def test_replies_named_are_given(page: Path) -> None:
    """A reply with its enhanced status code is one that we give; its text, if there is one, is ours."""
    known = {(reply.code, reply.status) for reply in REPLIES} | BUILT
    for words in quoted(page):
        match = re.fullmatch(r"([245]\d\d) (\d\.\d+\.\d+)(?: (.+))?", words)
        if match is None or "<" in words or re.search(r"\.\d+-\d+ accepted", words) or "try later" in words:
            continue
        assert (int(match[1]), match[2]) in known, words
        if match[3] is not None:
            assert any(words == f"{reply.code} {reply.status} {reply.text}" for reply in REPLIES), words


def test_error_texts_are_ours() -> None:
    """Every text that heads a symptom stands in the code, piece by piece between the ``…``."""
    headings = re.findall(r"^### `(.+)`$", text_of(ROOT / "docs/operations/symptoms.md"), flags=re.MULTILINE)
    texts = "\n".join(strings())
    for heading in (heading for heading in headings if not re.match(r"\d{3} ", heading)):
        for piece in (piece.strip() for piece in heading.split("…")):
            assert piece.removeprefix("mtaq: ") in texts, heading


def strings() -> Iterator[str]:
    for path in (ROOT / "mtaq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
