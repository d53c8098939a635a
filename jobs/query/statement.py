"""What may be asked: exactly one SELECT, over the lake's own tables by their plain names."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conf.settings import SettingsError
from conf.tables import TABLES

if TYPE_CHECKING:
    from sqlglot import Token, exp

HISTORY = "_history"
# Pseudonyms lead back to people here only: exports open it with the key, nobody reads it as a table.
CLOSED = frozenset({"vault"})
_TABLE_FUNCTIONS = ("GENERATE_SERIES", "EXPLODING_GENERATE_SERIES", "RANGE", "UNNEST")
_BINDING = "user"


class QueryError(SettingsError):
    """The statement is wrong or not allowed (exit code 2)."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A statement that passed.

    `text` is what was checked, token by token as it was written, without comments, which two
    parsers may understand differently. `tables` are the contracts' names that it reads;
    `shadowed` those of them that a CTE of the same name may hide.
    """

    text: str
    tables: frozenset[str]
    shadowed: frozenset[str]


def check(sql: str, user: str | None = None) -> Statement:
    """Parse `sql` and refuse all but one SELECT; `user`, a pseudonym, takes the place of `:user`.

    Raises:
        QueryError: not one SELECT, an unknown table, a path, another database, a placeholder without a value.
    """
    from sqlglot.dialects.postgres import Postgres
    from sqlglot.errors import ParseError, SqlglotError

    # What sqlglot cannot read becomes a `Command`, with a warning to nobody: it is refused below.
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    # The dialect that reads DataFusion's SQL best: nested comments, no backslash escapes, $$ and E'' strings.
    dialect = Postgres()
    try:
        tokens = dialect.tokenize(sql)
        root = _one_select(tokens, [part for part in dialect.parser().parse(tokens, sql) if part is not None])
    except ParseError as error:
        first = error.errors[0]
        near = f" near {first['highlight']!r}" if first.get("highlight") else ""
        raise QueryError(f"the SQL cannot be read at line {first['line']}, column {first['col']}{near}") from None
    except SqlglotError as error:
        raise QueryError(f"the SQL cannot be read: {' '.join(str(error).split())}") from None
    _refuse_writing(root)
    asked, shadowed = _tables(root)
    return Statement(text=_text(sql, tokens, root, user), tables=asked, shadowed=shadowed)


def _one_select(tokens: list[Token], parts: list[exp.Expr]) -> exp.Expr:
    from sqlglot import exp

    parts = [part for part in parts if not isinstance(part, exp.Semicolon)]
    if len(parts) != 1:
        raise QueryError(f"query answers exactly one SELECT; these are {len(parts)} statements")
    [root] = parts
    first = next(token.text.upper() for token in tokens if token.text != ";")
    if not isinstance(root, exp.Select | exp.SetOperation | exp.Subquery) or first not in ("SELECT", "WITH", "("):
        word = root.key.upper() if first in ("WITH", "(") else first
        raise QueryError(f"query answers exactly one SELECT; this is {word}")
    return root


def _refuse_writing(root: exp.Expr) -> None:
    from sqlglot import exp

    writing = (exp.DML, exp.DDL, exp.Copy, exp.Drop, exp.Command, exp.Into)
    for node in root.walk():
        # A Select is a DML to sqlglot as well.
        if isinstance(node, writing) and not isinstance(node, exp.Query):
            raise QueryError(f"query answers exactly one SELECT, and {node.key.upper()} inside it writes: leave it out")


def _tables(root: exp.Expr) -> tuple[frozenset[str], frozenset[str]]:
    from sqlglot import exp

    named = {_normal(cte.args["alias"].this) for cte in root.find_all(exp.CTE)}
    asked, shadowed = set(), set()
    for table in root.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            _check_function(table)
            continue
        name = _plain_name(table)
        known = name.removesuffix(HISTORY)
        if known in CLOSED:
            raise QueryError(f"{known} cannot be queried: it leads from pseudonyms back to people")
        if known in TABLES:
            asked.add(known)
            if name in named:
                shadowed.add(known)
        elif name not in named:
            raise QueryError(f"there is no table {name}{nearest(known, open_tables())}; `wherewhen tables` lists them")
    return frozenset(asked), frozenset(shadowed)


def _check_function(table: exp.Table) -> None:
    from sqlglot import exp

    function = table.this
    name = function.name if isinstance(function, exp.Anonymous) else function.sql_name()
    if name.upper() not in _TABLE_FUNCTIONS:
        raise QueryError(f"{name.lower()}(...) cannot be read from: query reads the lake's tables only")


def _plain_name(table: exp.Table) -> str:
    name = _normal(table.this)
    if table.args.get("db") or table.args.get("catalog") or any(sign in name for sign in "/.:\\"):
        whole = table.sql().strip('"')
        raise QueryError(f"{whole} cannot be read: query reads the lake's tables by their plain names, no files, no databases")
    return name


def _normal(identifier: exp.Expr) -> str:
    """As DataFusion does: what is not quoted is lower case."""
    return identifier.name if identifier.args.get("quoted") else identifier.name.lower()


def _text(sql: str, tokens: list[Token], root: exp.Expr, user: str | None) -> str:
    """The statement as it was written, its comments gone and `:user` replaced."""
    from sqlglot import exp

    asked = [node.name or "?" for node in root.find_all(exp.Placeholder, exp.Parameter, exp.SessionParameter)]
    if strange := [name for name in asked if name.lower() != _BINDING]:
        raise QueryError(f"{strange[0]} has no value: only :user can be bound, by --user ID")
    if asked and user is None:
        raise QueryError("the SQL names :user: say which with --user ID")
    if user is not None and not asked:
        raise QueryError("--user is given, but the SQL does not name :user; write for example WHERE user_id = :user")
    pieces = list(_pieces(sql, tokens, f"'{user}'" if asked else None))
    return "".join(pieces).strip().rstrip(";").rstrip()


def _pieces(sql: str, tokens: list[Token], bound: str | None) -> Iterator[str]:
    from sqlglot import TokenType

    end = 0
    skip = False
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        between = sql[end : token.start]
        yield between if not between.strip() else " "
        end = token.end + 1
        if skip:
            skip = False
            continue
        names_user = following is not None and following.text.lower() == _BINDING and following.start == end
        if bound is not None and token.token_type is TokenType.COLON and names_user:
            yield bound
            skip = True
            continue
        yield sql[token.start : token.end + 1]


def open_tables() -> list[str]:
    return [name for name in TABLES if name not in CLOSED]


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean a, b?`, or nothing where nothing is near."""
    alike = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), alike, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(alike[one] for one in found)}?" if found else ""
