"""The measures of a day beside their bounds, for the command `check`. Needs no JVM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date

from conf.settings import Settings
from jobs.bounds import Finding, judged
from jobs.lake.runs import pins
from jobs.query import answer
from jobs.query.rendering import aligned

_TABLE = "drift"


def findings(settings: Settings, day: date) -> list[Finding]:
    """What the newest finished run of the step `drift` measured for the day, whether or not the night is finished.

    Raises:
        ValueError: the day was not measured; says which were, and what to do.
    """
    version = pins(settings.lake).get(_TABLE)
    if version is None:
        raise ValueError(f"no drift was measured in {settings.lake} yet: run a day first (wherewhen run --day {day})")
    sql = f"SELECT subject, measure, value, chance, day FROM {_TABLE} ORDER BY subject, measure DESC"
    rows = answer(settings, sql, versions={_TABLE: version}).to_struct_array().to_pylist()
    found = [row for row in rows if row["day"] == day]
    if not found:
        days = [row["day"] for row in rows]
        raise ValueError(
            f"drift of {day} was not measured in {settings.lake}, which has {min(days)} to {max(days)} (a bootstrap measures "
            f"its last day alone): check one of these, or run the day (wherewhen run --day {day})"
        )
    return judged(found, settings.drift)


def write_findings(found: Sequence[Finding], form: str, *, width: int | None) -> str:
    if form == "json":
        return json.dumps([{**asdict(one), "is_past": one.is_past} for one in found], indent=1) + "\n"
    shown = {
        "what": [one.subject for one in found],
        "measure": [one.measure for one in found],
        "value": ["-" if one.value is None else f"{one.value:.4f}" for one in found],
        "bound": [f"{one.bound:.4f}" for one in found],
        "": [_said(one) for one in found],
    }
    return aligned(list(shown), list(shown.values()), right={"value", "bound"}, width=width)


def _said(one: Finding) -> str:
    if one.value is None:
        return "nothing to compare with"
    return "past its bound" if one.is_past else ""
