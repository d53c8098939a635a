import json
import shutil
import threading
import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import deltalake
import psutil
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from conf.learning import WEEKDAYS
from conf.settings import load_settings
from conf.tables import TABLES
from jobs import runner, sequences, train
from jobs.lake import files, logs
from jobs.lake.schema import spark_schema
from jobs.pipeline import choose
from jobs.replay import replay
from jobs.train import cutting
from jobs.train.launch import what_failed
from models.registry import load_ranker

FIRST = date(2024, 1, 25)
LAST = date(2024, 2, 2)
SMALL = (
    "model.window=6",
    "model.width=8",
    "model.heads=2",
    "model.layers=1",
    "train.epochs=2",
    "train.batch_size=8",
    "evaluate.holdout_share=0.25",
)
BEFORE = LAST - timedelta(days=1)
BEGUN = (*SMALL, "train.epochs=1", "evaluate.holdout_share=0.1")
EVENT = {
    "event_id": "e", "user_id": "u", "item_id": "a", "event_type": "check_in",
    "event_timestamp": datetime(2024, 1, 25, 9, tzinfo=UTC),
    "event_date": FIRST, "local_timestamp": datetime(2024, 1, 25, 4, tzinfo=UTC), "local_date": FIRST, "local_hour": 4,
    "slot": "weekday_night", "latitude": 40.0, "longitude": -74.0, "time_zone": "America/New_York", "cell": None,
    "region": None, "category": "x", "value": None, "text": None, "device": None, "scene": None, "session_id": None,
    "row_hash": "r", "day": FIRST,
}  # fmt: skip


def event(**changes):
    return {**EVENT, **changes}


def at(on, hour, **changes):
    moment = datetime(on.year, on.month, on.day, hour, tzinfo=UTC)
    local = moment - timedelta(hours=5)
    given = {"event_timestamp": moment, "event_date": on, "local_timestamp": local, "day": on}
    return event(**{**given, **changes})


def history(users=4, days=8):
    """Each user checks in twice a day; views in between are context only. Late, null and unplaced rows among them."""
    rows = []
    for user in range(users):
        for number in range(days):
            day, name, who = FIRST + timedelta(days=number), f"{user}-{number}", {"user_id": f"u{user}"}
            rows.append(at(day, 8, **who, event_id=f"{name}-m", item_id=f"i{user}"))
            view = {"item_id": "seen", "event_type": "view", "latitude": None, "longitude": None}
            rows.append(at(day, 12, **who, event_id=f"{name}-v", **view))
            rows.append(at(day, 18, **who, event_id=f"{name}-e", item_id="bar", category=None if user == 1 else "y"))
    late = at(date(2024, 1, 26), 23, user_id="u0", event_id="late", item_id="i0", day=date(2024, 1, 31))
    single = at(date(2024, 1, 30), 10, user_id="once", event_id="single", item_id="rare")
    search = at(date(2024, 1, 30), 11, user_id="once", event_id="search", item_id=None, event_type="search", category=None)
    fresh = at(date(2024, 2, 1), 20, user_id="u1", event_id="fresh", item_id="fresh", category="new")
    return [*rows, late, single, search, fresh]


def write_events(context, rows, partitions=1):
    schema = spark_schema(TABLES["events"])
    table = context.spark.createDataFrame([tuple(row.get(name) for name in schema.names) for row in rows], schema)
    context.write("events", table.repartition(partitions))


def windows(context):
    stored = context.lake.read("training_windows", context.lake.version("training_windows"))
    rows = stored.withColumn("until", F.unix_seconds("until")).orderBy("until", "fold", "user_id", "window")
    return [row.asDict() for row in rows.collect()]


def learnt(rows, fold=None):
    """(user, seconds) of every marked target."""
    chosen = [row for row in rows if fold in (None, row["fold"])]
    return sorted(
        (row["user_id"], time)
        for row in chosen
        for time, marked in zip(row["timestamp"], row["is_target"], strict=True)
        if marked == 1
    )


def check_ins(rows, first=FIRST, before=LAST):
    chosen = [row for row in rows if row["event_type"] == "check_in" and first <= row["day"] < before]
    return sorted((row["user_id"], int(row["event_timestamp"].timestamp())) for row in chosen)


def versions(context):
    return {row["model_version"]: row for row in context.log_rows("model_versions")}


@pytest.fixture(scope="module")
def logged(make_context_in, tmp_path_factory):
    """A lake that holds nothing but `history`, of days that end before LAST; not to be changed."""
    settings = load_settings(overrides=[f"lake={tmp_path_factory.mktemp('logged') / 'lake'}"])
    write_events(make_context_in(settings, FIRST, LAST, first_day=FIRST, bootstrap=True), history())
    return Path(settings.lake)


@pytest.fixture(scope="module")
def trained(make_context_in, logged, tmp_path_factory):
    """Such a lake after a bootstrap up to BEFORE, with a version by the settings BEGUN; not to be changed."""
    settings = load_settings(overrides=[f"lake={tmp_path_factory.mktemp('trained') / 'lake'}", "train.tracking=null", *BEGUN])
    shutil.copytree(logged, settings.lake)
    for step in (sequences, train):
        step.run(make_context_in(settings, FIRST, BEFORE, first_day=FIRST, bootstrap=True))
    return Path(settings.lake)


@pytest.fixture
def make_copy(make_settings):
    """make_copy(lake, ...): settings over a copy of a lake, the more of them as make_settings takes them."""

    def make(lake, *overrides, config="conf/local.yaml"):
        settings = make_settings(config, *overrides)
        shutil.copytree(lake, settings.lake)
        return settings

    return make


def test_a_bootstrap_learns_each_target_once_and_trains_a_second_version_until_a_cut(make_context, make_copy, logged):
    shared = {"settings": make_copy(logged, *SMALL), "first_day": FIRST, "bootstrap": True}
    context = make_context(FIRST, LAST, **shared)
    train.run(context)
    rows, made = windows(context), versions(context)
    moments = {row["trained_until"]: row for row in made.values()}
    assert set(moments) == {datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 2, 2, tzinfo=UTC)}
    assert {len(row["item"]) for row in rows} == {7}, "arrays of one length, model.window + 1"
    for moment, version in moments.items():
        own = [row for row in rows if row["until"] == moment.timestamp()]
        assert learnt(own) == check_ins(history(), before=moment.date()), "each target once, none that arrived later"
        shown = {time for row in own for time in row["timestamp"]}
        assert max(shown) < moment.timestamp()
        learns, judges = learnt(own, "train"), learnt(own, "validation")
        assert learns and judges and max(time for _, time in learns) < min(time for _, time in judges)
        ranker = load_ranker(Path(context.lake.root) / version["folder"])
        assert ranker.method == version["method"] == "transformer"
        known = {row["item_id"] for row in history() if row["day"] < moment.date() and row["item_id"]}
        assert ranker.vocabulary.items == tuple(sorted(known)) and version["items"] == len(known)
        assert set(json.loads(version["metrics"])) == {"loss", "ndcg@10", "hit@1", "hit@10"}
    runs = context.log_rows("training_runs")
    assert {row["model_version"] for row in runs} == set(made)
    assert {row["targets"] for row in runs} == {
        len(learnt([r for r in rows if r["until"] == m.timestamp()], "train")) for m in moments
    }

    again = make_context(FIRST, LAST, **shared)
    train.run(again)
    assert versions(again) == made and len(again.log_rows("training_runs")) == 2, "a day run again appends nothing"
    assert str(windows(again)) == str(rows), "as text: NaN is not equal to itself"


def test_a_version_is_named_by_what_it_learnt(make_context, make_settings, logged, trained, tmp_path):
    shared = {"first_day": FIRST, "bootstrap": True}
    names = [list(versions(make_context(FIRST, BEFORE, settings=make_settings().model_copy(update={"lake": str(trained)}))))]
    for number, (rows, more) in enumerate(
        (
            (history()[::-1], ("train.max_seconds=500", "score.k=5", "spark.shuffle_partitions=3")),
            (None, ("train.learning_rate=0.01",)),  # the very lake
            (history()[1:], ()),
        )
    ):
        settings = make_settings("conf/local.yaml", *BEGUN, *more)
        settings = settings.model_copy(update={"lake": str(tmp_path / f"lake{number}")})
        if rows is None:
            shutil.copytree(logged, settings.lake)
        else:
            write_events(make_context(FIRST, BEFORE, settings=settings, **shared), rows, partitions=number + 2)
        context = make_context(FIRST, BEFORE, settings=settings, **shared)
        train.run(context)
        names.append(list(versions(context)))
    assert all(len(name) == 1 for name in names), "one held-out day is the candidate's own: no second version"
    assert names[0] == names[1], "neither the order of rows, nor files, nor resources, nor other sections"
    assert len({name[0] for name in names[1:]}) == 3, "settings that change learning, and rows"


def only_in_nights_of(weekday, settings):
    return settings.model_copy(update={"train": settings.train.model_copy(update={"only_on": weekday})})


def test_a_night_goes_on_with_what_arrived_since(make_context, make_copy, trained):
    settings = make_copy(trained, *BEGUN)
    shared = {"settings": settings, "first_day": FIRST}
    bootstrap = make_context(FIRST, BEFORE, bootstrap=True, **shared)
    (parent,) = versions(bootstrap).values()
    assert learnt(windows(bootstrap)) == check_ins(history(), before=BEFORE)

    weekday = WEEKDAYS[LAST.weekday()]
    for only_on in {*WEEKDAYS} - {weekday}:
        rest = make_context(LAST, settings=only_in_nights_of(only_on, settings), first_day=FIRST)
        train.run(rest)
        assert set(versions(rest)) == {parent["model_version"]} and only_on in rest.details["trained"]
        assert rest.rows_out["training_windows"] == 0

    night = make_context(LAST, settings=only_in_nights_of(weekday, settings), first_day=FIRST)
    train.run(night)
    own = [row for row in windows(night) if row["day"] == LAST]
    assert learnt(own) == learnt(own, "train") == check_ins(history(), first=BEFORE), "what arrived since the parent, all of it"
    assert all(row["timestamp"][0] > 0 for row in own if row["user_id"] != "once"), "with the events before it"
    made = {name: row for name, row in versions(night).items() if row["day"] == LAST}
    (version,) = made.values()
    names = [load_ranker(Path(night.lake.root) / row["folder"]).vocabulary for row in (parent, version)]
    assert names[1].items == (*names[0].items, "fresh") and names[1].categories == (*names[0].categories, "new")
    assert version["trained_until"] == datetime(2024, 2, 2, tzinfo=UTC)

    again = make_context(LAST, **shared)
    train.run(again)
    assert {name: row for name, row in versions(again).items() if row["day"] == LAST} == made

    empty = make_context(LAST + timedelta(days=1), **shared)
    train.run(empty)
    assert set(versions(empty)) == {parent["model_version"], version["model_version"]}
    assert "no target event" in empty.details["trained"] and empty.rows_out["training_windows"] == 0


@pytest.mark.parametrize("section, change", [("model", {"width": 12}), ("train", {"from_scratch_on": "friday"}), ("train", {})])
def test_another_shape_other_parts_and_one_night_a_week_start_from_scratch(make_context, make_copy, trained, section, change):
    settings = make_copy(trained, *BEGUN)
    if not change:
        # As a release left it whose network had other parts.
        [path] = Path(settings.lake).glob("models/*/version.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "parts": "others"}))
    other = settings.model_copy(update={section: getattr(settings, section).model_copy(update=change)})
    night = make_context(LAST, settings=other, first_day=FIRST)
    train.run(night)
    rows = [row for row in windows(night) if row["day"] == LAST]
    assert learnt(rows) == check_ins(history()) and learnt(rows, "validation"), "all that is stored, with a fold by time"
    [version] = [row for row in versions(night).values() if row["day"] == LAST]
    known = {row["item_id"] for row in history() if row["day"] < LAST and row["item_id"]}
    assert load_ranker(Path(night.lake.root) / version["folder"]).vocabulary.items == tuple(sorted(known)), "names anew"


def test_a_log_without_times_leaves_each_users_last_target_out(make_context, make_settings):
    settings = make_settings("conf/movielens.yaml", *SMALL)
    day = date(2000, 1, 1)
    absent = {
        "local_timestamp": None,
        "local_date": None,
        "local_hour": None,
        "slot": None,
        "latitude": None,
        "longitude": None,
    }
    start = datetime(2000, 1, 1, tzinfo=UTC)
    rows = [
        event(
            **absent, event_type="rating", user_id=f"u{user}", item_id=f"i{place % 5}", event_id=f"{user}-{place}",
            event_timestamp=start + timedelta(seconds=place), event_date=day, day=day,
        )
        for user, count in enumerate((1, 2, 3, 20))
        for place in range(count)
    ]  # fmt: skip
    shared = {"settings": settings, "first_day": day, "bootstrap": True}
    write_events(make_context(day, **shared), rows)
    context = make_context(day, **shared)
    train.run(context)
    found = windows(context)
    second = int(start.timestamp())
    assert learnt(found, "validation") == [("u1", second), ("u2", second + 1), ("u3", second + 18)]
    assert learnt(found, "train") == [("u2", second), *[("u3", second + place) for place in range(18)]]
    assert max(time for row in found for time in row["timestamp"]) == second + 18, "the last is not shown either"
    assert len(versions(context)) == 1
    assert load_ranker(Path(context.lake.root) / next(iter(versions(context).values()))["folder"]).vocabulary.items == (
        "i0",
        "i1",
        "i2",
        "i3",
        "i4",
    )


def test_a_process_of_two_that_is_killed_ends_the_training_and_the_next_goes_on(
    make_context, make_copy, logged, caplog, capsys
):
    more = ("train.processes=2", "train.epochs=40", "train.patience=40", "train.checkpoint_seconds=0")
    settings = make_copy(logged, *SMALL, *more)
    shared = {"settings": settings, "first_day": FIRST, "bootstrap": True}
    killed_at = []

    def kill():
        while not list(Path(settings.lake).glob("models/.training/*.pt")):
            time.sleep(0.05)
        [second] = [one for one in psutil.Process().children(recursive=True) if is_second(one)]
        killed_at.append(time.monotonic())
        second.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(RuntimeError, match=r"training failed in process 1: it was ended by signal 9 .*goes on from"):
        train.run(make_context(FIRST, LAST, **shared))
    assert time.monotonic() - killed_at[0] < 30, "the other does not wait for it"
    capsys.readouterr()
    # It goes on, and ends in time with the next step: what more is learnt is of no interest.
    ends = settings.model_copy(update={"train": settings.train.model_copy(update={"max_seconds": 0.001})})
    context = make_context(FIRST, LAST, **{**shared, "settings": ends})
    with caplog.at_level("INFO", logger="wherewhen"):
        train.run(context)
    assert any(": going on from " in message for message in caplog.messages)
    assert any(message.startswith("training candidate: epoch 1 of 40") for message in caplog.messages)
    assert capsys.readouterr().out == "", "stdout is for results"
    runs = context.log_rows("training_runs")
    assert [row["processes"] for row in runs] == [2, 2] and all(row["train_loss"] > 0 for row in runs)


def is_second(process):
    """Whether it trains with rank 1."""
    try:
        return process.environ().get("RANK") == "1" and not process.children()
    except psutil.Error:
        return False


def test_a_process_that_fails_ends_the_training_with_its_own_error():
    """The others, which wait for it, say first that they lost it."""
    said = (
        "training failed in process 0: RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1\n"
        "training failed in process 1: OSError: [Errno 28] No space left on device: '/tmp/x'\n"
        "Root Cause (first observed failure):\n[0]:\n  rank      : 0 (local_rank: 0)\n  exitcode  : 1 (pid: 7)\n"
    )
    assert what_failed(said).startswith("training failed in process 1: OSError: [Errno 28] No space left on device")


def test_windows_lie_in_files_by_their_key(make_context, make_copy, logged, monkeypatch):
    """So that a process that trains on some shards opens few files. What is learnt from them is of no interest here."""
    monkeypatch.setattr(files, "FILE_ROWS", 4)
    monkeypatch.setattr(train, "_make", lambda context, drafts: None)
    settings = make_copy(logged, *SMALL, config="conf/foursquare.yaml")
    context = make_context(FIRST, LAST, bootstrap=True, settings=settings)
    train.run(context)
    uris = deltalake.DeltaTable(context.lake.path("training_windows")).file_uris()
    keys = [pq.read_table(uri.removeprefix("file://"), columns=["shuffle"])["shuffle"].to_pylist() for uri in uris]
    assert len(keys) > 2 and all(len(some) <= 4 and some == sorted(some) for some in keys)
    by_first = sorted(keys)
    assert sum(one[-1] > other[0] for one, other in pairwise(by_first)) <= 2, "but for the tasks' borders no ranges overlap"


@pytest.mark.parametrize(
    ("counts", "share", "start"),
    [
        ([(1, 5), (2, 4), (3, 1)], 0.1, 3),
        ([(1, 5), (2, 4), (3, 1)], 0.2, 2),
        ([(1, 8), (2, 0), (3, 1)], 0.1, 3),
        ([(1, 9)], 0.1, None),
    ],
)
def test_the_newest_share_begins_at_a_full_hour(counts, share, start):
    assert cutting.newest_from(counts, share) == start


def test_the_held_out_days_are_the_newest():
    days = [date(2024, 1, day) for day in range(1, 11)]
    assert cutting.held_out_from(days, 0.25) == date(2024, 1, 8)
    assert cutting.held_out_from(days, 0.01) == date(2024, 1, 10)
    assert cutting.held_out_from(days[:1], 0.1) is None


def test_a_training_is_repeated_on_its_windows_and_has_the_same_name(spark, make_copy, logged):
    """Without the version that the run made: the lake holds it, the replay has to make it again."""
    settings = make_copy(logged, *SMALL, "train.epochs=1")
    given = {"run_id": "given", "step": "ingest", "day": LAST, "first_day": FIRST, "status": "done", "settings_hash": "x"}
    given |= {"code_version": "x", "outputs": {"events": 2}, "details": "{}", "seconds": 0.0, "finished_at": logs.now()}
    logs.append(settings.lake, "runs", [given | {"inputs": {}, "rows_out": {}}])
    done = runner.run(spark, settings, LAST, steps=choose(only=("train",)))
    folders = sorted(Path(settings.lake, "models").iterdir())
    found = {one.what: one for one in replay(spark, settings, done.run_id)}
    assert set(found) == {"training_windows", "training_runs", "model_versions", "model versions"}
    assert all(one.equal for one in found.values()), [one.line() for one in found.values()]
    assert folders[0].name in found["model versions"].said
    assert sorted(Path(settings.lake, "models").iterdir()) == folders and len(folders) == 1


def test_a_hold_out_knows_what_was_declared_before_its_cut_only(spark, make_context, make_copy, logged):
    context = make_context(FIRST, LAST, first_day=FIRST, bootstrap=True, settings=make_copy(logged, *SMALL))
    changes = [("i0", "before", FIRST, False), ("i0", "after", date(2024, 1, 31), False), ("i1", "x", FIRST, False)]
    changes += [("i1", None, date(2024, 1, 28), True), ("bar", "y", FIRST, False), ("later", "z", date(2024, 1, 31), False)]
    schema = spark_schema(TABLES["items"])
    empty = dict.fromkeys(schema.names)
    rows = [
        {**empty, "item_id": item, "category": category, "gone": gone, "changed_on": day, "day": day}
        for item, category, day, gone in changes
    ]
    context.write("items", spark.createDataFrame([tuple(row.values()) for row in rows], schema))
    _, names = train.as_of(context, date(2024, 1, 30))
    assert dict(zip(names.items, names.item_categories, strict=True))["i0"] == "before"
    assert "later" not in names.items and not {"after", "z"} & set(names.categories)
    _, names = train.as_of(context, LAST)
    known = dict(zip(names.items, names.item_categories, strict=True))
    assert known["i0"] == "after" and known["later"] == "z" and known["i1"] == "x", "of what is gone its events still tell"
