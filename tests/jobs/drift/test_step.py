"""The step on a lake: what is held against what, planted shifts, lists that change by a known share, and re-runs."""

import math
from datetime import UTC, date, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import drift
from jobs.bounds import judged
from jobs.drift import grid, list_change
from jobs.lake import logs
from jobs.lake.compare import compare
from jobs.lake.schema import spark_schema
from tests import planting

DAY = date(2024, 7, 1)  # a Monday, and a keyframe
WEEKS = [DAY - timedelta(weeks=number) for number in range(1, 5)]
FIRST_DAY = DAY - timedelta(days=40)
EVENT = {
    "event_id": "e", "user_id": "u", "item_id": "i", "event_type": "check_in",
    "event_timestamp": datetime(2024, 7, 1, tzinfo=UTC), "event_date": DAY, "slot": "weekday_morning",
    "region": "US/NY/New York City", "category": "Bar", "value": 4.0, "row_hash": "r", "day": DAY,
}  # fmt: skip
ENTRY = {
    "user_id": "u", "slot": "any", "rank": 1, "item_id": "i1", "score": 1.0, "source": "model:transformer", "reason": "because",
    "model_version": "v1", "policy_version": None, "propensity": 1.0,
    "policy_context": None, "holdout": None, "gone": False, "changed_on": DAY, "day": DAY,
}  # fmt: skip


def frame(spark, name, rows):
    schema = spark_schema(TABLES[name])
    return spark.createDataFrame([tuple(row.get(column) for column in schema.names) for row in rows], schema)


def events(day, users=60, **fields):
    """Two events a user; a field may be given as a function of the event's number."""
    found = []
    for number in range(2 * users):
        own = {name: value(number) if callable(value) else value for name, value in fields.items()}
        found.append({**EVENT, "event_id": f"{day}/{number}", "user_id": f"u{number // 2}", "day": day, **own})
    return found


def write_events(make_context, spark, rows):
    context = make_context(FIRST_DAY, DAY, bootstrap=True, first_day=FIRST_DAY)
    context.write("events", frame(spark, "events", rows))


def lists(items_of, day, users=range(40), slots=("any", "weekday_morning")):
    """A list a user and slot, of the items that `items_of(user, slot)` gives."""
    return [
        {**ENTRY, "user_id": f"u{user:02}", "slot": slot, "rank": rank, "item_id": item, "score": 10.0 - rank + user / 50,
         "changed_on": day, "day": day}
        for user in users for slot in slots for rank, item in enumerate(items_of(user, slot), 1)
    ]  # fmt: skip


def night(make_context, day=DAY):
    context = make_context(day, first_day=FIRST_DAY)
    drift.run(context)
    return context


def stored(context):
    """{(subject, measure): row} of the context's day."""
    table = context.lake.read("drift", context.lake.version("drift"), f"day = '{context.days.last}'")
    return {(row.subject, row.measure): row.asDict() for row in table.collect()}


def past(context):
    return {(one["subject"], one["measure"]) for one in context.details["drift"]}


USUAL = {
    "category": lambda number: ("Bar", "Gym", "Park")[number % 3],
    "event_type": lambda number: ("check_in", "view")[number % 4 == 0],
    "value": lambda number: None if number % 2 else float(number % 5 + 1),
    "region": lambda number: ("US/NY/New York City", None)[number % 7 == 0],
    "slot": lambda number: ("weekday_morning", "weekday_evening", "weekend_night")[number % 3],
}


@pytest.mark.parametrize(
    ("subject", "moved"),
    [
        ("category", lambda number: "Opera" if number % 2 else "Bar"),
        ("event_type", "like"),
        ("slot", "weekday_night"),
        ("region", "JP/13/Tokyo"),
        ("value", lambda number: 400.0 + number),
    ],
)
def test_what_moved_is_past_its_bound_and_nothing_else(subject, moved, make_context, spark):
    before = [row for day in WEEKS for row in events(day, **USUAL)]
    write_events(make_context, spark, before + events(DAY, **{**USUAL, subject: moved}))
    context = night(make_context)
    assert past(context) == {(subject, "psi"), (subject, "kl")}
    found = stored(context)
    assert all(found[other, "psi"]["value"] < 0.01 for other in USUAL if other != subject)
    assert found[subject, "psi"]["value"] > found[subject, "kl"]["value"] > 0.125
    assert found[subject, "psi"]["rows"] == 120 and found[subject, "psi"]["reference_rows"] == 480
    assert (found[subject, "psi"]["users"], found[subject, "psi"]["reference_users"]) == (60, 60)


def test_a_day_is_held_against_its_own_weekday_alone(make_context, spark):
    """A Sunday is otherwise every week; a Monday of five weeks ago is too old to count."""
    sundays = [row for day in WEEKS for row in events(day - timedelta(days=1), category="Church", slot="weekend_morning")]
    old = events(DAY - timedelta(weeks=5), category="Museum")
    write_events(make_context, spark, sundays + old + [row for day in [*WEEKS, DAY] for row in events(day, **USUAL)])
    context = night(make_context)
    assert past(context) == set()
    assert stored(context)["category", "psi"]["value"] < 0.01 and stored(context)["category", "psi"]["bins"] == 3


def test_few_users_are_no_evidence(make_context, spark):
    """The same shift, by three users: the index is past 0.25, but chance does as much."""
    before = [row for day in WEEKS for row in events(day, category=lambda number: ("Bar", "Gym")[number % 2])]
    write_events(make_context, spark, before + events(DAY, users=3, category=lambda number: ("Bar", "Gym")[number < 5]))
    context = night(make_context)
    row = stored(context)["category", "psi"]
    assert 0.25 < row["value"] < row["chance"] and past(context) == set()


def test_without_anything_before_a_row_says_so(make_context, spark):
    write_events(make_context, spark, events(DAY, **USUAL))
    context = make_context(FIRST_DAY, DAY, bootstrap=True, first_day=FIRST_DAY)
    drift.run(context)
    found = stored(context)
    assert len(found) == 16 and {row["value"] for row in found.values()} == {None} and past(context) == set()
    assert found["category", "psi"]["rows"] == 120 and found["lists", "new_items"]["users"] == 0
    empty = night(make_context, DAY + timedelta(days=1))
    assert len(stored(empty)) == 16 and {row["rows"] for row in stored(empty).values()} == {0}


def test_lists_change_by_the_share_that_is_new(make_context, spark, caplog):
    """Of 40 users 20 keep their lists, 10 have half of one list replaced, 10 have theirs in another order."""

    def after(user, slot):
        if user < 20:
            return "abcd"
        if user < 30:
            return "abxy" if slot == "any" else "abcd"
        return "dcba"

    yesterday, context = DAY - timedelta(days=1), make_context(DAY - timedelta(days=1), first_day=FIRST_DAY)
    context.write("recommendations", frame(spark, "recommendations", lists(lambda user, slot: "abcd", yesterday)))
    logs.append(context.lake.root, "publications", [
        {"day": yesterday, "kind": "interest", "model_version": "v7", "decision": "published", "candidate": "v7",
         "reason": "", "run_id": "r", "decided_at": logs.now()},
    ])  # fmt: skip
    # Written are those who changed, and one who has no list of yesterday to compare with.
    today = make_context(DAY, first_day=FIRST_DAY)
    today.write("recommendations", frame(spark, "recommendations", lists(after, DAY, [*range(20, 40), 77])))
    known = {"events": [], "seen": None, "gone": False, "changed_on": DAY, "day": DAY}
    planting.write(today, "user_sequences", [
        {**known, "user_id": f"u{user:02}", "events_total": 4 if user in (18, 28, 29, 30, 77) else 5} for user in range(40)
    ])  # fmt: skip
    context = night(make_context)
    found = stored(context)
    assert found["lists of new users", "new_items"]["value"] == pytest.approx(2 / 4 * (0.5 / 2))
    assert found["lists of new users", "changed_users"]["value"] == pytest.approx(3 / 4)
    assert found["lists of new users", "new_items"]["users"] == 4
    assert found["lists", "new_items"]["value"] == pytest.approx(10 / 40 * (0.5 / 2))
    assert found["lists", "changed_users"]["value"] == pytest.approx(20 / 40)
    assert (found["lists", "new_items"]["users"], found["lists", "new_items"]["rows"]) == (40, 80)
    assert found["score", "psi"]["value"] < 0.05 and found["score", "psi"]["users"] == 41
    assert found["score", "kl"]["model_version"] == "v7" and past(context) == set()

    # Other items for all, at another scale of scores.
    tomorrow = DAY + timedelta(days=1)
    rows = [{**row, "score": -1 / row["score"]} for row in lists(lambda user, slot: "mnop", tomorrow, [*range(40), 77])]
    make_context(tomorrow, first_day=FIRST_DAY).write("recommendations", frame(spark, "recommendations", rows))
    moved = night(make_context, tomorrow)
    assert past(moved) == {("lists", "new_items"), ("score", "psi"), ("score", "kl")}
    assert f"drift of {tomorrow}: lists new_items 1, bound 0.8" in caplog.text


def test_a_day_run_again_leaves_equal_rows(make_context, spark):
    """Also when a later day has been written since."""
    write_events(make_context, spark, [row for day in [*WEEKS, DAY] for row in events(day, **USUAL)])
    yesterday = DAY - timedelta(days=1)
    for day, items in ((yesterday, "abcd"), (DAY, "abxy")):
        context = make_context(day, first_day=FIRST_DAY)
        context.write("recommendations", frame(spark, "recommendations", lists(lambda user, slot, i=items: i, day)))
    first = night(make_context)
    version = first.lake.version("drift")
    later = make_context(DAY + timedelta(days=1), first_day=FIRST_DAY)
    later.write("recommendations", frame(spark, "recommendations", lists(lambda u, s: "qrst", DAY + timedelta(days=1))))
    again = night(make_context)
    rows = [again.lake.read("drift", of, f"day = '{DAY}'") for of in (version, again.lake.version("drift"))]
    found = compare(*rows, TABLES["drift"])
    assert found.equal and found.rows == 16, str(found)


def test_the_grid_keeps_the_order_of_numbers_and_tells_near_ones_apart(spark):
    values = [-1e100, -5.0, -1.0, -0.97, -1e-300, 0.0, 1e-300, 0.5, 0.97, 1.0, 5.0, 5.2, 1e100]
    rows = spark.createDataFrame([(one,) for one in [*values, math.nan, None]], "x double").select(grid(F.col("x"))).collect()
    steps = [row[0] for row in rows]
    assert steps[-2:] == [None, None] and steps[5] == "0"
    numbers = [int(step) for step in steps[:-2]]
    assert numbers == sorted(set(numbers))


def test_a_user_without_a_list_on_both_days_counts_for_nothing(spark):
    rows = [{**ENTRY, "user_id": user, "item_id": item, "is_now": now}
            for user, item, now in (("a", "i", True), ("b", "i", False), ("c", "i", True), ("c", "j", False))]  # fmt: skip
    entries = spark.createDataFrame(
        [(row["user_id"], row["slot"], 1, row["item_id"], row["is_now"]) for row in rows],
        "user_id string, slot string, rank int, item_id string, is_now boolean",
    )
    [found] = list_change(entries, entries.where("user_id = 'b'").select("user_id")).collect()
    assert (found.is_new, found.users, found.lists, found.new_items, found.changed_users) == (False, 1, 1, 1.0, 1.0)


def test_bounds_are_the_settings_or_what_chance_explains(make_settings):
    settings = make_settings("conf/local.yaml", "drift.max_psi=0.1", "drift.max_new_items=0.5").drift
    row = {"subject": "slot", "measure": "psi", "chance": 0.05}
    for value, chance, is_past in ((0.11, 0.05, True), (0.09, 0.05, False), (0.11, 0.2, False), (None, None, False)):
        [found] = judged([{**row, "value": value, "chance": chance}], settings)
        assert found.is_past == is_past and found.bound == max(0.1, chance or 0)
    [found] = judged([{"subject": "lists", "measure": "new_items", "value": 0.6, "chance": None}], settings)
    assert found.is_past and str(found) == "lists new_items 0.6, bound 0.5"
