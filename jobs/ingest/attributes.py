"""What is known of items and users, day by day: the newest row of their feed, and what events say of items."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

_PAIRS = "array<struct<key:string,value:string>>"
# What an item's row in the feed replaces; its category is kept where the new row has none.
_REPLACED = ("title", "description", "brand", "price", "latitude", "longitude", "tags", "attributes")


def item_rows(rows: DataFrame) -> DataFrame:
    """One row per item and day out of its feed: item_id, day, `declared` (a struct of the item's columns).

    Several rows of one item on one day: the greatest by content, as files have no order.
    """

    def given(name: str) -> Column:
        return F.col(name) if name in rows.columns else F.lit(None).cast("string")

    latitude, longitude = given("latitude").try_cast("double"), given("longitude").try_cast("double")
    on_the_globe = latitude.between(-90, 90) & longitude.between(-180, 180)
    declared = F.struct(
        given("title").alias("title"),
        given("description").alias("description"),
        given("category").alias("category"),
        given("brand").alias("brand"),
        given("price").try_cast("double").alias("price"),
        F.when(on_the_globe, latitude).alias("latitude"),
        F.when(on_the_globe, longitude).alias("longitude"),
        _tags(given("tags")).alias("tags"),
        _pairs_of(rows).alias("attributes"),
    )
    readable = F.col("broken").isNull() & F.col("item_id").isNotNull()
    return rows.where(readable).groupBy("item_id", "day").agg(F.max(declared).alias("declared"))


def _pairs_of(rows: DataFrame) -> Column:
    return F.col("attributes") if "attributes" in rows.columns else F.array().cast(_PAIRS)


def _tags(text: Column) -> Column:
    """`a|b`, `a;b`, `a, b` or a JSON list, as distinct tags in the order given; null where there are none."""
    from_list = F.when(F.trim(text).startswith("["), F.from_json(text, "array<string>"))
    parts = F.transform(F.coalesce(from_list, F.split(text, "[|;,]")), lambda tag: F.regexp_replace(tag, r"^\s+|\s+$", ""))
    tags = F.array_distinct(F.filter(parts, lambda tag: tag.isNotNull() & (tag != "")))
    return F.when(F.size(tags) > 0, tags)


def item_events(raw_events: DataFrame) -> DataFrame:
    """One row per item and day out of the log itself: item_id, day, `mentioned` (the category its first event names)."""
    named = F.when(F.col("category").isNotNull(), F.struct("event_time", "category"))
    return (
        raw_events.where(F.col("item_id").isNotNull())
        .groupBy("item_id", "day")
        .agg(F.min(named)["category"].alias("mentioned"))
    )


def items_by_day(declared: DataFrame, mentioned: DataFrame, before: DataFrame) -> DataFrame:
    """Every item's state at the end of each day on which it changed.

    A feed row replaces what is known, but a category, once known, is only replaced by another;
    events give a category to an item that has none. `before` is the state that this starts from.
    """
    by_item = Window.partitionBy("item_id").orderBy("day")
    so_far = by_item.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    old = F.struct(*[_stored(before, name) for name in (*_REPLACED, "category")])
    days = declared.join(mentioned, on=["item_id", "day"], how="full").join(
        before.select("item_id", old.alias("old")), on="item_id", how="left"
    )
    newest = F.coalesce(
        F.last(
            F.when(F.col("declared").isNotNull(), F.struct(*[F.col(f"declared.{name}") for name in _REPLACED])),
            ignorenulls=True,
        ).over(so_far),
        F.when(F.col("old").isNotNull(), F.struct(*[F.col(f"old.{name}") for name in _REPLACED])),
    )
    category = F.coalesce(
        F.last(F.col("declared.category"), ignorenulls=True).over(so_far),
        F.col("old.category"),
        F.first(F.col("mentioned"), ignorenulls=True).over(so_far),
    )
    states = days.select("item_id", "day", "old", newest.alias("newest"), category.alias("category"))
    nothing = F.struct(*[F.lit(None).cast(kind).alias(name) for name, kind in _TYPES.items()])
    content = F.struct(F.coalesce("newest", nothing).alias("newest"), F.col("category"))
    states = states.select("item_id", "day", "old", content.alias("content"))
    before_it = F.when(
        F.col("old").isNotNull(),
        F.struct(
            F.struct(*[F.col(f"old.{name}") for name in _REPLACED]).alias("newest"), F.col("old.category").alias("category")
        ),
    )
    previous = F.coalesce(F.lag("content").over(by_item), before_it)
    changed = previous.isNull() | ~F.col("content").eqNullSafe(previous)
    kept = states.withColumn("_changed", changed).where("_changed")
    shown = {name: F.col(f"content.newest.{name}") for name in _REPLACED}
    return kept.select(
        "item_id",
        shown["title"].alias("title"),
        shown["description"].alias("description"),
        F.col("content.category").alias("category"),
        shown["brand"].alias("brand"),
        shown["price"].alias("price"),
        shown["latitude"].alias("latitude"),
        shown["longitude"].alias("longitude"),
        shown["tags"].alias("tags"),
        F.map_from_entries(shown["attributes"]).alias("attributes"),
        F.lit(False).alias("gone"),
        F.col("day").alias("changed_on"),
        "day",
    )


_TYPES = {
    "title": "string", "description": "string", "brand": "string", "price": "double", "latitude": "double",
    "longitude": "double", "tags": "array<string>", "attributes": _PAIRS,
}  # fmt: skip


def _stored(before: DataFrame, name: str) -> Column:
    """Maps cannot be compared: their pairs, sorted, can."""
    if name == "attributes":
        return F.array_sort(F.map_entries("attributes")).cast(_PAIRS).alias(name)
    return before[name].alias(name)


def users_by_day(rows: DataFrame, before: DataFrame) -> DataFrame:
    """Every user's declared attributes at the end of each day on which they changed.

    `rows`: user_id (a pseudonym), `attributes` (sorted pairs), `broken`, `day`.
    """
    by_user = Window.partitionBy("user_id").orderBy("day")
    readable = F.col("broken").isNull() & F.col("user_id").isNotNull()
    days = rows.where(readable).groupBy("user_id", "day").agg(F.max(_pairs_of(rows)).alias("content"))
    old = before.select("user_id", F.array_sort(F.map_entries("attributes")).cast(_PAIRS).alias("old"))
    states = days.join(old, on="user_id", how="left")
    previous = F.coalesce(F.lag("content").over(by_user), F.col("old"))
    changed = previous.isNull() | ~F.col("content").eqNullSafe(previous)
    return (
        states.withColumn("_changed", changed)
        .where("_changed")
        .select(
            "user_id",
            F.map_from_entries("content").alias("attributes"),
            F.lit(False).alias("gone"),
            F.col("day").alias("changed_on"),
            "day",
        )
    )
