"""Where the runtime state is."""

from __future__ import annotations

import os

import pytest

from mtaq.config import load
from mtaq.config.state import database_address, mask_database


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///var/lib/mtaq/state.db",
        "sqlite:////var/lib/mtaq/state.db",
        "postgresql://mtaq:secret@db.example.com:5432/mtaq",
        "postgresql://mtaq@db1,db2:5433/mtaq?target_session_attrs=read-write",
        "postgres:///mtaq?host=/var/run/postgresql",
    ],
)
def test_addresses(text):
    """SQLite's and PostgreSQL's addresses stay as they were written."""
    assert database_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mtaq.db",
        "/var/lib/mtaq.db",
        "sqlite://mtaq.db",
        "sqlite:///",
        "sqlite:mtaq.db",
        "sqlite:///x.db?mode=ro",
        "mysql://mtaq:secret@db/mtaq",
        "postgresql:secret",
        "postgresql://mtaq:sec ret@db/mtaq",
        "postgresql://mtaq:secret@db/mtaq\nx",
        "postgresql://[secret/mtaq",
    ],
)
def test_bad_addresses(text):
    """Anything else is refused with what is expected, and a password in it is not repeated."""
    with pytest.raises(ValueError, match="expected") as refused:
        database_address(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://mtaq:secret@db/mtaq", "postgresql://mtaq:***@db/mtaq"),
        ("postgresql://mtaq:se@cret@db1,db2/mtaq", "postgresql://mtaq:***@db1,db2/mtaq"),
        ("postgresql://db/mtaq?user=mtaq&password=secret", "postgresql://db/mtaq?user=mtaq&password=***"),
        ("postgresql://db/mtaq?password=a@secret&x=1", "postgresql://db/mtaq?password=***&x=1"),
        ("postgresql://db/mtaq?sslpassword=secret", "postgresql://db/mtaq?sslpassword=***"),
        ("sqlite:///var/lib/mtaq.db", "sqlite:///var/lib/mtaq.db"),
        ("secret", "***"),
        ("", ""),
    ],
)
def test_passwords_are_hidden(text, shown):
    """Whatever is printed of an address, no password is."""
    assert mask_database(text) == shown


def test_the_default_lies_in_the_data_directory():
    """Unless it is said otherwise, the state is a file in ``data-directory``."""
    settings = load(path=os.devnull, environ={}, overrides=["--data-directory=/srv/a b"])
    assert settings.database_address == "sqlite:///srv/a%20b/mtaq.db"
    settings = load(path=os.devnull, environ={}, overrides=["--database-address=postgresql:///mtaq"])
    assert settings.database_address == "postgresql:///mtaq"
