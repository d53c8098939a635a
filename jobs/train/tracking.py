"""Trainings told to MLflow: settings, what was learnt from, losses and measures per epoch.

Neither fails nor changes a training: where MLflow cannot be reached, one warning says so and the training goes on untold.
One run of MLflow belongs to a model version. A training that goes on after an interruption goes on in it, and an epoch is in
it once.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.tasks import Task
from models.training import result_of

log = logging.getLogger("wherewhen")

IN_LAKE, FOLDER = "lake", "tracking"
EXPERIMENT = "wherewhen"
_SQLITE = "sqlite:///"
_VERSION = "model_version"
# It is not waited for long, since no night rests on it; prints nothing to stdout, which is for results; and calls nobody.
_MANNERS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Stores that did not answer this process: they are not asked again.
_away: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training as MLflow is to know it: `tags` may change when it is run again, `params` may not."""

    task: Task
    version: str
    tags: Mapping[str, str]
    params: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A training that tells its run of MLflow, from whatever process, how it goes; `known` epochs were told before."""

    uri: str
    run: str
    task: str
    known: int

    def __call__(self, epoch: int, measures: Mapping[str, float]) -> bool:
        """After an epoch; never ends the training."""
        if epoch > self.known:
            _attempt(self.uri, self.task, lambda client: _log(client, self.run, measures, epoch))
        return False

    def close(self, status: str, measures: Mapping[str, float] | None = None) -> None:
        def tell(client: Any) -> None:
            _log(client, self.run, measures or {}, 0)
            client.set_terminated(self.run, status=status)

        _attempt(self.uri, self.task, tell)


@contextmanager
def told(trainings: Sequence[Training], tracking: str | None, root: str) -> Iterator[list[Task]]:
    """The tasks, each of which tells MLflow how it goes in the body, and what came of it afterwards."""
    uri = None if tracking is None else _uri(tracking, root)
    runs = [None if uri is None else _begun(uri, one) for one in trainings]
    try:
        yield [replace(one.task, after_epoch=run) for one, run in zip(trainings, runs, strict=True)]
    except BaseException:
        for run in runs:
            if run is not None:
                run.close("FAILED")
        raise
    for one, run in zip(trainings, runs, strict=True):
        if run is not None:
            result = result_of(one.task)
            run.close("FINISHED", {"total_seconds": result.seconds, "epochs": result.epochs})


def _uri(tracking: str, root: str) -> str | None:
    if tracking != IN_LAKE:
        return tracking
    if "://" in root:
        problem: str | None = f"{root} is no folder of this machine: name a server's URL"
    else:
        problem = _not_installed()
    if problem is not None:
        # No warning: nobody has asked for what is the default.
        log.info("train.tracking: MLflow is told nothing, since %s", problem)
        return None
    return f"{_SQLITE}{Path(root).absolute() / FOLDER / 'mlflow.db'}"


def _begun(uri: str, training: Training) -> Told | None:
    """The run of the training's version, a new one or that of an earlier attempt; None where MLflow is away."""
    found: list[Told] = []
    _attempt(uri, training.task.name, lambda client: found.append(_begin(client, uri, training)))
    return found[0] if found else None


def _begin(client: Any, uri: str, training: Training) -> Told:
    from mlflow.entities import Param, RunTag

    experiment = _experiment(client, uri)
    same = client.search_runs([experiment], f"tags.{_VERSION} = '{training.version}'", max_results=1)
    name = f"{training.task.name} {training.version}"
    run = same[0] if same else client.create_run(experiment, tags={_VERSION: training.version}, run_name=name)
    ident = run.info.run_id
    client.update_run(ident, status="RUNNING")
    params = [Param(key, str(value)) for key, value in sorted(training.params.items())]
    client.log_batch(ident, params=params, tags=[RunTag(key, value) for key, value in training.tags.items()])
    known = max((one.step for one in client.get_metric_history(ident, "train_loss")), default=0)
    return Told(uri=uri, run=ident, task=training.task.name, known=known)


def _experiment(client: Any, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    file = _file(uri)
    beside = None if file is None else file.with_name("artifacts")
    return str(client.create_experiment(EXPERIMENT, artifact_location=None if beside is None else beside.as_uri()))


def _log(client: Any, run: str, measures: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    # It takes no @ in names.
    client.log_batch(run, metrics=[Metric(key.replace("@", "_at_"), value, now, step) for key, value in measures.items()])


def _attempt(uri: str, task: str, tell: Callable[[Any], object]) -> None:
    """Tell MLflow something; the first that fails is the last that is tried."""
    if uri in _away:
        return
    try:
        tell(_client(uri))
    except Exception as error:  # whatever it is, the training goes on
        _away.add(uri)
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        said = f"training {task}: MLflow at {uri} is told nothing from here on ({why})"
        log.warning("%s", _without_password(uri, said))


def _not_installed() -> str | None:
    return "it is not installed: pip install 'wherewhen[tracking]'" if importlib.util.find_spec("mlflow") is None else None


@cache
def _client(uri: str) -> Any:
    """
    Raises:
        ModuleNotFoundError: MLflow is not installed; names the remedy.
    """
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if (problem := _not_installed()) is not None:
        raise ModuleNotFoundError(problem)
    from mlflow.tracking import MlflowClient

    if (file := _file(uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def _file(uri: str) -> Path | None:
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def _without_password(uri: str, line: str) -> str:
    secret = urlsplit(uri).netloc.rpartition("@")[0]
    return line.replace(f"{secret}@", "") if secret else line
