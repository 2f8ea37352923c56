"""The options of the spool directory."""

from __future__ import annotations

from dataclasses import dataclass

from mtaq.config.option import option
from mtaq.config.values import absolute_path, boolean, optional, seconds_or_zero

# One option is one paragraph here; the formatter would give every argument a line. option() stands for a field.
# fmt: off

@dataclass(frozen=True, kw_only=True)
class SpoolOptions:
    """A watched folder whose files are taken in as if they had been received."""

    spool_directory: str | None = option(
        optional(absolute_path), "", example="/var/spool/mtaq",
        doc="Folder of complete messages, one a file, each for the addresses in its `To`, `Cc` and `Bcc`. Reception "
            "looks there every second. It must belong to the user that mtaq runs as.")
    spool_fail_directory: str | None = option(
        optional(absolute_path), "", words="they stay where they are", example="/var/spool/mtaq-failed",
        doc="Folder for files that are refused for good, each with the reason in a file `.reason` beside it.")
    spool_delay: int = option(
        seconds_or_zero, "0", unit="seconds", example="5",
        doc="How long a file must have been left alone before it is taken, for writers that do not rename it into the "
            "folder when it is complete.")
    spool_remove: bool = option(
        boolean, "true",
        doc="Remove a file once its message is safe in the queue. `false` moves it to the folder `done` in there.")
    spool_extract: bool = option(
        boolean, "true",
        doc="Turn `x-mq-*` header fields into JSON and take them out. `false` leaves them where they are.")
