"""Which keys take ``@port``, and that each of them is that port's own then."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.config import ReceiveOptions
from mtaq.config.errors import Findings
from mtaq.config.option import options_of
from mtaq.config.reader import read_environment
from mtaq.config.settings import Given, build
from mtaq.config.table import OPTIONS

#: Keys of reception that are promised to take ``@port``; those that the table does not have yet are waited for.
PROMISED = """
    smtp-archive smtp-auth smtp-auth-results smtp-certificate smtp-check smtp-check-reject smtp-ciphers
    smtp-connections-per-ip smtp-enabled smtp-extract smtp-extract-range smtp-hook smtp-hostname smtp-key
    smtp-max-recipients smtp-maxsize smtp-parse smtp-pipeline smtp-protection smtp-range smtp-rate-per-ip
    smtp-recipient-domain smtp-relay smtp-sender-domain smtp-session-timeout smtp-tags smtp-timeout smtp-tls-client-ca
    smtp-tls-min smtp-validate-address
"""

#: Keys of reception that hold for all ports: what counts over the instance, or must not depend on the port.
COMMON = """
    dsn-advertise rspamd-address smtp-auth-failures smtp-authserv-id smtp-mappable-ips smtp-max-hops
    smtp-probe-senders smtp-proxy smtp-unmappable-ips spamassassin-host spamassassin-port
"""

PER_PORT = [row for row in options_of(ReceiveOptions) if row.per_port]

#: A value that is not the default, where the row has no example.
VALUES = {
    "smtp-connections-per-ip": "7", "smtp-enabled": "false", "smtp-hook-timeout": "7", "smtp-max-recipients": "7",
    "smtp-maxsize": "7", "smtp-parse": "none", "smtp-protection": "false", "smtp-received-spf": "true",
    "smtp-recipient-domain": "any",
    "smtp-relay": "none", "smtp-sender-domain": "any", "smtp-session-timeout": "7", "smtp-timeout": "7",
    "smtp-tls-min": "1.3", "smtp-validate-address": "loose",
}  # fmt: skip


@pytest.mark.parametrize("key", PROMISED.split())
def test_what_is_promised_takes_a_port(key: str) -> None:
    """A key marked @ can be given for one port."""
    if key in OPTIONS:
        assert OPTIONS[key].per_port


def test_everything_else_of_reception_is_told_apart_on_purpose() -> None:
    """A new key of reception takes ``@port``, unless it is listed here as one that cannot."""
    assert sorted(row.key for row in options_of(ReceiveOptions) if not row.per_port) == COMMON.split()


@pytest.mark.parametrize("row", PER_PORT, ids=lambda row: row.key)
def test_a_value_of_one_port_is_that_ports_alone(row: Any) -> None:
    """With ``key@587`` port 587 has the value, and all others have what they had."""
    text = row.example or VALUES[row.key]
    settings = build({f"{row.key}@587": Given(text, "command line")})
    plain = build({})
    assert getattr(settings.receive(587), row.attribute) == row.parser(text)
    assert getattr(plain.reception, row.attribute) != row.parser(text)
    assert settings.receive(25) == settings.receive(465) == plain.reception


@pytest.mark.parametrize("row", PER_PORT, ids=lambda row: row.key)
def test_the_environment_spells_it_with_two_underscores(row: Any) -> None:
    """``MTAQ_SMTP_RANGE__587`` is ``smtp-range@587``, for each of them."""
    text = row.example or VALUES[row.key]
    findings = Findings()
    [entry] = read_environment({f"MTAQ_{row.attribute.upper()}__587": text}, findings)
    assert (entry.name, entry.text, findings.errors) == (f"{row.key}@587", text, [])
