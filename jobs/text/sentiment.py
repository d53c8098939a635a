"""Sentiment learnt from the log's own rated texts, where its mapping says what the ratings mean.

A fit is made on the first day or the first of a month of all that had arrived, once rated texts are enough, and again when
they are a tenth more. It speaks of texts that are read after its day, and only if it was measured better than the lexicon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from conf.tables import TABLES
from jobs.lake import logs
from jobs.lake.context import Context
from jobs.lake.schema import spark_schema
from jobs.text.describing import text_hash
from jobs.text.reading import feeling
from models.sentiment import Sentiment, Texts, learn

TABLE = "sentiment_models"
PURPOSE = "training"
RATED = ("review", "rating")
LEAST_TEXTS, LEAST_RARER = 500, 100
MOST_TEXTS = 10_000
GROWTH = 1.1
# Of a scale's span, at each end: what lies between says neither.
_SIDE = 0.4
_READ = ("text_hash", "text", "vector", "language")
_SAID = ("sentiment", "sentiment_confidence", "sentiment_by")

# Day -> rated texts that had arrived, and the bad ones among them.
Counts = Mapping[date, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A row of sentiment_models; `sentiment` is None where it is no better than the lexicon."""

    day: date
    texts: int
    languages: tuple[str, ...]
    sentiment: Sentiment | None

    @staticmethod
    def of(row: logs.Row) -> Fit:
        weights_F = np.array(row["weights"] or [], dtype=np.float64)
        learnt = Sentiment(weights_F=weights_F, bias=row["bias"]) if row["serves"] else None
        return Fit(day=row["day"], texts=row["texts"], languages=tuple(row["languages"]), sentiment=learnt)


def with_learnt_sentiment(context: Context, read: DataFrame, version: str) -> DataFrame:
    """`read` texts, with what was learnt before their day in place of the lexicon's word. Writes the fits that are due.

    Of a log without rated texts nothing is asked. `version`: the encoder's.
    """
    events = context.mapping.events
    if events.rating_scale is None or "text" not in events.columns:
        return read
    fits = [] if context.bootstrap else _fits(context, version, f"day < '{context.days.first}'")
    months = [day for day in context.days if day.day == 1 or day == context.first_day]
    if months:
        read = read.persist()
        fits += _made(context, read, version, months, fits[-1].texts if fits else 0)
    return read.mapInArrow(felt(fits, version), read.schema) if any(fit.sentiment for fit in fits) else read


def _fits(context: Context, version: str, where: str) -> list[Fit]:
    """Of this encoder, oldest first; read without Spark."""
    stored = context.version(TABLE)
    rows = [] if stored is None else logs.read(context.lake.root, TABLE, where, stored)
    return sorted((Fit.of(row) for row in rows if row["encoder"] == version), key=lambda fit: fit.day)


def _made(context: Context, read: DataFrame, version: str, months: Sequence[date], last: int) -> list[Fit]:
    """The fits that are due on some of the days `months`, written. last: texts of the fit before."""
    known = context.before("text_semantics").select(*_READ, "encoder").unionByName(read.select(*_READ, "encoder"))
    known = known.where((F.col("encoder") == version) & F.col("vector").isNotNull())
    rated = rated_texts(context.used_for(PURPOSE).events_until_withdrawn(None), context.mapping.events.rating_scale)
    lessons = rated.join(known.select("text_hash"), on="text_hash", how="left_semi")
    counts = {row["fit"]: (row["texts"], row["bad"]) for row in _counted(_by_fit(lessons, months)).collect()}
    due = due_on(counts, last)
    if due:
        context.write(TABLE, _fitted(_sampled(_by_fit(lessons, due)), known, counts, version))
        return _fits(context, version, context.days.where())
    if context.version(TABLE) is not None:
        context.clear(TABLE)
    return []


def rated_texts(events: DataFrame, scale: tuple[float, float] | None) -> DataFrame:
    """event_id, user_id, text_hash, is_good, day, allowed_until: bad are the lowest 40% of the scale, good the highest.

    Of ratings from 1 to 5 these are 1 and 2, and 4 and 5; 3 and what is not on the scale say nothing.
    """
    assert scale is not None
    worst, best = scale
    side = _SIDE * (best - worst)
    is_good = F.col("value").between(best - side, best)
    is_rated = F.col("event_type").isin(*RATED) & (is_good | F.col("value").between(worst, worst + side))
    return events.where(F.col("text").isNotNull() & is_rated).select(
        "event_id", "user_id", text_hash(F.col("text")).alias("text_hash"), is_good.alias("is_good"), "day", "allowed_until"
    )


def _by_fit(lessons: DataFrame, fits: Sequence[date]) -> DataFrame:
    """A row for each `fit` that may learn from a lesson: it had arrived, and its user allowed it still."""

    def holds(fit: Column) -> Column:
        return (fit >= F.col("day")) & (F.col("allowed_until").isNull() | (fit < F.col("allowed_until")))

    every = F.array(*[F.lit(fit) for fit in fits])
    return lessons.withColumn("fit", F.explode(F.filter(every, holds))).drop("day", "allowed_until")


def _counted(lessons: DataFrame) -> DataFrame:
    return lessons.groupBy("fit").agg(F.count(F.lit(1)).alias("texts"), F.count_if(~F.col("is_good")).alias("bad"))


def due_on(counts: Counts, last: int) -> list[date]:
    """The days on which a fit is made. last: texts of the fit before, 0 where there is none."""
    due = []
    for day, (texts, bad) in sorted(counts.items()):
        if texts >= max(LEAST_TEXTS, GROWTH * last) and min(bad, texts - bad) >= LEAST_RARER:
            due.append(day)
            last = texts
    return due


def _sampled(lessons: DataFrame) -> DataFrame:
    """At most `MOST_TEXTS` a fit: the first by event_id, which is a hash, so that every way to them gives the same."""
    order = Window.partitionBy("fit").orderBy("event_id").rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return lessons.withColumn("place", F.row_number().over(order)).where(F.col("place") <= MOST_TEXTS).drop("place")


def _fitted(lessons: DataFrame, known: DataFrame, counts: Counts, version: str) -> DataFrame:
    """Rows of sentiment_models, one per `fit`."""
    contract = spark_schema(TABLES[TABLE])
    joined = lessons.join(known.select(*_READ), on="text_hash", how="inner")
    return joined.groupBy("fit").applyInArrow(_fitting(counts, version, to_arrow_schema(contract)), contract)


def _fitting(counts: Counts, version: str, schema: pa.Schema) -> Callable[[pa.Table], pa.Table]:
    def fit(rows: pa.Table) -> pa.Table:
        rows = rows.take(pc.sort_indices(rows, [("event_id", "ascending")]))
        day, languages = rows["fit"][0].as_py(), Counter(rows["language"].to_pylist())
        _, user_N = np.unique(rows["user_id"].to_numpy(), return_inverse=True)
        texts = texts_of(rows["text"].to_pylist(), rows["language"].to_pylist(), rows["vector"].combine_chunks())
        learnt = learn(texts, rows["is_good"].to_numpy(), user_N)
        said = {
            "encoder": version,
            "languages": sorted(name for name, count in languages.items() if count >= LEAST_RARER),
            "texts": counts[day][0],
            "bad": counts[day][1],
            "learnt_from": len(texts),
            "users": int(user_N.max()) + 1,
            "serves": learnt is not None and learnt.serves,
            "day": day,
        }
        if learnt is not None:
            said |= {
                "weights": learnt.sentiment.weights_F.tolist(),
                "bias": learnt.sentiment.bias,
                "cut": learnt.cut,
                "strength": learnt.strength,
                "macro_f1": learnt.measured.macro_f1,
                "balanced_accuracy": learnt.measured.balanced_accuracy,
                "lexicon_macro_f1": learnt.peer.macro_f1,
                "lexicon_balanced_accuracy": learnt.peer.balanced_accuracy,
            }
        return pa.Table.from_pylist([said], schema=schema)

    return fit


def felt(fits: Sequence[Fit], version: str) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow over read texts. `fits`: of the encoder `version`, oldest first; the newest before a text's day speaks.

    Where that does not serve, or has not learnt the text's language, and of vectors of characters, the lexicon's word stands.
    """
    made_on = np.array([fit.day for fit in fits], dtype="datetime64[D]")

    def feel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            newest_N = np.searchsorted(made_on, batch["day"].to_numpy(zero_copy_only=False).astype("datetime64[D]")) - 1
            is_read = pc.and_(pc.is_valid(batch["vector"]), pc.equal(batch["encoder"], version))
            for number in np.unique(newest_N[newest_N >= 0]):
                fit = fits[number]
                is_known = pc.is_in(batch["language"], pa.array(fit.languages, pa.string()))
                is_asked = pc.and_(pc.and_(is_read, is_known), pa.array(newest_N == number))
                columns |= _said(batch.filter(is_asked), is_asked, fit, columns)
            yield pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)

    return feel


def _said(rows: pa.RecordBatch, is_asked: pa.Array, fit: Fit, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """The columns with what the fit says of the asked `rows`; none where it does not serve."""
    if fit.sentiment is None or rows.num_rows == 0:
        return {}
    texts = texts_of(rows["text"].to_pylist(), rows["language"].to_pylist(), rows["vector"])
    value_N, confidence_N = fit.sentiment.score(texts)
    said = (pa.array(value_N), pa.array(confidence_N), pa.array([f"learned@{fit.day}"] * len(texts)))
    return {name: pc.replace_with_mask(columns[name], is_asked, new) for name, new in zip(_SAID, said, strict=True)}


def texts_of(texts: Sequence[str], languages: Sequence[str], vectors: pa.Array) -> Texts:
    """vectors: lists, none of them null. What the lexicon says: its value, and whether it has one."""
    flat = pc.list_flatten(vectors).to_numpy(zero_copy_only=False).astype(np.float64)
    values = [feeling(text, spoken)[0] for text, spoken in zip(texts, languages, strict=True)]
    lexicon_NL = np.array([(value or 0.0, float(value is not None)) for value in values])
    return Texts(vectors_ND=flat.reshape(len(texts), -1), lexicon_NL=lexicon_NL)
