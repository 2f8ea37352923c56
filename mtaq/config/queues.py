"""The options of the queues: which broker, which queues, how they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtaq.config.addresses import broker_addresses, mask_urls
from mtaq.config.option import option
from mtaq.config.values import boolean, byte_count, choice, integer, optional, queue_name

QueueType = Literal["quorum", "classic"]
Encoding = Literal["gzip"]

_encoding: Callable[[str], Encoding] = choice("gzip")


# One option is one paragraph here; the formatter would give every argument a line. option() stands for a field.
# fmt: off
# ruff: noqa: RUF009

@dataclass(frozen=True, kw_only=True)
class QueueOptions:
    """The broker and its queues."""

    rabbitmq_address: tuple[str, ...] = option(
        broker_addresses, "amqp://guest:guest@localhost/", unit="URLs, `,`", secret=mask_urls,
        example="amqps://mtaq:secret@rabbit1.example.com/mail,amqps://mtaq:secret@rabbit2.example.com/mail",
        doc="`amqp://` or `amqps://user:password@host:port/vhost`; several are nodes of one cluster, tried in turn. "
            "`?cafile=`, `&certfile=` and `&keyfile=` name PEM files for `amqps://`. "
            "`embedded:///path/to/folder` is the built-in durable queue of a single host, for trying out and for small "
            "sites.")
    rabbitmq_verify: bool = option(
        boolean, "true", doc="Check the broker's certificate on `amqps://`.")
    rabbitmq_outbox: str = option(
        queue_name, "outbox", doc="Queue that delivery consumes.")
    rabbitmq_inbox: str | None = option(
        optional(queue_name), "inbox",
        doc="Queue where received mail goes. The same name as the outbox relays at once. "
            "Explicitly empty discards received mail, except for what goes to `rabbitmq-local` or `rabbitmq-reports`, "
            "and says so at start.")
    rabbitmq_local: str | None = option(
        optional(queue_name), "", words="the inbox", example="local",
        doc="Queue where mail for local addresses goes (`mtaq local`).")
    rabbitmq_reports: str | None = option(
        optional(queue_name), "", words="where other mail for local addresses goes", example="reports",
        rfc="RFC 3464, RFC 5965, RFC 8098, RFC 8460, RFC 9990",
        doc="Queue where the reports among the mail for local addresses go, parsed: notices of delivery and "
            "disposition, complaints, aggregate reports of DMARC and of TLS.")
    rabbitmq_refused: str | None = option(
        optional(queue_name), "", words="they are not kept", example="refused",
        doc="Queue that keeps messages that were refused for good, as evidence.")
    rabbitmq_results: str | None = option(
        optional(queue_name), "", example="results", doc="Queue that gets all final results.")
    rabbitmq_success: str | None = option(
        optional(queue_name), "", example="success", doc="Queue that gets the results of delivered messages.")
    rabbitmq_failure: str | None = option(
        optional(queue_name), "", example="failure", doc="Queue that gets the results of failed messages.")
    rabbitmq_retry: str | None = option(
        optional(queue_name), "", example="retry",
        doc="Queue that gets a copy of each transient result; the message itself goes back to the outbox.")
    rabbitmq_dsn: str | None = option(
        optional(queue_name), "", words="none are made", example="outbox", rfc="RFC 3464",
        doc="Queue where notices to senders go, as messages to deliver; the outbox's name has them sent.")
    rabbitmq_tls_reports: str | None = option(
        optional(queue_name), "", words="none are made", example="outbox", rfc="RFC 8460",
        doc="Queue where each day's reports on TLS go, for the owners of domains who want them, as messages to "
            "deliver; the outbox's name has them sent.")
    rabbitmq_dead: str = option(
        queue_name, "dead",
        doc="Queue for outbox messages that cannot be understood, with the reason in a header.")
    rabbitmq_exchange: str | None = option(
        optional(queue_name), "", words="the default exchange", example="mtaq",
        doc="Publish through this exchange, with the queue's name as routing key.")
    rabbitmq_declare: bool = option(
        boolean, "true",
        doc="Declare and verify queues and exchange at start; a mismatch is explained and stops the start.")
    rabbitmq_type: QueueType = option(
        choice("quorum", "classic"), "quorum",
        doc="Type of the queues declared. The queues that delay messages are always quorum queues.")
    rabbitmq_durable: bool = option(
        boolean, "true", doc="Declare queues that survive a restart of the broker; quorum queues always do.")
    rabbitmq_persistent: bool = option(
        boolean, "true", doc="Publish messages that survive a restart of the broker.")
    rabbitmq_maxpriority: int | None = option(
        optional(integer(1, 255)), "", example="4",
        doc="Highest message priority; empty switches priorities off. Classic queues get `x-max-priority`; "
            "quorum queues tell two classes apart from RabbitMQ 4.0 on.")
    rabbitmq_encoding: Encoding | None = option(
        optional(_encoding), "", example="gzip",
        doc="Compress what is published. What is consumed is recognised by its `content-encoding`.")
    rabbitmq_qos: int = option(
        integer(1, 2000), "1000",
        doc="Messages handed out before the first is acknowledged (prefetch); RabbitMQ allows 2000.")
    rabbitmq_throttle: int = option(
        integer(1, 65535), "100", doc="Unconfirmed publishes per channel.")
    rabbitmq_maxsize: int = option(
        byte_count, "16MB", unit="bytes",
        doc="Largest message the broker takes: 16 MB is the limit of RabbitMQ 4, 128MB that of 3.x. "
            "SIZE announces what fits into it once encoded.")
    rabbitmq_heartbeat: int = option(
        integer(1, 3600), "30", unit="seconds", doc="A broker silent for twice as long counts as lost.")
    rabbitmq_lazy: str = option(
        str, "", doc="Accepted for files of MailerQ.",
        obsolete="Quorum queues, and classic ones from RabbitMQ 3.12 on, keep messages on disk by themselves.")
    rabbitmq_consumers: str = option(
        str, "", doc="Accepted for files of MailerQ.",
        obsolete="Each process has one connection to consume; `smtp-threads` sets their number.")
    rabbitmq_publishers: str = option(
        str, "", doc="Accepted for files of MailerQ.",
        obsolete="Each process has one connection to publish; `smtp-threads` sets their number.")
