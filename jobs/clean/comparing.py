"""What only other rows can tell of a row: exact and near duplicates, impossible speed, bots.

A verdict uses what had arrived by the row's arrival day, whatever became of it, so that it never has to be revised.
A row that arrived on its own date is compared with those that did so too; one that came late (or has no date) with all
rows of its dates that arrived before it or with it. Both are put into order by one pass: `view` is null for the first
kind, for the second the day on which the late rows came.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from conf.settings import Clean
from jobs.spatial.sphere import EARTH_RADIUS_M

_MICROS = 1_000_000
_NO_DATE = "0001-01-01"
PAIR_RULES = ("near_duplicate", "impossible_speed")
BOT_RULES = ("bot_rate", "bot_regularity", "bot_breadth")


def thin(judged: DataFrame, clean: Clean, *, has_times: bool) -> DataFrame:
    """What comparisons need of rows, as few bytes as can be: they are sorted twice.

    judged: `rules.parsed` rows with `reasons`. Users and items are compared by a 64-bit hash: among ten million
    users two share one with a chance of 3 in a million, and then only see each other's rows here.
    """
    date = F.col("event_date") if has_times else F.col("day")
    # What was looked up for an address may be in the next town.
    is_near = F.coalesce(F.col("position_precision_m"), F.lit(0.0)) <= clean.min_jump_m
    latitude, longitude = F.radians(F.when(is_near, F.col("latitude_"))), F.radians("longitude_")
    window = F.lit(clean.near_duplicate_s)
    for event_type, seconds in clean.near_duplicate_s_by_type.items():
        window = F.when(F.col("event_type") == event_type, F.lit(seconds)).otherwise(window)
    return judged.select(
        owner(),
        F.xxhash64("item_id", "event_type", F.to_json("flags")).alias("pair"),
        F.unix_micros("timestamp").alias("at"),
        F.coalesce(date, F.lit(_NO_DATE).cast("date")).alias("date"),
        "day",
        "row_hash",
        F.when(F.size("reasons") > 0, F.col("reasons")).alias("own"),
        (window * _MICROS).cast("bigint").alias("window"),
        (F.cos(latitude) * F.cos(longitude)).alias("x"),
        (F.cos(latitude) * F.sin(longitude)).alias("y"),
        F.sin(latitude).alias("z"),
    )


def owner() -> Column:
    """Whose row it is; a row without a user is alone with its equals."""
    return F.xxhash64(F.coalesce("user_id", "row_hash")).alias("owner")


def views(arrived: DataFrame, earlier: DataFrame, first_day: date, lookback_days: int) -> DataFrame:
    """`arrived` (judged) and what each of its rows is compared with; all are `thin` rows.

    earlier: rows that arrived in the `lookback_days` before `first_day`; of those on time only the day before can be near.
    """
    # Read for each of the three: what is on time, what is late, what late rows are compared with.
    arrived = arrived.persist()
    is_on_time = F.col("date") == F.col("day")
    nobody = F.lit(None).cast("date").alias("view")
    on_time = arrived.where(is_on_time).select("*", nobody, F.lit(True).alias("judged"))
    yesterday = is_on_time & (F.col("day") >= F.lit(first_day - timedelta(days=1)))
    before = earlier.where(yesterday).select("*", nobody, F.lit(False).alias("judged"))
    late = arrived.where(~is_on_time)
    around = F.when(F.col("date") > F.lit(_NO_DATE), F.array(*[F.date_add("date", n) for n in (-1, 0, 1)]))
    dates = F.explode(F.coalesce(around, F.array("date"))).alias("date")
    touched = late.select("owner", F.col("day").alias("view"), dates).distinct()
    had_arrived = (F.col("day") < F.col("view")) | ((F.col("day") == F.col("view")) & is_on_time)
    context = (
        arrived.unionByName(earlier)
        .join(touched, on=["owner", "date"], how="inner")
        .where(had_arrived & (F.col("day") >= F.date_sub("view", lookback_days)))
        .withColumn("judged", F.lit(False))
    )
    judged = late.select("*", F.col("day").alias("view"), F.lit(True).alias("judged"))
    return reduce(DataFrame.unionByName, [on_time, before, judged, context])


def compared(rows: DataFrame, clean: Clean, *, has_times: bool, has_places: bool) -> DataFrame:
    """Verdicts on the judged rows of `views`, per owner and day on which anything is wrong: owner, day, rows, bot.

    `rows`: structs of row_hash, reasons (null: none), is_duplicate, of_context. `bot`: reasons why the owner is one.
    """
    copies = _with_copies(rows, clean, has_times)
    moves = _with_moves(copies, clean, has_places) if has_times else _without_moves(copies)
    pairwise = [F.when(F.col(rule), F.lit(rule)) for rule in PAIR_RULES if rule not in clean.disabled]
    reasons = F.array_compact(F.concat(F.coalesce("own", F.array().cast("array<string>")), F.array(*pairwise)))
    kept = F.when(~F.col("is_duplicate") & (F.size(reasons) > 0), reasons).alias("reasons")
    row = F.struct("row_hash", kept, "is_duplicate", "of_context")
    is_notable = F.col("is_duplicate") | row["reasons"].isNotNull()
    by_owner = moves.where("judged").groupBy("owner", "day")
    found = by_owner.agg(F.collect_list(F.when(is_notable, row)).alias("rows"), _bot(clean, has_times).alias("bot"))
    return found.where((F.size("rows") > 0) | (F.size("bot") > 0))


def rows_of(found: DataFrame) -> DataFrame:
    """Of `compared`: day, row_hash, reasons, duplicates (copies too many), survives (whether one copy is left)."""
    return (
        found.select("day", F.inline("rows"))
        .groupBy("day", "row_hash")
        .agg(
            F.first("reasons", ignorenulls=True).alias("reasons"),
            F.count_if("is_duplicate").alias("duplicates"),
            (~F.bool_or(F.col("is_duplicate") & F.col("of_context"))).alias("survives"),
        )
    )


def bots_of(found: DataFrame) -> DataFrame:
    """Of `compared`: owner, day, reasons of those who are bots on the day."""
    return found.where(F.size("bot") > 0).select("owner", "day", F.col("bot").alias("reasons"))


def _with_copies(rows: DataFrame, clean: Clean, has_times: bool) -> DataFrame:
    """With `is_duplicate`, `of_context` (what it repeats had arrived before), `near_duplicate`, `is_new_pair`.

    Near: the row before it by the same user on the same item, of the same type, is within the window; or the one after
    it is, and had arrived earlier. Equal rows cannot be told apart, so any one of them stays.
    """
    order = Window.partitionBy("owner", "view", "pair").orderBy("at", "row_hash", "judged")
    before = F.lag(F.struct("row_hash", "at", "day", "judged")).over(order)
    after = F.lead(F.struct("at", "judged")).over(order)
    near = F.lit(has_times) & (
        F.coalesce(F.col("at") - F.col("before.at") <= F.col("window"), F.lit(False))
        | F.coalesce((F.col("after.at") - F.col("at") <= F.col("window")) & ~F.col("after.judged"), F.lit(False))
    )
    # The item is new to the user's day; a count of these is the day's breadth.
    is_known = F.coalesce((F.col("before.day") == F.col("day")) & F.col("before.judged"), F.lit(False))
    return (
        rows.withColumns({"before": before, "after": after})
        .withColumn("is_duplicate", F.col("row_hash").eqNullSafe(F.col("before.row_hash")))
        .withColumns(
            {
                "of_context": F.col("is_duplicate") & ~F.col("before.judged"),
                "near_duplicate": near & ~F.col("is_duplicate"),
                "is_new_pair": ~is_known,
            }
        )
        .drop("before", "after", "pair", "window")
    )


def _without_moves(rows: DataFrame) -> DataFrame:
    return rows.withColumns({name: F.lit(False) for name in ("impossible_speed", "is_burst", "is_even", "is_paired")})


def _with_moves(rows: DataFrame, clean: Clean, has_places: bool) -> DataFrame:
    """With `impossible_speed`, `is_burst`, `is_even` and `is_paired`, from the user's rows in order of time.

    A time at midnight to the microsecond is a date, and says nothing of speed or pace.
    """
    is_timed = F.coalesce(F.col("at") % (86_400 * _MICROS) != 0, F.lit(False))
    order = Window.partitionBy("owner", "view", "is_duplicate", "is_timed").orderBy("at", "row_hash", "judged")
    here = F.struct("at", "date", "day", *(("x", "y", "z") if has_places else ()))
    near = {f"before{n}": F.lag(here, n).over(order) for n in ((1, 2, 3) if has_places else (1, 2))}
    near |= {f"after{n}": F.lead(here, n).over(order) for n in ((1, 2, 3) if has_places else ())}
    # In a view all had arrived; in the other order a later day's row had not.
    known_by = F.coalesce("view", "day")
    seen = {
        name: F.when(
            (F.col(f"{name}.day") <= known_by) & (F.abs(F.date_diff(F.col(f"{name}.date"), F.col("date"))) <= 1), F.col(name)
        )
        for name in near
    }
    nth = F.lag("at", clean.bot_events_per_minute).over(order)
    ordered = rows.withColumn("is_timed", is_timed).withColumns({**near, "_nth": nth}).withColumns({**seen, "own_at": here})
    gap, gap_before = F.col("at") - F.col("before1.at"), F.col("before1.at") - F.col("before2.at")
    is_paired = F.coalesce(F.col("is_timed") & (gap_before > 0), F.lit(False))
    is_even = is_paired & (F.abs(gap - gap_before) <= clean.bot_even_tolerance * gap_before)
    is_burst = F.coalesce(F.col("is_timed") & (F.col("at") - F.col("_nth") <= 60 * _MICROS), F.lit(False))
    speed = F.coalesce(F.col("is_timed") & _is_culprit(clean), F.lit(False)) if has_places else F.lit(False)
    made = {"impossible_speed": speed, "is_burst": is_burst, "is_even": is_even, "is_paired": is_paired}
    return ordered.withColumns(made).drop(*near, "_nth", "own_at", "is_timed")


def _is_culprit(clean: Clean) -> Column:
    """No way leads from the row before, or to the row after, in that time; and of the two it is this one that is off.

    Of two rows that cannot both be true the one is off that lies farther from most of up to four rows around them.
    Without any other row, or with as many for one as for the other, neither is blamed. In SQL, as a tree of so many
    columns takes longer to put together than a small night to judge.
    """
    since = (
        f"{_is_impossible('before1', 'own_at', clean)} AND {_votes('before1', ('before3', 'before2', 'after1', 'after2'))} > 0"
    )
    until = (
        f"{_is_impossible('own_at', 'after1', clean)} AND {_votes('after1', ('before2', 'before1', 'after2', 'after3'))} > 0"
    )
    return F.expr(f"coalesce({since}, false) OR coalesce({until}, false)")


def _is_impossible(one: str, other: str, clean: Clean) -> str:
    """Distances are compared as squared chords of the unit sphere; unknown positions are null."""
    seconds = f"(({other}.at - {one}.at) / {_MICROS} + {clean.time_slack_s}D)"
    reach_m = f"greatest({clean.min_jump_m}D, {clean.max_speed_m_s}D * {seconds})"
    return f"{_squared_chord(one, other)} > pow(2 * sin(least({reach_m} / {2 * EARTH_RADIUS_M}D, pi() / 2)), 2)"


def _votes(other: str, thirds: tuple[str, ...]) -> str:
    """How many more of `thirds` lie nearer to `other` than to the row itself."""
    return " + ".join(
        f"coalesce(signum({_squared_chord(third, 'own_at')} - {_squared_chord(third, other)}), 0)" for third in thirds
    )


def _squared_chord(one: str, other: str) -> str:
    return "(" + " + ".join(f"({one}.{axis} - {other}.{axis}) * ({one}.{axis} - {other}.{axis})" for axis in "xyz") + ")"


def _bot(clean: Clean, has_times: bool) -> Column:
    """Why the rows of a user's day are no person's, from all of them but exact duplicates.

    bot_rate: so many within some minute; bot_regularity: gaps that are equal to the gap before them; bot_breadth: so many
    distinct pairs of item and event type.
    """
    counts = F.lit(has_times) & ~F.col("is_duplicate")
    paired = F.count_if(counts & F.col("is_paired"))
    found = {
        "bot_rate": F.bool_or(counts & F.col("is_burst")),
        "bot_regularity": (paired >= clean.bot_min_gaps)
        & (F.count_if(counts & F.col("is_even")) >= clean.bot_even_share * paired),
        "bot_breadth": F.count_if(counts & F.col("is_new_pair")) >= clean.bot_items_per_day,
    }
    return F.array_compact(
        F.array(*[F.when(is_bot, F.lit(name)) for name, is_bot in found.items() if name not in clean.disabled])
    )
