"""What a column of strings holds: its type, how its times are written, its range."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from jobs.profiling.moments import Moments, moments

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["empty", "boolean", "integer", "number", "time", "date", "ip", "json", "id", "category", "text"]

# So many of a column's values make its type; the others are the bad rows that a log always has.
SHARE = 0.9
_BOOLEANS = frozenset(("0", "1", "true", "false", "yes", "no", "y", "n", "t", "f"))
_INTEGER = r"\s*[+-]?\d{1,30}\s*"
_CODE = re.compile(r"[0-9a-fA-F-]{16,}|[\w.@:/+-]*\d[\w.@:/+-]*", re.ASCII)
_TRIED = 2000
# A column with more distinct values than this share of its rows does not group them.
_MOST_DISTINCT = 0.05
_FEW = 20
_WORDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the sample. `distinct` is exact in the sample; `least` and `greatest` are as written.

    odd: values that are not of the kind. moments: how times are written, where it may be a time.
    values: numbers, where it holds numbers (NaN for the odd), else None.
    """

    name: str
    kind: Kind
    rows: int
    nulls: int
    distinct: int
    odd: int = 0
    least: str = ""
    greatest: str = ""
    examples: tuple[str, ...] = ()
    moments: Moments | None = None
    mean_words: float = 0.0
    decimals: float = 0.0

    @property
    def given(self) -> int:
        return self.rows - self.nulls

    @property
    def is_number(self) -> bool:
        return self.kind in ("integer", "number") or (self.kind == "boolean" and self.least in ("0", "1"))

    def within(self, least: float, greatest: float) -> bool:
        """Whether all but the odd values are numbers between these."""
        return self.is_number and least <= float(self.least) and float(self.greatest) <= greatest


def column_of(name: str, values: pd.Series, now: datetime) -> Column:
    """What a column of strings (null where nothing is given) holds. A time after `now` is none."""
    given = values.dropna().str.strip()
    counts = given.value_counts()
    held: dict[str, Any] = {
        "name": name,
        "rows": len(values),
        "nulls": len(values) - len(given),
        "distinct": len(counts),
        "examples": tuple(counts.index[:3]),
    }
    if not len(given):
        return Column(kind="empty", **held)
    distinct = counts.index.to_series()
    numeric = _numbers(distinct, counts)
    found = moments(distinct, counts, now)
    if frozenset(distinct.str.lower()) <= _BOOLEANS and len(counts) <= 2:
        return Column(kind="boolean", **held, least=min(distinct), greatest=max(distinct))
    if found is not None and not found.is_number:
        return Column(kind="date" if found.is_date else "time", **held, **_times(found, counts))
    if numeric is not None:
        return _number(held, distinct, counts, numeric, found)
    words = _mean(distinct.str.count(r"\s+") + 1, counts)
    range_: dict[str, Any] = {"least": _cut(distinct.min()), "greatest": _cut(distinct.max())}
    return Column(kind=_kind_of_text(distinct, counts, words), **held, **range_, mean_words=words)


def _numbers(distinct: pd.Series, counts: pd.Series) -> pd.Series | None:
    """The values as numbers, where nearly all are; infinities and NaN are none."""
    import numpy as np
    import pandas as pd

    values = pd.to_numeric(distinct, errors="coerce").replace([np.inf, -np.inf], np.nan)
    return values if counts[values.notna()].sum() >= SHARE * counts.sum() else None


def _number(held: dict[str, Any], distinct: pd.Series, counts: pd.Series, values: pd.Series, found: Moments | None) -> Column:
    known = distinct[values.notna()]
    whole = counts[known.index][known.str.fullmatch(_INTEGER)].sum() >= SHARE * counts[known.index].sum()
    after_point = known.str.extract(r"\.(\d*)$", expand=False).fillna("").str.len()
    return Column(
        kind="integer" if whole else "number",
        **held,
        odd=int(counts.sum() - counts[known.index].sum()),
        least=distinct[values.idxmin()],
        greatest=distinct[values.idxmax()],
        moments=found,
        decimals=_mean(after_point, counts[known.index]),
    )


def _times(found: Moments, counts: pd.Series) -> dict[str, Any]:
    return {
        "moments": found,
        "odd": int(counts.sum() - found.read),
        "least": found.least,
        "greatest": found.greatest,
    }


def _kind_of_text(distinct: pd.Series, counts: pd.Series, mean_words: float) -> Kind:
    """`id`: names rows or things; `category`: groups them; `text`: words."""
    some = distinct.iloc[:_TRIED]
    if some.map(_is_ip).mean() >= SHARE:
        return "ip"
    if some.str.match(r"[\[{]").mean() >= SHARE:
        return "json"
    total = counts.sum()
    if len(counts) <= _FEW and len(counts) < total:
        return "category"
    if some.str.fullmatch(_CODE).mean() >= SHARE:
        return "id"
    if mean_words >= _WORDS and len(counts) > _MOST_DISTINCT * total:
        return "text"
    return "category" if len(counts) <= _MOST_DISTINCT * total or total < 100 else "text" if mean_words > 1.5 else "id"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _mean(of: pd.Series, counts: pd.Series) -> float:
    return float((of * counts).sum() / counts.sum())


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
