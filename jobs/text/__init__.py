"""text: reads each distinct text once (sentence vector, keywords, sentiment, topic); says which text describes which item."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake.context import Context
from jobs.lake.store import keyframe_before
from jobs.text.describing import describe_items, distinct_texts, item_texts, written_texts
from jobs.text.encoding import ENCODED, encoding, ngrams_version, text_semantics, unknown_texts
from jobs.text.mentions import own_names, text_mentions
from jobs.text.names import item_names
from jobs.text.sentiment import with_learnt_sentiment
from jobs.text.topics import TOLD, Fit, fits_of, newest_fits, telling, text_topics
from models import encoder

TEXTS_WORTH_A_WORKER = 256


def run(context: Context) -> None:
    asked = context.settings.text
    settings = asked.model_copy(update={"precision": asked.precision or encoder.precision()})
    # Found before any work, so that a wrong folder does not fail in the middle of a night.
    rounded = "" if settings.precision == "fp32" else f"/{settings.precision}"
    version = f"{encoder.find(settings.encoder).version}/{settings.max_tokens}{rounded}"
    items = describe_items(context.changed("items"))
    context.write("item_texts", item_texts(items))
    seen = distinct_texts(items.unionByName(written_texts(context.arrivals("events"))))
    new = unknown_texts(seen, context.before("text_semantics"), version, context.days.first).persist()
    count = new.count()
    context.note(texts_encoded=count)
    # Loading the model takes a worker seconds, as long as some hundred texts do: few texts stay together.
    parts = min(max(1, count // TEXTS_WORTH_A_WORKER), context.spark.sparkContext.defaultParallelism)
    # Kept, since they are read again, and encoding is what costs here.
    vectors = new.drop("again").repartition(parts, "text_hash").mapInArrow(encoding(settings, version), ENCODED).persist()
    felt = with_learnt_sentiment(context, vectors, version)
    told = felt.mapInArrow(telling(_topics(context, vectors, version)), f"{ENCODED}, {TOLD}")
    context.write("text_semantics", text_semantics(told))
    _write_mentions(context, new.where(~F.col("again")), count)
    if count and (strange := vectors.where(F.col("encoder") == ngrams_version(version)).count()):
        context.note(texts_by_ngrams=strange)
        context.log.warning(
            "  %s of %s new texts are in words that %s does not know: their vectors are of characters only; "
            "set text.encoder to the folder of a multilingual encoder",
            f"{strange:,}", f"{count:,}", version.partition("@")[0],
        )  # fmt: skip


def _topics(context: Context, vectors: DataFrame, version: str) -> list[Fit]:
    """The topics that the run's texts are told by: of the newest fit before it, and of those that are due within it.

    A fit is made on the first day and on the first of a month, of what describes items at the end of that day, and holds
    from that day on, its own texts included: else no item of a catalogue that is there from the start had a topic. With
    another encoder, which reads all texts again, it is made anew.
    """
    encoders = (version, ngrams_version(version))
    known = fits_of(newest_fits(context.before("text_topics")).collect())
    due = context.fit_days()
    if known and not any(fit.encoder in encoders for fit in known):
        due = due or [context.days.last]
    if not due:
        context.clear("text_topics")
        return known
    if context.bootstrap:
        described = context.arrivals("item_texts").where(F.col("day").isin(due) & ~F.col("gone"))
    else:
        described = context.state("item_texts").withColumn("day", F.lit(context.days.last))
    read = ("text_hash", "vector", "encoder", "keywords")
    earlier = context.before("text_semantics").where(F.col("encoder").isin(*encoders)).select(*read)
    made = text_topics(described.select("day", "text_hash"), earlier.unionByName(vectors.select(*read)))
    context.write("text_topics", made)
    return known + fits_of(context.arrivals("text_topics").collect())


def _write_mentions(context: Context, fresh: DataFrame, count: int) -> None:
    """What new texts name, by the catalogue's names as of the month's first day, or the first of all."""
    before, due = context.before("item_names", lookback_days=31), context.fit_days()
    if due:
        context.write("item_names", item_names(context.arrivals("items").where(F.col("day").isin(due) & ~F.col("gone"))))
        before = before.unionByName(context.arrivals("item_names"))
    fit = F.greatest(F.trunc("day", "month"), F.lit(context.first_day))
    names = before.where(F.col("day") >= F.lit(keyframe_before(context.days.first, context.first_day)))
    own = own_names(context.changed("items"))
    each = count // max(1, len(due))
    context.write("text_mentions", text_mentions(fresh.withColumn("fit", fit), names, own, each))
