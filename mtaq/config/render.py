"""The configuration in words: the example file, the reference, the effective values.

Everything comes from the option table; the same table gives the same text on every machine. Secrets are masked.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from mtaq.config.loading import DEFAULT_PATH
from mtaq.config.option import Option
from mtaq.config.settings import Settings
from mtaq.config.table import OPTIONS, SECTION_OPTIONS, SECTIONS, WITHOUT_EFFECT

_EXAMPLE_HEAD = f"""\
# Configuration of mtaq, installed as {DEFAULT_PATH}.
#
# Lines of `key: value`; `#` at the start of a line or after a blank starts a comment.
# Every key stands here with its default, or with an example where that says more.
# `mtaq config check` finds all mistakes at once; docs/reference/configuration.md says more.
# Keys marked @ take an override for one port: `smtp-range@587: 10.0.0.0/8`.
"""

_REFERENCE_HEAD = f"""\
# Configuration

One file, `{DEFAULT_PATH}` or the one named by `--config PATH`: lines of `key: value`.
A `#` at the start of a line or after a blank starts a comment.
`mtaq config check` validates, `mtaq config show` prints the effective values and where each came from,
`mtaq config example` prints a file with every key, `mtaq config docs` prints this page.

## Precedence

From low to high:

1. the built-in default;
2. the file; the default file need not exist, one that is named must;
3. the environment: `MTAQ_` and the key in capitals with underscores, `MTAQ_SMTP_PORT`;
4. the command line: `--smtp-port=2525`; a lone `--key` sets a boolean to true.

`MTAQ_<KEY>_FILE` names a file that holds the value, as container secrets do.
An empty value counts as given: `rabbitmq-inbox:` is not the same as no line at all.
Other variables that start with `MTAQ_` are errors, except those by which Kubernetes describes a service called `mtaq`.

## One port's own values

Keys marked @ take an override for the connections accepted on one port: `smtp-range@587: 10.0.0.0/8`.
In the environment `@587` is written `__587`: `MTAQ_SMTP_RANGE__587`.
An override comes before the plain key, wherever either of them stands.

## Values

- Sizes are bytes, or take `KB`, `MB`, `GB` (powers of 1024).
- Durations are seconds, or take `m`, `h`, `d`.
- Booleans are `true` or `false`, `yes` or `no`, `1` or `0`.
- Lists are separated by `;` or `,`, as each key says.
- Networks are written in CIDR notation; an IPv4-mapped IPv6 address counts as IPv4.
- Paths are absolute.

## Mistakes

All are reported at once as `file:line: key: what is wrong, what is expected`, and the exit status is 78 (`EX_CONFIG`).
That includes unknown keys, contradictions, files that cannot be read, and an open relay:
inbox and outbox the same queue, and an `smtp-range` that holds half of IPv4 or of IPv6 or more.
Deprecated spellings and keys of MailerQ that have no effect are accepted with one warning each.
Passwords are never printed.

## Reload

`mtaq reload`, or SIGHUP, reads everything again.
Keys marked *live* take effect without ending sessions; of the others the log says that a restart is needed.
A file with mistakes changes nothing.
"""

_TITLES = {
    "listen": "Listening",
    "reception": "Reception",
    "spool": "Spool directory",
    "queues": "Queues",
    "deliver": "Delivery",
    "dns": "DNS",
    "state": "Runtime state",
    "process": "Processes",
    "log": "Logs",
}


def render_example() -> str:
    """Return the example file: every key that has an effect, commented out."""
    return _EXAMPLE_HEAD + "".join(_example_section(name) for name in SECTIONS)


def _example_section(name: str) -> str:
    rows = [row for row in SECTION_OPTIONS[name] if not row.obsolete]
    return f"\n\n# ---- {_TITLES[name]} ----\n" + "".join(_example_option(row) for row in rows)


def _example_option(row: Option) -> str:
    mark = "@ " if row.per_port else ""
    comment = textwrap.fill(mark + row.doc.replace("`", ""), 100, initial_indent="# ", subsequent_indent="# ")
    default = f"# Default: {row.default_words.replace('`', '')}.\n" if row.example or row.words else ""
    value = row.example or (row.default if isinstance(row.default, str) else "")
    return f"\n{comment}\n{default}#{row.key}: {value}".rstrip() + "\n"


def render_reference() -> str:
    """Return docs/reference/configuration.md."""
    sections = "".join(_reference_section(name) for name in SECTIONS)
    return _REFERENCE_HEAD + sections + _without_effect()


def _reference_section(name: str) -> str:
    summary = (SECTIONS[name].__doc__ or "").strip().splitlines()[0]
    table = "| key | default | reload | meaning |\n|---|---|---|---|\n"
    return f"\n## {_TITLES[name]}\n\n{summary}\n\n{table}" + "".join(map(_reference_row, SECTION_OPTIONS[name]))


def _reference_row(row: Option) -> str:
    mark = "@ " if row.per_port else ""
    default = row.words or (f"`{row.default}`" if row.default else "none")
    cells = (f"{mark}`{row.key}`", default, "live" if row.reload else "restart", " ".join(_meaning(row)))
    if row.obsolete:
        cells = (cells[0], "", "", cells[3])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _meaning(row: Option) -> Iterator[str]:
    yield row.doc
    if row.obsolete:
        yield f"No effect: {row.obsolete}"
    if row.unit:
        yield f"Unit or form: {row.unit}."
    if row.example:
        yield f"Example: `{row.shown(row.example)}`."
    if row.aliases:
        yield "Deprecated spelling: " + ", ".join(f"`{alias}`" for alias in row.aliases) + "."
    if row.rfc:
        yield f"({row.rfc})"


def _without_effect() -> str:
    head = "\n## Keys of MailerQ without effect\n\nAccepted with a warning.\n\n| key | instead |\n|---|---|\n"
    return head + "".join(f"| `{key}` | {words} |\n" for key, words in WITHOUT_EFFECT.items())


def render_effective(settings: Settings) -> str:
    """Return every effective value and its origin, in the form of a configuration file; secrets are masked."""
    origins = settings.origins
    names = [name for name, row in OPTIONS.items() if not row.obsolete]
    names += sorted(name for name in settings.given if name not in names)
    lines = [(f"{name}: {_shown(settings, name)}", origins[name]) for name in names]
    width = min(44, max(len(text) for text, _ in lines))
    return "".join(f"{text:<{width}}  # {origin}\n" for text, origin in lines)


def _shown(settings: Settings, name: str) -> str:
    row = OPTIONS[name.partition("@")[0]]
    return row.shown(settings.given[name].text if name in settings.given else row.default_text)
