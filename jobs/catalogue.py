"""What there is: the tables and their contracts, and what ran. Needs no JVM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from conf.contracts import Column, Table
from conf.settings import Settings, SettingsError
from conf.tables import TABLES
from jobs.lake import logs
from jobs.query import answer
from jobs.query.rendering import aligned, plain_rows, short
from jobs.query.statement import CLOSED, HISTORY, nearest
from jobs.query.versions import Seen, seen
from jobs.staleness import stale

if TYPE_CHECKING:
    import deltalake


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is stored of a table at the version that readers see; all None where nothing is finished.

    `stale`: why the code and settings of today would have made other rows; None where they would not.
    """

    name: str
    kind: str
    rows: int | None
    size: int | None
    newest_day: date | None
    version: int | None
    comment: str
    stale: str | None = None


def summaries(settings: Settings) -> list[Summary]:
    """Every table, in the order of the flow. `rows` counts all that is stored, keyframe copies included; `size` is bytes."""
    root = settings.lake
    visible, outdated = seen(root, {}, None), stale(settings)
    found = [_summary(root, contract, visible.get(contract.name)) for contract in TABLES.values()]
    return [replace(one, stale=outdated.get(one.name)) for one in found]


def _summary(root: str, contract: Table, at: Seen | None) -> Summary:
    table = _stored(root, contract.name, at)
    known = {"name": contract.name, "kind": contract.kind, "comment": contract.comment}
    if table is None:
        return Summary(rows=None, size=None, newest_day=None, version=None, **known)
    files = table.get_add_actions(flatten=True)
    # An empty table has no partition columns here.
    values: dict[str, list[Any]] = {name: list(files.column(name).to_pylist()) for name in files.schema.names}
    return Summary(
        rows=sum(values.get("num_records", [])),
        size=sum(values.get("size_bytes", [])),
        newest_day=max(values.get("partition.day", []), default=None),
        version=table.version(),
        **known,
    )


def _stored(root: str, name: str, at: Seen | None) -> deltalake.DeltaTable | None:
    import deltalake
    from deltalake.exceptions import TableNotFoundError

    if at is None:
        return None
    try:
        return deltalake.DeltaTable(logs.table_path(root, name), version=at.version)
    except TableNotFoundError:
        return None


def write_summaries(found: Sequence[Summary], form: str, *, width: int | None) -> str:
    if form == "json":
        return _json([asdict(one) for one in found])
    shown = {
        "table": [one.name for one in found],
        "kind": [one.kind for one in found],
        "rows": [_number(one.rows) for one in found],
        "size": [_bytes(one.size) for one in found],
        "newest day": [_or_dash(one.newest_day) for one in found],
        "version": [_number(one.version) for one in found],
        "stale": [one.stale or "" for one in found],
        "holds": [one.comment for one in found],
    }
    return aligned(list(shown), list(shown.values()), right={"rows", "size", "version"}, width=width)


def description(settings: Settings, name: str, sample: int) -> dict[str, Any]:
    """A table's contract and what is stored of it, with `sample` rows of its newest day, as JSON has it.

    Raises:
        SettingsError: there is no such table; says what is near.
    """
    if name not in TABLES:
        raise SettingsError(f"there is no table {name}{nearest(name, TABLES)}; `wherewhen tables` lists them")
    contract = TABLES[name]
    at = seen(settings.lake, {}, None).get(name)
    stored = _summary(settings.lake, contract, at)
    facts = {key: value for key, value in asdict(stored).items() if key not in ("name", "kind", "comment", "stale")}
    return {
        "table": name,
        "kind": contract.kind,
        "comment": contract.comment,
        "key": list(contract.key),
        "repeats": contract.repeats,
        "owner": list(contract.owner),
        "personal": contract.personal,
        "keep_keyframes": contract.keep_keyframes,
        "newest_only": contract.newest_only,
        "checks": dict(contract.checks),
        "stored": {**facts, "written_at": _written_at(settings.lake, name, at)},
        "columns": [_column(column) for column in contract.columns],
        "sample": _sample(settings, contract, stored, sample),
    }


def _written_at(root: str, name: str, at: Seen | None) -> datetime | None:
    """When the version that readers see was committed."""
    table = _stored(root, name, at)
    return None if table is None else datetime.fromtimestamp(table.history(1)[0]["timestamp"] / 1000, UTC)


def _sample(settings: Settings, contract: Table, stored: Summary, rows: int) -> list[dict[str, Any]]:
    """Rows of the newest day: of one partition, so that a large table answers as fast as a small one."""
    if contract.name in CLOSED or not stored.rows or not rows:
        return []
    of_day = "true" if stored.newest_day is None else f"day = DATE '{stored.newest_day}'"
    here = f"{of_day} AND NOT gone" if contract.kind == "state" else of_day
    return plain_rows(answer(settings, f"SELECT * FROM {contract.name}{HISTORY} WHERE {here} LIMIT {rows}"))


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "nullable": column.nullable,
        "unit": column.unit,
        "personal": column.personal,
        "aged": column.aged,
        "comment": column.comment,
    }


def write_description(found: dict[str, Any], form: str, *, width: int | None) -> str:
    if form == "json":
        return _json(found)
    stored = found["stored"]
    state = "nothing is stored yet"
    if stored["version"] is not None:
        size = f"{stored['rows']:,} rows, {_bytes(stored['size'])}"
        written = f"written {stored['written_at']:%Y-%m-%d %H:%M} UTC"
        state = f"{size}, newest day {_or_dash(stored['newest_day'])}, version {stored['version']}, {written}"
    within = "" if found["kind"] == "log" else " within a day"
    within += "; rows that repeat another share it" if found["repeats"] else ""
    lines = [
        f"{found['table']} ({found['kind']}): {found['comment']}",
        f"stored   {state}",
        f"key      {', '.join(found['key'])}{within}",
    ]
    if found["owner"]:
        lines.append(f"owner    {', '.join(found['owner'])}: its rows change together")
    if found["newest_only"]:
        lines.append("days     a bootstrap writes the last day alone")
    if found["personal"]:
        lines.append("holds    personal data (the columns marked so)")
    lines += [f"check    {name}: {rule}" for name, rule in found["checks"].items()]
    columns = found["columns"]
    shown = {
        "column": [one["name"] for one in columns],
        "type": [_cut(one["type"]) for one in columns],
        "null": ["" if one["nullable"] else "no" for one in columns],
        "unit": [one["unit"] or "" for one in columns],
        "personal": ["yes" if one["personal"] else "" for one in columns],
        "meaning": [one["comment"] + (" (aged when read)" if one["aged"] else "") for one in columns],
    }
    contract = "\n".join(lines) + "\n\n" + aligned(list(shown), list(shown.values()), width=width)
    return contract + ("\n" + _aside(found["sample"], width) if found["sample"] else "")


def _aside(rows: Sequence[dict[str, Any]], width: int | None) -> str:
    """Sample rows side by side, a line a column of the table: most tables are wider than a screen."""
    names = ["sample", *(f"row {number}" for number in range(1, len(rows) + 1))]
    values = [["NULL" if row[name] is None else _cut(short(row[name])) for name in rows[0]] for row in rows]
    return aligned(names, [list(rows[0]), *values], width=width)


def recorded(root: str, day: date | None, last: int) -> list[logs.Row]:
    """Rows of `runs` of the newest `last` runs (of `day` only), the newest run first, its steps in order."""
    rows = logs.read(root, "runs", "true" if day is None else f"day = DATE '{day}'")
    ended: dict[str, Any] = {}
    for row in rows:
        ended[row["run_id"]] = max(ended.get(row["run_id"], row["finished_at"]), row["finished_at"])
    newest = sorted(ended, key=ended.__getitem__, reverse=True)[:last]
    chosen = [row for row in rows if row["run_id"] in newest]
    return sorted(chosen, key=lambda row: (newest.index(row["run_id"]), row["finished_at"]))


def write_runs(rows: Sequence[logs.Row], form: str, *, width: int | None) -> str:
    if form == "json":
        return _json([{**row, "details": json.loads(row["details"])} for row in rows])
    if not rows:
        return "nothing has run yet\n"
    shown = {
        "run": [row["run_id"] for row in rows],
        "day": [_days(row) for row in rows],
        "step": [row["step"] for row in rows],
        "status": [row["status"] for row in rows],
        "seconds": [f"{row['seconds']:.1f}" for row in rows],
        "MiB": [_number(None if row["peak_memory_mb"] is None else round(row["peak_memory_mb"])) for row in rows],
        "rows in": [_number(row["rows_in"]) for row in rows],
        "finished (UTC)": [f"{row['finished_at']:%Y-%m-%d %H:%M:%S}" for row in rows],
        "wrote": [_said(row) for row in rows],
    }
    return aligned(list(shown), list(shown.values()), right={"seconds", "MiB", "rows in"}, width=width)


def _days(row: logs.Row) -> str:
    return str(row["day"]) if row["first_day"] == row["day"] or row["step"] == "night" else f"{row['first_day']}..{row['day']}"


def _said(row: logs.Row) -> str:
    """What went wrong, else why it was skipped, else the rows written."""
    note = row["error"] or json.loads(row["details"]).get("note", "")
    return note or ", ".join(f"{table} {count:,}" for table, count in row["rows_out"].items())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=lambda one: one.isoformat()) + "\n"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _bytes(size: int | None) -> str:
    if size is None:
        return "-"
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _cut(kind: str) -> str:
    return kind if len(kind) <= 60 else kind[:59] + "…"
