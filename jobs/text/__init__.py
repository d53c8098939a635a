"""text: reads each distinct text once, into a sentence vector, keywords and sentiment; says which text describes which item."""

from __future__ import annotations

from pyspark.sql import functions as F

from jobs.lake.context import Context
from jobs.text.describing import describe_items, distinct_texts, item_texts, written_texts
from jobs.text.encoding import ENCODED, encoding, ngrams_version, text_semantics, unknown_texts
from models import encoder

TEXTS_WORTH_A_WORKER = 256


def run(context: Context) -> None:
    asked = context.settings.text
    settings = asked.model_copy(update={"precision": asked.precision or encoder.precision()})
    # Found before any work, so that a wrong folder does not fail in the middle of a night.
    rounded = "/bf16" if settings.precision == "bf16" else ""
    version = f"{encoder.find(settings.encoder).version}/{settings.max_tokens}{rounded}"
    items = describe_items(context.changed("items"))
    context.write("item_texts", item_texts(items))
    seen = distinct_texts(items.unionByName(written_texts(context.arrivals("events"))))
    new = unknown_texts(seen, context.before("text_semantics"), version, context.days.first).persist()
    count = new.count()
    context.note(texts_encoded=count)
    # Loading the model takes a worker seconds, as long as some hundred texts do: few texts stay together.
    parts = min(max(1, count // TEXTS_WORTH_A_WORKER), context.spark.sparkContext.defaultParallelism)
    vectors = new.repartition(parts, "text_hash").mapInArrow(encoding(settings, version), ENCODED)
    # Kept, since it is read again, and encoding is what costs here.
    semantics = text_semantics(vectors).persist()
    context.write("text_semantics", semantics)
    if count and (strange := semantics.where(F.col("encoder") == ngrams_version(version)).count()):
        context.note(texts_by_ngrams=strange)
        context.log.warning(
            "  %s of %s new texts are in words that %s does not know: their vectors are of characters only; "
            "set text.encoder to the folder of a multilingual encoder",
            f"{strange:,}", f"{count:,}", version.partition("@")[0],
        )  # fmt: skip
