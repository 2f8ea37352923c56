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
