"""Contracts as Delta, Spark and Arrow schemas, and empty tables under them. Needs no JVM."""

from __future__ import annotations

import errno
import json
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.schema import Schema

from conf.contracts import Table

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

# CHECK constraints and few small commits; a checkpoint every 100 commits keeps listing cheap. Old commits are
# cleaned by `maintain` alone: versions that a replay needs would else become unreadable with a checkpoint.
_PROPERTIES = {
    "delta.checkpointInterval": "100",
    "delta.enableDeletionVectors": "false",
    "delta.enableExpiredLogCleanup": "false",
    # No least and greatest values in the log, which would outlive an erased person's rows.
    "delta.dataSkippingNumIndexedCols": "0",
}
_CONSTRAINT = "delta.constraints."
_JSON_NAMES = {"int": "integer", "bigint": "long", "smallint": "short", "tinyint": "byte"}


def parse_type(text: str) -> Any:
    """A Spark SQL type as the JSON that Spark and Delta share.

    >>> parse_type("map<string,bigint>")["valueType"]
    'long'
    >>> parse_type("array<struct<a:int,b:array<float>>>")["elementType"]["fields"][1]["name"]
    'b'
    """
    head, bracket, rest = text.strip().partition("<")
    if not bracket:
        return _JSON_NAMES.get(head, head)
    parts = _split(rest.removesuffix(">"))
    if head == "array":
        return {"type": "array", "elementType": parse_type(parts[0]), "containsNull": True}
    if head == "map":
        return {
            "type": "map",
            "keyType": parse_type(parts[0]),
            "valueType": parse_type(parts[1]),
            "valueContainsNull": True,
        }
    assert head == "struct", f"unknown type {text}"
    named = [part.split(":", 1) for part in parts]
    return {"type": "struct", "fields": [_field(name, parse_type(inner)) for name, inner in named]}


def _split(text: str) -> list[str]:
    """Split at the commas that are outside angle brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _field(name: str, kind: Any, nullable: bool = True, comment: str | None = None) -> dict[str, Any]:
    return {"name": name.strip(), "type": kind, "nullable": nullable, "metadata": {"comment": comment} if comment else {}}


def schema_json(contract: Table) -> str:
    fields = [
        _field(
            column.name,
            parse_type(column.type),
            column.nullable,
            column.comment if column.unit is None else f"{column.comment} [{column.unit}]",
        )
        for column in contract.columns
    ]
    return json.dumps({"type": "struct", "fields": fields})


def spark_schema(contract: Table) -> StructType:
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(schema_json(contract)))


def arrow_schema(contract: Table) -> pa.Schema:
    """As Arrow has it."""
    import pyarrow as pa

    fields = [(column.name, _arrow_type(parse_type(column.type)), column.nullable) for column in contract.columns]
    return pa.schema([pa.field(name, kind, nullable=nullable) for name, kind, nullable in fields])


def _arrow_type(kind: Any) -> pa.DataType:
    """Of a type in the JSON that Spark and Delta share."""
    import pyarrow as pa

    if isinstance(kind, str):
        plain = {
            "string": pa.string(), "binary": pa.binary(), "boolean": pa.bool_(), "date": pa.date32(),
            "timestamp": pa.timestamp("us", tz="UTC"), "byte": pa.int8(), "short": pa.int16(), "integer": pa.int32(),
            "long": pa.int64(), "float": pa.float32(), "double": pa.float64(),
        }  # fmt: skip
        return plain[kind]
    if kind["type"] == "array":
        return pa.list_(_arrow_type(kind["elementType"]))
    if kind["type"] == "map":
        return pa.map_(_arrow_type(kind["keyType"]), _arrow_type(kind["valueType"]))
    return pa.struct([(field["name"], _arrow_type(field["type"])) for field in kind["fields"]])


def create(path: str, contract: Table) -> None:
    """An empty table with columns, nullability, comments, CHECK constraints and partitioning; whole or not at all.

    Of two that make it at once one does, and both find it. Written by delta-rs: through Spark each constraint
    would cost a commit of half a second.

    Raises:
        ValueError: there is something else at `path`.
    """
    if "://" in path:
        _create(path, contract)
        return
    # The constraints are a commit of their own, so it is made beside and appears by a rename.
    scratch = Path(path).with_name(f".{Path(path).name}-{uuid.uuid4().hex[:8]}")
    try:
        _create(str(scratch), contract)
        scratch.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if not deltalake.DeltaTable.is_deltatable(path):
            raise ValueError(f"{path} is there and is no table: move it away") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _create(path: str, contract: Table) -> None:
    table = deltalake.DeltaTable.create(
        path,
        schema=Schema.from_json(schema_json(contract)),
        partition_by=["day"] if contract.partitioned else None,
        description=contract.comment,
        configuration=dict(_PROPERTIES),
    )
    if contract.checks:
        table.alter.add_constraint(dict(contract.checks))


def gained(contract: Table, table: deltalake.DeltaTable) -> list[str]:
    """The nullable columns of the contract that a stored table lacks: its rows read as null there."""
    stored = {field.name for field in table.schema().fields}
    return [column.name for column in contract.columns if column.nullable and column.name not in stored]


def migrate(table: deltalake.DeltaTable, contract: Table) -> deltalake.DeltaTable:
    """Add the columns that the contract gained, in one commit; the table as it then is.

    Who finds another process at it takes what that one made.
    """
    if names := gained(contract, table):
        fields = [field for field in Schema.from_json(schema_json(contract)).fields if field.name in names]
        with suppress(CommitFailedError):
            table.alter.add_columns(fields)
        table = deltalake.DeltaTable(table.table_uri)
        assert not gained(contract, table), f"{table.table_uri} did not gain {', '.join(names)}"
    return table


def declare_checks(table: deltalake.DeltaTable, contract: Table) -> None:
    """Replace the table's CHECK constraints by the contract's."""
    for key in table.metadata().configuration:
        if key.startswith(_CONSTRAINT):
            table.alter.drop_constraint(key.removeprefix(_CONSTRAINT))
    if contract.checks:
        table.alter.add_constraint(dict(contract.checks))


def differences(contract: Table, table: deltalake.DeltaTable) -> list[str]:
    """How a stored table departs from its contract, a phrase each; comments and columns gained do not count."""
    wanted = _plain(Schema.from_json(schema_json(contract)))
    stored = _plain(Schema.from_json(table.schema().to_json()))
    mended = gained(contract, table)
    found = [f"column {name} is missing" for name in wanted if name not in stored and name not in mended]
    found += [f"column {name} is unknown" for name in stored if name not in wanted]
    return found + [
        f"{name} is {stored[name]}, not {wanted[name]}" for name in wanted if name in stored and stored[name] != wanted[name]
    ]


def _plain(schema: Schema) -> dict[str, str]:
    shown = {}
    for field in schema.fields:
        kind = json.loads(field.to_json())["type"]
        text = kind if isinstance(kind, str) else json.dumps(kind, sort_keys=True)
        shown[field.name] = f"{text}{'' if field.nullable else ' not null'}"
    return shown
