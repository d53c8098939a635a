"""Tags that mean the same go under one: found among the commonest tags of items, by spelling and by likeness.

Not asked by the step yet.

Likeness of vectors alone is no synonymy: for the packaged encoder Monday and Tuesday (cosine 0.87), husband and wife (0.87),
Mexican and Spanish restaurants (0.87) are nearer than film and movie (0.84). So it counts from `LIKENESS` on
(0.88: sofa and couch just miss it, kids and children do not), and only between tags without a word in common, whose
difference would be the other word, and without digits. Shape suffixes: T tags, D dimensions of a vector.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.settings import Text
from models import encoder

MOST = 2_000
LIKENESS = 0.88
SYNONYMS = "tag string, means string, likeness double, day date"
_SCHEMA = pa.schema([("tag", pa.string()), ("means", pa.string()), ("likeness", pa.float64()), ("day", pa.date32())])
_NO_LETTER = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")
# Shorter ones are often another word: c++ and c#, news and new.
_SHORTEST_SPELLING = 4


def tag_synonyms(claims: DataFrame, days: Sequence[date], settings: Text, likeness: float = LIKENESS) -> DataFrame:
    """Rows of `tag_synonyms` for each of the days: of the `MOST` tags that most items carry at its end those that mean another.

    claims: of all items in force on these days.
    """
    held = F.filter(F.array(*map(F.lit, days)), _holds)
    carried = claims.select("item_id", "tag", F.explode(held).alias("day"))
    counted = carried.groupBy("day", "tag").agg(F.count_distinct("item_id").alias("items"))
    place = F.row_number().over(Window.partitionBy("day").orderBy(F.desc("items"), "tag"))
    common = counted.withColumn("place", place).where(F.col("place") <= MOST)
    return common.groupBy("day").applyInArrow(_fitted(settings, likeness), SYNONYMS)


def _holds(day: Column) -> Column:
    return (F.col("day") <= day) & (F.col("until").isNull() | (day < F.col("until")))


def _fitted(settings: Text, likeness: float) -> Callable[[pa.Table], pa.Table]:
    def fit(tags: pa.Table) -> pa.Table:
        tags = tags.sort_by("place")
        words = tags.column("tag").to_pylist()
        model = encoder.load(
            settings.encoder,
            precision=settings.precision or encoder.precision(),
            max_tokens=settings.max_tokens,
            batch_size=settings.batch_size,
            threads=1,
        )
        found = merged(words, model.encode(words), likeness)
        rows = {
            "tag": [words[tag] for tag, _, _ in found],
            "means": [words[other] for _, other, _ in found],
            "likeness": [how for _, _, how in found],
            "day": tags.column("day").slice(0, 1).to_pylist() * len(found),
        }
        return pa.Table.from_pydict(rows, schema=_SCHEMA)

    return fit


def merged(tags: Sequence[str], vectors_TD: npt.NDArray[np.float32], likeness: float) -> list[tuple[int, int, float]]:
    """(tag, what it means, how alike) of each tag that goes under another, by number; the first of `tags` are the commonest.

    A tag goes under the likest of the commoner ones that stand for themselves: no chain leads from one to the next.

    Args:
        vectors_TD: of unit length; rows of NaN, of words that the encoder does not know, are like none.
        likeness: the least cosine.
    """
    cosines_TT = np.nan_to_num(vectors_TD @ vectors_TD.T)
    spelt = [spelling(tag) for tag in tags]
    words = [_words(tag) for tag in tags]
    spellings: dict[str, int] = {}
    standing: list[int] = []
    found = []
    for tag, name in enumerate(tags):
        if spelt[tag] in spellings:
            found.append((tag, spellings[spelt[tag]], 1.0))
            continue
        near = [] if _DIGIT.search(name) else [other for other in standing if cosines_TT[tag, other] >= likeness]
        other = max(
            (other for other in near if not words[tag] & words[other]), key=lambda one: cosines_TT[tag, one], default=None
        )
        if other is None:
            standing += [] if _DIGIT.search(name) else [tag]
        else:
            found.append((tag, other, float(min(1.0, cosines_TT[tag, other]))))
        if spelt[tag]:
            spellings[spelt[tag]] = tag if other is None else other
    return found


def spelling(tag: str) -> str:
    """The letters of a tag, so that `wi-fi` and `Wifi`, `T shirts` and `t-shirt` are one; empty where too little is left.

    Digits stay apart: 1.5 and 15 are not the same.
    """
    letters = _NO_LETTER.sub("", _bare(tag))
    if len(letters) > _SHORTEST_SPELLING:
        letters = _singular(letters)
    return "" if len(letters) < _SHORTEST_SPELLING or _DIGIT.search(letters) else letters


def _words(tag: str) -> set[str]:
    return {_singular(word) for word in _NO_LETTER.split(_bare(tag)) if word}


def _bare(text: str) -> str:
    """Without case and accents."""
    return "".join(one for one in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(one))


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def with_meanings(claims: DataFrame, synonyms: DataFrame, starts: Sequence[date]) -> DataFrame:
    """`claims` under the tags that theirs mean: those of each fit hold from its day to the next one's.

    Args:
        synonyms: rows of `tag_synonyms` of the days `starts`, which are in order.
    """
    ends = [*map(F.lit, starts[1:]), F.lit(None).cast("date")]
    fits = [F.struct(F.lit(start).alias("_fit"), end.alias("_end")) for start, end in zip(starts, ends, strict=True)]
    meets = F.filter(
        F.array(*fits),
        lambda fit: (
            (F.col("until").isNull() | (fit["_fit"] < F.col("until"))) & (fit["_end"].isNull() | (F.col("day") < fit["_end"]))
        ),
    )
    # What ended before the first of them stays: that it ended is what a night looks at.
    parts = claims.select("*", F.inline_outer(meets))
    known = F.broadcast(synonyms.select(F.col("day").alias("_fit"), "tag", "means"))
    return parts.join(known, on=["_fit", "tag"], how="left").select(
        "item_id",
        F.greatest("day", "_fit").alias("day"),
        F.least("until", "_end").alias("until"),
        F.coalesce("means", "tag").alias("tag"),
        "weight",
        "source",
    )
