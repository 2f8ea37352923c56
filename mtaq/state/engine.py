"""How a database is reached: one connection, every wait bounded, the password in no text.

SQLite keeps to its rollback journal: writes are rare, readers on a rollback journal need no files of their own beside
the database, and its other journal has a fault before SQLite 3.51.3 that can damage a file which several processes
write (https://sqlite.org/wal.html#walresetbug).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mtaq.model.errors import ConfigError

#: Longest wait for a connection, for a lock, and for the answer to one statement.
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 10

_KEY = "database-address"


def sqlite_path(address: str) -> Path | None:
    """Return the file of a ``sqlite:///`` address, ``None`` for any other."""
    if not address.startswith("sqlite:"):
        return None
    return Path("/" + unquote(urlsplit(address).path).lstrip("/"))


def make_file(path: Path) -> None:
    """Make the file of a database, readable by its owner alone, unless it is there.

    Root gives it to the owner of its folder, so that the daemon can use what a root shell touched first.

    Raises:
        OSError: It cannot be made.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(fd, 0o600)
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(fd, folder.st_uid, folder.st_gid)
    finally:
        os.close(fd)


def open_engine(address: str) -> Engine:
    """Return an engine for *address*; nothing is connected to yet.

    Raises:
        ConfigError: Its driver is not installed, or the address cannot be understood.
    """
    path = sqlite_path(address)
    return _postgresql(address) if path is None else _sqlite(path)


def _sqlite(path: Path) -> Engine:
    # mode=rw: a file that is not there is an error here and never made by a look-up.
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        # Transactions are begun below: left to itself the driver begins them only before some statements.
        connect_args={"timeout": CONNECT_TIMEOUT_S, "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        for pragma in ("journal_mode = DELETE", "synchronous = FULL", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


def _postgresql(address: str) -> Engine:
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigError(
            "PostgreSQL needs a driver that is not installed: pip install 'mtaq[postgresql]'", key=_KEY
        ) from error
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,
        "application_name": "mtaq",
    }
    try:
        parameters: dict[str, Any] = defaults | conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        # Its text repeats the address, and with it the password.
        raise ConfigError("not understood; expected postgresql://user:password@host:port/database", key=_KEY) from None
    engine = create_engine(
        "postgresql+psycopg://",
        # No prepared statements: a connection pooler in between may give each transaction another server.
        creator=lambda: psycopg.connect(**parameters, prepare_threshold=None),
        pool_size=1,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        timeout_s = connection.get_execution_options().get("timeout_s", STATEMENT_TIMEOUT_S)
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}")

    return engine


def explain(error: SQLAlchemyError | OSError) -> str:
    """Return what went wrong in one line, without statements and what they carried."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(original).split()) or type(original).__name__


def is_passing(error: SQLAlchemyError | OSError) -> bool:
    """May the same work later by itself? A lock or a silent server may; a file that cannot be opened does not."""
    original = error.orig if isinstance(error, DBAPIError) else None
    name = getattr(original, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    state = getattr(original, "sqlstate", None)
    if state is not None:  # the server has answered: it is starting, full or going; else we may not
        return str(state)[:2] in ("08", "53", "55", "57", "40")
    return not isinstance(error, OSError)
