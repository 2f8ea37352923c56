"""The tables of the runtime state, and how each format of them came from the one before.

A migration is written once and never changed again: it makes format *n* of format *n* - 1, in SQL that SQLite and
PostgreSQL both understand. The tables below it are those of the newest format. Times are UTC text, as in the JSON,
because SQLite knows no other time.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, Table, Text

Migration = tuple[str, ...]
"""The statements that make one format of the one before."""

MIGRATIONS: tuple[Migration, ...] = (
    (
        "CREATE TABLE mtaq_changes (name VARCHAR(40) PRIMARY KEY, version BIGINT NOT NULL)",
        "INSERT INTO mtaq_changes VALUES ('local_addresses', 0), ('blocks', 0), ('sources', 0)",
        "CREATE TABLE mtaq_local_addresses (kind VARCHAR(10) NOT NULL, pattern TEXT NOT NULL,"
        " comment TEXT NOT NULL, created_at VARCHAR(19) NOT NULL, PRIMARY KEY (kind, pattern))",
        "CREATE TABLE mtaq_blocks (network VARCHAR(49) PRIMARY KEY, reason TEXT NOT NULL,"
        " expires_at VARCHAR(19), automatic BOOLEAN NOT NULL, created_at VARCHAR(19) NOT NULL)",
        "CREATE TABLE mtaq_sources (ip VARCHAR(45) PRIMARY KEY, ehlo_name VARCHAR(255) NOT NULL,"
        " created_at VARCHAR(19) NOT NULL)",
    ),
    (
        "INSERT INTO mtaq_changes VALUES ('throttles', 0), ('pauses', 0), ('forced_errors', 0), ('rewrite_rules', 0),"
        " ('flood_patterns', 0), ('response_patterns', 0), ('warm_ups', 0), ('dkim_keys', 0), ('pools', 0),"
        " ('dns_overrides', 0), ('suppressions', 0), ('suppressions_forgotten', 0)",
        "CREATE TABLE mtaq_control (kind VARCHAR(40) NOT NULL, id VARCHAR(330) NOT NULL, entry TEXT NOT NULL,"
        " expires_at VARCHAR(19), automatic BOOLEAN NOT NULL, PRIMARY KEY (kind, id))",
        "CREATE TABLE mtaq_suppressions (pattern VARCHAR(330) NOT NULL, sender_domain VARCHAR(255) NOT NULL,"
        " tag VARCHAR(500) NOT NULL, reason TEXT NOT NULL, expires_at VARCHAR(19), created_at VARCHAR(19) NOT NULL,"
        " removed BOOLEAN NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (pattern, sender_domain, tag))",
        "CREATE INDEX mtaq_suppressions_version ON mtaq_suppressions (version)",
        "CREATE INDEX mtaq_suppressions_expires_at ON mtaq_suppressions (expires_at) WHERE expires_at IS NOT NULL",
    ),
    ("INSERT INTO mtaq_changes VALUES ('tls_levels', 0)",),
)
"""What makes format 1, 2, … ."""

CREATE_FORMAT = "CREATE TABLE mtaq_format (format INTEGER NOT NULL)"

_metadata = MetaData()

format_table = Table("mtaq_format", _metadata, Column("format", Integer))
changes = Table("mtaq_changes", _metadata, Column("name", Text, primary_key=True), Column("version", BigInteger))
local_addresses = Table(
    "mtaq_local_addresses",
    _metadata,
    Column("kind", Text, primary_key=True),
    Column("pattern", Text, primary_key=True),
    Column("comment", Text),
    Column("created_at", Text),
)
blocks = Table(
    "mtaq_blocks",
    _metadata,
    Column("network", Text, primary_key=True),
    Column("reason", Text),
    Column("expires_at", Text),
    Column("automatic", Boolean),
    Column("created_at", Text),
)
sources = Table(
    "mtaq_sources",
    _metadata,
    Column("ip", Text, primary_key=True),
    Column("ehlo_name", Text),
    Column("created_at", Text),
)
control = Table(
    "mtaq_control",
    _metadata,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("entry", Text),
    Column("expires_at", Text),
    Column("automatic", Boolean),
)
"""All entries about delivery but suppressions; *entry* is JSON (``rows``), of which the other columns repeat a part."""

suppressions = Table(
    "mtaq_suppressions",
    _metadata,
    Column("pattern", Text, primary_key=True),
    Column("sender_domain", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("reason", Text),
    Column("expires_at", Text),
    Column("created_at", Text),
    Column("removed", Boolean),
    Column("version", BigInteger),
)
"""*version* is what the counter was when a row changed last. One that is *removed* stays until it ends, to be read."""
