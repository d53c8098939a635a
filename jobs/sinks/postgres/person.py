"""One person's rows in a table: handed out, and deleted."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from conf.settings import Postgres
from jobs.lake.person import Person, owns
from jobs.sinks.postgres.login import login, refused
from jobs.sinks.postgres.table import Table, claim, stored_text


def erase(sink: Postgres, person: Person, text_hashes: frozenset[str] = frozenset()) -> int:
    """Delete the person's rows; gives how many. What the server's own logs, replicas and backups keep is its owner's.

    Raises:
        ValueError: as `deliver`.
    """
    how, table = login(sink), Table.of(sink.table)
    try:
        with how.connect() as connection:
            if not (where := _owned(connection, table)):
                return 0
            claim(connection, table)
            table.drop_staged(connection)
            values = _values(connection, table, person, text_hashes)
            deleted = connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(table.name, where), values).rowcount
            # The rows' bytes stay in the table's file until their space is given to others.
            connection.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(table.name))
            return deleted
    except psycopg.Error as error:
        raise ValueError(refused(how, error)) from None


def rows_of(sink: Postgres, person: Person) -> list[dict[str, Any]]:
    """What the table holds of the person.

    Raises:
        ValueError: as `deliver`.
    """
    how, table = login(sink), Table.of(sink.table)
    try:
        with how.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            if not (where := _owned(connection, table)):
                return []
            values = _values(connection, table, person, frozenset())
            return cursor.execute(sql.SQL("SELECT * FROM {} WHERE {}").format(table.name, where), values).fetchall()
    except psycopg.Error as error:
        raise ValueError(refused(how, error)) from None


def _columns(connection: psycopg.Connection, table: Table) -> set[str]:
    """None where there is no such table."""
    found = connection.execute("SELECT to_regclass(%s)", [table.name.as_string(connection)]).fetchone()
    if found is None or found[0] is None:
        return set()
    return {
        column.name for column in connection.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(table.name)).description or ()
    }


def _owned(connection: psycopg.Connection, table: Table) -> sql.Composable | None:
    """The condition of a person's rows, over the names of `_values`; None where the table can hold none."""
    present = _columns(connection, table)
    terms: list[sql.Composable] = []
    if "user_id" in present:
        terms.append(sql.SQL("user_id::text = %(id)s"))
    if {"entity_type", "entity_id"} <= present:
        terms.append(sql.SQL("(entity_type = 'user' AND entity_id = %(id)s)"))
    judged = [name for name in ("broken", "row", "text_hash") if name in present]
    terms += [sql.SQL("{} = ANY({})").format(sql.Identifier(name), sql.Placeholder(name)) for name in judged]
    return sql.SQL(" OR ").join(terms) if terms else None


def _values(connection: psycopg.Connection, table: Table, person: Person, text_hashes: frozenset[str]) -> dict[str, Any]:
    """Unreadable lines are judged here, one by one: they are few."""
    values: dict[str, Any] = {"id": stored_text(person.raw_id), "text_hash": sorted(text_hashes)}
    present = _columns(connection, table)
    for name in ("broken", "row"):
        values[name] = []
        if name in present:
            query = sql.SQL("SELECT DISTINCT {0} FROM {1} WHERE {0} IS NOT NULL").format(sql.Identifier(name), table.name)
            lines = (line for (line,) in connection.execute(query))
            values[name] = [line for line in lines if owns(person, {name: line})]
    return values
