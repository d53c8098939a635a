import math
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from conf.contracts import SLOTS
from conf.tables import TABLES
from jobs import interaction, sequences
from jobs.interaction.affinity import SMALLEST_WEIGHT, user_slot_affinity
from jobs.interaction.lift import adjusted, region_slot_lift, two_sided
from jobs.interaction.transitions import consecutive
from jobs.lake.context import Skipped
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days

FIRST, LAST = date(2024, 1, 28), date(2024, 2, 2)  # from a Sunday to a Friday, over the end of a month
TABLES_WRITTEN = ("user_slot_affinity", "region_slot_lift", "transitions")
TARGETS = ("check_in", "purchase", "click")
LENGTH = 8
GAINED = "user_id string, day date, slot string, category string, weight double"


def event(number, **changed):
    """A valid row of `events`; `day` follows the event's date unless given."""
    row = dict.fromkeys(TABLES["events"].names) | {
        "event_id": f"e{number:05d}", "user_id": "u", "item_id": "i", "event_type": "check_in", "category": "cafe",
        "event_timestamp": datetime(2024, 1, 28, 12, tzinfo=UTC), "slot": "weekday_afternoon", "row_hash": f"r{number}",
        **changed,
    }  # fmt: skip
    row["event_date"] = row["event_timestamp"].date()
    row["day"] = row["day"] or row["event_date"]
    return row


def cell(**changed):
    """A valid row of `cell_daily`."""
    row = {"cell": "c", "region": "R", "slot": "weekday_morning", "category": "cafe", "events": 1, "users": 1}
    return {**row, "day": date(2024, 1, 28), **changed}


def frame(spark, name, rows):
    names = TABLES[name].names
    return spark.createDataFrame([tuple(row[column] for column in names) for row in rows], spark_schema(TABLES[name]))


def random_events(seed=1, users=6):
    """Late rows, users that pause, an empty day, rows without a slot or a category, an impression that counts for nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for day in [FIRST, date(2024, 1, 29), date(2024, 1, 31), date(2024, 2, 1), LAST]:
        for user in range(users):
            for _ in range(rng.poisson(4) if rng.random() < 0.7 else 0):
                late = int(rng.integers(1, 20)) if rng.random() < 0.2 else 0
                at = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=late)
                changed = {"slot": SLOTS[rng.integers(3)], "category": ["cafe", "bar", "zoo"][rng.integers(3)]}
                changed |= {"region": ["R", "S"][rng.integers(2)]}
                changed |= {name: None for name in changed if rng.random() < 0.1}
                changed["item_id"] = f"i{rng.integers(4)}"
                kind = ["check_in", "impression", "purchase"][rng.integers(3)]
                at += timedelta(seconds=int(rng.integers(86_400)))
                rows.append(event(len(rows), user_id=f"u{user}", event_timestamp=at, event_type=kind, day=day, **changed))
    rows.append(event(len(rows), user_id="once", event_timestamp=datetime(2024, 1, 29, tzinfo=UTC)))
    rows.append(event(len(rows), user_id="nothing known", category=None))
    # So late that it counts for nothing, and leaves its user with nothing.
    rows.append(event(len(rows), user_id="late", event_timestamp=datetime(2020, 1, 1, tzinfo=UTC), day=date(2024, 1, 31)))
    return rows


def random_cells(seed=2):
    rng = np.random.default_rng(seed)
    rows = {}
    for _ in range(120):
        where = {"cell": f"c{rng.integers(5)}", "region": [None, "R", "S"][rng.integers(3)], "slot": SLOTS[rng.integers(2)]}
        where |= {"category": ["", "cafe", "bar", "zoo"][rng.integers(4)], "day": FIRST + timedelta(days=int(rng.integers(6)))}
        rows[tuple(where.values())] = cell(**where, events=int(rng.integers(1, 9)))
    return list(rows.values())


def affinities(rows, day, half_life_days, shrinkage, event_weights):
    """By the definition: every event that had arrived, halved every half-life up to the end of the day."""
    end = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    weights = defaultdict(float)
    for row in rows:
        if row["day"] <= day and row["slot"] and row["category"]:
            age = (end - row["event_timestamp"]).total_seconds() / 86_400
            weights[row["slot"], row["category"]] += event_weights.get(row["event_type"], 1.0) * 0.5 ** (age / half_life_days)
    weights = {key: weight for key, weight in weights.items() if weight >= SMALLEST_WEIGHT}
    found = {}
    for (slot, category), weight in weights.items():
        in_slot = sum(other for (name, _), other in weights.items() if name == slot)
        share = sum(other for (_, name), other in weights.items() if name == category) / sum(weights.values())
        found[slot, category] = (weight, (weight + shrinkage * share) / (in_slot + shrinkage))
    return found


def lifts(rows, shrinkage):
    """By the definition, from rows of `cell_daily`."""
    known = [row for row in rows if row["category"] and row["region"]]

    def events(**where):
        return sum(row["events"] for row in known if all(row[name] == value for name, value in where.items()))

    found = {}
    for key in {(row["region"], row["slot"], row["category"]) for row in known}:
        region, slot, category = key
        here, whole = events(region=region, slot=slot), events()
        n, share = events(region=region, slot=slot, category=category), events(category=category) / whole
        elsewhere = (events(category=category) - n) / (whole - here)
        z = (n / here - elsewhere) / math.sqrt(share * (1 - share) * (1 / here + 1 / (whole - here)))
        found[key] = (n, ((n + shrinkage * share) / (here + shrinkage)) / share, z)
    return found


def counted_transitions(rows, length, longest_gap):
    """By the definition: what each target event followed on when it had arrived, among the user's last events."""
    found = defaultdict(lambda: [0, set(), 0.0])
    for row in rows:
        known = [one for one in rows if one["user_id"] == row["user_id"] and one["day"] <= row["day"]]
        known = sorted(known, key=lambda one: (one["event_timestamp"], one["event_id"]))[-length:]
        targets = [one for one in known if one["event_type"] in TARGETS]
        if row not in targets or targets.index(row) == 0:
            continue
        first = targets[targets.index(row) - 1]
        gap = row["event_timestamp"] - first["event_timestamp"]
        for kind, column in (("category", "category"), ("region", "region"), ("item", "item_id")):
            if gap <= longest_gap and row["slot"] and first[column] and row[column]:
                one = found[row["day"], kind, first[column], row[column], row["slot"]]
                one[0] += 1
                one[1].add(row["user_id"])
                one[2] += gap.total_seconds()
    return {key: (count, len(users), pytest.approx(seconds)) for key, (count, users, seconds) in found.items()}


@pytest.fixture
def in_lake(make_context, make_settings, tmp_path, spark):
    """in_lake(name, events, cells, *overrides) -> make(first, last=None, **more) contexts over a lake that holds them."""

    def fill(name, rows, cells, *overrides):
        settings = make_settings("conf/local.yaml", f"lake={tmp_path / name}", *overrides)
        context = make_context(FIRST, LAST, bootstrap=True, settings=settings)
        context.write("events", frame(spark, "events", rows))
        context.write("cell_daily", frame(spark, "cell_daily", cells))
        return lambda day, until=None, **more: make_context(day, until, first_day=FIRST, settings=settings, **more)

    yield fill
    spark.catalog.clearCache()


def stored(context, name):
    rows = context.lake.read(name, context.lake.version(name)).collect()
    return sorted((row.asDict() for row in rows), key=lambda row: [str(row[key]) for key in ("day", *TABLES[name].key)])


def approximately(rows):
    return [
        {name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


def test_nights_equal_the_bootstrap_and_the_definition(in_lake, spark):
    rows, cells = random_events(), random_cells()
    weights = {"impression": 0.0, "purchase": 3.0}
    overrides = (
        "interaction.half_life_days=9",
        "interaction.lift_window_days=7",
        "label.event_weights={impression: 0, purchase: 3}",
        f"sequences.length={LENGTH}",
        "interaction.transition_max_gap_hours=48",
    )
    whole = in_lake("whole", rows, cells, *overrides)(FIRST, LAST, bootstrap=True)
    interaction.run(whole)
    spark.catalog.clearCache()
    make_night = in_lake("nights", rows, cells, *overrides)
    for day in whole.days:
        night = make_night(day)
        interaction.run(night)
        sequences.run(night)
        spark.catalog.clearCache()
    for name in TABLES_WRITTEN:
        assert stored(night, name) == approximately(stored(whole, name))
    state = stored(whole, "user_slot_affinity")
    check_affinities(state, rows, weights)
    counted = {
        (row["day"], row["kind"], row["origin"], row["destination"], row["slot"]): (
            row["transitions"], row["users"], row["seconds"],
        )
        for row in stored(whole, "transitions")
    }  # fmt: skip
    assert counted == counted_transitions(rows, LENGTH, timedelta(hours=48))
    assert {key[1] for key in counted} == {"category", "region", "item"} and sum(one[0] for one in counted.values()) > 50
    found = stored(whole, "region_slot_lift")
    assert {row["day"] for row in found} == {FIRST, date(2024, 1, 29)}, "the first day and the Monday"
    for day in (FIRST, date(2024, 1, 29)):
        ours = {
            (row["region"], row["slot"], row["category"]): (row["events"], row["lift"], row["z"])
            for row in found
            if row["day"] == day
        }
        wanted = lifts([row for row in cells if row["day"] <= day], 5.0)
        assert ours == {key: pytest.approx(value) for key, value in wanted.items()}


def check_affinities(state, rows, weights):
    changes = {(row["user_id"], row["changed_on"]) for row in state}
    counted = [row for row in rows if row["slot"] and row["category"] and row["event_type"] != "impression"]
    assert changes == {(row["user_id"], row["day"]) for row in counted}, "a day without counted events changes nobody"
    assert {row["user_id"] for row in state if row["gone"]} == {"late"}
    assert any(row["changed_on"] < row["day"] for row in state), "a keyframe copies"
    for user, day in changes - {("late", date(2024, 1, 31))}:
        ours = {
            (row["slot"], row["category"]): (row["weight"], row["affinity"])
            for row in state
            if (row["user_id"], row["day"], row["changed_on"]) == (user, day, day)
        }
        wanted = affinities([row for row in rows if row["user_id"] == user], day, 9, 5.0, weights)
        assert ours == {key: pytest.approx(value, rel=1e-9) for key, value in wanted.items() if value[0]}


def test_twenty_years_neither_overflow_nor_keep_what_has_faded(spark):
    days = [date(2004, 1, 1) + timedelta(days=n * 60) for n in range(122)]
    gained = [("u", day, "weekday_morning", f"c{n % 3}" if n else "first", 1.0) for n, day in enumerate(days)]
    gained.append(("u", days[-1], "weekend_morning", "c0", 0.25))
    before = spark.createDataFrame([], spark_schema(TABLES["user_slot_affinity"])).drop("gone", "day")
    whole = Days(first=days[0], last=days[-1])
    found = user_slot_affinity(spark.createDataFrame(gained, GAINED), before, whole, (5.0, 0.0)).collect()
    last = {(row.slot, row.category): row for row in found if row.day == days[-1]}
    # 60 days are 12 half-lives, 120 are more than the 20 that a weight lives.
    assert set(last) == {("weekday_morning", f"c{n % 3}") for n in (120, 121)} | {("weekend_morning", "c0")}
    assert last["weekday_morning", "c1"].weight == pytest.approx(1.0, abs=1e-9)
    assert last["weekend_morning", "c0"].affinity == 1.0, "without a prior the share in the slot"
    assert all(math.isfinite(row.weight) and 0 <= row.affinity <= 1 for row in found)
    assert {row.day for row in found} == set(days)


def test_lift_is_1_where_a_region_is_like_all_others_and_shrinks_towards_it(spark):
    counts = (("A", "cafe", 30), ("A", "bar", 10), ("B", "cafe", 60), ("B", "bar", 20), ("C", "zoo", 1))
    rows = [
        cell(region=region, category=category, cell=region + category, events=events) for region, category, events in counts
    ]
    rows += [cell(category="", events=500), cell(region=None, events=500), cell(slot="any", events=500)]
    cells = frame(spark, "cell_daily", rows).withColumnRenamed("day", "snapshot_day")
    found = {(row.region, row.category): row for row in region_slot_lift(cells, 5.0).collect()}
    assert set(found) == {("A", "cafe"), ("A", "bar"), ("B", "cafe"), ("B", "bar"), ("C", "zoo")}
    assert found["A", "cafe"].lift == pytest.approx(found["A", "bar"].lift, rel=0.01) == pytest.approx(1, rel=0.02)
    assert found["C", "zoo"].lift == pytest.approx((1 + 5 / 121) / (6 / 121)) and found["C", "zoo"].z > 10
    alone = frame(spark, "cell_daily", [cell(events=7)]).withColumnRenamed("day", "snapshot_day")
    assert [(row.lift, row.z) for row in region_slot_lift(alone, 5.0).collect()] == [(1.0, 0.0)]


def test_a_late_event_follows_on_what_was_known_before_it_and_changes_no_count():
    arrived_on = np.array([1, 3, 2, 2])
    first, second = consecutive(arrived_on, np.array([True, True, True, True]), 2, 10)
    # On day 2 the third follows on the first; on day 3 the second arrives, between them.
    assert list(zip(first, second, strict=True)) == [(0, 2), (2, 3), (0, 1)]
    first, second = consecutive(arrived_on, np.array([True, True, False, True]), 1, 10)
    assert list(zip(first, second, strict=True)) == [(0, 3), (0, 1)], "what is no target is passed over"
    first, second = consecutive(arrived_on, np.array([True, True, True, True]), 3, 3)
    assert not len(first), "the first is no longer among the last three when the second arrives"


def test_q_values_agree_with_scipy_and_count_what_did_not_happen():
    p = np.random.default_rng(3).random(40) ** 3
    np.testing.assert_allclose(adjusted(p, 40), false_discovery_control(p), rtol=1e-12)
    np.testing.assert_allclose(adjusted(p, 100), false_discovery_control(np.append(p, np.ones(60)))[:40], rtol=1e-12)


def test_lift_is_rarely_found_where_there_is_none_and_found_where_there_is_some():
    rng = np.random.default_rng(8)
    categories = rng.dirichlet(np.full(12, 0.5))
    groups = rng.geometric(0.02, 40) + 3
    false_alarms, found = 0, 0
    worlds = 200
    for _ in range(worlds):
        nothing = np.stack([rng.multinomial(size, categories) for size in groups])
        planted = nothing.copy()
        planted[:3, 0] += 60
        for counts, is_planted in ((nothing, False), (planted, True)):
            group, category = np.nonzero(counts)
            n = counts[group, category]
            p = two_sided(n, counts.sum(1)[group], counts.sum(0)[category], np.full(len(n), counts.sum()))
            is_found = adjusted(p, counts.size) <= 0.05
            if is_planted:
                found += is_found[(group < 3) & (category == 0)].sum()
            else:
                false_alarms += is_found.any()
    assert false_alarms <= 0.05 * worlds + 2 * math.sqrt(0.05 * 0.95 * worlds)
    assert found >= 0.9 * 3 * worlds


def test_a_log_without_times_is_skipped_and_one_without_places_has_affinities(make_context, make_settings, spark):
    with pytest.raises(Skipped, match="no times"):
        interaction.run(make_context(date(2000, 1, 1), bootstrap=True, settings=make_settings("conf/movielens.yaml")))
    context = make_context(FIRST, bootstrap=True, settings=make_settings("conf/amazon.yaml"))
    interaction.run(context)
    assert set(context.outputs) == {"user_slot_affinity", "transitions"} and "no places" in context.details["left_out"]
