"""What is known of an interest when an event of it comes, as numbers to learn from, and whether the interest lasted.

Known is what user_interests held before the event's day, aged to the end of the day before. The truth comes from time: an
interest lasts if the user has events in the category in at least `LEAST_WEEKS` distinct weeks of the `WEEKS` that follow the
event's day. It is known once these are over.

Shape suffixes: M moments, S columns of `STATE`, F features, D days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

WEEK, WEEKS, LEAST_WEEKS = 7, 8, 2
MATURES_DAYS = WEEK * WEEKS
# Columns of user_interests: of the interest, nothing where it is new; then of the user, over all categories.
OWN = ("long_weight", "short_weight", "events", "active_weeks", "active_days", "span_days", "idle_days", "returned_days")
OF_USER = (
    "user_long_weight", "user_short_weight", "user_categories", "user_known_days", "long_half_life_days",
    "short_half_life_days",
)  # fmt: skip
STATE = (*OWN, *OF_USER)
NAMES = (
    "long_rate", "short_rate", "user_long_rate", "user_short_rate", "long_share", "events", "active_weeks", "active_days",
    "week_share", "idle", "mean_gap", "idle_gaps", "returned", "user_watched", "user_categories",
)  # fmt: skip
_PSEUDO = 0.05  # events that nobody saw, so that logarithms are finite
_LONG_WATCHED = 90.0  # mean days: to have watched a user for longer says no more, but when the log began
_USUAL_DAYS, _LONGEST_PACE = 182, 3.0


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Days on which users had events of a category, a row each, in any order.

    `user_M`: any whole numbers; `category_M`: from 0. `day_M`: days since 1970. `passed_M`: days from what was known to
    the end of the day before. `state_MS`: `STATE` as it was known, NaN for none. `ruled_M`: whether the rule calls the
    interest long then.
    """

    user_M: Ints
    category_M: Ints
    day_M: Ints
    passed_M: Floats
    state_MS: Floats
    ruled_M: Flags

    def __len__(self) -> int:
        return len(self.user_M)

    def take(self, rows: Ints | Flags) -> Moments:
        return Moments(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The log's own time: a day is as long as its events are many, against the mean day of the half year up to it.

    Where a log pauses, or loses days, nobody's interest fades. A steady log's clock is the calendar. `first`: its first day
    (days since 1970). `pace_D`: how long each day is, in mean days.
    """

    first: int
    pace_D: Floats

    @staticmethod
    def of(events: Mapping[int, int]) -> Clock:
        """From how many events arrived by day; on a day that is not there, none."""
        first, size = min(events), max(events) - min(events) + 1
        events_D = np.array([events.get(first + number, 0) for number in range(size)], dtype=np.float64)
        total_D = np.concatenate([[0.0], np.cumsum(events_D)])
        end = np.arange(1, size + 1)
        since = np.maximum(end - _USUAL_DAYS, 0)
        usual_D = (total_D[end] - total_D[since]) / (end - since)
        pace_D = np.divide(events_D, usual_D, out=np.zeros(size), where=usual_D > 0)
        return Clock(first=first, pace_D=np.minimum(pace_D, _LONGEST_PACE))

    def passed(self, since_M: Floats, to_M: Floats) -> Floats:
        """(M,) mean days from the end of one day to the end of another; NaN where either is unknown."""
        ticks_D = np.concatenate([[0.0], np.cumsum(self.pace_D)])
        return self._at(ticks_D, to_M) - self._at(ticks_D, since_M)

    def gathered(self, since_M: Floats, to_M: Floats, half_life_M: Floats) -> Floats:
        """(M,) the weight at the end of a day of one event a mean day, from the end of another day on."""
        found = np.full(len(to_M), np.nan)
        for half_life in np.unique(half_life_M[~np.isnan(half_life_M)]):
            rows, daily = np.flatnonzero(half_life_M == half_life), 0.5 ** (1 / half_life)
            weight_D = _decayed(self.pace_D, daily)
            faded = daily ** (to_M[rows] - since_M[rows])
            found[rows] = self._at(weight_D, to_M[rows]) - self._at(weight_D, since_M[rows]) * faded
        return found

    def ahead(self, day_M: Ints) -> Floats:
        """(M,) how much of the log the weeks after a day held, against as many mean days."""
        return self.passed(day_M.astype(np.float64), day_M + float(MATURES_DAYS)) / MATURES_DAYS

    def _at(self, values_D: Floats, day_M: Floats) -> Floats:
        is_known = ~np.isnan(day_M)
        end = np.clip(np.where(is_known, day_M, self.first) - self.first + 1, 0, len(self.pace_D)).astype(np.int64)
        return np.where(is_known, values_D[end], np.nan)


def _decayed(pace_D: Floats, kept: float) -> Floats:
    """(D + 1,) the sum up to each day's end, of which a day later only so much is kept; before the first day 0."""
    return np.array([0.0, *accumulate(pace_D, lambda weight, pace: weight * kept + pace)])


def features(moments: Moments, clock: Clock) -> Floats:
    """(M, F) `NAMES`, by what was known and the log's own time; NaN where there is nothing to say."""
    known, eve_M = dict(zip(STATE, moments.state_MS.T, strict=True)), moments.day_M - 1.0
    last_M = eve_M - moments.passed_M - known["idle_days"]
    # The user's first day counts as watched.
    since_M = eve_M - moments.passed_M - known["user_known_days"] - 1
    watched_M, idle_M = clock.passed(since_M, eve_M), clock.passed(last_M, eve_M)

    def rate(name: str, span: str) -> Floats:
        """Logarithm of events per mean day: a weight, against what one a day would have gathered since the user came."""
        half_life_M = known[f"{span}_half_life_days"]
        weight_M = np.maximum(np.nan_to_num(known[name]), 0) * np.power(0.5, moments.passed_M / half_life_M)
        return np.asarray(np.log((weight_M + _PSEUDO) / np.maximum(clock.gathered(since_M, eve_M, half_life_M), 1e-3)))

    with np.errstate(divide="ignore", invalid="ignore"):
        mean_gap_M = clock.passed(last_M - known["span_days"], last_M) / (known["active_days"] - 1)
        columns = {
            "long_rate": rate("long_weight", "long"),
            "short_rate": rate("short_weight", "short"),
            "user_long_rate": rate("user_long_weight", "long"),
            "user_short_rate": rate("user_short_weight", "short"),
            "long_share": np.nan_to_num(known["long_weight"]) / known["user_long_weight"],
            "events": np.nan_to_num(known["events"]),
            "active_weeks": np.nan_to_num(known["active_weeks"]),
            "active_days": np.nan_to_num(known["active_days"]),
            "week_share": np.nan_to_num(known["active_weeks"]) / np.ceil(watched_M / WEEK),
            "idle": idle_M,
            "mean_gap": mean_gap_M,
            "idle_gaps": idle_M / mean_gap_M,
            "returned": known["returned_days"] + moments.passed_M,
            "user_watched": np.minimum(watched_M, _LONG_WATCHED),
            "user_categories": known["user_categories"],
        }
    found = np.stack([columns[name] for name in NAMES], axis=1)
    found[~np.isfinite(found)] = np.nan
    return found


def lasting(moments: Moments) -> Flags:
    """(M,) whether each interest lasted, by these very moments, which must hold all days of its eight weeks."""
    _, user_M = np.unique(moments.user_M, return_inverse=True)
    first, last = int(moments.day_M.min(initial=0)), int(moments.day_M.max(initial=0))
    pair_M = user_M * (int(moments.category_M.max(initial=0)) + 1) + moments.category_M
    # So far apart that the weeks after one pair's days end before another's begin.
    place_M = pair_M * (last - first + MATURES_DAYS + 1) + moments.day_M - first
    every = np.sort(place_M)
    upto = [np.searchsorted(every, place_M + WEEK * week, side="right") for week in range(WEEKS + 1)]
    weeks_M = np.sum([later > earlier for earlier, later in pairwise(upto)], axis=0)
    return np.asarray(weeks_M >= LEAST_WEEKS)
