"""Late rows, stale tables, rebuild and requarantine, over one small lake."""

import json
import shutil
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from conf.settings import SettingsError, load_settings
from jobs import provenance
from jobs.lake import logs
from jobs.lake.context import Refused
from jobs.lake.identities import load_key, pseudonym
from jobs.pipeline import STEPS, choose
from jobs.rebuild import rebuild, steps_of
from jobs.requarantine import quarantined, requarantine
from jobs.runner import run
from jobs.staleness import stale
from tests.stored import difference, told

FIRST, SECOND, THIRD = (date(2024, 1, 30) + timedelta(days=n) for n in range(3))
EARLIER = SECOND - timedelta(days=5)
LONG_AGO = SECOND - timedelta(days=40)
STEPS_RUN = choose(only=("ingest", "clean", "sequences", "time_series"))
QUIET = lambda step, report: None  # noqa: E731


def event(user, item, day, hour=10):
    # Views are no targets: there is nothing to learn, so nothing is trained.
    at = f"{day}T{hour:02}:00:00Z"
    return json.dumps({"user_id": user, "item_id": item, "event_type": "view", "event_timestamp": at}) + "\n"


@pytest.fixture(scope="module")
def landing(tmp_path_factory) -> Path:
    """A late row and one that is too late on the second day; both again on the third, when item and user changed."""
    root = tmp_path_factory.mktemp("rebuild") / "landing"
    late, too_late = event("anna", "i1", EARLIER), event("anna", "i1", LONG_AGO)
    files = {
        FIRST: [event("anna", "i1", FIRST), event("anna", "i2", FIRST, 11), event("bert", "i1", FIRST)],
        SECOND: [event("anna", "i3", SECOND), late, too_late],
        THIRD: [event("anna", "i2", THIRD), event("bert", "i2", THIRD), late],
    }
    head = "item_id,title,description,category,brand,price,latitude,longitude\n"
    for day, rows in files.items():
        (root / str(day)).mkdir(parents=True)
        (root / str(day) / "events.json").write_text("".join(rows))
    for day, title, age in ((FIRST, "one", "young"), (THIRD, "two", "old")):
        (root / str(day) / "items.csv").write_text(f"{head}i1,{title},,park,,,,\n")
        (root / str(day) / "users.csv").write_text(f"user_id,age_band,gender,language\nanna,{age},,\n")
    return root


def settings_for(lake, landing, *more):
    return load_settings(
        overrides=[f"lake={lake}", f"sources.events.path={landing}", f"report.path={lake}.html", "sequences.length=3", *more]
    )


@pytest.fixture(scope="module")
def made(spark, landing, tmp_path_factory):
    """Settings over a lake of two days at once and a night."""
    settings = settings_for(tmp_path_factory.mktemp("rebuild") / "lake", landing)
    run(spark, settings, SECOND, steps=STEPS_RUN, bootstrap=True)
    run(spark, settings, THIRD, steps=STEPS_RUN)
    return settings


def copied(made, tmp_path, *more):
    shutil.copytree(made.lake, tmp_path / "lake")
    return settings_for(tmp_path / "lake", made.sources["events"].path, *more)


def test_a_late_row_is_kept_once_on_its_arrival_and_counts_for_its_own_date(made):
    of_anna = f"'{pseudonym('anna', load_key())}'"
    events = [(one["day"], one["event_date"]) for one in told(made, "events", f"user_id = {of_anna}")]
    assert sorted(events) == [(FIRST, FIRST), (FIRST, FIRST), (SECOND, EARLIER), (SECOND, SECOND), (THIRD, THIRD)]
    counted = Counter()
    for one in told(made, "activity_daily", f"entity_id = {of_anna}"):
        counted[one["day"], one["event_date"]] += one["events"]
    assert counted == {(FIRST, FIRST): 2, (SECOND, EARLIER): 1, (SECOND, SECOND): 1, (THIRD, THIRD): 1}
    sequences = told(made, "user_sequences", f"user_id = {of_anna}")
    states = {one["day"]: [event["event_timestamp"].date() for event in one["events"]] for one in sequences}
    assert states[SECOND] == [FIRST, FIRST, SECOND], "the last three by their own time, of which the late one is none"
    assert states[THIRD] == [FIRST, SECOND, THIRD]
    [total] = [one for one in sequences if one["day"] == SECOND]
    assert total["events_total"] == 4, "but the state knows of it"
    [record] = logs.read(made.lake, "runs", f"step = 'clean' AND day = DATE '{THIRD}'")
    assert json.loads(record["details"])["conservation"][str(THIRD)]["duplicates"] == 1, "delivered again it is a duplicate"
    assert record["rows_in"] == 3


def test_items_and_users_keep_their_history(made):
    titles = {one["day"]: one["title"] for one in told(made, "items", "item_id = 'i1'")}
    assert titles == {FIRST: "one", THIRD: "two"}
    ages = {one["day"]: dict(one["attributes"])["age_band"] for one in told(made, "users")}
    assert ages == {FIRST: "young", THIRD: "old"}


def test_a_changed_setting_makes_stale_what_depends_on_it_and_rebuild_mends_it(spark, made, landing, tmp_path, monkeypatch):
    assert stale(made) == {}
    changed = copied(made, tmp_path, "sequences.length=2")
    assert stale(changed) == {"user_sequences": "settings"}
    run(spark, changed, THIRD, steps=choose(only=("sequences",)))
    assert stale(changed) == {"user_sequences": "settings"}, "a night leaves the days before it as they were"
    assert {step.name for step in steps_of("user_sequences")} >= {"sequences", "spatial", "train", "score", "report"}
    monkeypatch.setattr("jobs.rebuild.steps_of", lambda table: choose(only=("sequences",)))  # what comes after costs
    rebuild(spark, changed, "user_sequences", QUIET)
    assert "user_sequences" not in stale(changed)
    fresh = settings_for(tmp_path / "fresh", landing, "sequences.length=2")
    run(spark, fresh, THIRD, steps=choose(to_step="sequences"), bootstrap=True)
    assert told(fresh, "user_sequences")
    assert not (differs := difference(spark, "user_sequences", fresh, changed)), differs


def test_what_was_made_from_an_older_table_is_stale(made, tmp_path):
    again = copied(made, tmp_path)
    [record] = logs.read(again.lake, "runs", f"step = 'clean' AND day = DATE '{THIRD}'")
    logs.append(again.lake, "runs", [{**record, "run_id": "again", "finished_at": logs.now()}])
    found = stale(again)
    assert set(found) == {"user_sequences", "activity_daily", "time_series_features"}
    assert set(found.values()) == {"reads events"}
    other = stale(settings_for(made.lake, made.sources["events"].path, "ingest.lookback_days=29"))
    assert other["events"] == "settings" and other["activity_daily"] == "reads events"


def test_rebuild_says_what_it_cannot_do(spark, made, landing, tmp_path):
    with pytest.raises(SettingsError, match="there is no table user_sequence; did you mean user_sequences"):
        steps_of("user_sequence")
    with pytest.raises(ValueError, match="vault is a log"):
        steps_of("vault")
    with pytest.raises(ValueError, match="nothing is finished"):
        rebuild(spark, settings_for(tmp_path / "none", landing), "events", QUIET)
    shutil.copytree(landing, tmp_path / "landing")
    shutil.rmtree(tmp_path / "landing" / str(FIRST))
    archived = settings_for(made.lake, tmp_path / "landing")
    with pytest.raises(Refused, match=f"1 landing folders are gone, {FIRST} the first.*rebuild events"):
        rebuild(spark, archived, "raw_events", QUIET)


def test_rows_are_judged_again_after_a_rule_was_mended(spark, made, tmp_path, monkeypatch):
    begun_at = []

    def chosen(from_step):
        begun_at.append(from_step)
        return choose(only=("clean", "sequences"))  # of twenty

    monkeypatch.setattr("jobs.requarantine.choose", chosen)
    mended = copied(made, tmp_path, "ingest.lookback_days=60")
    with pytest.raises(ValueError, match=r"for to_late; did you mean too_late.*there are too_late \(1 rows\)"):
        requarantine(spark, mended, "to_late", FIRST, QUIET)
    with pytest.raises(ValueError, match=f"no row since {THIRD} is quarantined for too_late, or for anything else"):
        requarantine(spark, mended, "too_late", THIRD, QUIET)

    def stopped(step, report):
        if step == "sequences":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        requarantine(spark, mended, "too_late", FIRST, stopped)
    assert quarantined(mended.lake, FIRST) == {}, "the first day is mended; what follows from it is not"
    assert requarantine(spark, mended, "too_late", FIRST, QUIET) == (1, 0)
    ages = {(one["day"], one["event_date"]) for one in told(mended, "events")}
    assert (SECOND, LONG_AGO) in ages
    done = logs.read(mended.lake, "runs", "step = 'sequences' AND status = 'done'")
    assert sorted(row["day"] for row in done) == [SECOND, SECOND, THIRD, THIRD]
    with pytest.raises(ValueError, match="no row since"):
        requarantine(spark, mended, "too_late", FIRST, QUIET)
    assert set(begun_at) == {"clean"}, "and all that follows"


def test_a_step_is_made_by_the_modules_that_it_imports_and_the_settings_they_name():
    by_name = {step.name: step for step in STEPS}
    found = provenance.closure("jobs.spatial")
    assert {"jobs.spatial.places", "jobs.spatial.sphere", "jobs.sequences", "jobs.lake.context"} <= set(found)
    assert not {"jobs.label", "jobs.cli", "jobs.runner", "conf.tables"} & set(found)
    assert {"models.training", "models.network", "jobs.train.cutting"} <= set(provenance.closure("jobs.train"))
    expected = {
        "clean": {"clean", "ingest", "spatial"}, "sequences": {"sequences"}, "label": {"label"}, "text": {"text"},
        "spatial": {"spatial", "sequences"}, "interaction": {"interaction", "label", "sequences"},
        "time_series": {"time_series"}, "tags": {"label", "text"}, "score": {"policy", "score", "sequences"},
    }  # fmt: skip
    for name, sections in expected.items():
        assert provenance.sections(by_name[name]) - {"mapping", "privacy", "lake", "spark"} == sections, name
    assert {"model", "train"} <= provenance.sections(by_name["train"])
    one, other = load_settings(), load_settings(overrides=["label.short_half_life_days=3", "completeness.days=21"])
    changed = [
        name for name, step in by_name.items() if provenance.settings_hash(step, one) != provenance.settings_hash(step, other)
    ]
    assert {"label", "interaction"} <= set(changed) and not {"ingest", "clean", "sequences", "train"} & set(changed)
