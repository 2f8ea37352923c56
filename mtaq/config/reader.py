"""Where the text of each option comes from: the file, the environment, the command line.

Finds the pairs and their places; what a value means is the option's own parser's work. A name that is not known, a
line that cannot be read, a file that is not there become findings; nothing is raised and no value is ever repeated,
because what stands on a wrong line may be a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtaq.config.errors import Findings
from mtaq.config.table import ALIASES, OPTIONS, nearest, replacement
from mtaq.config.values import boolean

ENVIRONMENT = "environment"
COMMAND_LINE = "command line"

_NAME = re.compile(r"([A-Za-z0-9_-]+)(?:@([^\s:=@]*))?", re.ASCII)
_COMMENT = re.compile(r"(^|\s)#.*")
_PREFIX = "MTAQ_"
# Kubernetes (and Docker's links) describe a service called "mtaq" to its neighbours in variables of these names.
_SERVICE_LINK = re.compile(r"MTAQ_(SERVICE_(HOST|PORT)(_\w+)?|PORT_[0-9]+_(TCP|UDP)\w*)", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One option's text and its place.

    Attributes:
        key: Published spelling.
        port: For ``key@port``, else ``None``.
        text: The value, without surrounding blanks.
        source: A file's path, ``environment`` or ``command line``.
        line: Line in that file, else ``None``.
    """

    key: str
    port: int | None
    text: str
    source: str
    line: int | None = None

    @property
    def name(self) -> str:
        """``key`` or ``key@port``."""
        return self.key if self.port is None else f"{self.key}@{self.port}"

    @property
    def origin(self) -> str:
        """The place in words: ``file:line``, ``environment``, ``command line``."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


def read_file(path: str, findings: Findings, *, may_be_absent: bool = False) -> list[Entry]:
    """Read ``key: value`` lines; ``#`` at the start of a line or after a blank starts a comment."""
    try:
        lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except FileNotFoundError:
        if not may_be_absent:
            findings.error("no such file; expected a configuration file", source=path)
        return []
    except OSError as error:
        findings.error(f"cannot be read: {error.strerror}", source=path)
        return []
    numbered = ((number, _decoded(line)) for number, line in enumerate(lines, start=1))
    return _without_repetitions(_read_lines(numbered, path, findings), findings)


def _decoded(line: bytes) -> str | None:
    try:
        return _COMMENT.sub("", line.decode()).strip()
    except UnicodeDecodeError:
        return None


def _read_lines(lines: Iterable[tuple[int, str | None]], path: str, findings: Findings) -> Iterator[Entry]:
    for number, line in lines:
        if line == "":
            continue
        name, colon, text = (line or "").partition(":")
        if line is None:
            findings.error("not UTF-8; expected text in UTF-8", source=path, line=number)
        elif not colon:
            findings.error("no colon on this line; expected `key: value`", source=path, line=number)
        else:
            yield from _entry(name.strip(), text.strip(), path, number, findings)


def _without_repetitions(entries: Iterable[Entry], findings: Findings) -> list[Entry]:
    kept: dict[str, Entry] = {}
    for entry in entries:
        first = kept.setdefault(entry.name, entry)
        if first is not entry:
            where = "under two names" if first.line is None else f"first on line {first.line}"
            problem = f"given twice, {where}; expected once"
            findings.error(problem, source=entry.source, line=entry.line, key=entry.name)
    return list(kept.values())


def read_environment(environ: Mapping[str, str], findings: Findings) -> list[Entry]:
    """Read ``MTAQ_KEY``, ``MTAQ_KEY__port``, and ``MTAQ_KEY_FILE`` that names a file holding the value."""
    entries: list[Entry] = []
    for variable in sorted(name for name in environ if name.startswith(_PREFIX)):
        text = environ[variable].strip()
        if _SERVICE_LINK.fullmatch(variable) or (variable == "MTAQ_PORT" and "://" in text):
            continue
        if _is_known(_option_name(variable)) or not variable.endswith("_FILE"):
            entries.extend(_entry(_option_name(variable), text, ENVIRONMENT, None, findings, called=variable))
        elif (plain := variable.removesuffix("_FILE")) in environ:
            findings.error(f"contradicts {plain}; expected one of them", source=ENVIRONMENT, key=variable)
        elif (content := _read_value(variable, text, findings)) is not None:
            entries.extend(_entry(_option_name(plain), content, ENVIRONMENT, None, findings, called=variable))
    return _without_repetitions(entries, findings)


def _option_name(variable: str) -> str:
    key, marker, port = variable.removeprefix(_PREFIX).lower().partition("__")
    return key.replace("_", "-") + ("@" if marker else "") + port


def _is_known(name: str) -> bool:
    key, _, port = name.partition("@")
    return not port.endswith("file") and _is_key(key)


def _is_key(key: str) -> bool:
    return key in OPTIONS or key in ALIASES or replacement(key) is not None


def _read_value(variable: str, path: str, findings: Findings) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        findings.error(f"the file it names cannot be read: {error.strerror}", source=ENVIRONMENT, key=variable)
    except ValueError:
        findings.error("the file it names is not text in UTF-8", source=ENVIRONMENT, key=variable)
    return None


def read_command_line(overrides: Sequence[str], findings: Findings) -> list[Entry]:
    """Read ``--key=value``; a lone ``--key`` sets a boolean to true. Of several, the last counts."""
    entries: dict[str, Entry] = {}
    for argument in overrides:
        name, equals, text = argument.removeprefix("--").partition("=")
        row = OPTIONS.get(ALIASES.get(name.partition("@")[0], name.partition("@")[0]))
        if not equals and row is not None and row.parser is not boolean:
            findings.error(f"no value; expected --{name}=value", source=COMMAND_LINE, key=name)
            continue
        for entry in _entry(name, text.strip() if equals else "true", COMMAND_LINE, None, findings, called=name):
            entries[entry.name] = entry
    return list(entries.values())


def _entry(
    name: str, text: str, source: str, line: int | None, findings: Findings, *, called: str | None = None
) -> Iterator[Entry]:
    """Yield the entry that *name* leads to, or nothing and a finding; *called* is how the operator spelled it."""
    match = _NAME.fullmatch(name)
    if match is None:
        findings.error("not the name of an option; expected `key: value`", source=source, line=line, key=called)
        return
    spelled, port_text = match[1], match[2]
    key = ALIASES.get(spelled, spelled)
    called = called or name
    port = _port(port_text)
    if key not in OPTIONS:
        _unknown(key, called, source, line, findings)
    elif port_text is not None and not OPTIONS[key].per_port:
        findings.error("takes no @port; expected the key alone", source=source, line=line, key=called)
    elif port_text is not None and port is None:
        findings.error("expected a port from 1 to 65535 behind @", source=source, line=line, key=called)
    elif not text.isprintable():
        findings.error("holds control characters; expected plain text", source=source, line=line, key=called)
    else:
        _note_old_names(key, spelled, called, source, line, findings)
        yield Entry(key, port, text, source, line)


def _port(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,5}", text) and 0 < int(text) < 65536 else None


def _note_old_names(key: str, spelled: str, called: str, source: str, line: int | None, findings: Findings) -> None:
    if spelled != key:
        findings.warn(f"deprecated spelling; write {key}", source=source, line=line, key=called)
    if OPTIONS[key].obsolete:
        findings.warn(f"has no effect. {OPTIONS[key].obsolete}", source=source, line=line, key=called)


def _unknown(key: str, called: str, source: str, line: int | None, findings: Findings) -> None:
    instead = replacement(key)
    if instead is not None:
        findings.warn(f"has no effect in mtaq; instead: {instead}", source=source, line=line, key=called)
        return
    meant = nearest(key)
    hint = f"nearest known key: {meant}" if meant else "see `mtaq config docs`"
    findings.error(f"unknown key; expected a key that exists ({hint})", source=source, line=line, key=called)
