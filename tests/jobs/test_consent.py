"""Users who allow one purpose and not another: what steps see of them, what withdrawing undoes, nights and bootstrap alike."""

from __future__ import annotations

import csv
import json
import random
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pytest
from pyspark.sql import functions as F

from conf.contracts import PURPOSES
from conf.mapping import Mapping
from conf.settings import Folder, load_settings
from conf.tables import TABLES
from jobs import export
from jobs.ingest.consents import check_purposes, consents_by_day, stated_in_events, stated_in_feed
from jobs.lake import identities, logs, runs
from jobs.lake.runs import pins
from jobs.lake.schema import spark_schema
from jobs.pipeline import STEPS, choose
from jobs.runner import run
from jobs.spatial.windows import in_windows
from tests.planting import plant
from tests.stored import difference, rows_of, told

FIRST = date(2024, 6, 29)  # a Saturday: the third day is a Monday and a month's first
DAYS = [FIRST + timedelta(days=n) for n in range(4)]
NEXT = FIRST + timedelta(days=4)
ALL = "|".join(PURPOSES)
# User -> what is stated on which day, under which notice.
SAID = {
    "all": {0: (ALL, "v2")},
    "silent": {},
    "never": {0: ("none", "v2")},
    "unlabelled": {0: ("location|training|export", "v2")},
    "unplaced": {0: ("labels, training, export", "v2")},
    "untaught": {0: ("labels location export", "v2")},
    "unlisted": {0: ("labels|location|training", "v2")},
    "outdated": {0: (ALL, "v1")},
    "quits": {0: (ALL, "v2"), 3: ("", "v2")},
    "wavers": {0: (ALL, "v2"), 2: ("export", "v2"), 3: (ALL, "v2")},
    "idle": {0: (ALL, "v2"), 2: ("", "v2")},  # without an event from then on
}
SPOT = {user: (40.70 + number / 100, -73.99) for number, user in enumerate(SAID)}
MAPPING = {
    "description": "test",
    "target_events": ["check_in"],
    "events": {
        "files": "events*", "options": {"header": "true"}, "event_type": "check_in",
        "columns": {
            "user_id": "user", "item_id": "item", "event_time": "at", "category": "category", "latitude": "lat",
            "longitude": "lon",
        },
    },
    "consents": {
        "files": "consents*", "options": {"header": "true"},
        "columns": {"user_id": "who", "purposes": "allows", "notice_version": "notice"},
    },
}  # fmt: skip
STATES = (
    "consents",
    "user_sequences",
    "user_interests",
    "user_tags",
    "user_places",
    "user_mobility",
    "user_slot_affinity",
    "user_slot_places",
)
MADE = (*STATES, "events", "event_labels", "item_positions", "cell_daily")
CHOSEN = choose(only=("ingest", "clean", "sequences", "tags", "label", "spatial", "interaction"))


def me(user):
    return identities.pseudonym(user, identities.load_key())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four events a day of each user at the user's own spot, and what users state."""
    folder = tmp_path_factory.mktemp("consents")
    for number, day in enumerate(DAYS):
        landing = folder / "landing" / str(day)
        landing.mkdir(parents=True)
        with (landing / "events.csv").open("w") as file:
            rows = csv.writer(file)
            rows.writerow(["user", "item", "at", "category", "lat", "lon"])
            for user, (latitude, longitude) in SPOT.items():
                for hour in () if user == "idle" and number >= 2 else (9, 12, 19, 23):
                    rows.writerow([user, f"i-{user}", f"{day}T{hour:02}:00:00Z", f"c{hour % 2}", latitude, longitude])
        with (landing / "consents.csv").open("w") as file:
            rows = csv.writer(file)
            rows.writerow(["who", "allows", "notice"])
            rows.writerows([user, *said[number]] for user, said in SAID.items() if number in said)
    (folder / "mapping.yaml").write_text(json.dumps(MAPPING))
    return folder


def settings_for(world, lake, *more):
    overrides = [f"lake={world / lake}", f"sources.events.path={world / 'landing'}", f"report.path={world / 'page.html'}"]
    overrides += [f"sources.events.mapping={world / 'mapping.yaml'}", "privacy.notice_versions=[v2]", *more]
    return load_settings(overrides=overrides)


def new_lake(world, lake):
    """Settings over a new lake. No text is read: nobody writes any, and items have tags by their categories."""
    settings = settings_for(world, lake)
    logs.append(settings.lake, "runs", [runs.row("none", "text", day, status="skipped") for day in DAYS])
    return settings


@pytest.fixture(scope="module")
def bootstrapped(spark, world):
    settings = new_lake(world, "bootstrapped")
    run(spark, settings, DAYS[-1], steps=CHOSEN, bootstrap=True)
    return settings


@cache
def names():
    return {me(user): user for user in SAID}


def there_on(rows, number):
    """The users who have a state as of the day."""
    gone = {row["user_id"]: row["gone"] for row in rows if row["day"] <= DAYS[number]}
    return {names()[user] for user, is_gone in gone.items() if not is_gone}


def users_of(rows):
    return {names()[row["user_id"]] for row in rows}


def users_seen(frame):
    return {names()[row.user_id] for row in frame.select("user_id").distinct().collect()}


def test_nights_leave_what_the_bootstrap_leaves(spark, world, bootstrapped):
    nightly = new_lake(world, "nightly")
    run(spark, nightly, DAYS[1], steps=CHOSEN, bootstrap=True)
    for day in DAYS[2:]:
        run(spark, nightly, day, steps=CHOSEN)
    for name in MADE:
        assert rows_of(bootstrapped, name, pins(bootstrapped.lake)[name]), name
        assert not (differs := difference(spark, name, bootstrapped, nightly)), f"{name}: {differs}"


def test_nothing_is_made_of_people_for_what_they_do_not_allow(bootstrapped):
    everybody, last = set(SAID), len(DAYS) - 1
    forbid = {"silent", "never", "outdated"}
    stay = {"user_interests": {"unlabelled"}, "user_places": {"unplaced"}, "user_mobility": {"unplaced"}}
    stay["user_tags"] = {"unlabelled"}
    stay["user_slot_places"] = {"unplaced"}
    stay["user_slot_affinity"] = {"unplaced"}
    for name, without in stay.items():
        rows = told(bootstrapped, name, order="day, gone")
        every = users_of(rows)
        assert every == everybody - forbid - without, f"not even a gone row: {name}"
        assert there_on(rows, 1) == every, name
        assert there_on(rows, 2) == every - {"wavers", "idle"}, name
        assert there_on(rows, last) == every - {"quits", "idle"}, name
    labelled = told(bootstrapped, "event_labels")
    assert users_of(labelled) == everybody - forbid - {"unlabelled"}
    days = {row["day"] for row in labelled if row["user_id"] == me("wavers")}
    assert days == {DAYS[0], DAYS[1], DAYS[3]}
    begun = told(bootstrapped, "user_interests", f"user_id = '{me('wavers')}'")
    events = {row["day"]: row["events"] for row in begun if row["category"] == "c1"}
    assert events == {DAYS[0]: 3, DAYS[1]: 6, DAYS[3]: 3}, "who allows it again begins anew"
    [gone] = [row for row in begun if row["gone"]]
    assert gone["day"] == gone["changed_on"] == DAYS[2] and gone["category"] == "" and gone["events"] == 0


def test_positions_are_those_of_people_who_allow_them(bootstrapped):
    anywhere = "latitude IS NOT NULL OR cell IS NOT NULL OR region IS NOT NULL OR time_zone IS NOT NULL"
    placed = told(bootstrapped, "events", anywhere)
    assert users_of(placed) == {"all", "unlabelled", "untaught", "unlisted", "quits", "wavers", "idle"}
    assert {row["day"] for row in placed if row["user_id"] == me("wavers")} == {DAYS[n] for n in (0, 1, 3)}
    counted = sum(row["events"] for row in told(bootstrapped, "cell_daily"))
    assert counted == len(placed) == 4 * (4 * 4 + 3 + 3 + 2)
    held = {row["item_id"] for row in told(bootstrapped, "item_positions")}
    assert not held & {"i-unplaced", "i-silent", "i-never", "i-outdated"} and "i-all" in held


def test_events_say_what_was_allowed_when_they_arrived(bootstrapped):
    held = {(row["user_id"], (row["day"] - FIRST).days): row["consents"] for row in told(bootstrapped, "events")}
    everything = sorted(PURPOSES)
    assert [held[me("wavers"), n] for n in range(4)] == [everything, everything, ["export"], everything]
    assert held[me("silent"), 0] == held[me("outdated"), 3] == [] and held[me("unplaced"), 0] == [
        "export",
        "labels",
        "training",
    ]


def seen(make_context, settings, step):
    """What a step of the day after would see."""
    return make_context(NEXT, first_day=FIRST, settings=settings).seen_by(choose(only=(step,))[0])


def test_training_sees_nobody_who_forbids_it_and_nothing_of_before_a_withdrawal(bootstrapped, make_context):
    learners = {"all", "unlabelled", "unplaced", "unlisted", "wavers"}
    context = seen(make_context, bootstrapped, "train")
    rows = context.earlier("events")
    assert users_seen(rows) == learners, "quits allowed it when the events arrived, but no more"
    assert {row.day for row in rows.where(F.col("user_id") == me("wavers")).collect()} == {DAYS[3]}
    assert users_seen(rows.where("latitude IS NULL")) == {"unplaced"}
    sequences = {row.user_id: row.events for row in context.before("user_sequences").collect()}
    assert set(sequences) == {me(user) for user in learners}
    assert {event.arrived_on for event in sequences[me("wavers")]} == {DAYS[3]}
    assert users_seen(seen(make_context, bootstrapped, "evaluate").history("events")) == learners


def test_lists_are_made_without_places_that_were_withdrawn(bootstrapped, make_context):
    sequences = {row.user_id: row.events for row in seen(make_context, bootstrapped, "score").state("user_sequences").collect()}
    assert set(sequences) == {me(user) for user in SAID}, "scoring needs no purpose of its own"
    for user in ("quits", "unplaced", "idle"):
        assert all(event.latitude is None and event.region is None for event in sequences[me(user)]), user
    placed = {event.arrived_on for event in sequences[me("wavers")] if event.latitude is not None}
    assert len(sequences[me("wavers")]) == 16 and placed == {DAYS[3]}
    own = told(bootstrapped, "user_sequences", f"user_id = '{me('quits')}'")
    assert any(event["latitude"] is not None for event in own[-1]["events"]), "the step's own state is as it arrived"


def test_other_notices_accepted_later_end_what_was_made_under_the_old(bootstrapped, make_context):
    settings = bootstrapped.model_copy(update={"privacy": bootstrapped.privacy.model_copy(update={"notice_versions": ("v3",)})})
    context = seen(make_context, settings, "label")
    assert context.before("user_interests").isEmpty()
    gone = context._without_withdrawn("user_interests", context.lake.read("user_interests", None))
    assert users_seen(gone.where("gone")) == {"all", "unplaced", "untaught", "unlisted", "wavers"}


def test_a_snapshot_holds_no_row_that_may_no_longer_be_used(spark):
    rows = spark.createDataFrame(
        [("kept", DAYS[0], None), ("withdrawn", DAYS[0], DAYS[2]), ("late", DAYS[3], None)],
        "cell string, day date, allowed_until date",
    )
    found = {(row.cell, row.snapshot_day) for row in in_windows(rows, DAYS[1:], 30).collect()}
    assert found == {("kept", day) for day in DAYS[1:]} | {("withdrawn", DAYS[1]), ("late", DAYS[3])}


def test_lists_of_people_who_forbid_it_are_not_delivered(bootstrapped, make_context, tmp_path):
    entry = {"slot": "any", "rank": 1, "item_id": "i", "score": 1.0, "source": "s", "reason": "r", "model_version": "m"}
    entry |= {
        "policy_version": None,
        "propensity": 1.0,
        "policy_context": None,
        "holdout": None,
        "gone": False,
        "changed_on": NEXT,
        "day": NEXT,
    }
    plant(bootstrapped.lake, "recommendations", [{**entry, "user_id": me(user)} for user in SAID])
    context = seen(make_context, bootstrapped, "export")
    sink = Folder(kind="csv", path=str(tmp_path / "lists"))
    [delivery] = export.deliver(context, {"files": sink})
    assert delivery.error is None
    lines = [line for file in (tmp_path / "lists").glob("*.csv") for line in csv.DictReader(file.open())]
    assert {line["user_id"] for line in lines} == {"all", "unlabelled", "unplaced", "untaught", "wavers"}


STATEMENT = "user_id string, day date, stated_at timestamp, purposes array<string>, notice_version string"


def folded(statements, days):
    """The state at the end of each day on which a user's changed: {(user, day): (purposes, since, notice, stated_at)}."""
    found, known = {}, {}
    for day in days:
        for user in {row[0] for row in statements}:
            said = [row for row in statements if row[0] == user and row[1] <= day]
            if not said:
                continue
            _, _, at, purposes, notice = max(said, key=lambda row: (row[2], -len(row[3]), row[3], row[4]))
            before = known.get(user)
            since = {p: before[1][p] if before and p in before[1] else day for p in purposes}
            now = (purposes, since, notice, at)
            if before != now:
                found[user, day] = known[user] = now
    return found


def test_the_newest_statement_holds_whenever_it_arrives(spark):
    """Against a plain fold, over statements that arrive late and contradict each other; a night goes on from a state."""
    random.seed(4)
    days = [FIRST + timedelta(days=n) for n in range(7)]
    rows = []
    for _ in range(160):
        day, late = random.choice(days), random.choice([0, 0, 0, 1, 3])
        at = datetime(day.year, day.month, day.day, random.choice([8, 12]), tzinfo=UTC) - timedelta(days=late)
        rows.append((f"u{random.randrange(12)}", day, at, sorted(random.sample(PURPOSES, random.randrange(4))), "v1"))
    wanted = folded(rows, days)

    def shown(frame):
        # As numbers: a collected timestamp would be in the time zone of this process.
        rows = frame.withColumn("at", F.unix_seconds("stated_at")).collect()
        return {(r.user_id, r.day): (r.purposes, r.since, r.notice_version, r.at) for r in rows}

    wanted = {key: (*value[:3], int(value[3].timestamp())) for key, value in wanted.items()}
    none = spark.createDataFrame([], spark_schema(TABLES["consents"])).drop("gone", "day")
    whole = shown(consents_by_day(spark.createDataFrame(rows, STATEMENT), none, (), dated=True))
    assert whole == wanted and len(wanted) > 40
    early = consents_by_day(spark.createDataFrame([r for r in rows if r[1] <= days[3]], STATEMENT), none, (), dated=True)
    last = (
        early.groupBy("user_id").agg(F.max_by(F.struct(*early.columns), "day").alias("row")).select("row.*").drop("gone", "day")
    )
    late = consents_by_day(spark.createDataFrame([r for r in rows if r[1] > days[3]], STATEMENT), last, (), dated=True)
    assert shown(late) == {key: value for key, value in wanted.items() if key[1] > days[3]}


def test_statements_are_read_as_people_write_them(spark):
    written = ["labels|training", " Training; labels,labels ", '["labels", "training"]', None, "none", "NONE"]
    schema = "user_id string, day date, broken string, event_time string, consent string, purposes string"
    frame = spark.createDataFrame(
        [(f"{n}", FIRST, None, "2024-06-29T10:00:00Z", text, text) for n, text in enumerate(written)], schema
    )
    feed = Mapping.model_validate(MAPPING).events
    for read in (stated_in_feed(frame), stated_in_events(frame, feed)):
        found = {row.user_id: row.purposes for row in read.collect()}
        assert [found[f"{n}"] for n in range(6)] == [["labels", "training"]] * 3 + [[]] * 3
    late = frame.limit(1).withColumn("event_time", F.lit("2099-01-01T00:00:00Z"))
    at = stated_in_events(late, feed).select(F.to_date("stated_at").alias("on")).first().on
    assert at == FIRST, "a clock that is ahead does not bind the user until then"
    answers = [("a", "yes", "0"), ("b", "TRUE", None), ("c", "", "1")]
    flags = spark.createDataFrame(
        [(*row, FIRST, None) for row in answers], "user_id string, labels string, export string, day date, broken string"
    )
    assert {row.user_id: row.purposes for row in stated_in_feed(flags).collect()} == {
        "a": ["labels"],
        "b": ["labels"],
        "c": ["export"],
    }


@pytest.mark.parametrize(
    ("column", "text", "said"), [("purposes", "labels|marketing", "'marketing'"), ("labels", "maybe", "'labels=maybe'")]
)
def test_an_unknown_purpose_is_an_error_that_names_it(spark, column, text, said):
    frame = spark.createDataFrame([("u", FIRST, None, text)], f"user_id string, day date, broken string, {column} string")
    with pytest.raises(ValueError, match=said) as caught:
        check_purposes(stated_in_feed(frame))
    assert "labels, location, training, export" in str(caught.value) and "\n" not in str(caught.value)


def test_a_mapping_of_consents_says_who_allows_what():
    for columns, said in (
        ({"purposes": "p"}, "user_id must be mapped"),
        ({"user_id": "u"}, "map either purposes, or some of"),
        ({"user_id": "u", "purposes": "p", "labels": "l"}, "map either purposes, or some of"),
        ({"user_id": "u", "marketing": "m"}, "unknown marketing"),
    ):
        with pytest.raises(ValueError, match=said):
            Mapping.model_validate({**MAPPING, "consents": {"columns": columns}})


def test_steps_ask_for_purposes_that_there_are():
    assert {purpose for step in STEPS for purpose in step.purposes} == set(PURPOSES)
    purposes = {step.name: step.purposes for step in STEPS}
    writers = {name: step.purposes for step in STEPS for name in step.writes if TABLES[name].purpose}
    assert all(writers[name] == (TABLES[name].purpose,) for name in writers) and purposes["score"] == ()
