"""One person's rows in a table: handed out, and deleted."""

from __future__ import annotations

from typing import Any

from conf.settings import Jdbc
from jobs.lake.person import Person, owns
from jobs.sinks.jdbc.database import LONG_TEXTS, Columns, Database, asked, execute, held
from jobs.sinks.jdbc.table import Tables, claim, drop_staged


def erase(sink: Jdbc, person: Person, text_hashes: frozenset[str] = frozenset()) -> int:
    """Delete the person's rows; gives how many. What the server's own logs, replicas and backups keep is its owner's.

    Where the database takes another's id for the person's, rows of that one go as well, and the next delivery is a whole one.

    Raises:
        ValueError: as `deliver`.
    """
    database, tables = Database.of(sink), Tables.of(sink.table)
    with database.connected() as other:
        columns = held(other, tables.name)
    if not columns:
        drop_staged(database, tables)  # a killed export's; one that is at work has made the table first
        return 0
    with database.connected() as connection:
        claim(connection, database, tables)
        drop_staged(database, tables)
        are_alone = _are_alone(connection, database, tables, columns, person)
        gone = 0
        for where, values in _owned(connection, database, tables, columns, person, text_hashes):
            gone += execute(connection, f"DELETE FROM {tables.name} WHERE {where}", values)
        told = f"UPDATE {tables.manifests} SET row_count = {'row_count - ?' if are_alone else '-1 - ?'} WHERE table_name = ?"
        execute(connection, told, [gone, tables.known_as])
        connection.commit()
    return gone


def rows_of(sink: Jdbc, person: Person) -> list[dict[str, Any]]:
    """What the table holds of the person.

    Raises:
        ValueError: as `deliver`.
    """
    database, tables = Database.of(sink), Tables.of(sink.table)
    with database.connected() as connection:
        columns = held(connection, tables.name)
        return [
            row
            for where, values in _owned(connection, database, tables, columns, person, frozenset())
            for row in asked(connection, f"SELECT * FROM {tables.name} WHERE {where}", values)
        ]


def _owned(
    connection: Any, database: Database, tables: Tables, columns: Columns, person: Person, text_hashes: frozenset[str]
) -> list[tuple[str, list[str]]]:
    """Conditions of a person's rows, with their values. Unreadable lines are judged here, one by one: they are few."""
    wanted: dict[str, list[str]] = {"user_id": [person.raw_id], "text_hash": sorted(text_hashes)}
    for name in ("broken", "row"):
        if name in columns:
            column = database.quoted(columns[name][0])
            lines = asked(connection, f"SELECT {column} AS line FROM {tables.name} WHERE {column} IS NOT NULL")
            wanted[name] = sorted({line for row in lines for line in row.values() if owns(person, {name: line})})
    found = [_equal(database, columns[name], value) for name, values in wanted.items() if name in columns for value in values]
    if {"entity_type", "entity_id"} <= set(columns):
        parts = [
            _equal(database, columns[name], value) for name, value in (("entity_type", "user"), ("entity_id", person.raw_id))
        ]
        found.append((" AND ".join(where for where, _ in parts), [value for _, values in parts for value in values]))
    return found


def _are_alone(connection: Any, database: Database, tables: Tables, columns: Columns, person: Person) -> bool:
    """Whether the rows that the database takes for the person's are under that very id."""
    for name in {"user_id", "entity_id"} & set(columns):
        where, values = _equal(database, columns[name], person.raw_id)
        found = asked(connection, f"SELECT {database.quoted(columns[name][0])} FROM {tables.name} WHERE {where}", values)
        if any(value != person.raw_id for row in found for value in row.values()):
            return False
    return True


def _equal(database: Database, column: tuple[str, int, int], value: str) -> tuple[str, list[str]]:
    """Long texts know no equality in many databases, but likeness."""
    name, kind, _ = column
    if kind not in LONG_TEXTS:
        return f"{database.quoted(name)} = ? AND {{fn CONCAT({database.quoted(name)}, '.')}} = ?", [value, f"{value}."]
    pattern = value.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"{database.quoted(name)} LIKE ? ESCAPE '!'", [pattern]
