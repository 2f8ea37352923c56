"""All sections in one table, and which names lead to which row.

Knows names only: parsing is the rows' work, where a value came from the reader's. MailerQ's keys that have no effect
here are listed with what replaces them, so that an operator of that product can bring his file.
"""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from mtaq.config.delivery import DeliverOptions, DnsOptions
from mtaq.config.option import Option, options_of
from mtaq.config.process import LogOptions, ProcessOptions
from mtaq.config.queues import QueueOptions
from mtaq.config.reception import ListenOptions, ReceiveOptions
from mtaq.config.spool import SpoolOptions
from mtaq.config.state import StateOptions

SECTIONS: dict[str, type[Any]] = {
    "listen": ListenOptions,
    "reception": ReceiveOptions,
    "spool": SpoolOptions,
    "queues": QueueOptions,
    "deliver": DeliverOptions,
    "dns": DnsOptions,
    "state": StateOptions,
    "process": ProcessOptions,
    "log": LogOptions,
}
"""Attribute of ``Settings`` and its class, in the order of the documents."""

SECTION_OPTIONS: dict[str, tuple[Option, ...]] = {name: options_of(section) for name, section in SECTIONS.items()}

OPTIONS: dict[str, Option] = {row.key: row for rows in SECTION_OPTIONS.values() for row in rows}
"""Every row by its published key."""

ALIASES: dict[str, str] = {alias: row.key for row in OPTIONS.values() for alias in row.aliases}
"""Deprecated spelling → published key."""

WITHOUT_EFFECT: dict[str, str] = {
    "license": "mtaq needs none",
    "fetch-license": "mtaq needs none",
    "lock": "the processes of an instance share `run-directory`",
    "heartbeat": "nothing is reported to anybody; the broker's is `rabbitmq-heartbeat`",
    "heartbeat-enabled": "nothing is reported to anybody; the broker's is `rabbitmq-heartbeat`",
    "daemon": "the service manager puts `mtaq run` into the background",
    "disable-crash-*": "nothing is reported to anybody",
    "render-useragent": "nothing is rendered",
    "temporary-*": "waiting mail is kept in the outbox's delay queues; `rabbitmq-type` and `rabbitmq-declare` apply",
    "rabbitmq-flush-qos": "`rabbitmq-qos`",
    "cluster-address": "`rabbitmq-address`",
    "cluster-verify": "`rabbitmq-verify`",
    "cluster-timeout": "instances meet only at the queues of `rabbitmq-address`",
    "plugin-directory": "consumer scripts between the inbox and the outbox",
    "proxy-server": "nothing is fetched over HTTP",
    "dns-sockets": "every query has a random port of its own",
    "dns-buffersize": "the kernel's buffers suffice; `dns-capacity` bounds the look-ups in flight",
    "dns-threads": "`dns-capacity`",
    "dns-getaddrinfo": "`dns-nameserver`",
    "dns-expire": "`dns-min-ttl`",
    "dns-spread": "`dns-rotate`",
    "database-threads": "nothing; no database is asked while mail is on its way",
    "database-validate": "nothing; no database is asked while mail is on its way",
    "error-log": "`application-log`",
    "*-log-format": "`log-format`; the events are described in docs/reference/events.md",
    "*-bin-log-file": "`application-log`",
    "*-log-directory": "`application-log`",
    "*-log-prefix": "`application-log`",
    "*-log-maxsize": "logrotate; moved files are opened anew",
    "*-log-maxage": "logrotate; moved files are opened anew",
    "*-log-history": "logrotate; moved files are opened anew",
    "*-log-compression": "logrotate; moved files are opened anew",
    "log-directory": "`application-log`",
    "log-history": "logrotate; moved files are opened anew",
    "www-dir": "nothing; there are no files to point at",
    "www-host": "nothing; instances do not call each other",
    "www-url": "nothing; instances do not call each other",
    "www-cache-control": "nothing",
    "www-connections": "nothing",
    "storage-threads": "nothing; the content is in the message",
    "spool-threads": "nothing; one process suffices",
    "spool-open-files": "nothing; one process suffices",
    "download-*": "nothing is downloaded; a consumer script completes the content",
    "max-threads": "`smtp-threads`",
    "max-memory": "nothing; the limits of the service manager or the container",
}
"""MailerQ's keys, or patterns of them, that change nothing here → what replaces them."""


def replacement(key: str) -> str | None:
    """Return what replaces a key of MailerQ that has no effect here, or ``None`` for any other key."""
    return next((words for pattern, words in WITHOUT_EFFECT.items() if fnmatchcase(key, pattern)), None)


def nearest(key: str) -> str | None:
    """Return the known key that *key* was most likely meant to be."""
    found = get_close_matches(key.lower().replace("_", "-"), [*OPTIONS, *ALIASES], n=1, cutoff=0.6)
    return ALIASES.get(found[0], found[0]) if found else None
