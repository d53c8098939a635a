"""How times are written: ISO 8601, seconds or milliseconds since 1970, or a pattern, by trying."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_SHARE = 0.9
_TRIED = 300
_SHORTEST = len("1/2/2024")
# Earlier dates are of births and wars, not of what users do.
_EARLIEST = datetime(1990, 1, 1)
ISO = r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(\s*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?))?)?"
_UNITS = {"epoch_seconds": 1.0, "epoch_millis": 1e3, "epoch_micros": 1e6, "epoch_nanos": 1e9}
_DATES = (
    "yyyy/M/d", "yyyy.M.d", "yyyy-M-d", "d/M/yyyy", "M/d/yyyy", "d.M.yyyy", "d-M-yyyy", "M-d-yyyy", "d MMM yyyy", "d-MMM-yyyy",
    "MMM d, yyyy", "MMM d yyyy",
)  # fmt: skip
_CLOCKS = ("", " H:mm", " H:mm:ss", " H:mm:ss.SSS", "'T'H:mm:ss", " h:mm a", " h:mm:ss a", " H:mm:ss Z", " H:mm:ss XXX")
_OTHERS = (
    "yyyyMMdd", "yyyyMMddHHmm", "yyyyMMddHHmmss", "d/MMM/yyyy:H:mm:ss Z", "EEE MMM d H:mm:ss Z yyyy",
    "EEE, d MMM yyyy H:mm:ss Z",
)  # fmt: skip
# Letters of Spark's patterns: what they match, and Python's own letter.
_TWO, _ONE_OR_TWO, _ABBREVIATED = r"\d{2}", r"\d{1,2}", "[A-Z][a-z]{2}"
_LETTERS = {
    "yyyy": (r"\d{4}", "%Y"), "MMM": (_ABBREVIATED, "%b"), "MM": (_TWO, "%m"), "M": (_ONE_OR_TWO, "%m"),
    "dd": (_TWO, "%d"), "d": (_ONE_OR_TWO, "%d"), "EEE": (_ABBREVIATED, "%a"),
    "HH": (_TWO, "%H"), "H": (_ONE_OR_TWO, "%H"), "hh": (_TWO, "%I"), "h": (_ONE_OR_TWO, "%I"), "a": ("[AaPp][Mm]", "%p"),
    "mm": (_TWO, "%M"), "ss": (_TWO, "%S"), "SSS": (r"\d{3}", "%f"),
    "Z": (r"[+-]\d{4}", "%z"), "XXX": (r"[+-]\d{2}:\d{2}", "%z"), "'T'": ("T", "T"),
}  # fmt: skip
_TOKEN = re.compile("|".join(sorted(map(re.escape, _LETTERS), key=len, reverse=True)))


@dataclass(frozen=True, kw_only=True)
class Moments:
    """`format` as a mapping's `time_format` has it (epoch_micros and epoch_nanos need SQL).

    read: rows whose time was read. also: another pattern that fits as well (day and month may be swapped).
    offsets: whether the times say their offset from UTC.
    """

    format: str
    read: int
    least: str
    greatest: str
    is_number: bool = False
    is_date: bool = False
    offsets: bool = False
    also: str | None = None


def moments(distinct: pd.Series, counts: pd.Series, now: datetime) -> Moments | None:
    """How these distinct values (each `counts` times there) say a time, if nearly all do."""
    if (found := _epoch(distinct, counts, now)) is not None:
        return found
    if counts[distinct.str.fullmatch(ISO)].sum() >= _SHARE * counts.sum():
        return _iso(distinct, counts)
    return _pattern(distinct, counts)


def _epoch(distinct: pd.Series, counts: pd.Series, now: datetime) -> Moments | None:
    import pandas as pd

    values = pd.to_numeric(distinct.where(distinct.str.fullmatch(r"\d{9,20}(\.\d*)?")), errors="coerce")
    for name, per_second in _UNITS.items():
        seconds = values / per_second
        known = seconds.between(_EARLIEST.timestamp(), (now + timedelta(days=366)).timestamp())
        read = int(counts[known].sum())
        if read >= _SHARE * counts.sum():
            least, greatest = (
                datetime.fromtimestamp(bound).isoformat(" ", "seconds")
                for bound in (seconds[known].min(), seconds[known].max())
            )
            return Moments(format=name, read=read, least=least, greatest=greatest, is_number=True, offsets=True)
    return None


def _iso(distinct: pd.Series, counts: pd.Series) -> Moments:
    known = distinct[distinct.str.fullmatch(ISO)]
    return Moments(
        format="iso",
        read=int(counts[known.index].sum()),
        least=known.min(),
        greatest=known.max(),
        is_date=bool((known.str.len() == len("2024-01-31")).all()),
        offsets=bool(known.str.contains(r"(?:Z|z|UTC|GMT|\d[+-]\d{2}(?::?\d{2})?)$").mean() > _SHARE),
    )


def _pattern(distinct: pd.Series, counts: pd.Series) -> Moments | None:
    some = distinct.iloc[:_TRIED]
    if some.str.len().median() < _SHORTEST:
        return None
    fitting = []
    for pattern in (*(date + clock for date, clock in product(_DATES, _CLOCKS)), *_OTHERS):
        if some.str.fullmatch(_as_regex(pattern)).mean() < _SHARE:
            continue
        strict = _as_written(pattern, some)
        read = _read(distinct, strict)
        share = counts[read.notna()].sum() / counts.sum()
        if share >= _SHARE and read.min() >= _zoned_like(_EARLIEST, read):
            fitting.append((share, strict, read))
    if not fitting:
        return None
    share, strict, read = max(fitting, key=lambda one: one[0])
    also = next((other for rate, other, _ in fitting if other != strict and rate >= share), None)
    known = read.dropna()
    return Moments(
        format=strict,
        read=int(counts[known.index].sum()),
        least=distinct[known.idxmin()],
        greatest=distinct[known.idxmax()],
        is_date="H" not in strict and "h" not in strict,
        offsets=strict.endswith(("Z", "XXX")) or " Z " in strict,
        also=also,
    )


def _read(distinct: pd.Series, pattern: str) -> pd.Series:
    import pandas as pd

    python = _TOKEN.sub(lambda token: _LETTERS[token[0]][1], pattern)
    fitting = distinct.where(distinct.str.fullmatch(_as_regex(pattern)))
    return pd.to_datetime(fitting, format=python, errors="coerce", utc="%z" in python)


def _zoned_like(moment: datetime, read: pd.Series) -> pd.Timestamp:
    import pandas as pd

    return pd.Timestamp(moment, tz=getattr(read.dt, "tz", None))


def _as_written(pattern: str, some: pd.Series) -> str:
    """Two letters where always two digits stand: Spark's `d` reads both, but says less."""
    for short, long in (("M", "MM"), ("d", "dd"), ("H", "HH"), ("h", "hh")):
        strict = re.sub(rf"(?<![{short}']){short}(?![{short}])", long, pattern)
        if strict != pattern and some.str.fullmatch(_as_regex(strict)).mean() >= _SHARE:
            pattern = strict
    return pattern


def _as_regex(pattern: str) -> str:
    parts, end = [], 0
    for token in _TOKEN.finditer(pattern):
        parts += [re.escape(pattern[end : token.start()]), _LETTERS[token[0]][0]]
        end = token.end()
    return "".join([*parts, re.escape(pattern[end:])])
