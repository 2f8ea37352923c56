"""The options of the processes and their logs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from mtaq.config.addresses import HostPort, listen_address
from mtaq.config.option import option
from mtaq.config.values import absolute_path, choice, integer, log_targets, optional, server_id

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def host_server_id() -> str:
    """The host's name in the form of a ``server-id``: what does not fit becomes a dash."""
    return re.sub("[^A-Za-z0-9-]+", "-", os.uname().nodename)[:31].strip("-") or "mtaq"


# One option is one paragraph here; the formatter would give every argument a line. option() stands for a field.
# fmt: off
# ruff: noqa: RUF009

@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Folders, processes, identity."""

    data_directory: str = option(
        absolute_path, "/var/lib/mtaq",
        doc="Folder for what must survive a restart, such as the delivery journal.")
    run_directory: str = option(
        absolute_path, "/run/mtaq",
        doc="Folder of an instance: all processes that share it share the connection caps.")
    user: str | None = option(
        optional(str), "", words="stay who you are", example="mtaq",
        doc="System user to become once the ports are bound.")
    server_id: str = option(
        server_id, host_server_id, words="the host's name", example="relay1",
        doc="First part of message ids: 1 to 31 letters, digits or dashes, different on every host.")
    smtp_threads: int = option(
        integer(1, 4096), lambda: str(cpu_count()), words="number of CPUs", example="2",
        doc="Processes for reception, and as many for delivery. More than there are CPUs is lowered to that "
            "number.")
    metrics_port: HostPort | None = option(
        optional(listen_address), "", unit="`[host:]port`", example="9100",
        doc="HTTP port with `/metrics`, `/live` and `/ready`; `mtaq health` asks it. Without a host only this machine "
            "may connect.")


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """The application log: one line per event, see [events](events.md)."""

    application_log: tuple[str, ...] = option(
        log_targets, "stderr", unit="`,`", example="stderr,/var/log/mtaq/mtaq.log",
        doc="`stdout`, `stderr`, `syslog` or absolute paths; empty logs nothing. "
            "A file that was moved away or removed is opened anew within a second.")
    log_format: LogFormat = option(
        choice("auto", "json", "console"), "auto",
        doc="`json`: one JSON object per line. `console`: for reading. `auto`: `console` on a terminal, else `json`.")
    log_level: LogLevel = option(
        choice("debug", "info", "warning", "error"), "info", reload=True, doc="The least important events logged.")
