"""From files, environment and command line to settings, or to the list of everything that is wrong.

Decides precedence, low to high: default, file, environment, command line; ``key@port`` always comes before ``key``.
Fails with ``ConfigErrors``, which holds every mistake at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mtaq.config.checks import CHECKS, check_open_relay
from mtaq.config.draft import Draft
from mtaq.config.errors import ConfigErrors, Findings
from mtaq.config.process import cpu_count
from mtaq.config.reader import COMMAND_LINE, ENVIRONMENT, Entry, read_command_line, read_environment, read_file
from mtaq.config.settings import Given, Settings, build
from mtaq.config.table import OPTIONS

DEFAULT_PATH = "/etc/mtaq/mtaq.conf"


def load(*, path: str | None, environ: Mapping[str, str], overrides: Sequence[str]) -> Settings:
    """
    Read and check the configuration.

    Args:
        path: The configuration file; ``None`` for the default one, which need not exist.
        environ: The environment; only names that start with ``MTAQ_`` count.
        overrides: Arguments of the command line, ``--key=value`` or ``--key``.

    Raises:
        ConfigErrors: At least one mistake; it holds them all.
    """
    findings = Findings()
    entries = [
        *read_file(path or DEFAULT_PATH, findings, may_be_absent=path is None),
        *read_environment(environ, findings),
        *read_command_line(overrides, findings),
    ]
    broken = {entry.key for entry in entries if not _parses(entry, findings)}
    effective = {entry.name: entry for entry in entries if entry.key not in broken}
    _cap_processes(effective, findings)
    settings = build({name: Given(entry.text, entry.origin) for name, entry in effective.items()})
    _check(Draft(settings, effective), broken, findings)
    if findings.errors:
        raise ConfigErrors(sorted(findings.errors, key=lambda error: (_rank(error.source), error.line or 0)))
    return replace(settings, warnings=tuple(findings.warnings))


def check_merged(settings: Settings) -> None:
    """
    Check what a running instance must never become, of settings that are partly from before a reload.

    Each file is right by itself. What is live of one and not of the other may still make a relay for everybody: a
    range that is open to the Internet, and an inbox that stays the outbox until the restart.

    Raises:
        ConfigErrors: It would.
    """
    findings = Findings()
    check_open_relay(Draft(settings, {name: _entry(name, given) for name, given in settings.given.items()}), findings)
    if findings.errors:
        raise ConfigErrors(findings.errors)


def _entry(name: str, given: Given) -> Entry:
    key, _, port = name.partition("@")
    return Entry(key, int(port) if port else None, given.text, given.origin)


def _parses(entry: Entry, findings: Findings) -> bool:
    try:
        OPTIONS[entry.key].parser(entry.text)
    except ValueError as error:
        findings.error(str(error), source=entry.source, line=entry.line, key=entry.name)
        return False
    return True


def _cap_processes(effective: dict[str, Entry], findings: Findings) -> None:
    entry, available = effective.get("smtp-threads"), cpu_count()
    if entry is not None and int(entry.text) > available:
        problem = f"{entry.text} is more than the {available} CPUs here; {available} are used"
        findings.warn(problem, source=entry.source, line=entry.line, key=entry.key)
        effective["smtp-threads"] = replace(entry, text=str(available))


def _check(draft: Draft, broken: set[str], findings: Findings) -> None:
    for keys, check in CHECKS:
        if broken.isdisjoint(keys):
            check(draft, findings)


def _rank(source: str) -> int:
    return {ENVIRONMENT: 1, COMMAND_LINE: 2}.get(source, 0)
