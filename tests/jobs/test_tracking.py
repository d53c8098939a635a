"""Trainings told to MLflow: to a file, and to a server that is there, goes away, or never was."""

import logging
import os
import pickle
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import pytest
import torch

from conf.settings import load_settings
from jobs import train
from jobs.train import lineage, tracking
from jobs.train.tracking import Training, told
from models import training
from models.processes import Processes
from models.training import result_of, train_all
from tests.jobs.test_train import FIRST, LAST, SMALL, history, versions, write_events
from tests.models.test_training import task_in

mlflow = pytest.importorskip("mlflow", reason="needs MLflow: pip install 'wherewhen[tracking]'")
PARAMS = {"train.learning_rate": 0.005, "windows.train": 7}


@pytest.fixture(autouse=True)
def unheard(monkeypatch):
    """What is away for one test is not for the next."""
    monkeypatch.setattr(tracking, "_away", set())


@pytest.fixture
def make_training(tmp_path):
    """make_training("name", epochs=2): of the habits of forty users; its version is called as it is."""

    def make(name, **settings):
        return Training(task=task_in(tmp_path, name, **settings), version=f"v-{name}", tags={"run_id": "r"}, params=PARAMS)

    return make


@pytest.fixture(scope="module")
def untold(tmp_path_factory):
    """The same training without MLflow."""
    task = task_in(tmp_path_factory.mktemp("untold"), epochs=3)
    train_all([task], Processes.alone())
    return task


def run_told(one, tracking_, root):
    with told([one], tracking_, str(root)) as tasks:
        train_all(tasks, Processes.alone())


def weights(task):
    return torch.load(task.folder / "weights.pt", weights_only=True)


def assert_learnt_the_same(one, other):
    assert result_of(one).losses == result_of(other).losses
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def runs_at(uri):
    """The client of a store, and the runs in it."""
    client = tracking._client(uri)
    found = client.get_experiment_by_name(tracking.EXPERIMENT)
    return client, client.search_runs([found.experiment_id]) if found is not None else []


def file_in(root):
    return f"sqlite:///{root / 'tracking' / 'mlflow.db'}"


def test_settings_sizes_and_each_epoch_are_told(make_training, untold, tmp_path):
    one = make_training("one")
    run_told(one, "lake", tmp_path)
    client, [run] = runs_at(file_in(tmp_path))
    assert run.info.status == "FINISHED" and run.info.run_name == "one v-one"
    assert run.data.params == {key: str(value) for key, value in PARAMS.items()}
    assert run.data.tags["model_version"] == "v-one" and run.data.tags["run_id"] == "r"
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(one.step, one.value) for one in losses] == list(enumerate(result_of(one.task).losses, start=1))
    judged = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "loss")}
    ranked = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "ndcg_at_10")}
    assert result_of(one.task).validation_loss == judged[max(ranked, key=ranked.get)], "the epoch that ranked best is kept"
    assert len(ranked) == 3 and all(0 < value <= 1 for value in ranked.values())
    assert run.data.metrics["epochs"] == 3 and run.data.metrics["total_seconds"] == result_of(one.task).seconds
    assert_learnt_the_same(one.task, untold)


_WORKER = """
import pickle, sys
from jobs.train.tracking import told
from models.processes import Processes
from models.training import train_all
one, root = pickle.load(open(sys.argv[1], "rb"))
with told([one], "lake", root) as tasks:
    train_all(tasks, Processes.alone())
"""


def test_a_killed_training_leaves_a_readable_store_and_goes_on_in_its_run(make_training, tmp_path):
    one = make_training("killed", epochs=8, patience=8, checkpoint_seconds=0.1)
    one = replace(one, task=replace(one.task, checkpoint=tmp_path / "checkpoint.pt"))
    (tmp_path / "one").write_bytes(pickle.dumps((one, str(tmp_path))))
    here = os.environ | {"PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path / "one")], env=here)
    try:
        while epochs_in(tmp_path) < 2 and process.poll() is None:
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    client, [killed] = runs_at(file_in(tmp_path))
    seen = client.get_metric_history(killed.info.run_id, "train_loss")
    assert len(seen) >= 2 and killed.info.status == "RUNNING"
    run_told(one, "lake", tmp_path)
    client, [again] = runs_at(file_in(tmp_path))
    assert again.info.run_id == killed.info.run_id and again.info.status == "FINISHED"
    losses = sorted(client.get_metric_history(again.info.run_id, "train_loss"), key=lambda one: one.step)
    assert [(one.step, one.value) for one in losses] == list(enumerate(result_of(one.task).losses, start=1)), "each once"
    assert len(losses) > len(seen)


def epochs_in(root):
    """Epochs in the file, read beside who writes it."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{root / 'tracking' / 'mlflow.db'}?mode=ro", uri=True)) as file,
    ):
        return file.execute("SELECT count(*) FROM metrics WHERE key = 'train_loss'").fetchone()[0]
    return 0


def test_a_training_that_fails_is_told_so(make_training, tmp_path, monkeypatch):
    def broken(run, windows):
        raise OSError("no space")

    monkeypatch.setattr(training._Run, "_learn", broken)
    with pytest.raises(OSError, match="no space"):
        run_told(make_training("broken"), "lake", tmp_path)
    assert [run.info.status for run in runs_at(file_in(tmp_path))[1]] == ["FAILED"]


_SERVER = """
import os, sys
given = {"_MLFLOW_SERVER_FILE_STORE": sys.argv[1], "_MLFLOW_SERVER_ARTIFACT_ROOT": sys.argv[2]}
os.environ |= {**given, "MLFLOW_DISABLE_TELEMETRY": "true"}
from mlflow.server import app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[3]), app)
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def server(file):
    """MLflow's own server over a file; its URL and its process."""
    port = free_port()
    command = [sys.executable, "-c", _SERVER, f"sqlite:///{file}", str(file.parent / "artifacts"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                with suppress(urllib.error.URLError, OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


def test_a_server_is_told_and_one_that_goes_away_stops_no_training(make_training, untold, tmp_path, caplog):
    pytest.importorskip("flask_cors", reason="MLflow's server needs flask-cors")
    with server(tmp_path / "server.db") as (url, process):
        run_told(make_training("told"), url, tmp_path)
        client, [run] = runs_at(url)
        assert run.info.status == "FINISHED" and len(client.get_metric_history(run.info.run_id, "train_loss")) == 3
        assert not (tmp_path / "tracking").exists()
        left = make_training("left")
        with caplog.at_level(logging.WARNING), told([left], url, str(tmp_path)) as [task]:
            process.kill()
            process.wait()
            began = time.monotonic()
            train_all([task], Processes.alone())
        assert time.monotonic() - began < 60
    assert [message.partition(" is told nothing")[0] for message in caplog.messages] == [f"training left: MLflow at {url}"]
    assert_learnt_the_same(left.task, untold)


def test_a_server_that_never_was_costs_one_warning_and_no_password(make_training, untold, tmp_path, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        one = make_training("alone")
        run_told(one, f"http://me:secret@127.0.0.1:{free_port()}", tmp_path)
    [said] = caplog.messages
    assert said.startswith("training alone: MLflow at http://127.0.0.1:") and "secret" not in said
    assert capsys.readouterr().out == "", "stdout is for results"
    assert_learnt_the_same(one.task, untold)


@pytest.mark.parametrize(
    "root, installed, why", [("s3://bucket/lake", True, "name a server's URL"), ("lake", False, "pip install 'wherewhen")]
)
def test_the_default_says_in_a_line_why_it_tells_nobody(make_training, monkeypatch, caplog, root, installed, why):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: installed or None)
    one = make_training("silent")
    with caplog.at_level(logging.INFO, logger="wherewhen"), told([one], load_settings().train.tracking, root) as tasks:
        assert tasks == [replace(one.task, after_epoch=None)]
    [said] = caplog.records
    assert said.levelname == "INFO" and why in said.getMessage()


def test_who_is_told_changes_no_version_and_no_row():
    plain, telling = load_settings(overrides=["train.tracking=null"]), load_settings()
    assert lineage.learning_settings(plain) == lineage.learning_settings(telling) and plain.hash() == telling.hash()


def test_a_days_trainings_are_told_once(make_context, make_settings, tmp_path):
    settings = make_settings("conf/local.yaml", *SMALL, "train.tracking=lake")
    shared = {"settings": settings, "first_day": FIRST, "bootstrap": True}
    write_events(make_context(FIRST, LAST, **shared), history())
    train.run(make_context(FIRST, LAST, **shared))
    _, told_of = runs_at(file_in(tmp_path / "lake"))
    context = make_context(FIRST, LAST, **shared)
    assert {run.data.tags["model_version"] for run in told_of} == set(versions(context))
    by_name = {run.data.tags["training"]: run for run in told_of}
    rows = {row["model_version"]: row for row in context.log_rows("training_runs")}
    for run in told_of:
        row = rows[run.data.tags["model_version"]]
        assert run.data.metrics["epochs"] == row["epochs"] and int(run.data.params["windows.train"]) == row["windows"]
        assert run.data.params["model.width"] == "8" and "train.max_seconds" not in run.data.params
    assert by_name["candidate"].data.params["trained_until"].startswith(str(LAST))
    assert by_name["hold-out"].data.params["trained_until"].startswith(str(LAST - timedelta(days=2)))
    train.run(context)
    again = runs_at(file_in(tmp_path / "lake"))[1]
    assert [run.to_dictionary() for run in again] == [run.to_dictionary() for run in told_of], "a day run again trains nothing"
