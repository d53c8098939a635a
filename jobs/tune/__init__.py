"""Searches the settings with which the model ranks best, on the windows of a day's training.

Each trial is a training as a night would start it from scratch, on the training fold alone, and is judged by ndcg@10 on the
validation fold, which is later. The search lies in `LAKE/tuning` and goes on where it stopped. Nothing else is written.
"""

from __future__ import annotations

import fcntl
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pyspark.sql import SparkSession

from conf.settings import Settings, digest
from jobs.lake.disk import write_whole
from jobs.lake.refused import Refused
from jobs.train.launch import launch
from jobs.train.lineage import learning_code, learning_settings
from jobs.tune.ground import Ground, ground
from jobs.tune.space import nested, space_of, tunable, with_values
from jobs.tune.study import MEASURE, Study, Watch
from models import registry
from models.tasks import Task

log = logging.getLogger("wherewhen")
FOLDER = "tuning"
_LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What stays the same from trial to trial. `until`: no trial goes on after it, seconds since 1970."""

    settings: Settings
    ground: Ground
    path: Path
    until: float | None

    def task(self, number: int, values: dict[str, Any], watch: Watch, scratch: Path) -> Task:
        """The training of a trial: the day's, but for the values, from fresh weights, and it learns no validation fold."""
        tried = with_values(self.settings, values)
        np.save(scratch / "prior.npy", self.ground.log_share_V)
        return Task(
            name=f"trial {number}",
            model=tried.network,
            train=tried.train,
            vocabulary=self.ground.vocabulary,
            source=self.ground.source,
            folder=scratch / "made",
            prior=scratch / "prior.npy",
            after_epoch=watch,
            learns_validation=False,
            knowledge=self.ground.knowledge,
            taken_types=() if tried.mapping.repeats else tried.mapping.target_events,
        )


def tune(settings: Settings, day: date, *, trials: int, timeout: float | None) -> str:
    """Search until so many trials are done, those of before included, or `timeout` seconds are over.

    Gives the best settings as YAML, as a settings file may hold them; they are also stored beside the search.

    Raises:
        SettingsError: `tune.space` names what cannot be searched.
        ValueError: the day has no training with a validation fold, or no trial came to its end.
        Refused: another process searches in this lake.
    """
    if "://" in settings.lake:
        raise ValueError(f"{settings.lake} is no folder of this machine: a search is kept in a file, which needs one")
    space, until = space_of(settings), None if timeout is None else time.time() + timeout
    found = ground(settings, day)
    parts = [found.fingerprint, learning_code(), learning_settings(settings), sorted(map(repr, space.items()))]
    path = Path(settings.lake).absolute() / FOLDER / f"{day}-{digest(parts)}.db"
    search = Search(settings=settings, ground=found, path=path, until=until)
    with _alone(path.parent):
        study = Study(path, space, tunable(settings), settings.train.seed)
        log.info("tune of %s: %s, %s", day, path.name, f"going on after {len(study.done)} trials" if study.done else "new")
        spark = _session(settings)
        while len(study.done) < trials and (until is None or time.time() < until):
            _try_next(search, study, trials, spark)
        answer = _in_yaml(search, study, day)
        write_whole(path.with_suffix(".yaml"), answer)
    return answer


def _session(settings: Settings) -> SparkSession | None:
    """Several processes are started by Spark; one needs no JVM."""
    if settings.train.processes == 1:
        return None
    from jobs.lake.session import start

    return start(settings, torch=True)


def _try_next(search: Search, study: Study, trials: int, spark: SparkSession | None) -> None:
    trial, began = study.ask(), time.monotonic()
    name = f"trial {len(study.done) + 1} of {trials}"
    log.info("%s: %s", name, _in_words(trial.params) or "the settings as they are")
    if study.give_up(trial):
        log.warning("%s: left out, since its processes were ended again and again: perhaps for want of memory", name)
        return
    if (twin := study.twin(trial)) is not None:
        study.copy(trial, twin)
        log.info("%s: the same as one before", name)
        return
    with tempfile.TemporaryDirectory(prefix="wherewhen-tune-") as scratch:
        task = search.task(len(study.done) + 1, trial.params, Watch(trial=trial, until=search.until), Path(scratch))
        [result] = launch(spark, [task], task.train.processes, log)
        value = registry.details(task.folder).get("metrics", {}).get(MEASURE)
    why = study.close(trial, value)
    took = f"{result.epochs} epochs, {time.monotonic() - began:.0f} s"
    if why is not None:
        log.info("%s: ended, %s; %s", name, why, took)
    else:
        best = study.best
        assert best is not None and best.value is not None
        log.info("%s: %s %.4f, best %.4f, as it is %s; %s", name, MEASURE, value, best.value, _number(study.first), took)


def _in_yaml(search: Search, study: Study, day: date) -> str:
    best = study.best
    if best is None or best.value is None:
        raise ValueError(f"no trial of {search.path.name} came to its end yet: give it more time, it goes on where it stopped")
    early = sum(one.state != best.state for one in study.done)
    heading = [
        f"# wherewhen tune of {day}: {len(study.done)} trials, {early} of them ended early; {search.path}",
        f"# {MEASURE} on the {search.ground.targets['validation']} targets of the validation fold:",
        f"#   best {best.value:.4f}, as it is {_number(study.first)}",
    ]
    values = best.params or {name: study.as_set[name] for name in study.space}
    return "\n".join(heading) + "\n" + yaml.safe_dump(nested(dict(sorted(values.items()))), sort_keys=False)


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={f'{value:.3g}' if isinstance(value, float) else value}" for name, value in sorted(values.items())
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """
    Raises:
        Refused: another process holds the folder. The system lets go of it, however a process ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{folder}: another search runs in this lake; wait until it has ended, or end it") from None
        yield
