import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml

from conf.settings import SettingsError, load_settings
from conf.tables import TABLES
from jobs import runner
from jobs.lake import logs, runs
from jobs.lake.refused import Refused
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days, Lake
from jobs.pipeline import choose
from jobs.tune import FOLDER, _alone, tune
from jobs.tune.space import nested, space_of, with_values
from jobs.tune.study import _JUDGED_FROM_EPOCH, _UNPRUNED_TRIALS, Study, Watch

FIRST, LAST, NIGHT = date(2024, 1, 1), date(2024, 1, 21), date(2024, 1, 22)
USERS, ITEMS = 30, 12
TRIALS = 7  # the first four are judged by nobody's median; of the others some come to their end, and some are ended early
SMALL = (
    "model.window=8", "model.width=16", "model.heads=2", "model.layers=1", "train.epochs=5", "train.batch_size=16",
    "train.learning_rate=0.003", "train.from_scratch_on=null", "train.tracking=null",
    "evaluate.holdout_share=0.1",
)  # fmt: skip
SPACE = {
    "model": {"width": [8, 16], "layers": None, "dropout": {"low": 0, "high": 0.5}, "query_dropout": None},
    "train": {"learning_rate": {"low": 1e-4, "high": 3.0, "log": True}, "weight_decay": None, "batch_size": None},
}


def events():
    """Each user has an item of the morning and one of the evening, besides chance."""
    generator = np.random.default_rng(0)
    habit = generator.integers(0, ITEMS, (USERS, 2))
    for user in range(USERS):
        for number in range((LAST - FIRST).days + 1):
            for part, hour in enumerate((8, 19)):
                item = habit[user, part] if generator.random() < 0.8 else generator.integers(0, ITEMS)
                day = FIRST + timedelta(days=number)
                moment = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
                yield {
                    "event_id": f"{user}-{number}-{part}", "user_id": f"user{user:03d}", "item_id": f"i{item:02d}",
                    "event_type": "check_in", "event_timestamp": moment, "event_date": day, "local_timestamp": moment,
                    "local_date": day, "local_hour": hour, "slot": "any", "latitude": 40.7, "longitude": -74.0,
                    "category": "xyz"[item % 3], "row_hash": "r", "day": day,
                }  # fmt: skip


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    """Settings over a lake in which LAST has a whole training, and the day after went on from it."""
    settings = load_settings("conf/local.yaml", [f"lake={tmp_path_factory.mktemp('tune') / 'lake'}", *SMALL])
    schema, stored = spark_schema(TABLES["events"]), Lake(spark, settings.lake)
    rows = spark.createDataFrame([tuple(row.get(name) for name in schema.names) for row in events()], schema)
    written = stored.replace("events", rows, Days(first=FIRST, last=LAST).where(), whole=True)
    outputs = {"events": written.version}
    logs.append(settings.lake, "runs", [runs.row("given", "ingest", LAST, first_day=FIRST, outputs=outputs)])
    runner.run(spark, settings, LAST, steps=choose(only=("train",)))
    logs.append(settings.lake, "runs", [runs.row("next", "ingest", NIGHT, first_day=FIRST)])
    runner.run(spark, settings, NIGHT, steps=choose(only=("train",)))
    return settings


@pytest.fixture
def searching(lake):
    """The settings of a small search, in a lake without any."""
    shutil.rmtree(Path(lake.lake, FOLDER), ignore_errors=True)
    return load_settings("conf/local.yaml", [f"lake={lake.lake}", *SMALL, f"tune={{space: {json.dumps(SPACE)}}}"])


@pytest.fixture(scope="module")
def searched(lake, tmp_path_factory):
    """The same on a copy that one search of TRIALS went through, and what it answered; not to be changed."""
    settings = load_settings(
        overrides=[f"lake={tmp_path_factory.mktemp('searched') / 'lake'}", *SMALL, f"tune={{space: {json.dumps(SPACE)}}}"]
    )
    shutil.copytree(lake.lake, settings.lake, ignore=shutil.ignore_patterns(FOLDER))
    before = contents(settings.lake)
    answer = tune(settings, LAST, trials=TRIALS, timeout=None)
    assert contents(settings.lake) == before, "the rest of the lake stays"
    return settings, answer


@pytest.fixture
def elsewhere(searching, tmp_path):
    """The same on a copy of the lake that was never searched."""
    shutil.copytree(searching.lake, tmp_path / "lake", ignore=shutil.ignore_patterns(FOLDER))
    return searching.model_copy(update={"lake": str(tmp_path / "lake")})


def contents(root):
    files = [path for path in Path(root).rglob("*") if path.is_file() and FOLDER not in path.parts]
    return {path: path.read_bytes() for path in files}


def trials(settings):
    """What was tried and what it came to, without the trials that were ended from outside."""
    [path] = Path(settings.lake, FOLDER).glob("*.db")
    study = optuna.load_study(study_name=path.stem, storage=f"sqlite:///{path}")
    ended = [one for one in study.trials if one.state.name in ("COMPLETE", "PRUNED")]
    return [(one.params, one.state.name, one.value, one.intermediate_values) for one in ended]


def best_of(found):
    return max((one for one in found if one[1] == "COMPLETE"), key=lambda one: one[2])


def test_the_first_trial_is_the_days_own_training_and_the_rest_of_the_lake_stays(searched):
    settings, answer = searched  # which saw that it stays
    (first, *_), rows = trials(settings), logs.read(settings.lake, "model_versions")
    [own] = [row for row in rows if row["trained_until"].date() == LAST]
    assert len(rows) == 2, "the night's is another"
    assert first[0] == {"model.width": 16, "model.dropout": 0.2, "train.learning_rate": 0.003}
    assert first[2] == json.loads(own["metrics"])["ndcg@10"] > 0.3, "to the bit: the same windows, first biases and draws"

    [stored] = Path(settings.lake, FOLDER).glob("*.yaml")
    assert stored.read_text() == answer
    best = best_of(trials(settings))
    assert yaml.safe_load(answer) == nested(best[0]) and f"best {best[2]:.4f}, as it is {first[2]:.4f}" in answer
    tuned = load_settings(str(stored), SMALL[:1])
    assert tuned.train.learning_rate == best[0]["train.learning_rate"] and tuned.model.width == best[0]["model.width"]

    again = tune(settings, LAST, trials=TRIALS, timeout=0)
    assert again == answer and len(trials(settings)) == TRIALS, "those of before count"
    held = b"".join(path.read_bytes() for path in Path(settings.lake, FOLDER).glob("*"))
    assert b"model.width" in held and b"user0" not in held and b"i00" not in held


def test_a_search_that_ran_out_of_time_comes_to_the_same_trials(searching, searched):
    count = 4
    wanted = trials(searched[0])[:count]  # a trial does not know how many are to follow
    tune(searching, LAST, trials=2, timeout=None)
    tune(searching, LAST, trials=count, timeout=0.5)
    assert len(trials(searching)) == 2, "a trial that has no time left is not done"
    assert yaml.safe_load(tune(searching, LAST, trials=count, timeout=None)) == nested(best_of(wanted)[0])
    assert trials(searching) == wanted


@pytest.mark.soak
def test_a_search_that_was_killed_and_ran_out_of_time_comes_to_the_same_trials(searching, elsewhere, tmp_path):
    count = 5
    wanted = tune(elsewhere, LAST, trials=count, timeout=None)
    config = tmp_path / "search.yaml"
    config.write_text(yaml.safe_dump({"tune": {"space": SPACE}}))
    command = [sys.executable, "-m", "jobs.cli", "--config", str(config)]
    for setting in (f"lake={searching.lake}", *SMALL):
        command += ["--set", setting]
    command += ["tune", "--day", str(LAST), "--trials", str(count)]
    for line in ("training trial 1: epoch 1", "training trial 3: epoch 1"):
        assert killed_at(command, line) == -signal.SIGKILL
    assert 2 <= len(trials(searching)) < count
    began = time.monotonic()
    tune(searching, LAST, trials=count, timeout=1.0)
    before = len(trials(searching))
    assert time.monotonic() - began < 30 and before < count, "a trial that has no time left is not done"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr
    assert f"going on after {before} trials" in done.stderr
    assert trials(searching) == trials(elsewhere)
    assert yaml.safe_load(done.stdout) == yaml.safe_load(wanted)


def killed_at(command, line):
    """The exit code of a command that is killed when it says a line."""
    here = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=here) as process:
        for said in process.stderr:
            if said.startswith(line):
                process.kill()
    return process.returncode


def test_what_is_worse_than_the_median_is_ended_early_and_nothing_else(searched):
    found = trials(searched[0])
    ended = [(place, one) for place, one in enumerate(found) if one[1] == "PRUNED"]
    assert ended and any(max(one[3]) < 5 for _, one in ended), "learning rates about 1 are soon seen through"
    for place, (_, state, _, seen) in enumerate(found):
        last = max(seen)
        others = [one[3][last] for one in found[:place] if one[1] == "COMPLETE" and last in one[3]]
        judged = last >= _JUDGED_FROM_EPOCH and sum(one[1] == "COMPLETE" for one in found[:place]) >= _UNPRUNED_TRIALS
        assert (state == "PRUNED") == bool(judged and others and max(seen.values()) < statistics.median(others))


def test_settings_out_of_the_space_are_measured_all_the_same_and_equal_ones_once(searching, caplog):
    only = searching.model_copy(update={"tune": searching.tune.model_copy(update={"space": {"model": {"width": [8]}}})})
    with caplog.at_level("INFO", logger="wherewhen"):
        answer = tune(only, LAST, trials=4, timeout=None)
    found = trials(searching)
    assert [one[0] for one in found] == [{}, *[{"model.width": 8}] * 3]
    assert found[1] == found[2] == found[3] and found[0][2] != found[1][2]
    assert sum(message.endswith("the same as one before") for message in caplog.messages) == 2
    assert yaml.safe_load(answer) == {"model": {"width": 16 if found[0][2] >= found[1][2] else 8}}


def test_days_without_a_fold_to_judge_on_say_which_day_has(searching):
    with pytest.raises(ValueError, match=f"the training of {NIGHT} has no validation fold, .*such days are {LAST}$"):
        tune(searching, NIGHT, trials=1, timeout=None)
    with pytest.raises(ValueError, match=f"no model was trained for {FIRST} .*such days are {LAST}$"):
        tune(searching, FIRST, trials=1, timeout=None)
    with pytest.raises(ValueError, match=r"model.window=8, and model.window is 12: set it to 8, or train anew"):
        tune(with_values(searching, {"model.window": 12}), LAST, trials=1, timeout=None)
    nowhere = searching.model_copy(update={"lake": f"{searching.lake}-none"})
    with pytest.raises(ValueError, match=r"no model was trained for .*nothing was trained in it yet"):
        tune(nowhere, LAST, trials=1, timeout=None)


def test_one_search_at_a_time(searching, elsewhere):
    with _alone(Path(searching.lake, FOLDER)):
        with pytest.raises(Refused, match="another search runs in this lake"):
            tune(searching, LAST, trials=1, timeout=None)
        with pytest.raises(ValueError, match=r"no trial of .* came to its end yet"):
            tune(elsewhere, LAST, trials=1, timeout=0)


@pytest.mark.soak
def test_processes_that_share_a_trial_report_to_the_same_study(searching):
    tune(searching, LAST, trials=1, timeout=None)
    [alone] = trials(searching)
    shutil.rmtree(Path(searching.lake, FOLDER))
    tune(with_values(searching, {"train.processes": 2}), LAST, trials=1, timeout=None)
    [together] = trials(searching)
    assert together[0] == alone[0] and together[3].keys() == alone[3].keys()
    assert together[3][1] == pytest.approx(alone[3][1], abs=0.05), "dropout is drawn per process"


def new_study(tmp_path, settings):
    return Study(
        tmp_path / "one.db", space_of(settings), {"model.width": 16, "model.dropout": 0.2, "train.learning_rate": 1.0}, 7
    )


def test_settings_that_end_the_process_are_given_up_in_the_end(tmp_path, searching):
    asked = []
    for attempt in range(4):
        study = new_study(tmp_path, searching)
        trial = study.ask()
        asked.append(trial.params)
        assert study.give_up(trial) == (attempt == 3)
    assert len(study.done) == 1 and all(one == asked[0] for one in asked)
    trial = study.ask()
    study.close(trial, 0.5)
    assert len(study.done) == 2 and not study.give_up(study.ask())


def test_a_training_without_numbers_is_ended_and_never_the_best(tmp_path, searching):
    study = new_study(tmp_path, searching)
    trial = study.ask()
    watch = Watch(trial=trial, until=None)
    assert not watch(1, {"loss": 1.0, "ndcg@10": 0.9}) and watch(2, {"loss": float("nan"), "ndcg@10": 0.95})
    assert study.close(trial, 0.9) == "no number any more"
    assert len(study.done) == 1 and study.best is None and study.first is None


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"model": {"window": [8]}}, r"tune.space.model.window: cannot be searched; these can: model.encoder, "),
        ({"train": {"seed": [1, 2]}}, "tune.space.train.seed: cannot be searched"),
        ({"train": {"max_seconds": [1, 2]}}, "tune.space.train.max_seconds: cannot be searched"),
        ({"train": {"loss": ["full", "half"]}}, "tune.space.train.loss: half: Input should be 'full'"),
        ({"model": {"dropout": {"low": 0, "high": 1}}}, "tune.space.model.dropout: 1: Input should be less than 1"),
        ({"model": {"layers": {"low": 3, "high": 1}}}, "tune.space.model.layers: low must be below high"),
        ({"train": {"weight_decay": {"low": 0, "high": 1, "log": True}}}, "above 0 where log is true"),
        ({"train": {"loss": {"low": 0, "high": 1}}}, "tune.space.train.loss: 0: Input should be 'full'"),
        ({"model": {"width": [30, 32], "heads": [2, 4]}}, "tune.space.model.width: 30 is no multiple of 4 heads"),
    ],
)
def test_mistakes_in_the_space_name_the_key(space, said):
    with pytest.raises(SettingsError, match=said):
        space_of(load_settings(overrides=[f"tune={json.dumps({'space': space})}"]))


def test_the_space_can_be_restricted_key_by_key():
    names = list(space_of(load_settings()))
    assert names == sorted(names) and {"model.width", "train.learning_rate"} < set(names)
    fewer = (
        "tune.space.train=null",
        "tune.space.model.width=[64]",
        "tune.space.model.dropout=null",
        "tune.space.model.layers=null",
    )
    left = space_of(load_settings(overrides=[*fewer, "tune.space.model.query_dropout={low: 0}"]))
    assert list(left) == ["model.query_dropout", "model.width"]
    assert (left["model.query_dropout"].low, left["model.query_dropout"].high) == (0.0, 0.3)
    with pytest.raises(SettingsError, match="nothing is left to try"):
        space_of(load_settings(overrides=["tune.space.train=null", "tune.space.model=null"]))
