"""How to connect to a PostgreSQL, and what it says when it refuses."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from conf.settings import Postgres
from jobs.sinks import tasks

_CONNECT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Login:
    """How to connect; made on the driver, as its environment holds the password, and used by every task."""

    dsn: str = field(repr=False)
    password: str | None = field(repr=False)
    server: str

    def connect(self) -> psycopg.Connection:
        """A new connection in autocommit mode.

        Raises:
            ValueError: the server cannot be reached; names host and database, never the password.
        """
        given: dict[str, Any] = {"fallback_application_name": "wherewhen", "connect_timeout": _CONNECT_SECONDS}
        given |= conninfo_to_dict(self.dsn)
        if self.password is not None:
            given["password"] = self.password
        try:
            return psycopg.connect(**given, autocommit=True)
        except psycopg.Error as error:
            said = " ".join(str(error).split())
            remedy = "see that it runs and lets this host and user in, or mend the sink's dsn"
            raise ValueError(f"PostgreSQL at {self.server} cannot be reached: {said}; {remedy}") from None


def login(sink: Postgres) -> Login:
    """The sink's connection parameters.

    Raises:
        ValueError: the dsn is none, or the variable that is to hold the password is not set.
    """
    try:
        given = conninfo_to_dict(sink.dsn)
    except psycopg.Error:
        # psycopg's message would repeat the dsn, a password in it included.
        raise ValueError("the sink's dsn is neither postgresql://user@host:port/database nor host=... dbname=...") from None
    host = given.get("host") or os.environ.get("PGHOST") or "localhost"
    port = given.get("port") or os.environ.get("PGPORT") or 5432
    name = given.get("dbname") or os.environ.get("PGDATABASE") or given.get("user") or "of the user"
    server = f"{host}:{port}, database {name}"
    password = tasks.password(sink.password_env, f"PostgreSQL at {server}")
    return Login(dsn=sink.dsn, password=password, server=server)


def refused(how: Login, error: psycopg.Error) -> str:
    """The server's words without their detail, which quotes rows."""
    said = error.diag.message_primary or " ".join(str(error).split())
    return f"PostgreSQL at {how.server}: {said}"
