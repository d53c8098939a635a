"""Which brands and products a text names: the catalogue's names, word by word, the longest first, with a confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.text.describing import item_text, text_hash
from jobs.text.names import Token, tokens_of, words_of

LEAST_CONFIDENCE = 0.1
_MENTIONED = "text_hash string, kind string, name string, item_id string, confidence double, day date"
_SCHEMA = pa.schema(
    [
        ("text_hash", pa.string()), ("kind", pa.string()), ("name", pa.string()), ("item_id", pa.string()),
        ("confidence", pa.float64()), ("day", pa.date32()),
    ]
)  # fmt: skip
# Texts that one task reads; each begins by laying out all names.
_TEXTS_A_TASK = 20_000
# Of a word that stands for nothing else in the catalogue one use in so many does all the same.
_DOUBT = 0.05
# A name is so much likelier than an ordinary word to be capitalised within a sentence; and to be in lower case.
_AS_WRITTEN, _IN_LOWER_CASE = 4.0, 0.25


@dataclass(frozen=True, kw_only=True)
class Name:
    """A row of item_names: what `words` may mean."""

    kind: str
    name: str
    item_id: str | None
    ordinary: float


@dataclass(frozen=True, kw_only=True)
class Names:
    """By their words; `lengths`: of the names that begin with a word, the longest first."""

    by_words: dict[tuple[str, ...], list[Name]]
    lengths: dict[str, list[int]]

    @staticmethod
    def of(rows: Sequence[dict[str, Any]]) -> Names:
        by_words: dict[tuple[str, ...], list[Name]] = defaultdict(list)
        lengths: dict[str, set[int]] = defaultdict(set)
        for row in rows:
            words = tuple(row["words"].split(" "))
            by_words[words].append(Name(kind=row["kind"], name=row["name"], item_id=row["item_id"], ordinary=row["ordinary"]))
            lengths[words[0]].add(len(words))
        return Names(by_words=dict(by_words), lengths={word: sorted(found, reverse=True) for word, found in lengths.items()})


def found_in(text: str, names: Names, own: Sequence[str] = ()) -> dict[tuple[str, str], tuple[Name, float]]:
    """By kind and name what a text names, and how likely it does; `own`: names that say nothing there, such as its item's."""
    tokens, silent = tokens_of(text), {words_of(name) for name in own}
    found: dict[tuple[str, str], tuple[Name, float]] = {}
    for words, said in _occurrences(tokens, names):
        for name in names.by_words[words] if words not in silent else ():
            likely = confidence(name, said)
            if likely >= LEAST_CONFIDENCE and likely > found.get((name.kind, name.name), (name, 0.0))[1]:
                found[name.kind, name.name] = (name, likely)
    return found


def _occurrences(tokens: Sequence[Token], names: Names) -> Iterator[tuple[tuple[str, ...], Sequence[Token]]]:
    """Names' words where they stand, the longest of those that begin at a word; none within another."""
    place = 0
    while place < len(tokens):
        step = 1
        for length in names.lengths.get(tokens[place].word, ()):
            words = tuple(token.word for token in tokens[place : place + length])
            if words in names.by_words:
                yield words, tokens[place : place + length]
                step = length
                break
        place += step


def confidence(name: Name, said: Sequence[Token]) -> float:
    """How likely words mean the name: odds of how they are used in the catalogue, times what their case says here."""
    ordinary = name.ordinary * (1 - _DOUBT) + _DOUBT
    odds = (1 - ordinary) / ordinary * _by_case(name, said)
    return odds / (1 + odds)


def _by_case(name: Name, said: Sequence[Token]) -> float:
    written = "".join(token.written for token in said)
    if written == written.lower():
        return 1.0 if name.name == name.name.lower() else _IN_LOWER_CASE
    is_shouted = len(written) > 1 and written == written.upper()
    return 1.0 if said[0].begins or is_shouted else _AS_WRITTEN


def text_mentions(texts: DataFrame, names: DataFrame, own: DataFrame, each: int) -> DataFrame:
    """Rows of text_mentions for new texts.

    texts: text_hash, text, day, `fit`: the day whose names it is searched for, about `each` of them a fit. names: item_names.
    own: of `own_names`. Every task reads the names of its day, so that nothing is collected.
    """
    tasks = max(1, each // _TEXTS_A_TASK)
    asked = texts.join(own, on=["text_hash", "day"], how="left").withColumn(
        "task", F.pmod(F.xxhash64("text_hash"), F.lit(tasks))
    )
    known = names.withColumnRenamed("day", "fit").withColumn("task", F.explode(F.sequence(F.lit(0), F.lit(tasks - 1))))
    known = known.withColumn("task", F.col("task").cast("bigint"))
    found = asked.groupBy("fit", "task").cogroup(known.groupBy("fit", "task")).applyInArrow(_mentioned, _MENTIONED)
    return found.select(
        "text_hash",
        "kind",
        "name",
        "item_id",
        "confidence",
        F.lit(False).alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def _mentioned(texts: pa.Table, names: pa.Table) -> pa.Table:
    known = Names.of(names.to_pylist()) if texts.num_rows else Names.of(())
    rows = [
        (row["text_hash"], name.kind, name.name, name.item_id, likely, row["day"])
        for row in texts.to_pylist()
        for name, likely in found_in(row["text"], known, row["own"] or ()).values()
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(_SCHEMA)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def own_names(items: DataFrame) -> DataFrame:
    """Per text and day the titles and brands of the items that it describes: `text_hash, day, own`. items: as they changed."""
    said = text_hash(item_text(F.col("title"), F.col("category"), F.col("description")))
    names = items.where(~F.col("gone")).select(
        said.alias("text_hash"), "day", F.array_compact(F.array("title", "brand")).alias("names")
    )
    return names.groupBy("text_hash", "day").agg(F.array_distinct(F.flatten(F.collect_list("names"))).alias("own"))
