"""Is a day's delivery whole? Its folder must be there, and hold about as many rows as such days held before."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

from conf.settings import Completeness
from jobs.ingest.landing import Landing
from jobs.ingest.sources import Feeding
from jobs.lake.context import Context, Refused

# Of a weekday; with fewer there is no band.
_LEAST_DAYS = 3
# The median absolute deviation (MAD) of normal values times this is their standard deviation.
_MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True, kw_only=True)
class Band:
    """How many rows a day may have; `days` is how many days before it say so."""

    least: int
    most: int
    days: int


def band(counts: Mapping[date, int], day: date, terms: Completeness) -> Band | None:
    """The rows to expect of `day`, from the days before it; None where they are too few.

    The middle is the median of its weekday, in logs. The width is the robust spread (MAD) of all days
    about the medians of their weekdays, and of counts as such (Poisson: 1 / sqrt(n)), so that few
    rows may vary more; at least `least_factor`. Days without rows do not count.
    """
    earlier = {
        one: math.log(rows) for one, rows in counts.items() if rows > 0 and day - timedelta(days=terms.days) <= one < day
    }
    by_weekday: dict[int, list[float]] = {}
    for one, value in earlier.items():
        by_weekday.setdefault(one.weekday(), []).append(value)
    if len(by_weekday.get(day.weekday(), ())) < _LEAST_DAYS:
        return None
    middles = {weekday: median(values) for weekday, values in by_weekday.items()}
    middle = middles[day.weekday()]
    deviation = _MAD_TO_DEVIATION * median(abs(value - middles[one.weekday()]) for one, value in earlier.items())
    width = max(math.log(terms.least_factor), terms.spread * math.sqrt(deviation**2 + math.exp(-middle)))
    # Through logs and back a whole number is none any more.
    least, most = math.exp(middle - width) * (1 - 1e-9), math.exp(middle + width) * (1 + 1e-9)
    return Band(least=math.ceil(least), most=math.floor(most), days=len(earlier))


def refuse_missing(context: Context, sources: Collection[Feeding]) -> None:
    """Every day has its landing folder, be it an empty one. A whole history, or who accepts it, takes a missing one as empty.

    Raises:
        Refused: names the folder and both remedies.
    """
    roots: dict[str, Feeding] = {}
    for source in sources:
        if source.place is not None and source.dated:
            roots.setdefault(source.place.root, source)
    for root, source in roots.items():
        assert source.place is not None and source.place.days is not None
        there = set(source.place.days)
        missing = [day for day in context.days if day not in there] if context.mapping.has_times else []
        if not missing:
            continue
        if not context.bootstrap and not context.settings.completeness.accept:
            raise Refused(
                f"{source.where}: {root}/{missing[0]} is not there: wait for it and run again (a day without rows is an empty "
                f"folder), or take the day as empty: `run --day {missing[0]} --accept`"
            )
        context.log.info("%s: no folder for %s: taken as empty", source.where, _shown(missing))


def refuse_unusual(context: Context, events: Feeding, landing: Landing, counts: Mapping[date, int]) -> None:
    """A night's day holds about as many rows as such days did before; an empty folder is an empty day.

    `counts`: rows of the main log by day, of this one and of those before it. A whole history has none before it.

    Raises:
        Refused: names the day, its rows, the band and both remedies.
    """
    day = context.days.last
    rows = counts.get(day, 0)
    expected = None if context.bootstrap or not events.dated else band(counts, day, context.settings.completeness)
    if expected is None or expected.least <= rows <= expected.most:
        return
    if rows == 0 and events.place is not None and not landing.files(events.place, "*", [day]):
        return
    said = f"{day} has {rows} rows, {expected.days} days before it lead to expect {expected.least} to {expected.most}"
    if not context.settings.completeness.accept:
        raise Refused(f"{said}: wait for the rest and run again, or take the day as it is: `run --day {day} --accept`")
    context.log.info("%s: accepted", said)


def _shown(days: Collection[date]) -> str:
    some = ", ".join(str(day) for day in sorted(days)[:3])
    return some if len(days) <= 3 else f"{some} and {len(days) - 3} more days"
