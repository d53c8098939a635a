"""One LSTM for all series: of what a series did it makes the negative binomial of each of the next days.

Everything it reads is relative to the series' own level of the last four weeks, so that busy and quiet series teach each
other; the week ahead is known (weekdays), and so is what each weekday had been. Salinas et al. (DeepAR, 2020), but each day
ahead at once and not drawn one after the other: no random numbers in a forecast.

Shape suffixes: P series, D days (oldest first), H days ahead, F features, S states, E moments of a window learnt from.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from conf.contracts import FORECAST_DAYS
from models.descent import share_of_peak

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_DAYS = 28  # of history, for a level
_WEEK = 7
_STATES, _HEAD = 32, 32
_STEPS, _SERIES_AT_ONCE, _MOMENTS = 300, 64, 16
_PEAK, _DECAY, _CLIP = 0.01, 0.01, 1.0
_SERIES_TOLD = 2048  # forecast at once
_PSEUDO = 0.5  # events that nobody saw, so that logarithms are finite


class _Network(nn.Module):
    """From features of the days so far to the mean's logarithm, relative to the level, and the dispersion's, per day ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_INPUTS, _STATES, batch_first=True)
        self.hidden, self.out = nn.Linear(_STATES + _AHEAD, _HEAD), nn.Linear(_HEAD, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, states_PES: Tensor, ahead_PEHF: Tensor) -> tuple[Tensor, Tensor]:
        states_PEHS = states_PES[:, :, None, :].expand(-1, -1, FORECAST_DAYS, -1)
        shift_PEH, spread_PEH = self.out(torch.relu(self.hidden(torch.cat([states_PEHS, ahead_PEHF], dim=-1)))).unbind(-1)
        # Without having learnt anything it says: the level, by the weekday's share.
        return shift_PEH + ahead_PEHF[..., 0], spread_PEH - 1.0


# The day against the level, the week against it, the weekday before against it, the level itself; its weekday.
_INPUTS = 4 + _WEEK
# The weekday's share of the level; the weekday; how far ahead.
_AHEAD = 1 + _WEEK + FORECAST_DAYS


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What the network reads of series: `days_PDF`; `level_PD`; `share_PDW`, what each of the next weekdays has been to it."""

    days_PDF: Tensor
    level_PD: Tensor
    share_PDW: Tensor


def _read(counts_PD: Floats, first: Ints, last: int) -> _Read:
    """Of each day what was known at its end; before a series' first day zeros."""
    series, days = counts_PD.shape
    level_PD = _trailing(counts_PD, 4 * _WEEK)
    week_PD = _trailing(counts_PD, _WEEK)
    # The mean of the same weekday in the four weeks up to the day, for each of the seven days that follow it.
    share_PDW = np.stack([_trailing_weeks(counts_PD, _WEEK - 1 - ahead) for ahead in range(_WEEK)], axis=2)
    share_PDW = np.log((share_PDW + _PSEUDO) / (level_PD[:, :, None] + _PSEUDO))
    weekday_D = (last - days + 1 + np.arange(days)) % _WEEK
    numbers_PDF = np.stack(
        [
            np.log((counts_PD + _PSEUDO) / (level_PD + _PSEUDO)),
            np.log((week_PD + _PSEUDO) / (level_PD + _PSEUDO)),
            share_PDW[:, :, 0],
            np.log(level_PD + _PSEUDO) / 4,
        ],
        axis=2,
    )
    weekday_PDW = np.broadcast_to(np.eye(_WEEK)[weekday_D], (series, days, _WEEK))
    days_PDF = np.concatenate([numbers_PDF, weekday_PDW], axis=2)
    days_PDF[np.arange(days) < first[:, None]] = 0
    return _Read(
        days_PDF=torch.from_numpy(days_PDF), level_PD=torch.from_numpy(level_PD), share_PDW=torch.from_numpy(share_PDW)
    )


def _trailing(counts_PD: Floats, window: int) -> Floats:
    """Mean of the last days up to each; what was before the first of all is 0."""
    total_PD = np.cumsum(counts_PD, axis=1)
    total_PD[:, window:] -= total_PD[:, :-window].copy()
    return total_PD / window


def _trailing_weeks(counts_PD: Floats, back: int) -> Floats:
    """Mean of the day so many days back and of those one, two and three weeks before it."""
    found_PD = np.zeros_like(counts_PD)
    for shift in range(back, back + 4 * _WEEK, _WEEK):
        found_PD[:, shift:] += counts_PD[:, : counts_PD.shape[1] - shift]
    return found_PD / 4


def _ahead(read: _Read, last: int, rows: Tensor, moments_PE: Tensor) -> Tensor:
    """What is known of the days ahead of some moments (days of the matrix) of some series, (P, E, H, F)."""
    days = read.days_PDF.shape[1]
    ahead_H = torch.arange(FORECAST_DAYS)
    share_PEH = read.share_PDW[rows[:, None], moments_PE][:, :, ahead_H % _WEEK]
    weekday_PEH = (last - days + 2 + moments_PE[:, :, None] + ahead_H) % _WEEK
    weekday_PEHW = functional.one_hot(weekday_PEH, _WEEK).to(share_PEH.dtype)
    far_HH = torch.eye(FORECAST_DAYS, dtype=share_PEH.dtype).expand(*share_PEH.shape, FORECAST_DAYS)
    return torch.cat([share_PEH[..., None], weekday_PEHW, far_HH], dim=-1)


def _lost(shift: Tensor, spread: Tensor, level: Tensor, events: Tensor) -> Tensor:
    """Negative logarithm of the negative binomial's probability of the events; variance mean + exp(spread) mean^2."""
    mean, size = (level + _PSEUDO) * torch.exp(shift.clamp(-8, 8)), torch.exp(-spread.clamp(-8, 4))
    chosen = torch.lgamma(events + 1) + torch.lgamma(size) - torch.lgamma(events + size)
    return chosen + size * torch.log1p(mean / size) + events * torch.log1p(size / mean)


class Forecaster:
    """A trained network. It forecasts in double precision: what a series gets does not move with those beside it."""

    def __init__(self, network: _Network) -> None:
        self.network = network.double().eval()

    @torch.no_grad()
    def forecast(self, counts_PD: Floats, first: Ints, last: int, level: float) -> tuple[Floats, Floats, Floats]:
        """Mean of each of the next days and the bounds of its interval, (P, H) each; NaN after fewer than `LEAST_DAYS` days.

        Args:
            counts_PD: events of each day; those before a series' `first` one do not count.
            last: the newest day, in days since 1970.
            level: share of the days that the intervals are to hold.
        """
        from scipy.stats import nbinom  # a second to read, which those who only train need not spend

        with _one_thread():
            mean_PH, size_PH = self._distribution(counts_PD, first, last)
        half = (1 - level) / 2
        lower_PH, upper_PH = (nbinom.ppf(share, size_PH, size_PH / (size_PH + mean_PH)) for share in (half, 1 - half))
        return mean_PH, lower_PH, upper_PH

    def _distribution(self, counts_PD: Floats, first: Ints, last: int) -> tuple[Floats, Floats]:
        """Mean and size (mean^2 / (variance - mean)) of each of the next days."""
        series, days = counts_PD.shape
        mean_PH, size_PH = np.full((2, series, FORECAST_DAYS), np.nan)
        known = np.flatnonzero(days - first >= LEAST_DAYS)
        for at in range(0, len(known), _SERIES_TOLD):
            rows = known[at : at + _SERIES_TOLD]
            read = _read(counts_PD[rows], first[rows], last)
            states_PDS, _ = self.network.lstm(read.days_PDF)
            moments_PE = torch.full((len(rows), 1), days - 1)
            ahead_PEHF = _ahead(read, last, torch.arange(len(rows)), moments_PE)
            shift_PEH, spread_PEH = self.network(states_PDS[:, -1:], ahead_PEHF)
            level_P = read.level_PD[:, -1].numpy() + _PSEUDO
            mean_PH[rows] = level_P[:, None] * np.exp(shift_PEH[:, 0].clamp(-8, 8).numpy())
            size_PH[rows] = np.exp(-spread_PEH[:, 0].clamp(-8, 4).numpy())
        return mean_PH, size_PH

    def dumped(self) -> bytes:
        """The weights."""
        held = io.BytesIO()
        torch.save(self.network.state_dict(), held)
        return held.getvalue()

    @staticmethod
    def loaded(weights: bytes) -> Forecaster:
        """
        Raises:
            ValueError: the weights are damaged, or another release's.
        """
        network = _Network().double()
        try:
            network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
        except (EOFError, KeyError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise ValueError(f"these are no weights of the forecaster ({type(error).__name__})") from error
        return Forecaster(network)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Products this small wait longer for a second thread than they take; and sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train(counts_PD: Floats, first: Ints, last: int, *, seed: int) -> Forecaster | None:
    """A network that has learnt what follows what in these series; None where none is long enough.

    Equal series in equal order give equal weights, on one type of processor.
    Each step takes some series and some moments of each, from `LEAST_DAYS` days of history on, with all days ahead of them.
    """
    days = counts_PD.shape[1]
    moments = days - FORECAST_DAYS - (first + LEAST_DAYS - 1)  # of each series, at the end of which all ahead is known
    taught = np.flatnonzero(moments > 0)
    if len(taught) == 0:
        return None
    counts_PD, first, moments = counts_PD[taught], first[taught], moments[taught]
    rng = np.random.default_rng(seed)
    with _one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        network, read = _Network(), _read(counts_PD, first, last)
        read = _Read(days_PDF=read.days_PDF.float(), level_PD=read.level_PD.float(), share_PDW=read.share_PDW.float())
        events_PD = torch.from_numpy(counts_PD).float()
        optimizer = torch.optim.AdamW(network.parameters(), lr=_PEAK, weight_decay=_DECAY)
        for step in range(_STEPS):
            chosen = rng.choice(len(taught), min(_SERIES_AT_ONCE, len(taught)), replace=False)
            drawn_PE = (rng.random((len(chosen), _MOMENTS)) * moments[chosen, None]).astype(np.int64)
            rows, moments_PE = torch.from_numpy(chosen), torch.from_numpy(first[chosen, None] + LEAST_DAYS - 1 + drawn_PE)
            states_PDS, _ = network.lstm(read.days_PDF[rows])
            states_PES = states_PDS[torch.arange(len(chosen))[:, None], moments_PE]
            shift_PEH, spread_PEH = network(states_PES, _ahead(read, last, rows, moments_PE))
            ahead_PEH = moments_PE[:, :, None] + 1 + torch.arange(FORECAST_DAYS)
            events_PEH = events_PD[rows[:, None, None], ahead_PEH]
            level_PE = read.level_PD[rows[:, None], moments_PE]
            loss = _lost(shift_PEH, spread_PEH, level_PE[:, :, None], events_PEH).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
            for group in optimizer.param_groups:
                group["lr"] = _PEAK * share_of_peak(step, _STEPS)
            optimizer.step()
    return Forecaster(network)
