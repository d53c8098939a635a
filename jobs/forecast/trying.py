"""The methods that are tried on series, as of the last day and at origins of the past; and the mean of the cheap ones.

Legend: P series, D days, H days ahead, as in `jobs.forecast.methods`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.forecast.judging import Origins, coverage, mase, mean_known, smape
from jobs.forecast.methods import (
    ARIMA,
    FITTED_DAYS,
    HORIZON,
    SLOW,
    Floats,
    Forecasts,
    Histories,
    Ints,
    Method,
    arima_at,
    completed,
)

COMBINATION = "combination"


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How one method did in one stage on the series `rows`: (P,) each; series that no origin could judge are left out."""

    method: str
    stage: str
    rows: Ints
    mase: Floats
    smape: Floats
    coverage: Floats
    origins: Ints


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The methods that are tried, by name; `level` is that of their intervals."""

    methods: Mapping[str, Method]
    level: float

    @property
    def parts(self) -> list[str]:
        """Of the combination: what is cheap enough for every series."""
        return [name for name in self.methods if name not in SLOW]

    def made(self, histories: Histories, chosen: Sequence[str]) -> tuple[Forecasts, list[str]]:
        """As of the last day, each series by the method chosen for it; and what made it in the end."""
        names = np.array(chosen, dtype=object)
        made, by = Forecasts.empty(len(names)), names.copy()
        for name in sorted(set(chosen)):
            rows = np.flatnonzero(names == name)
            found, instead = self._made_by(name, histories.take(rows))
            made.put(rows, found)
            by[rows] = np.where(instead == None, name, instead)  # noqa: E711  elementwise
        return made, list(by)

    def _made_by(self, name: str, histories: Histories) -> tuple[Forecasts, np.ndarray]:
        if name != COMBINATION:
            made = self.methods[name](histories, self.level)
            return made, completed(made, histories, self.level)
        parts = [self._made_by(part, histories)[0] for part in self.parts]
        return _mean(parts), np.full(len(histories.first), None, dtype=object)

    def tried(self, histories: Histories, origins: Origins, is_busy: np.ndarray) -> Iterator[Quality]:
        """Every method at every origin; the slow ones on the busy series alone."""
        for stage, ends in origins.items():
            if not ends:
                continue
            cheap = {name: [self._made_by(name, histories.until(end))[0] for end in ends] for name in self.parts}
            if len(cheap) > 1:
                cheap[COMBINATION] = [_mean(at_origin) for at_origin in zip(*cheap.values(), strict=True)]
            every = np.arange(len(is_busy))
            for name, made in cheap.items():
                yield _judged(name, stage, histories, every, ends, made)
            busy = np.flatnonzero(is_busy)
            for name in self.methods if len(busy) else ():
                if name in SLOW:
                    yield _judged(name, stage, histories, busy, ends, self._slow(name, histories.take(busy), ends))

    def _slow(self, name: str, histories: Histories, ends: Sequence[int]) -> list[Forecasts]:
        if name != ARIMA:
            return [self._made_by(name, histories.until(end))[0] for end in ends]
        made = arima_at(histories, self.level, ends)
        for found, end in zip(made, ends, strict=True):
            completed(found, histories.until(end), self.level)
        return made


def _mean(parts: Sequence[Forecasts]) -> Forecasts:
    return Forecasts(
        expected_PH=np.mean([part.expected_PH for part in parts], axis=0),
        lower_PH=np.mean([part.lower_PH for part in parts], axis=0),
        upper_PH=np.mean([part.upper_PH for part in parts], axis=0),
    )


def _judged(name: str, stage: str, histories: Histories, rows: Ints, ends: Sequence[int], made: Sequence[Forecasts]) -> Quality:
    """`made` at each of `ends` for the series `rows`, against what came; at origins before which a series is too short it
    is not judged, since all methods are the same there.
    """
    measures: dict[str, list[Floats]] = {"mase": [], "smape": [], "coverage": []}
    for end, forecasts in zip(ends, made, strict=True):
        before, actual_PH = histories.take(rows).until(end), histories.counts_PD[rows, end : end + HORIZON]
        is_long = before.lengths >= FITTED_DAYS
        found = {
            "mase": mase(forecasts.expected_PH, actual_PH, before),
            "smape": smape(forecasts.expected_PH, actual_PH),
            "coverage": coverage(forecasts, actual_PH),
        }
        for measure, values in found.items():
            measures[measure].append(np.where(is_long, values, np.nan))
    origins = np.isfinite(measures["smape"]).sum(axis=0)
    kept = np.flatnonzero(origins)
    means = {measure: mean_known(values)[kept] for measure, values in measures.items()}
    return Quality(method=name, stage=stage, rows=rows[kept], origins=origins[kept], **means)
