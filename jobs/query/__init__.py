"""One SELECT on the lake's tables, answered without a JVM."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from conf.settings import Settings
from conf.tables import TABLES
from jobs.query.rendering import as_parquet, render
from jobs.query.statement import HISTORY, QueryError, Statement, check, nearest, open_tables
from jobs.query.versions import Seen, seen
from jobs.query.views import view

if TYPE_CHECKING:
    from arro3.core import Table

__all__ = ["QueryError", "answer", "answer_from", "as_parquet", "open_tables", "pseudonym_of", "render"]

_OPENED_AT_ONCE = 4
# What DataFusion says of a statement that cannot be planned; anything else went wrong while it ran.
_PLANNING = ("SQL error", "Schema error", "Error during planning", "This feature is not implemented", "type_coercion")


def answer(
    settings: Settings,
    sql: str,
    *,
    user: str | None = None,
    versions: Mapping[str, int] | None = None,
    at_run: str | None = None,
) -> Table:
    """Rows of one SELECT over the tables of the newest finished night.

    Args:
        user: a caller's own id, bound to `:user` as its pseudonym.
        versions: table -> Delta version to read instead.
        at_run: read what this run left, or read.

    Raises:
        QueryError: the statement is not one SELECT over known tables and columns; says what is near.
        ValueError: a table has no rows yet, or the statement failed while it ran.
    """
    visible = seen(settings.lake, versions or {}, at_run)
    return answer_from(settings.lake, visible, sql, None if user is None else pseudonym_of(user, settings))


def answer_from(root: str, visible: Mapping[str, Seen], sql: str, user: str | None = None) -> Table:
    """Rows of one SELECT over tables at the versions given; `user` is a pseudonym. Errors are those of `answer`."""
    statement = check(sql, user)
    return _run(statement, root, {name: visible[name] for name in statement.tables if name in visible})


def pseudonym_of(user: str, settings: Settings) -> str:
    """Raises: as `readers_key`."""
    from jobs.lake.identities import pseudonym

    return pseudonym(user, readers_key(settings))


def readers_key(settings: Settings) -> bytes:
    """
    Raises:
        ValueError: there is no key by which ids became pseudonyms.
    """
    from jobs.lake.identities import key_problem, load_key

    if (problem := key_problem(settings.spark.master, settings.lake)) is not None:
        raise ValueError(problem)
    return load_key(create=False)


def _run(statement: Statement, root: str, visible: Mapping[str, Seen]) -> Table:
    import deltalake

    from jobs.lake.schema import differences, gained

    engine = deltalake.QueryBuilder()
    # As in any SQL, what is not quoted is lower case; delta-rs turns that off.
    engine.execute("SET datafusion.sql_parser.enable_ident_normalization = true")
    # What files hold is looked into once, when they are read, not for the plan as well.
    engine.execute("SET datafusion.execution.collect_statistics = false")
    names = sorted(statement.tables)
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
        stored = list(pool.map(lambda name: _stored(root, name, visible.get(name)), names))
    for name, table in zip(names, stored, strict=True):
        if table is not None:
            engine = engine.register(f"{name}{HISTORY}", table)
            try:
                engine.execute(f'CREATE VIEW "{name}" AS {view(TABLES[name], visible[name], gained(TABLES[name], table))}')
            except deltalake.exceptions.DeltaError:
                if not (found := differences(TABLES[name], table)):
                    raise
                raise ValueError(
                    f"{name} in {root} was written under another contract: {'; '.join(found)}; run `wherewhen rebuild {name}`"
                ) from None
        elif name not in statement.shadowed:
            raise ValueError(f"{name} has no finished rows in {root} yet; `wherewhen tables` shows what there is")
    try:
        return engine.execute(statement.text).read_all()
    except Exception as error:  # what fails while it runs comes as a bare Exception
        raise _explained(str(error), statement) from None


def _stored(root: str, name: str, at: Seen | None) -> Any:
    """The table at the version that is seen; None where it was never written."""
    import deltalake
    from deltalake.exceptions import TableNotFoundError

    from jobs.lake.logs import table_path

    if at is None:
        return None
    path = table_path(root, name)
    try:
        return deltalake.DeltaTable(path, version=at.version)
    except TableNotFoundError:
        return None
    except deltalake.exceptions.DeltaError:
        newest = deltalake.DeltaTable(path).version()
        if at.version is not None and at.version > newest:
            raise QueryError(f"{name} has no version {at.version}: its newest is {newest}") from None
        raise


def _explained(said: str, statement: Statement) -> ValueError:
    """DataFusion's words in one line; near names for an unknown column."""
    import re

    unknown = re.search(r"No field named ([^\n]+?)\.(?: Did you mean|\n| |$)", said)
    if unknown is not None:
        name = unknown[1].replace('"', "").rsplit(".", 1)[-1]
        known = {column.name for table in statement.tables for column in TABLES[table].columns if column.name != "gone"}
        hint = nearest(name, sorted(known)) or f"; the columns are {', '.join(sorted(known))}"
        return QueryError(f"there is no column {name}{hint}")
    gone = re.search(r"Object at location \S*?/(\w+)/batch=\S+ not found", said)
    if gone is not None:
        return ValueError(
            f"this version of {gone[1]} cannot be read any more: an erasure removed files of it; "
            "without --version or --at-run the newest night is read"
        )
    line = " ".join(said.split())
    for prefix in ("Error during planning: ", "SQL error: "):
        line = line.replace(prefix, "")
    if any(mark in said for mark in _PLANNING):
        return QueryError(f"the SQL cannot be answered: {line}")
    return ValueError(f"the query failed: {line}")
