"""What users allow, day by day: the newest of their statements, wherever they made it."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.contracts import PURPOSES
from conf.mapping import Events
from jobs.clean.rules import NO, YES
from jobs.clean.times import event_timestamp
from jobs.ingest.attributes import changes_of

CONSENTS = "consents"
_NONE = "none"


def stated_in_events(rows: DataFrame, feed: Events) -> DataFrame:
    """Statements that events carry: user_id, day, `stated_at`, `purposes`, `notice_version`. A blank one allows nothing.

    A statement is as old as its event: one that arrives late does not undo a newer one. None is
    younger than the day on which it arrived.
    """
    at = F.coalesce(event_timestamp(F.col("event_time"), feed), F.col("day").cast("timestamp"))
    return _statements(rows, F.least(at, _end_of_day()), _named(F.col("consent")))


def stated_in_feed(rows: DataFrame) -> DataFrame:
    """Statements of a feed of their own, each as of the end of the day on which it arrived."""
    if "purposes" in rows.columns:
        return _statements(rows, _end_of_day(), _named(F.col("purposes")))
    answers = [_answered(purpose) for purpose in PURPOSES if purpose in rows.columns]
    return _statements(rows, _end_of_day(), F.array_sort(F.array_compact(F.array(*answers))))


def check_purposes(statements: DataFrame) -> None:
    """Refuse statements that we do not understand: nobody shall be taken to have allowed or refused by a slip.

    Raises:
        ValueError: names some of the unknown purposes.
    """
    unknown = F.explode(F.filter("purposes", lambda name: ~name.isin(*PURPOSES))).alias("name")
    found = sorted(row.name for row in statements.select(unknown).distinct().limit(5).collect())
    if found:
        names = ", ".join(repr(name) for name in found)
        raise ValueError(f"consents name purposes that there are not: {names}; there are {', '.join(PURPOSES)}, and none")


def consents_by_day(statements: DataFrame, before: DataFrame, notice_versions: Sequence[str], *, dated: bool) -> DataFrame:
    """`consents` at the end of each day on which a user's changed.

    Of statements of one moment the one that allows the fewest purposes holds.

    Args:
        statements: `stated_in_events` or `stated_in_feed`, under pseudonyms.
        before: the state that this starts from.
        notice_versions: those under which a consent counts; none: any.
        dated: whether statements may arrive out of order; then the moment of the newest is kept up to date.
    """

    def counting(purposes: Column, notice: Column) -> Column:
        return F.when(notice.isin(*notice_versions), purposes).otherwise(_nothing()) if notice_versions else purposes

    purposes = counting(F.col("purposes"), F.col("notice_version"))
    days = _of_days(statements.withColumn("purposes", purposes))
    held = F.struct("purposes", "notice_version", "stated_at").alias("held")
    states = days.join(before.select("user_id", held, F.col("since").alias("held_since")), on="user_id", how="left")
    by_user = Window.partitionBy("user_id").orderBy("day")
    so_far = by_user.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    is_older = F.col("held.stated_at") > F.max("stated.stated_at").over(so_far)
    newest = F.when(F.coalesce(is_older, F.lit(False)), F.col("held")).otherwise(_plain(F.max("stated").over(so_far)))
    now = states.withColumn("newest", newest).withColumn(
        "now", counting(F.col("newest.purposes"), F.col("newest.notice_version"))
    )
    was = F.coalesce(F.lag("now").over(by_user), counting(F.col("held.purposes"), F.col("held.notice_version")), _nothing())
    begun = now.withColumn("was", was)
    since = F.map_filter(
        F.create_map(*[part for name in PURPOSES for part in (F.lit(name), _since(name, so_far))]),
        lambda _, day: day.isNotNull(),
    )
    told = ["purposes", "notice_version", *(["stated_at"] if dated else [])]
    stored = begun.withColumn("since", since).select(
        "user_id",
        "day",
        "since",
        F.col("newest.stated_at").alias("stated_at"),
        F.struct(*[(F.col("now") if name == "purposes" else F.col(f"newest.{name}")).alias(name) for name in told]).alias(
            "known"
        ),
        F.when(F.col("held").isNotNull(), F.struct(*[F.col(f"held.{name}").alias(name) for name in told])).alias("old"),
    )
    changes = changes_of(stored, "user_id", "known")
    shown = ("known.purposes", "since", "known.notice_version", "stated_at")
    return changes.select("user_id", *shown, F.lit(False).alias("gone"), F.col("day").alias("changed_on"), "day")


def _nothing() -> Column:
    return F.array().cast("array<string>")


def _of_days(statements: DataFrame) -> DataFrame:
    """Per user and day the newest statement, `stated`."""
    ordered = F.struct("stated_at", (-F.size("purposes")).alias("fewer"), "purposes", "notice_version")
    return statements.repartition("user_id").groupBy("user_id", "day").agg(F.max(ordered).alias("stated"))


def _plain(stated: Column) -> Column:
    return F.struct(*[stated[name].alias(name) for name in ("purposes", "notice_version", "stated_at")])


def _since(purpose: str, so_far: object) -> Column:
    """The day since which a purpose is allowed without a break; null where it is not."""
    is_allowed, was_allowed = F.array_contains("now", purpose), F.array_contains("was", purpose)
    began = F.last(F.when(is_allowed & ~was_allowed, F.col("day")), ignorenulls=True).over(so_far)  # type: ignore[arg-type]
    return F.when(is_allowed, F.coalesce(began, F.try_element_at("held_since", F.lit(purpose))))


def _statements(rows: DataFrame, stated_at: Column, purposes: Column) -> DataFrame:
    notice = F.col("notice_version") if "notice_version" in rows.columns else F.lit(None).cast("string")
    readable = F.col("broken").isNull() & F.col("user_id").isNotNull()
    return rows.where(readable).select(
        "user_id", "day", stated_at.alias("stated_at"), purposes.alias("purposes"), notice.alias("notice_version")
    )


def _end_of_day() -> Column:
    return F.date_add("day", 1).cast("timestamp") - F.expr("INTERVAL '0.000001' SECOND")


def _named(text: Column) -> Column:
    """`labels|training`, `labels, training` or a JSON list, sorted; blank or `none`: nothing."""
    words = F.split(F.lower(F.regexp_replace(F.coalesce(text, F.lit("")), r"[\[\]\"']", " ")), r"[\s|;,]+")
    return F.array_sort(F.array_distinct(F.filter(words, lambda word: ~word.isin("", _NONE))))


def _answered(purpose: str) -> Column:
    """The purpose's name where its column says yes, null where it says no or nothing; else what it says, which is unknown."""
    answer = F.lower(F.trim(F.col(purpose)))
    said = F.concat(F.lit(f"{purpose}="), F.col(purpose))
    return F.when(answer.isin(*YES), F.lit(purpose)).when(answer.isNotNull() & ~answer.isin(*NO, ""), said)
