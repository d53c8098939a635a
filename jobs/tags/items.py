"""An item's tags, day by day: its own (what is declared, keywords and topic of its text), and what follows by relations.

What says that an item carries a tag is a claim: `item_id, day, until, tag, weight, source`, holding from the end of `day`
to before `until` (null: to this day). An item's tags are looked at on the days on which a claim of it may begin or end,
and are written where they are not what they were.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.clean.wording import single_spaced
from jobs.ingest.attributes import changes_of
from jobs.lake.store import Days
from jobs.text.describing import item_text, text_hash

KEPT = 64
LONGEST = 100
TEXT_WEIGHT = 0.5
BRAND, CATEGORY, DECLARED, KEYWORD, RELATION, TOPIC = "brand", "category", "tag", "keyword", "relation", "topic"
_KNOWN = "array<struct<tag:string,weight:double,sources:array<string>>>"
_WORDS = "array<string>"


def tag_of(words: Column) -> Column:
    """The one form of a tag: lower case, single spaces, cut to `LONGEST` characters; null for null."""
    return F.trim(F.substring(F.lower(single_spaced(words)), 1, LONGEST))


def in_force(changed: DataFrame, before: DataFrame | None, owner: str) -> DataFrame:
    """`changed` rows of a state, and those `before` them, with `until`: the day on which the owner's next ones follow; or null.

    One row per owner and day, or several that are alike in both.
    """
    rows = changed if before is None else changed.unionByName(before.select(*changed.columns))
    # Of several rows of an owner on a day each must find the next day, not each other.
    later = Window.partitionBy(owner).orderBy(F.unix_date("day")).rangeBetween(1, Window.unboundedFollowing)
    return rows.repartition(owner).withColumn("until", F.min("day").over(later))


def own_claims(items: DataFrame, semantics: DataFrame) -> DataFrame:
    """Claims of the items themselves. `items`: `in_force`; `semantics`: the state of text_semantics."""
    text = item_text(F.col("title"), F.col("category"), F.col("description"))
    read = semantics.select(F.col("text_hash").alias("_hash"), "keywords", "topic")
    texts = items.where(~F.col("gone")).withColumn("_hash", text_hash(text)).join(read, on="_hash", how="left")
    given = {
        (CATEGORY, 1.0): F.array("category"),
        (BRAND, 1.0): F.array("brand"),
        (DECLARED, 1.0): F.slice("tags", 1, KEPT),
        (KEYWORD, TEXT_WEIGHT): F.col("keywords"),
        (TOPIC, TEXT_WEIGHT): F.array("topic"),
    }
    words = [
        F.transform(F.coalesce(said, F.array().cast(_WORDS)), _claim(source, weight))
        for (source, weight), said in given.items()
    ]
    claims = texts.select("item_id", "day", "until", F.inline(F.concat(*words)))
    return _worded(claims)


def _claim(source: str, weight: float):  # type: ignore[no-untyped-def]
    return lambda word: F.struct(tag_of(word).alias("tag"), F.lit(weight).alias("weight"), F.lit(source).alias("source"))


def _worded(claims: DataFrame) -> DataFrame:
    return claims.where(F.col("tag") != "").select("item_id", "day", "until", "tag", "weight", "source")


def followed_claims(items: DataFrame, own: DataFrame, relations: DataFrame) -> DataFrame:
    """Claims by relations of the item, and of the tags that it carries itself: one step, no relation follows on another.

    Args:
        items, relations: `in_force`.
        own: `own_claims`.
    """
    itself = _subject("item", F.col("item_id")).alias("subject")
    of_items = items.where(~F.col("gone")).select("item_id", "day", "until", itself, F.lit(1.0).alias("share"))
    # A tag that several say is carried once, as far as the most of them say.
    of_tags = own.groupBy("item_id", "day", "until", _subject("tag", F.col("tag")).alias("subject"))
    carried = of_items.unionByName(of_tags.agg(F.max("weight").alias("share")))
    meant = F.array(_subject("item", F.col("subject")), _subject("tag", tag_of(F.col("subject"))))
    told = relations.where(~F.col("gone")).select(
        F.explode(meant).alias("_subject"),
        F.col("day").alias("_day"),
        F.col("until").alias("_until"),
        "object",
        F.col("weight").alias("_weight"),
    )
    meets = (F.col("subject") == F.col("_subject")) & overlap(*map(F.col, ("day", "until", "_day", "_until")))
    found = carried.join(told, on=meets, how="inner")
    return _worded(
        found.select(
            "item_id",
            F.greatest("day", "_day").alias("day"),
            F.least("until", "_until").alias("until"),
            tag_of(F.col("object")).alias("tag"),
            (F.col("share") * F.col("_weight")).alias("weight"),
            F.lit(RELATION).alias("source"),
        )
    )


def _subject(kind: str, name: Column) -> Column:
    """An item may be called as a tag is."""
    return F.concat(F.lit(f"{kind} "), name)


def holds(day: Column, until: Column, on: Column) -> Column:
    """Whether what holds from the end of `day` to before `until` holds at the end of the day `on`."""
    return (day <= on) & (until.isNull() | (on < until))


def overlap(day: Column, until: Column, other_day: Column, other_until: Column) -> Column:
    """Whether two such spans share a day."""
    return (other_until.isNull() | (day < other_until)) & (until.isNull() | (other_day < until))


def item_tags(items: DataFrame, claims: DataFrame, before: DataFrame, days: Days) -> DataFrame:
    """Rows of `item_tags` for each day of the run on which an item's tags changed.

    Args:
        items: `in_force`: each day on which an item itself changed is looked at.
        claims: of whatever sources.
        before: the state that this starts from.
    """
    given = claims.unionByName(items.select("item_id", "day"), allowMissingColumns=True).repartition("item_id")
    one = F.struct(F.col("day").alias("since"), "until", "tag", "weight", "source")
    of_item = given.groupBy("item_id").agg(
        F.array_union(F.collect_set("day"), F.collect_set("until")).alias("days"),
        F.collect_list(F.when(F.col("tag").isNotNull(), one)).alias("claims"),
    )
    looked_at = of_item.select("item_id", F.explode("days").alias("day"), "claims")
    looked_at = looked_at.where(F.col("day").between(F.lit(days.first), F.lit(days.last)))
    held = F.filter("claims", lambda one: holds(one["since"], one["until"], F.col("day")))
    known = _heaviest(looked_at.select("item_id", "day", F.inline_outer(held)))
    old = before.groupBy("item_id").agg(F.array_sort(F.collect_list(F.struct("tag", "weight", "sources"))).alias("old"))
    states = known.join(old, on="item_id", how="left")
    nothing = F.array().cast(_KNOWN)
    # An item that never had a tag has lost none.
    changes = changes_of(states.withColumn("old", F.coalesce("old", nothing)), "item_id", "known")
    return changes.select("item_id", "day", F.inline_outer("known")).select(
        "item_id",
        F.coalesce("tag", F.lit("")).alias("tag"),
        F.coalesce("weight", F.lit(0.0)).alias("weight"),
        F.coalesce("sources", F.array().cast(_WORDS)).alias("sources"),
        F.col("tag").isNull().alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


def _heaviest(held: DataFrame) -> DataFrame:
    """Per item and day its tags, at most `KEPT`, in order of the tag: the item's own before others, the heavier first."""
    tags = held.groupBy("item_id", "day", "tag").agg(
        F.max("weight").alias("weight"),
        F.array_sort(F.collect_set("source")).alias("sources"),
        F.bool_and(F.col("source") == RELATION).alias("follows"),
    )
    rank = F.struct("follows", (-F.col("weight")).alias("light"), "tag", "sources")
    ranked = F.array_sort(F.collect_list(F.when(F.col("tag").isNotNull(), rank)))
    kept = F.transform(
        F.slice(ranked, 1, KEPT),
        lambda one: F.struct(one["tag"].alias("tag"), (-one["light"]).alias("weight"), one["sources"].alias("sources")),
    )
    return tags.groupBy("item_id", "day").agg(F.array_sort(kept).alias("known"))
