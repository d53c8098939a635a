"""What is known of items and users, day by day: the newest row of their feed, and what events say of items."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.clean.wording import single_spaced

# Maps cannot be compared, but sorted pairs can; they become a map when they are stored.
_PAIRS = "array<struct<key:string,value:string>>"
_KNOWN = ("title", "description", "category", "brand", "price", "latitude", "longitude", "tags", "attributes")
_MENTIONED = "struct<event_time:string,category:string>"


def declared_items(rows: DataFrame) -> DataFrame:
    """The readable rows of the items' feed: item_id, day, `declared` (a struct of what is known of an item)."""

    def given(name: str) -> Column:
        return F.col(name) if name in rows.columns else F.lit(None).cast("string")

    latitude, longitude = given("latitude").try_cast("double"), given("longitude").try_cast("double")
    on_the_globe = latitude.between(-90, 90) & longitude.between(-180, 180)
    pairs = _pairs_of(rows)
    parsed = {name: single_spaced(given(name)) for name in ("title", "description", "category", "brand")}
    parsed |= {
        "price": given("price").try_cast("double"),
        "latitude": F.when(on_the_globe, latitude),
        "longitude": F.when(on_the_globe, longitude),
        "tags": _tags(given("tags")),
        "attributes": F.when(F.size(pairs) > 0, pairs),
    }
    declared = F.struct(*[parsed.get(name, given(name)).alias(name) for name in _KNOWN])
    readable = F.col("broken").isNull() & F.col("item_id").isNotNull()
    return rows.where(readable).select("item_id", "day", declared.alias("declared"))


def mentioned_items(raw_events: DataFrame) -> DataFrame:
    """What the log itself says of items: item_id, day, `mentioned` (a category and when; null where it has none)."""
    category = single_spaced(F.col("category"))
    named = F.when(category.isNotNull(), F.struct("event_time", category.alias("category"))).cast(_MENTIONED)
    return raw_events.where(F.col("item_id").isNotNull()).select("item_id", "day", named.alias("mentioned"))


def items_by_day(declared: DataFrame | None, mentioned: DataFrame, before: DataFrame) -> DataFrame:
    """Every item's state at the end of each day on which it changed.

    A row of the feed replaces what is known, but a category, once known, is only replaced by
    another. Events give a category to an item that has none: the first they name. Several feed
    rows of one item on one day: the greatest by content, as files have no order. `before` is the
    state that this starts from.
    """
    rows = mentioned
    if declared is not None:
        rows = declared.unionByName(mentioned, allowMissingColumns=True)
    best = F.max("declared") if declared is not None else F.lit(None).cast(_known_type(before))
    # One shuffle for all that follows: the days of an item, its state before, its order in time.
    days = (
        rows.repartition("item_id").groupBy("item_id", "day").agg(best.alias("declared"), F.min("mentioned").alias("mentioned"))
    )
    states = days.join(_known(before), on="item_id", how="left")
    by_item = Window.partitionBy("item_id").orderBy("day")
    so_far = by_item.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    newest = F.coalesce(F.last("declared", ignorenulls=True).over(so_far), F.col("old"))
    category = F.coalesce(
        F.last("declared.category", ignorenulls=True).over(so_far),
        F.col("old.category"),
        F.first("mentioned.category", ignorenulls=True).over(so_far),
    )
    read = states.select("item_id", "day", "old", newest.alias("newest"), category.alias("category"))
    known = F.struct(*[F.col("category" if name == "category" else f"newest.{name}").alias(name) for name in _KNOWN])
    changes = changes_of(read.withColumn("known", known), "item_id", "known")
    shown = {name: F.col(f"known.{name}").alias(name) for name in _KNOWN}
    shown["attributes"] = F.map_from_entries("known.attributes").alias("attributes")
    return changes.select("item_id", *shown.values(), F.lit(False).alias("gone"), F.col("day").alias("changed_on"), "day")


def users_by_day(rows: DataFrame, before: DataFrame) -> DataFrame:
    """Every user's declared attributes at the end of each day on which they changed.

    `rows`: user_id (a pseudonym), `attributes` (sorted pairs, where the mapping has any), `broken`, `day`.
    """
    readable = F.col("broken").isNull() & F.col("user_id").isNotNull()
    pairs = _pairs_of(rows).alias("known")
    days = rows.where(readable).select("user_id", "day", pairs).repartition("user_id")
    old = before.select("user_id", _sorted_pairs("attributes").alias("old"))
    states = days.groupBy("user_id", "day").agg(F.max("known").alias("known")).join(old, on="user_id", how="left")
    attributes = F.map_from_entries("known").alias("attributes")
    changes = changes_of(states, "user_id", "known")
    return changes.select("user_id", attributes, F.lit(False).alias("gone"), F.col("day").alias("changed_on"), "day")


def changes_of(states: DataFrame, owner: str, known: str) -> DataFrame:
    """The days on which `known` is not what it was the day before, or `old` before the first (`_previous`)."""
    by_owner = Window.partitionBy(owner).orderBy("day")
    previous = F.coalesce(F.lag(known).over(by_owner), F.col("old"))
    is_change = previous.isNull() | ~F.col(known).eqNullSafe(previous)
    return states.withColumns({"_previous": previous, "_is_change": is_change}).where("_is_change")


def _known(before: DataFrame) -> DataFrame:
    stored = {name: F.col(name) for name in _KNOWN} | {"attributes": _sorted_pairs("attributes")}
    return before.select("item_id", F.struct(*[value.alias(name) for name, value in stored.items()]).alias("old"))


def _known_type(before: DataFrame) -> str:
    return _known(before).schema["old"].dataType.simpleString()


def _sorted_pairs(attributes: str) -> Column:
    return F.array_sort(F.map_entries(attributes)).cast(_PAIRS)


def _pairs_of(rows: DataFrame) -> Column:
    return (F.col("attributes") if "attributes" in rows.columns else F.array()).cast(_PAIRS)


def _tags(text: Column) -> Column:
    """`a|b`, `a;b`, `a, b` or a JSON list, as distinct tags in the order given; null where there are none."""
    from_list = F.when(F.trim(text).startswith("["), F.from_json(text, "array<string>"))
    parts = F.coalesce(from_list, F.split(text, "[|;,]"))
    trimmed = F.transform(parts, lambda tag: F.regexp_replace(tag, r"^\s+|\s+$", ""))
    tags = F.array_distinct(F.filter(trimmed, lambda tag: tag != ""))
    return F.when(F.size(tags) > 0, tags)
