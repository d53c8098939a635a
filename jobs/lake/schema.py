"""Contracts as Delta and Spark schemas, and empty tables under them. Needs no JVM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import deltalake
from deltalake.schema import Schema

from conf.contracts import Table

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

# CHECK constraints and few small commits; a checkpoint every 100 commits keeps listing cheap.
# No least and greatest values in the log, which would outlive an erased person's rows.
_PROPERTIES = {
    "delta.checkpointInterval": "100",
    "delta.enableDeletionVectors": "false",
    "delta.dataSkippingNumIndexedCols": "0",
}
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


def create(path: str, contract: Table) -> None:
    """An empty table with columns, nullability, comments, CHECK constraints and partitioning.

    Written by delta-rs: through Spark each constraint would cost a commit of half a second.
    """
    table = deltalake.DeltaTable.create(
        path,
        schema=Schema.from_json(schema_json(contract)),
        partition_by=["day"] if contract.partitioned else None,
        description=contract.comment,
        configuration=dict(_PROPERTIES),
    )
    if contract.checks:
        table.alter.add_constraint(dict(contract.checks))


def differences(contract: Table, table: deltalake.DeltaTable) -> list[str]:
    """How a stored table departs from its contract, a phrase each; comments do not count."""
    wanted = _plain(Schema.from_json(schema_json(contract)))
    stored = _plain(Schema.from_json(table.schema().to_json()))
    found = [f"column {name} is missing" for name in wanted if name not in stored]
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
