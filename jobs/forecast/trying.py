"""The methods that are tried on series, as of the last day and at origins of the past; and the median of the cheap ones.

Legend: P series, D days, H days ahead, as in `jobs.forecast.methods`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from jobs.forecast.judging import Origins, Quality, judged
from jobs.forecast.methods import (
    ARIMA,
    LSTM,
    METHODS,
    NAIVE,
    SLOW,
    Forecasts,
    Histories,
    Method,
    arima_at,
    completed,
)  # fmt: skip

if TYPE_CHECKING:
    from models.forecaster import Forecaster

COMBINATION = "combination"
NOW = "now"


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The names of the methods that are tried; `level` is that of their intervals.

    networks: what the LSTM has learnt by the first origin of a stage, and `NOW`; without it it forecasts nothing.
    """

    names: tuple[str, ...]
    level: float
    networks: Mapping[str, Forecaster] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """Of the combination: what is cheap enough for every series."""
        return [name for name in self.names if name not in SLOW]

    @property
    def default(self) -> str:
        """What forecasts a series for which nothing else did clearly better."""
        return COMBINATION if len(self.parts) > 1 else NAIVE

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.names, COMBINATION)

    def made(self, histories: Histories, chosen: Sequence[str]) -> tuple[Forecasts, list[str]]:
        """As of the last day, each series by the method chosen for it; and what made it in the end."""
        names = np.array(chosen, dtype=object)
        made, by = Forecasts.empty(len(names)), names.copy()
        for name in sorted(set(chosen)):
            rows = np.flatnonzero(names == name)
            found, instead = self._made_by(name, histories.take(rows), NOW)
            made.put(rows, found)
            by[rows] = np.where(instead == None, name, instead)  # noqa: E711  elementwise
        return made, list(by)

    def tried(self, histories: Histories, origins: Origins, is_busy: np.ndarray) -> list[Quality]:
        """Every method at every origin; the slow ones on the busy series alone."""
        every, busy = np.arange(len(is_busy)), np.flatnonzero(is_busy)
        found = []
        for stage, ends in origins.items():
            cheap = {name: [self._made_by(name, histories.until(end), stage)[0] for end in ends] for name in self.parts}
            if len(cheap) > 1:
                cheap[COMBINATION] = [_median(at_origin) for at_origin in zip(*cheap.values(), strict=True)]
            found += [judged(name, stage, histories, every, _at(ends, made)) for name, made in cheap.items() if ends]
            for name in [name for name in self.names if name in SLOW and len(busy) and ends]:
                made = self._slow(name, histories.take(busy), ends)
                found.append(judged(name, stage, histories, busy, _at(ends, made)))
        return found

    def _made_by(self, name: str, histories: Histories, moment: str) -> tuple[Forecasts, np.ndarray]:
        """By one method, or what can be done where it cannot; and, of each series, what that was, or None."""
        if name != COMBINATION:
            made = self._method(name, moment)(histories, self.level)
            return made, completed(made, histories, self.level)
        parts = [self._made_by(part, histories, moment)[0] for part in self.parts]
        return _median(parts), np.full(len(histories.first), None, dtype=object)

    def _method(self, name: str, moment: str) -> Method:
        return _lstm(self.networks.get(moment)) if name == LSTM else METHODS[name]

    def _slow(self, name: str, histories: Histories, ends: Sequence[int]) -> list[Forecasts]:
        if name != ARIMA:
            return [self._made_by(name, histories.until(end), NOW)[0] for end in ends]
        made = arima_at(histories, self.level, ends)
        for found, end in zip(made, ends, strict=True):
            completed(found, histories.until(end), self.level)
        return made


def _lstm(network: Forecaster | None) -> Method:
    def told(histories: Histories, level: float) -> Forecasts:
        if network is None:
            return Forecasts.empty(len(histories.first))
        expected_PH, lower_PH, upper_PH = network.forecast(histories.counts_PD, histories.first, histories.last, level)
        return Forecasts(expected_PH=expected_PH, lower_PH=lower_PH, upper_PH=upper_PH)

    return told


def _at(ends: Sequence[int], made: Sequence[Forecasts]) -> list[tuple[int, Forecasts]]:
    return list(zip(ends, made, strict=True))


def _median(parts: Sequence[Forecasts]) -> Forecasts:
    """Day by day: one method that is far off moves it little (Petropoulos and Svetunkov, "A simple combination of univariate
    models", International Journal of Forecasting 36, 2020)."""
    return Forecasts(
        expected_PH=np.median([part.expected_PH for part in parts], axis=0),
        lower_PH=np.median([part.lower_PH for part in parts], axis=0),
        upper_PH=np.median([part.upper_PH for part in parts], axis=0),
    )
