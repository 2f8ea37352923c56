"""``docs/reference/events.md``, from the vocabulary."""

from __future__ import annotations

from mtaq.telemetry.vocabulary import EVENTS, FIELD_MEANINGS, LEVEL_NAMES, Event

_HEAD = """\
# Events

The application log (`application-log`, `log-format`, `log-level`) has one line per event.
As JSON every line is one object with `at` (RFC 3339, UTC), `event`, `level`, `node` (the `server-id`) and the fields
that are known; with `log-format: console` the same in a readable form.
`message_id` joins the lines of reception and delivery with the messages in the queues.
Credentials and content are never logged.
"""


def render_events() -> str:
    """Return the reference of all events and fields."""
    events = "".join(map(_event_row, EVENTS))
    fields = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in sorted(FIELD_MEANINGS.items()))
    return (
        f"{_HEAD}\n## Kinds\n\n| event | level | meaning | fields |\n|---|---|---|---|\n{events}"
        f"\n## Fields\n\n| field | meaning |\n|---|---|\n{fields}"
    )


def _event_row(event: Event) -> str:
    fields = " ".join(f"`{name}`" for name in event.fields.split())
    return f"| `{event.name}` | {LEVEL_NAMES[event.level]} | {event.meaning} | {fields} |\n"
