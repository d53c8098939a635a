"""The night's judgement. Items follow each other in a circle, so what a contender knows of it is planted."""

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from conf.learning import Gate
from conf.settings import load_settings
from conf.tables import TABLES
from jobs import evaluate, sequences
from jobs.evaluate import quality, versions
from jobs.evaluate.fitting import fit, successors
from jobs.evaluate.gate import Duel, against_published, first
from jobs.lake import logs
from jobs.lake.schema import spark_schema
from models import metrics, registry
from models.baselines import Baseline, baseline
from models.counts import count
from models.judging import EMPTY_LISTS, Judged, likeness, translation, whole_users
from models.queries import Vocabulary
from models.registry import load_ranker

FIRST_DAY = date(2024, 1, 30)
DAYS = [FIRST_DAY + timedelta(days=number) for number in range(5)]
LAST = DAYS[-1]
ITEMS = tuple(f"i{number:02}" for number in range(20))
VOCABULARY = Vocabulary(items=ITEMS, item_categories=("",) * 20, categories=(), event_types=("check_in", "view"))
USERS = 12
EVENT = {
    "event_id": "e", "user_id": "u", "item_id": "i00", "event_type": "check_in",
    "event_timestamp": datetime(2024, 1, 30, tzinfo=UTC), "event_date": FIRST_DAY,
    "local_timestamp": None, "local_date": None, "local_hour": None, "slot": None,
    "latitude": None, "longitude": None, "time_zone": None, "cell": None, "region": None, "category": None, "value": None,
    "text": None, "device": None, "scene": None, "session_id": None, "row_hash": "r", "day": FIRST_DAY,
}  # fmt: skip


def event(user, date_, hour, item, **more):
    when = datetime(date_.year, date_.month, date_.day, tzinfo=UTC) + timedelta(hours=hour)
    name = f"{user}/{when:%m%d%H%M}/{item}"
    local = when - timedelta(hours=5)
    known = {
        "event_id": name,
        "row_hash": name,
        "event_timestamp": when,
        "local_timestamp": local,
        "event_date": date_,
        "day": date_,
    }
    return {**EVENT, "user_id": user, "item_id": item, **known, **more}


def circle(days=DAYS, users=USERS):
    """Each user goes round the circle, four items a day; user n begins at item n."""
    rows = []
    for number in range(users):
        for count_, day in enumerate(days):
            for step in range(4):
                item = ITEMS[(number + 4 * count_ + step) % 20]
                rows.append(event(f"user{number:02}", day, 8 + 3 * step, item))
    return rows


def frame(spark, rows):
    schema = spark_schema(TABLES["events"])
    return spark.createDataFrame([tuple(row.get(name) for name in schema.names) for row in rows], schema)


def write_events(make_context, spark, rows, settings, days=DAYS):
    context = make_context(days[0], days[-1], bootstrap=True, first_day=days[0], settings=settings)
    context.write("events", frame(spark, rows))


def knowing(share=1.0, method="markov"):
    """A ranker that knows what follows an item, for this share of the items; of the rest it is sure of what is wrong."""
    known = [number < share * 20 for number in range(20)]
    after = [ITEMS[(number + (1 if known[number] else 7)) % 20] for number in range(20)]
    return baseline(method, count(VOCABULARY, ("check_in",), (ITEMS, [50] * 20, [50] * 20), (ITEMS, after, [50] * 20)))


def shuffled():
    return knowing(0.0)


def register(settings, version, ranker, day=LAST, until=None, method="transformer"):
    """A version as training leaves it; whatever ranks may stand in its folder."""
    registry.save(ranker, registry.version_folder(settings.lake, version))
    row = {
        "model_version": version, "kind": "interest", "method": method, "day": day, "folder": f"models/{version}",
        "trained_until": until or versions.midnight(day), "settings": "{}", "metrics": "{}", "items": 20,
        "created_at": logs.now(),
    }  # fmt: skip
    logs.append(settings.lake, "model_versions", [row])


def publish(settings, version, day, **more):
    row = {
        "day": day, "kind": "interest", "model_version": version, "decision": "manual", "candidate": None, "reason": "a test",
        "run_id": "before", "decided_at": logs.now(),
    }  # fmt: skip
    logs.append(settings.lake, "publications", [row | more])


def decisions(settings, day=LAST):
    rows = [row for row in logs.read(settings.lake, "publications") if row["day"] == day]
    return sorted(rows, key=lambda row: row["decided_at"])


def stored(context, evaluation="day"):
    """{(version, metric, k): row} of the last day, over all of its events."""
    table = context.lake.read("model_quality", context.lake.version("model_quality"))
    rows = [row.asDict() for row in table.collect() if row.evaluation == evaluation and row.day == context.days.last]
    rows = [row for row in rows if row["segment"] == "all"]
    return {(row["model_version"], row["metric"], row["k"]): row for row in rows}


@pytest.fixture
def settings(make_settings):
    return make_settings("conf/local.yaml", "sequences.length=8", "evaluate.bootstrap_samples=50", "evaluate.ks=[1,5,10]")


def night(make_context, settings, day=LAST, first_day=FIRST_DAY):
    return make_context(day, first_day=first_day, settings=settings)


def bootstrap(make_context, settings, days=DAYS):
    return make_context(days[0], days[-1], bootstrap=True, first_day=days[0], settings=settings)


def direct_popularity(rows, day):
    """Ranks by counts, ties against us, by plain loops."""
    counts = {item: 0 for item in ITEMS}
    for row in rows:
        if row["day"] < day and row["event_type"] == "check_in":
            counts[row["item_id"]] += 1
    asked = [row for row in rows if row["day"] == day and row["event_type"] == "check_in"]
    return [sum(counts[other] >= counts[row["item_id"]] for other in ITEMS) for row in asked]


def test_a_night_judges_all_on_what_was_known_before_each_event(make_context, settings, spark):
    """Views and late arrivals besides: counted where they belong. Hand-made ranks against the stored metrics."""
    rows = circle(users=6)
    late = event("user03", DAYS[3], 12.5, "i19", day=LAST)
    rows += [late, event("user02", LAST, 10, "i07", event_type="view"), event("lurker", LAST, 9, "i01", event_type="view")]
    write_events(make_context, spark, rows, settings)
    sequences.run(bootstrap(make_context, settings, DAYS[:-1]))
    register(settings, "knows", knowing())
    context = night(make_context, settings)
    evaluate.run(context)
    found = stored(context)

    ranks = np.array(direct_popularity(rows, LAST))
    assert len(ranks) == 6 * 4 + 1
    for metric, k in [("hit", 5), ("precision", 10), ("recall", 1), ("f1", 5), ("ndcg", 10), ("mrr", 0)]:
        row = found["baseline:popularity", metric, k]
        assert row["value"] == pytest.approx(metrics.METRICS[metric](ranks, k).mean())
        assert (row["events"], row["users"]) == (25, 6) and row["lower"] <= row["value"] <= row["upper"]
    # The circle is known, so all come first but the late one, which breaks it, and the one after i19: that
    # i17 followed the late i19 is known by then.
    assert found["knows", "hit", 1]["value"] == pytest.approx(23 / 25)
    assert found["knows", "coverage", 10]["value"] > 0.5
    assert found["knows", "empty_lists", 10]["value"] == 0.0
    judged = ("popularity", "user_frequency", "markov", "kernels")
    assert {name for name, _, _ in found} == {"knows", *(f"baseline:{name}" for name in judged)}
    gain = found["knows", "ndcg", 10]["value"] - found["baseline:popularity", "ndcg", 10]["value"]
    assert found["baseline:popularity", "ndcg_behind", 10]["value"] == pytest.approx(gain)
    [row] = decisions(settings)
    assert (row["decision"], row["model_version"], row["candidate"]) == ("published", "knows", "knows")
    assert "beats popularity" in row["reason"] and "refusals" not in context.details


def test_a_bootstrap_judges_as_a_night_does_and_a_second_version_on_more(
    make_context, settings, make_settings, tmp_path, spark
):
    rows = circle()
    write_events(make_context, spark, rows, settings)
    sequences.run(bootstrap(make_context, settings, DAYS[:-1]))
    register(settings, "knows", knowing(0.9))
    one = night(make_context, settings)
    evaluate.run(one)

    other = make_settings("conf/local.yaml", f"lake={tmp_path / 'other'}", *SAME)
    write_events(make_context, spark, rows, other)
    register(other, "knows", knowing(0.9))
    cut = versions.midnight(DAYS[3])
    register(other, "cut", knowing(0.5), until=cut)
    whole = bootstrap(make_context, other)
    evaluate.run(whole)

    by_night, at_once = stored(one), stored(whole)
    assert by_night.keys() == at_once.keys() and len(by_night) > 60
    for key, row in by_night.items():
        for name, value in row.items():
            assert (
                value == pytest.approx(at_once[key][name], rel=1e-9)
                if isinstance(value, float)
                else value == at_once[key][name]
            )
    held = stored(whole, "holdout")
    later = [row for row in rows if row["event_timestamp"] >= cut]
    assert held["cut", "ndcg", 10]["events"] == len(later) == 8 * USERS
    after_known = [ITEMS.index(row["item_id"]) for row in later]
    assert held["cut", "hit", 1]["value"] == pytest.approx(np.mean([(place - 1) % 20 < 10 for place in after_known]))
    assert ("knows", "ndcg", 10) not in held and ("cut", "ndcg", 10) not in at_once
    fitted = fit(frame(spark, [row for row in rows if row["event_timestamp"] < cut]), ("check_in",), VOCABULARY)
    assert held["baseline:markov", "hit", 1]["value"] > 0.9 and fitted.events_V.sum() < len(rows)
    assert decisions(other)[0]["model_version"] == "knows", "the second version is only judged"
    assert "holdout" in whole.details and json.dumps(whole.details)


SAME = ("sequences.length=8", "evaluate.bootstrap_samples=50", "evaluate.ks=[1,5,10]")


def test_a_candidate_that_knows_nothing_gives_way_to_the_best_baseline(make_context, settings, spark):
    write_events(make_context, spark, circle(), settings)
    register(settings, "wrong", shuffled())
    context = bootstrap(make_context, settings)
    evaluate.run(context)
    [row] = decisions(settings)
    assert row["decision"] == "baseline" and row["model_version"].startswith("baseline-markov-") and row["candidate"] == "wrong"
    known = versions.known(logs.read(settings.lake, "model_versions"), row["model_version"])
    assert (known["method"], known["kind"], known["items"]) == ("markov", "baseline", 20)
    served = load_ranker(versions.folder(settings.lake, known))
    assert isinstance(served, Baseline) and served.counts.events_V.sum() == 4 * 4 * USERS, "fitted before the day"
    # The day again: the same version once, and what was decided is not seen.
    evaluate.run(bootstrap(make_context, settings))
    assert [one["decision"] for one in decisions(settings)] == ["baseline", "baseline"]
    assert sorted(one["kind"] for one in logs.read(settings.lake, "model_versions")) == ["baseline", "interest"]


@pytest.mark.parametrize(
    ("candidate", "served", "decision"),
    [("good", "half", "published"), ("wrong", "half", "refused")],
)
def test_the_gate_takes_the_better_and_refuses_the_shuffled(candidate, served, decision, make_context, settings, spark):
    """Also in the second night, whose pool holds the first's differences unless that candidate was refused."""
    rankers = {"good": knowing(0.95), "half": knowing(0.85), "wrong": shuffled()}
    write_events(make_context, spark, circle(), settings)
    register(settings, served, rankers[served], day=DAYS[0])
    publish(settings, served, DAYS[0])
    register(settings, "first", rankers[candidate], day=DAYS[3])
    register(settings, "second", rankers[candidate])
    sequences.run(bootstrap(make_context, settings, DAYS[:3]))
    one = night(make_context, settings, DAYS[3])
    evaluate.run(one)
    [row] = decisions(settings, DAYS[3])
    assert (row["decision"], row["candidate"]) == (decision, "first"), row["reason"]
    assert row["model_version"] == ("first" if decision == "published" else served)
    assert ("refusals" in one.details) == (decision == "refused")
    pair = stored(one, "paired")
    assert len(pair) == 103 and pair["first", "ndcg@10_difference", 0]["events"] == 4 * USERS
    assert pair["first", "ndcg@10_weight", 0]["value"] == 4 * USERS

    # What is decided of a labeller on the day, and later, is not of this contest.
    publish(settings, "labels", DAYS[3], kind="labeller", decision="published", candidate="labels")
    sequences.run(night(make_context, settings, DAYS[3]))
    two = night(make_context, settings)
    evaluate.run(two)
    [row] = decisions(settings)
    assert row["candidate"] == "second" and row["model_version"] != "labels"
    if decision == "refused":
        assert row["decision"] == "refused" and "over 1 day," in row["reason"]
        assert "refused" in two.details["refusals"][0] and "second" in two.details["refusals"][0]
    else:
        assert row["decision"] == "published" and "over 2 days, 96 events" in row["reason"], (
            "the same against itself is no worse"
        )


def test_without_anything_to_judge_the_published_version_is_kept(make_context, settings, spark):
    rows = [row for row in circle() if row["day"] < LAST] + [event("user00", LAST, 9, "i03", event_type="view")]
    write_events(make_context, spark, rows, settings)
    sequences.run(bootstrap(make_context, settings, DAYS[:-1]))
    register(settings, "served", knowing(), day=DAYS[0])
    publish(settings, "served", DAYS[0])
    evaluate.run(night(make_context, settings))
    [row] = decisions(settings)
    assert (row["decision"], row["model_version"], row["candidate"]) == ("kept", "served", None)
    register(settings, "new", shuffled())
    context = night(make_context, settings)
    evaluate.run(context)
    row = decisions(settings)[-1]
    assert (row["decision"], row["model_version"], row["candidate"]) == ("kept", "served", "new")
    assert "no target events" in row["reason"] and "refusals" not in context.details
    assert stored(context) == {}


def test_an_empty_lake_decides_nothing(make_context, settings):
    context = night(make_context, settings, FIRST_DAY)
    evaluate.run(context)
    assert context.rows_out["model_quality"] == 0 and decisions(settings, FIRST_DAY) == []


def test_a_log_without_times_is_judged_on_last_events_without_what_was_seen(make_context, make_settings, spark):
    only = date(2000, 1, 1)
    settings = make_settings("conf/local.yaml", "sources.events.mapping=conf/sources/movielens.yaml", *SAME)
    rows = []
    for number in range(USERS):
        for step in range(15):
            when = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=step)
            known = {
                "event_timestamp": when,
                "event_id": f"{number}/{step:02}",
                "local_timestamp": None,
                "event_type": "rating",
            }
            rows.append(
                {
                    **EVENT,
                    "user_id": f"user{number}",
                    "item_id": ITEMS[(number + step) % 20],
                    **known,
                    "day": only,
                    "event_date": only,
                }
            )
    write_events(make_context, spark, rows, settings, [only])
    after = [ITEMS[(number + 1) % 20] for number in range(20)]
    taken_once = Vocabulary(items=ITEMS, item_categories=("",) * 20, categories=(), event_types=("rating",))
    ranker = baseline("markov", count(taken_once, ("rating",), (ITEMS, [50] * 20, [50] * 20), (ITEMS, after, [50] * 20)))
    register(settings, "knows", ranker, day=only, until=datetime(2000, 1, 1, 0, 1, tzinfo=UTC))
    context = bootstrap(make_context, settings, [only])
    evaluate.run(context)
    found = stored(context)
    assert found["knows", "hit", 1]["value"] == 1.0 and found["knows", "hit", 1]["events"] == USERS
    # Fourteen of twenty items are seen (eight within the sequence, six before): six are left to rank.
    counts = fit_before_last(rows)
    expected = []
    for number in range(USERS):
        left = [ITEMS[(number + step) % 20] for step in range(14, 20)]
        expected.append(sum(counts[item] >= counts[left[0]] for item in left))
    assert found["baseline:popularity", "mrr", 0]["value"] == pytest.approx(np.mean([1 / rank for rank in expected]))
    assert decisions(settings, only)[0]["model_version"] == "knows"


def fit_before_last(rows):
    counts = {item: 0 for item in ITEMS}
    for row in rows:
        counts[row["item_id"]] += not row["event_id"].endswith("/14")
    return counts


def test_baselines_are_fitted_on_target_events_in_their_order(spark):
    rows = [event("a", LAST, hour, item) for hour, item in enumerate(["i00", "i01", "i00", "i01", "i02"])]
    rows += [event("b", LAST, 3, "i00"), event("b", LAST, 1, "i02"), event("b", LAST, 2, "i00")]
    found = {
        (row.item_id, row.next_item_id): (row.times, row.events, row.moves) for row in successors(frame(spark, rows)).collect()
    }
    assert found == {
        ("i00", "i01"): (2, 4, 3), ("i00", "i00"): (1, 4, 3), ("i00", None): (1, 4, 3), ("i01", "i00"): (1, 2, 2),
        ("i01", "i02"): (1, 2, 2), ("i02", "i00"): (1, 2, 1), ("i02", None): (1, 2, 1),
    }  # fmt: skip
    counts = fit(frame(spark, rows), ("check_in",))
    assert counts.vocabulary.items == ("i00", "i01", "i02") and counts.events_V.tolist() == [4, 2, 2]
    assert counts.transitions_V.tolist() == [3, 2, 1] and counts.successor_VK.tolist() == [[1, 0], [0, 2], [0, -1]]


def test_no_user_is_split_between_tables():
    import pyarrow as pa

    users = ["a", "a", "b", "c", "c", "c", "c", "c", "d"]
    for size in range(1, 10):
        batches = [pa.RecordBatch.from_arrays([pa.array(users[at : at + size])], ["user_id"]) for at in range(0, 9, size)]
        tables = [table.column("user_id").to_pylist() for table in whole_users(batches)]
        assert [user for table in tables for user in table] == users
        assert sum(len(set(table)) for table in tables) == 4, size


def test_lists_over_two_catalogues_are_compared_by_name():
    ours, theirs = np.array([[0, 1, 2], [0, -1, -1], [-1, -1, -1]]), np.array([[2, 1, 3], [3, -1, -1], [0, 1, 2]])
    found = likeness(ours, theirs, translation(["z", "c", "a", "q"], ["a", "b", "c"]))
    assert found.tolist() == [pytest.approx(2 / 3), 0.0, 0.0]


def tally(difference, users=100, reference=0.5, alike=0.8, seed=1, weighs=False):
    """Three events a user; differences of the given mean with some noise; of unlike weight, if it is said."""
    random = np.random.default_rng(seed)
    values = np.column_stack(
        [random.normal(difference, 0.1, 3 * users), np.full(3 * users, reference), np.full(3 * users, alike)]
    )
    weights = random.uniform(0.1, 1.0, (3 * users, 1)) if weighs else None
    return metrics.tally(values, [f"u{number % users}" for number in range(3 * users)], 200, weight_NM=weights)


def one(ndcg, covered=10, empty=0.0):
    measures = [("ndcg", 10), EMPTY_LISTS]
    summed = metrics.tally(np.tile([ndcg, empty], (5, 1)), ["a", "b", "c", "d", "e"], 20)
    return Judged(measures=measures, tally=summed, covered_V=np.arange(100) < covered)


def duel(day, past=(), ours=None):
    return Duel(candidate="new", published="old", day=day, past=past, judged={"new": ours or one(0.5), "old": one(0.5)})


def test_the_gate_by_its_bounds():
    rules = Gate()
    assert against_published(duel(tally(0.05)), rules).decision == "published"
    assert against_published(duel(tally(0.0, users=4000)), rules).decision == "published", "equal, and it is known"
    unsure = against_published(duel(tally(0.0, users=20)), rules)
    assert unsure.decision == "refused" and "may be too much worse" in unsure.reason and unsure.model_version == "old"
    many = [tally(0.02, users=4000, seed=seed) for seed in range(2, 5)]
    assert against_published(duel(tally(0.0, users=20), many), rules).decision == "published", "earlier days make it sure"
    today = against_published(duel(tally(-0.05, users=200), many), rules)
    assert today.decision == "refused" and "significantly worse on the day alone" in today.reason
    assert against_published(duel(tally(-0.05, users=200), many), Gate(margin=0.5)).decision == "refused"
    assert against_published(duel(tally(0.05, users=1)), rules).decision == "kept", "one user says nothing of spread"


def test_the_gate_does_not_believe_what_is_too_good_to_be_true():
    found = against_published(duel(tally(0.4)), Gate())
    assert found.decision == "refused" and found.model_version == "old"
    assert "too good to be true" in found.reason and "wherewhen publish new" in found.reason
    assert against_published(duel(tally(0.4, users=2)), Gate(max_gain=0.9)).decision == "published"
    # From 0.7 nobody gets to 1.05: what is left counts.
    assert against_published(duel(tally(0.2, reference=0.7)), Gate()).decision == "refused"
    assert against_published(duel(tally(0.1, reference=0.7)), Gate()).decision == "published"
    # Days of other candidates do not make it more likely.
    found = against_published(duel(tally(0.4), past=[tally(0.0)] * 6), Gate())
    assert found.decision == "refused" and "too good to be true" in found.reason
    first_model = replace(duel(tally(0.4)), is_baseline=True)
    assert against_published(first_model, Gate()).decision == "published", "any model may beat a baseline by much"


def test_the_gate_minds_coverage_empty_lists_and_change():
    rules = Gate()
    for ours, day, said in [
        (one(0.5, covered=1), tally(0.05), "its lists hold 1.00% of the catalogue, at least 2.00% is asked"),
        (one(0.5, empty=0.5), tally(0.05), "50.00% of its lists are empty"),
        (one(0.5), tally(0.05, alike=0.01), "share 1.00% with those of old"),
    ]:
        found = against_published(duel(day, ours=ours), rules)
        assert found.decision == "refused" and said in found.reason
    assert against_published(duel(tally(0.05), ours=one(0.5, covered=3)), rules).decision == "published"


def test_the_first_to_serve_beats_popularity():
    others = {"popularity": one(0.3), "user_frequency": one(0.6), "markov": one(0.5)}
    assert first("new", {**others, "new": one(0.4)}, Gate()).decision == "published"
    for ndcg in (0.3, 0.1):
        found = first("new", {**others, "new": one(ndcg)}, Gate())
        assert (found.decision, found.model_version) == ("baseline", "user_frequency")
    assert first("new", {**others, "new": one(0.9, empty=0.2)}, Gate()).decision == "baseline"
    assert first(None, others, Gate()).model_version == "user_frequency"
    nothing = first("new", {}, Gate())
    assert (nothing.decision, nothing.model_version) == ("baseline", "popularity") and "no target events" in nothing.reason


@pytest.mark.parametrize("overrides", [[], ["train.worth={click: 0.1}"]])
def test_days_are_pooled_as_if_they_had_been_judged_together(overrides):
    """The same users on both days: their differences go together, as their weights do."""
    settings = load_settings(overrides=overrides)
    days = [tally(mean, users=30, seed=seed, weighs=bool(overrides)) for mean, seed in ((0.1, 1), (-0.2, 2))]
    rows = [row for number, pair in enumerate(days) for row in quality.paired_rows(f"m{number}", pair, settings, DAYS[number])]

    def pairs(refused=frozenset(), **gate):
        return quality.pairs(rows, set(refused), settings.model_copy(update={"gate": Gate(**gate)}))

    found = pairs()
    assert len(found) == 2
    for back, pair in zip(found, reversed(days), strict=True):
        assert back.events == pair.events and back.weight_M[:2] == pytest.approx(pair.weight_M[:2])
        assert back.sum_SM[:, 0] == pytest.approx(pair.sum_SM[:, 0]) and back.weight_SM[:, 0] == pytest.approx(
            pair.weight_SM[:, 0]
        )
        assert back.mean_M[:2] == pytest.approx(pair.mean_M[:2])
    both = found[0] + found[1]
    assert both.quantile(0.05)[0] == pytest.approx((days[0] + days[1]).quantile(0.05)[0])
    assert pairs([(DAYS[1], "m1")])[0].sum_M[0] == pytest.approx(days[0].sum_M[0])
    assert len(pairs([(DAYS[1], "m1")])) == 1, "refused candidates are left out"
    assert len(pairs(days=2)) == 1
    assert pairs(k=5) == [] and quality.pairs(rows, set(), load_settings(overrides=["evaluate.bootstrap_samples=100"])) == []
    other = load_settings(overrides=["train.worth={click: 0.3}"])
    assert quality.pairs(rows, set(), other) == [], "means by another worth are not pooled"


def test_one_line_a_model_the_best_first():
    lines = quality.side_by_side({"baseline:popularity": one(0.3), "new": one(0.41)}, Gate(), "day 2024-02-03")
    assert lines[0] == "day 2024-02-03: 5 target events of 5 users"
    assert lines[1].startswith("  new ") and "ndcg@10 0.4100 (0.4100..0.4100)" in lines[1] and "coverage 10.0%" in lines[2]
    assert not math.isnan(one(0.3).coverage) and Gate(metric="mrr").label == "mrr"
