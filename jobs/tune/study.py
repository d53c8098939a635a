"""Trials of one search, in an SQLite file: it survives being killed at any point, and goes on where it stopped.

Trial n is a function of the seed, n and the trials before it, so a search that was ended and given again, however often,
comes to the trials of one that ran through. The file holds settings and numbers only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from jobs.tune.space import Values

MEASURE = "ndcg@10"
# Why a trial was ended before its time.
_ENDED, WORSE, DIVERGED, NO_TIME = "ended", "worse than the median", "no number any more", "no time left"
_AS_SET = "as_set"
# Settings that end the process (for want of memory, say) are not tried for ever.
_ATTEMPTS = 3
# A steep start says little; and there has to be something to compare with.
_UNPRUNED_TRIALS = 4
_JUDGED_FROM_EPOCH = 3


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What a trial's training tells after each epoch, in whatever process; ends it where going on is of no use.

    `until`: seconds since 1970 after which a trial is given up, to be tried again another time.
    """

    trial: optuna.Trial
    until: float | None

    def __call__(self, epoch: int, measures: Mapping[str, float]) -> bool:
        value = measures[MEASURE]
        if not (math.isfinite(value) and math.isfinite(measures["loss"])):
            return self._end(DIVERGED)
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            return self._end(WORSE)
        return self.until is not None and time.time() > self.until and self._end(NO_TIME)

    def _end(self, why: str) -> bool:
        self.trial.set_user_attr(_ENDED, why)
        return True


class Study:
    """The search of `space` around the settings `as_set`, kept in `path`. One process at a time."""

    def __init__(self, path: Path, space: Mapping[str, BaseDistribution], as_set: Values, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.as_set, self.seed = dict(space), as_set, seed
        _make(path)
        self._study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=path.stem,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED_TRIALS, n_warmup_steps=_JUDGED_FROM_EPOCH),
        )
        for left in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(left.number, state=TrialState.FAIL)

    @property
    def done(self) -> list[FrozenTrial]:
        """Trials that came to an end, that of the settings as they are first."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def ask(self) -> optuna.Trial:
        """The next trial. The first is of the settings as they are, whether or not they are within the space."""
        place = len(self.done)
        drawn = np.random.SeedSequence([self.seed, place]).generate_state(1)
        # A fresh one each time: what it draws must not depend on what this process drew before.
        self._study.sampler = optuna.samplers.TPESampler(seed=int(drawn[0]))
        if place:
            return self._study.ask(self.space)
        given = {name: self.as_set[name] for name in self.space}
        if not all(_holds(tried, given[name]) for name, tried in self.space.items()):
            return self._marked(self._study.ask({}))
        # One may have been left waiting by a process that was killed in between.
        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.enqueue_trial(given)
        return self._marked(self._study.ask(self.space))

    def _marked(self, trial: optuna.Trial) -> optuna.Trial:
        trial.set_user_attr(_AS_SET, True)
        return trial

    def close(self, trial: optuna.Trial, value: float | None) -> str | None:
        """End a trial with its measure; says why, where it ended before its time. Without time left it is to be tried again."""
        why = self._attrs(trial).get(_ENDED) or (DIVERGED if value is None else None)
        if why is None:
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=TrialState.FAIL if why == NO_TIME else TrialState.PRUNED)
        return why

    def give_up(self, trial: optuna.Trial) -> bool:
        """Whether the processes that tried these settings before were ended too often: then the trial is closed."""
        since = max((one.number for one in self.done), default=-1)
        killed = [one for one in self._study.get_trials(deepcopy=False) if since < one.number < trial.number]
        killed = [one for one in killed if _ENDED not in one.user_attrs]
        if len(killed) < _ATTEMPTS:
            return False
        self._study.tell(trial, state=TrialState.PRUNED)
        return True

    def twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """An earlier trial of the same settings: it would come to the same."""
        same = [one for one in self.done if self._values(one.params) == self._values(trial.params)]
        return same[0] if same else None

    def copy(self, trial: optuna.Trial, twin: FrozenTrial) -> None:
        """End a trial as its twin ended."""
        for epoch, value in twin.intermediate_values.items():
            trial.report(value, epoch)
        self._study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, state=twin.state)

    def _values(self, params: Values) -> Values:
        return {name: params.get(name, self.as_set[name]) for name in self.space}

    def _attrs(self, trial: optuna.Trial) -> Values:
        """As stored: another process may have set them."""
        return self._study.get_trials(deepcopy=False)[trial.number].user_attrs

    @property
    def first(self) -> float | None:
        """The measure of the settings as they are; None where their training came to none."""
        return next((one.value for one in self._whole if _AS_SET in one.user_attrs), None)

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the best measure of those that were not ended early; of equal ones the first."""
        return max(self._whole, key=lambda one: (one.value, -one.number), default=None)

    @property
    def _whole(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _make(path: Path) -> None:
    """An empty store, whole or not at all: its tables are made one by one."""
    if path.exists():
        return
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    optuna.storages.RDBStorage(f"sqlite:///{beside}").engine.dispose()
    beside.rename(path)


def _holds(tried: BaseDistribution, value: object) -> bool:
    if isinstance(tried, optuna.distributions.CategoricalDistribution):
        return value in tried.choices
    assert isinstance(tried, optuna.distributions.IntDistribution | optuna.distributions.FloatDistribution)
    return isinstance(value, int | float) and tried.low <= value <= tried.high
