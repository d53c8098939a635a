"""Tags that mean the same go under one: found monthly among the commonest tags of items, by spelling and by likeness.

Likeness of vectors alone is no synonymy: for the packaged encoder Monday and Tuesday (cosine 0.87), husband and wife (0.87),
Mexican and Spanish restaurants (0.87) are nearer than film and movie (0.84). So it counts from 0.88 on
(sofa and couch just miss it, kids and children do not), and only between tags without a word in common, whose
difference would be the other word, and without digits. Shape suffixes: T tags, D dimensions of a vector.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.settings import Text
from jobs.tags.items import holds, overlap
from jobs.text.encoding import loaded

MOST = 2_000
SYNONYMS = "tag string, means string, likeness double, day date"
_SCHEMA = pa.schema([("tag", pa.string()), ("means", pa.string()), ("likeness", pa.float64()), ("day", pa.date32())])
_NO_LETTER = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")
# Shorter ones are often another word: c++ and c#, news and new.
_SHORTEST_SPELLING = 4


def tag_synonyms(claims: DataFrame, days: Sequence[date], settings: Text, likeness: float) -> DataFrame:
    """Rows of `tag_synonyms` of each of the days: of the `MOST` tags that most items carry at its end those that mean another.

    claims: of all items in force on these days.
    """
    held_on = F.filter(F.array(*map(F.lit, days)), lambda day: holds(F.col("day"), F.col("until"), day))
    carried = claims.select("item_id", "tag", F.explode(held_on).alias("day"))
    counted = carried.groupBy("day", "tag").agg(F.count_distinct("item_id").alias("items"))
    place = F.row_number().over(Window.partitionBy("day").orderBy(F.desc("items"), "tag"))
    common = counted.withColumn("place", place).where(F.col("place") <= MOST)
    # So few rows are one task's work, which encodes a tag once for all days.
    return common.select("day", "place", "tag").coalesce(1).mapInArrow(_fitting(settings, likeness), SYNONYMS)


def _fitting(settings: Text, likeness: float) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    # The likeness decides at a bound, and in bf16 it would depend on which texts are encoded together.
    exact = settings.model_copy(update={"precision": "fp32"})

    def fit(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]
        if not rows:
            return
        number = {tag: place for place, tag in enumerate(sorted({tag for _, _, tag in rows}))}
        vectors_TD = loaded(exact).encode(list(number))
        of_day: dict[date, list[str]] = {}
        for day, _, tag in sorted(rows):
            of_day.setdefault(day, []).append(tag)
        for day, tags in of_day.items():
            found = merged(tags, vectors_TD[[number[tag] for tag in tags]], likeness)
            meanings = [{"tag": tags[tag], "means": tags[other], "likeness": how, "day": day} for tag, other, how in found]
            yield pa.RecordBatch.from_pylist(meanings, schema=_SCHEMA)

    return fit


def with_meanings(claims: DataFrame, synonyms: DataFrame, starts: Sequence[date]) -> DataFrame:
    """`claims` under the tags that theirs mean: what was found on a day holds from that day until it is asked again.

    synonyms: rows of `tag_synonyms` of the days `starts`, on which it was asked, in order.
    """
    ends = [*map(F.lit, starts[1:]), F.lit(None).cast("date")]
    spans = F.array(*[F.struct(F.lit(start).alias("_from"), end.alias("_to")) for start, end in zip(starts, ends, strict=True)])
    meets = F.filter(spans, lambda span: overlap(F.col("day"), F.col("until"), span["_from"], span["_to"]))
    meanings = synonyms.groupBy("tag").agg(F.map_from_entries(F.collect_list(F.struct("day", "means"))).alias("_means"))
    # Few tags ever mean another; the claims of all others stay whole.
    known = claims.join(F.broadcast(meanings), on="tag", how="left")
    # A claim that ended before the first span stays: that it ended is what a night looks at.
    return known.select("*", F.inline_outer(F.when(F.col("_means").isNotNull(), meets))).select(
        "item_id",
        F.greatest("day", "_from").alias("day"),
        F.least("until", "_to").alias("until"),
        F.coalesce(F.col("_means")[F.col("_from")], F.col("tag")).alias("tag"),
        "weight",
        "source",
    )


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
    # Those that stand for themselves, and may be likened to.
    stands_T = np.zeros(len(tags), dtype=bool)
    found = []
    for tag, name in enumerate(tags):
        if spelt[tag] in spellings:
            found.append((tag, spellings[spelt[tag]], 1.0))
            continue
        may_be_like = not _DIGIT.search(name)
        near = np.flatnonzero(stands_T & (cosines_TT[tag] >= likeness)).tolist() if may_be_like else []
        apart = [other for other in near if not words[tag] & words[other]]
        other = max(apart, key=lambda one: cosines_TT[tag, one], default=None)
        if other is None:
            stands_T[tag] = may_be_like
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
