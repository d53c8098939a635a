"""The step that learns to order candidates: counts by Spark against counts in memory, trees kept and grown, and what serves."""

import json
import shutil
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from pyspark.sql import functions as F

from conf.learning import WEEKDAYS
from conf.settings import load_settings
from conf.tables import TABLES
from jobs import evaluate, ranker, sequences, train
from jobs.evaluate import versions
from jobs.evaluate.choosing import in_turn, lately
from jobs.lake import logs
from jobs.lake.context import Skipped
from jobs.lake.schema import spark_schema
from jobs.ranker import answers, counting, growing
from jobs.ranker.counting import Asked
from models.candidates import FEATURES
from models.facts import KINDS, MOST, facts, tallied
from models.histories import event_columns, first_of_owner
from models.hybrid import Examples
from models.queries import Vocabulary
from models.registry import load_ranker
from tests import planting
from tests.jobs.test_train import EVENT, SMALL

FIRST = date(2024, 1, 2)
DAYS = [FIRST + timedelta(days=number) for number in range(28)]
LAST = DAYS[-1]  # a Monday
BEGUN = DAYS[25]
# A network that does not see as far as yesterday, and does not learn: who ranks by the hour is the trees.
OVERRIDES = (*SMALL, "evaluate.bootstrap_samples=50", "train.learning_rate=1e-6", "model.window=4")
ITEMS = [f"i{number:02}" for number in range(30)]
TARGETS = ("check_in",)


def habits(users=10, days=DAYS):
    """Mornings at one item, evenings at another, at noon anywhere: the hour decides."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(users):
        morning, evening = rng.choice(len(ITEMS), 2, replace=False)
        for day in days:
            for hour, item in ((8, int(morning)), (12, int(rng.integers(len(ITEMS)))), (18, int(evening))):
                moment = datetime(day.year, day.month, day.day, hour + 5, int(rng.integers(60)), tzinfo=UTC)
                name = f"{user}/{moment:%m%d%H%M}"
                rows.append(
                    {
                        **EVENT, "event_id": name, "row_hash": name, "user_id": f"u{user:02}", "item_id": ITEMS[item],
                        "event_timestamp": moment, "event_date": day, "day": day, "category": "xyz"[item % 3],
                        "local_timestamp": moment - timedelta(hours=5), "latitude": 40 + item / 1000, "longitude": -74.0,
                    }
                )  # fmt: skip
                rows.append({**rows[-1], "event_id": f"{name}v", "event_type": "view", "item_id": ITEMS[(item + 1) % 30]})
    return rows


def frame(spark, rows):
    schema = spark_schema(TABLES["events"])
    return spark.createDataFrame([tuple(row.get(name) for name in schema.names) for row in rows], schema)


@pytest.fixture(scope="module")
def rows():
    return habits()


@pytest.fixture
def settings(make_settings):
    return make_settings("conf/local.yaml", *OVERRIDES)


@pytest.fixture(scope="module")
def logged(make_context_in, rows, tmp_path_factory):
    """Settings over a lake that holds nothing but the events; not to be changed."""
    settings = load_settings(
        overrides=[f"lake={tmp_path_factory.mktemp('logged') / 'lake'}", "train.tracking=null", *OVERRIDES]
    )
    planting.write(make_context_in(settings, FIRST, LAST, bootstrap=True), "events", rows)
    return settings


@pytest.fixture(scope="module")
def learnt(make_context_in, logged, tmp_path_factory):
    """Settings over such a lake after a bootstrap of what learns, up to BEGUN, and what the step told; not to be changed."""
    settings = logged.model_copy(update={"lake": str(tmp_path_factory.mktemp("learnt") / "lake")})
    shutil.copytree(logged.lake, settings.lake)
    context = make_context_in(settings, FIRST, BEGUN, bootstrap=True)
    for step in (sequences, train, ranker):
        step.run(context)
    return settings, context.details


@pytest.fixture
def copied(learnt, settings):
    """Settings over a copy of it."""
    shutil.copytree(learnt[0].lake, settings.lake)
    return settings


def registry(settings):
    return {row["model_version"]: row for row in logs.read(settings.lake, "model_versions") if row["kind"] == "ranker"}


def details(settings, row):
    with open(f"{settings.lake}/{row['folder']}/version.json") as file:
        return json.load(file)


def test_spark_counts_what_is_counted_in_memory(spark, rows):
    vocabulary = Vocabulary(
        items=tuple(ITEMS), item_categories=tuple("xyz"[n % 3] for n in range(30)), categories=tuple("xyz"), event_types=TARGETS
    )
    asked = [Asked(vocabulary=vocabulary, until=until) for until in (LAST, DAYS[9], FIRST)]
    targets = frame(spark, rows).where(F.col("event_type") == "check_in").repartition(5)
    found = counting.tallies(targets, asked)
    for one, tallies in zip(asked, found, strict=True):
        kept = sorted(
            (row for row in rows if row["day"] < one.until and row["event_type"] == "check_in"),
            key=lambda row: (row["user_id"], row["event_timestamp"], row["event_id"]),
        )
        columns = {name: [row[name] for row in kept] for name in counting._READ}
        events = event_columns(vocabulary, columns)
        until = int(datetime(one.until.year, one.until.month, one.until.day, tzinfo=UTC).timestamp())
        wanted = facts(
            vocabulary, TARGETS, tallied(vocabulary, events, first_of_owner([row["user_id"] for row in kept]), until)
        )
        for kind in KINDS:
            for ours, theirs in zip(tallies[kind], wanted.tallies[kind], strict=True):
                np.testing.assert_array_equal(ours, theirs, err_msg=f"{kind} until {one.until}")
    assert len(found[0]["both"][0]) > 100 and not len(found[2]["users"][0])
    assert max(np.bincount(found[0]["moves"][0])) <= MOST["moves"]


def test_the_newest_share_by_whole_days():
    assert growing.newest(dict.fromkeys(DAYS, 10), 0.125) == DAYS[-4]
    assert growing.newest({DAYS[0]: 1, DAYS[1]: 0, DAYS[2]: 1}, 0.9) == DAYS[1]
    assert growing.newest({}, 0.1) is None and growing.newest({FIRST: 5}, 0.1) is None


def test_a_bootstrap_makes_one_for_the_day_and_one_until_a_cut(learnt, rows):
    settings, told = learnt
    made = registry(settings)
    assert sorted(row["trained_until"].date() for row in made.values()) == [DAYS[19], BEGUN]
    assert {row["method"] for row in made.values()} == {"hybrid"} and {row["day"] for row in made.values()} == {BEGUN}
    assert all(details(settings, row)["grown_on"] == str(BEGUN) for row in made.values())
    newest = next(row for row in made.values() if row["trained_until"].date() == BEGUN)
    known = load_ranker(versions.folder(settings.lake, newest)).known
    wanted = [row for row in rows if row["day"] < BEGUN and row["event_type"] == "check_in"]
    assert known.events_V.sum() == len(wanted) and known.vocabulary.event_types == TARGETS
    assert told["moments"] > 50


def test_what_is_decided_on_is_of_the_kind_that_serves_or_the_better_one():
    network, trees = {"kind": "interest"}, {"kind": "ranker"}
    made, held = [trees, network], {"interest": 0.4, "ranker": 0.3}

    def first(published, held=held, lately={}):  # noqa: B006
        return in_turn(made, published, held, lately, 0.01)[0]["kind"]

    assert first(None) == "interest" and first(None, {}) == "ranker", "nothing serves: the better one, else the trees"
    assert first(trees) == "ranker" and first(network, {}) == "interest", "what serves goes on"
    assert first({"kind": "baseline"}) == "interest"
    assert first(network, lately={"interest": 0.4, "ranker": 0.41}) == "ranker", "the other was better by the margin"
    assert first(network, lately={"interest": 0.4, "ranker": 0.4039}) == "interest"
    assert in_turn([network], trees, {}, {}, 0.01) == [network]


def test_how_the_kinds_ranked_lately_is_pooled_over_days_of_both(make_context, settings):
    def judged(version, day, value, events, **more):
        row = {"model_version": version, "evaluation": "day", "segment": "all", "metric": "ndcg", "k": 10, "day": day}
        return {**row, "value": value, "lower": None, "upper": None, "events": events, "users": 1, **more}

    rows, registry = [], []
    for number, day in enumerate(DAYS[:9]):
        for kind, value in (("interest", 0.2), ("ranker", 0.3 if number % 2 else 0.1)):
            registry.append({"model_version": f"{kind}{number}", "day": day, "kind": kind})
            rows.append(judged(f"{kind}{number}", day, value, 30 if number % 2 else 10))
        # What served, made the day before, is not the day's own; other measures and parts are not asked.
        rows += [judged(f"interest{number - 1}", day, 0.9, 10), judged(f"ranker{number}", day, 0.9, 10, metric="hit")]
        rows.append(judged(f"ranker{number}", day, 0.9, 10, segment="slot=any"))
    whole = make_context(DAYS[0], DAYS[8], bootstrap=True, first_day=FIRST, settings=settings)
    planting.write(whole, "model_quality", rows)
    night = make_context(DAYS[9], first_day=FIRST, settings=settings)
    found = lately(night, registry)
    assert found == pytest.approx({"interest": 0.2, "ranker": (4 * 30 * 0.3 + 5 * 10 * 0.1) / 170})
    assert lately(make_context(DAYS[6], first_day=FIRST, settings=settings), registry) == {}, "six days are too few"


def test_it_ranks_by_the_hour_and_serves(make_context, copied):
    settings = copied
    context = make_context(FIRST, BEGUN, bootstrap=True, first_day=FIRST, settings=settings)
    evaluate.run(context)
    held, day = context.details["holdout"], context.details["day"]
    hybrid = {name: value for name, value in held.items() if name.startswith("hybrid")}
    assert max(hybrid.values()) == max(held.values()), held
    assert {name for name in day if name.startswith("hybrid")} and any("-" not in name for name in day), (
        "the network is judged too"
    )
    assert context.details["decision"] == "published" and context.details["model_version"].startswith("hybrid-")

    # The next night: the trees are kept, what serves is held against what is new; where it is no night for it, nothing is.
    before = registry(settings)
    other = WEEKDAYS[BEGUN.weekday()]
    resting = settings.model_copy(update={"train": settings.train.model_copy(update={"only_on": other})})
    rest = make_context(DAYS[26], first_day=FIRST, settings=resting)
    train.run(rest)
    ranker.run(rest)
    assert registry(settings) == before and other in rest.details["learned"]
    night = make_context(DAYS[26], first_day=FIRST, settings=settings)
    train.run(night)
    ranker.run(night)
    [new] = [row for name, row in registry(settings).items() if name not in before]
    evaluate.run(night)
    decided = max(logs.read(settings.lake, "publications"), key=lambda row: row["decided_at"])
    assert decided["candidate"] == new["model_version"] and details(settings, new)["grown_on"] == str(BEGUN)
    assert night.details["decision"] in ("published", "kept", "refused")


def test_nights_keep_the_trees_and_one_a_week_grows_new_ones(make_context, copied):
    settings = copied
    before = registry(settings)
    monday = make_context(LAST, first_day=FIRST, settings=settings)
    ranker.run(monday)
    [grown] = [row for name, row in registry(settings).items() if name not in before]
    assert details(settings, grown)["grown_on"] == str(LAST)

    kept = settings.model_copy(update={"train": settings.train.model_copy(update={"from_scratch_on": None})})
    again = make_context(LAST, first_day=FIRST, settings=kept)
    ranker.run(again)
    [night] = [row for name, row in registry(settings).items() if name not in {*before, grown["model_version"]}]
    assert details(settings, night)["grown_on"] == str(BEGUN)
    ranker.run(make_context(LAST, first_day=FIRST, settings=kept))
    assert len(registry(settings)) == len(before) + 2, "the same again"

    other = kept.model_copy(update={"ranker": kept.ranker.model_copy(update={"max_moments": 100})})
    ranker.run(make_context(LAST, first_day=FIRST, settings=other))
    [regrown] = [
        row for name, row in registry(settings).items() if name not in {*before, grown["model_version"], night["model_version"]}
    ]
    assert details(settings, regrown)["grown_on"] == str(LAST), "grown anew, on a part of the users"


def test_equal_logs_make_equal_versions_however_they_lie(make_context, spark, copied, rows):
    settings = copied
    first = set(registry(settings))
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    parted = settings.model_copy(update={"spark": settings.spark.model_copy(update={"shuffle_partitions": 3})})
    whole = make_context(FIRST, LAST, bootstrap=True, first_day=FIRST, settings=parted)
    whole.write("events", frame(spark, shuffled).repartition(3))
    ranker.run(make_context(FIRST, BEGUN, bootstrap=True, first_day=FIRST, settings=parted))
    assert set(registry(settings)) == first


def test_too_little_makes_no_version(make_context, logged, settings, rows):
    shutil.copytree(logged.lake, settings.lake)
    context = make_context(DAYS[0], bootstrap=True, settings=settings)
    ranker.run(context)
    assert registry(settings) == {} and context.details["learned"].startswith("no version")
    nothing = make_context(FIRST, LAST, bootstrap=True, settings=settings)
    planting.write(nothing, "events", [row for row in rows if row["event_type"] == "view"])
    ranker.run(make_context(FIRST, LAST, bootstrap=True, settings=settings))
    assert registry(settings) == {}


def test_it_can_be_off_and_says_where_it_does_not_fit(make_context, settings, make_settings):
    off = settings.model_copy(update={"ranker": settings.ranker.model_copy(update={"by": "network"})})
    context = make_context(LAST, first_day=FIRST, settings=off)
    ranker.run(context)
    assert context.details["learned"] == "off: ranker.by is network"
    films = make_settings("conf/movielens.yaml")
    with pytest.raises(Skipped, match="no times or no repeats"):
        ranker.run(make_context(LAST, first_day=FIRST, settings=films))


def told(day, user="u00", rank=1, item=0, kind="impression", minute=0, **more):
    """A row of feedback to the list of the day before; `item`: its place in ITEMS."""
    at = datetime(day.year, day.month, day.day, 13, minute, tzinfo=UTC)
    name = f"{day}{user}{rank}{item}{kind}{minute}{sorted(more.items())}"
    return {
        "feedback_id": name, "user_id": user, "event_type": kind, "event_timestamp": at, "item_id": ITEMS[item],
        "list_day": day - timedelta(days=1), "slot": "any", "rank": rank, "unmatched": None, "source": None,
        "model_version": "v", "policy_version": None, "propensity": 1.0, "policy_context": None, "day": day, **more,
    }  # fmt: skip


def shown(day, user, items, clicked=(), **more):
    """A list of these items, some of them clicked (by rank) some minutes later."""
    rows = [told(day, user, rank, item, **more) for rank, item in enumerate(items, start=1)]
    return rows + [told(day, user, rank, items[rank - 1], "click", 5, **more) for rank in clicked]


@pytest.fixture
def asked_of(make_context, make_settings, spark):
    """`(user, at minute, item, passed, worth)` of each moment that rows of feedback lead to, and how ranks are looked at."""

    def ask(rows):
        settings = make_settings("conf/local.yaml", *OVERRIDES, "score.k=4")
        context = make_context(LAST, first_day=FIRST, settings=settings)
        whole = make_context(FIRST, LAST, bootstrap=True, first_day=FIRST, settings=settings)
        planting.write(whole, "feedback", rows)
        context.pins.update(whole.pins)
        seen = answers.entries(context, DAYS[10], LAST)
        examined_K = answers.examined(seen, 4)
        found = [
            (row.user_id, row.event_timestamp.minute, ITEMS.index(row.item_id),
             sorted(ITEMS.index(item) for item in json.loads(row.groups["passed"])), float(row.groups["worth"]))
            for row in answers.answered(seen, examined_K).collect()
        ]  # fmt: skip
        return sorted(found), examined_K

    return ask


def test_an_answer_stands_against_what_was_shown_and_passed_over(asked_of):
    day = DAYS[20]
    rows = shown(day, "u00", [4, 5, 6, 7], clicked=[3])
    rows += [told(day, "u00", 1, 4, "dismiss", 6), told(day, "u00", 2, 5, "click", 7, unmatched="other_item")]
    rows += shown(day, "u01", [8, 9], clicked=[1, 2]) + shown(day, "u02", [8, 9])  # all of it, and nothing
    rows += [told(day, "u03", 1, 4, "click"), told(day, "u03", 2, 5)]  # nobody says that it was shown
    rows += shown(DAYS[9], "u04", [8, 9], clicked=[1]) + shown(LAST, "u04", [8, 9], clicked=[1])  # before, and the day itself
    rows += [*shown(day, "u05", [1, 2, 3], clicked=[2]), told(day, "u05", 2, 2, "purchase", 8)]
    found, examined_K = asked_of(rows)
    worth = [(user, minute, item, passed) for user, minute, item, passed, _ in found]
    assert worth == [("u00", 0, 6, [4, 5, 7]), ("u05", 0, 2, [1, 3])]
    assert [told[-1] for told in found] == pytest.approx([min(10, 0.5 / examined_K[2]), min(10, 1 / examined_K[1])])


def test_how_little_ranks_are_looked_at_is_known_from_shuffled_lists_and_counts_up_to_a_bound(asked_of):
    planted, rows = (1.0, 0.5, 0.25, 0.125), []
    for number in range(1600):
        item = number % 30
        rank = number % 4 + 1
        more = {"source": "shuffled", "minute": number % 5}
        user = f"s{number:04}"
        rows.append(told(DAYS[15], user, rank, item, **more))
        if number // 4 < 400 * planted[rank - 1] * 0.8:
            rows.append(told(DAYS[15], user, rank, item, "purchase", **more))
    rows += shown(DAYS[20], "u00", [4, 5, 6, 7], clicked=[4])
    found, examined_K = asked_of(rows)
    assert examined_K == pytest.approx(planted, rel=0.02)
    assert found == [("u00", 0, 7, [4, 5, 6], pytest.approx(0.5 / examined_K[3]))]


def test_of_whoever_answers_always_the_newest_answers_count(asked_of):
    rows = [row for day in DAYS[11:27] for row in [*shown(day, "u00", [1, 2, 3], clicked=[1, 2])]]
    found, _ = asked_of(rows)
    assert len(found) == answers._PER_USER


def test_trees_learn_from_answers_to_lists(make_context, copied):
    settings = copied
    plain = make_context(LAST, first_day=FIRST, settings=settings)
    ranker.run(plain)
    assert "answers" not in plain.details
    before = registry(settings)
    rows = [row for day in DAYS[22:27] for user in range(10) for row in shown(day, f"u{user:02}", list(range(5)), clicked=[4])]
    planting.write(make_context(FIRST, DAYS[26], bootstrap=True, first_day=FIRST, settings=settings), "feedback", rows)
    night = make_context(LAST, first_day=FIRST, settings=settings)
    ranker.run(night)
    assert night.details["answers"] > 40 and len(night.details["examined"]) == settings.score.k
    assert len(set(registry(settings)) - set(before)) == 1, "other trees"


def test_examples_come_whole_through_spark():
    given = Examples(
        features_CF=np.random.default_rng(0).normal(size=(5, len(FEATURES))).astype(np.float32),
        is_taken_C=np.array([True, False, False, True, False]), size_G=np.array([3, 2]), moment_G=np.array([7, -8]),
        worth_G=np.array([0.25, 4.0]),
    )  # fmt: skip
    [row] = growing._told(given).to_pylist()
    back = growing._read(row)
    assert all(np.array_equal(getattr(back, name), values) for name, values in vars(given).items())
