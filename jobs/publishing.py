"""The registry as people use it: the versions, a card of each, which one serves, and another in its place. Needs no JVM."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from conf.settings import Settings
from jobs.lake import logs
from jobs.lake.lock import held
from jobs.lake.publications import INTEREST, KINDS, LABELLER, POLICY, RULE, in_order, serves_as
from jobs.lake.refused import Refused
from jobs.lake.runs import newest_night
from jobs.query.rendering import aligned

MANUAL, ROLLBACK, KEPT, REFUSED = "manual", "rollback", "kept", "refused"
_BASELINE = "baseline:"
_MAKES = {INTEREST: "lists", LABELLER: "labels", POLICY: "lists"}
# Of kinds that do not rank; what was measured of them stands in the registry.
_DOES = {LABELLER: "labels interests in {:,} categories", POLICY: "mixes lists in {:,} contexts"}
_WHOLE = "all"  # the segment of all events


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of the registry. `serves_from`: the day since which it serves (as its kind); None where it does not.

    `verdict`: what the newest decision on it was. `judged`: measure -> mean, lower and upper bound, of the newest
    day's own events that it ranked. `is_whole`: its weights are still there.
    """

    model_version: str
    kind: str
    method: str
    day: date
    trained_until: str
    items: int
    serves_from: date | None
    verdict: str | None
    judged: dict[str, tuple[float, float | None, float | None]]
    is_whole: bool


def served(publications: Iterable[logs.Row], kind: str = INTEREST) -> list[tuple[str, date]]:
    """What of a kind served, and since when; the last serves now, the one before it is what a rollback goes back to.

    A rollback takes away what came after the version that it went back to, so a second one goes back further.
    """
    stack: list[tuple[str, date]] = []
    for row in in_order(publications, kind=kind):
        version = row["model_version"]
        if row["decision"] == ROLLBACK and version in [name for name, _ in stack]:
            while stack[-1][0] != version:
                stack.pop()
        elif not stack or stack[-1][0] != version:
            stack.append((version, row["day"]))
    return stack


def publish(settings: Settings, version: str) -> str:
    """Let a version serve from the next run on, in place of what serves of its kind; `rule` in place of a labeller.

    Raises:
        ValueError: no night is finished, or there is no such version; says which there are.
        Refused: its weights were deleted, or another process holds the lake.
    """
    return _publish(settings, _served(settings, version), MANUAL, "published by hand")


def rollback(settings: Settings, kind: str = INTEREST) -> str:
    """Let the version of a kind that served before serve again, from the next run on; says which.

    Raises:
        ValueError: nothing served before.
        Refused: its weights were deleted, or another process holds the lake.
    """
    before = served(logs.read(settings.lake, "publications"), kind)
    if len(before) < 2:
        said = f"only {before[0][0]} ever served" if before else f"no {kind} version is published"
        raise ValueError(f"{said} in {settings.lake}, so there is nothing to go back to; `publish V` takes any version")
    return _publish(settings, _served(settings, before[-2][0]), ROLLBACK, f"rolled back from {before[-1][0]}")


def _served(settings: Settings, version: str) -> logs.Row:
    return {"model_version": RULE, "kind": LABELLER} if version == RULE else _known(settings, version)


def _known(settings: Settings, version: str) -> logs.Row:
    known = {row["model_version"]: row for row in logs.read(settings.lake, "model_versions")}
    if version not in known:
        newest = sorted(known.values(), key=lambda row: row["created_at"])[-3:]
        there = ", ".join(row["model_version"] for row in newest) or "none yet"
        raise ValueError(f"there is no model version {version}; the newest are {there} (`wherewhen models` lists all)")
    return known[version]


def _is_whole(settings: Settings, version: logs.Row) -> bool:
    # As models.registry has it, which loads torch. The rule has no weights.
    return version["model_version"] == RULE or (Path(settings.lake) / version["folder"] / "version.json").is_file()


def _publish(settings: Settings, version: logs.Row, decision: str, reason: str) -> str:
    name, kind = version["model_version"], serves_as(version)
    night = newest_night(settings.lake)
    if night is None:
        raise ValueError(f"no night is finished in {settings.lake}: run one first (wherewhen run --day D)")
    if not _is_whole(settings, version):
        raise Refused(
            f"the weights of {name} are gone from {settings.lake}/{version['folder']} (retention deleted them):"
            " publish another version"
        )
    with held(settings.lake, f"{decision} of {name}"):
        stack = served(logs.read(settings.lake, "publications"), kind)
        if stack and stack[-1][0] == name:
            return f"{name} serves already, since {stack[-1][1]}"
        row = {
            "day": night.day,
            "kind": kind,
            "model_version": name,
            "decision": decision,
            "candidate": None,
            "reason": reason,
            "run_id": f"{decision}-{logs.now():%Y%m%dT%H%M%S%f}",
            "decided_at": logs.now(),
        }
        logs.append(settings.lake, "publications", [row])
    instead = f" in place of {stack[-1][0]}" if stack else ""
    said = f"{name} serves from the next run on{instead}; the {_MAKES[kind]} of {night.day} stay as they are"
    return said if kind == LABELLER else f"{said}, unless you run `run --day {night.day} --from-step score`"


def versions(settings: Settings) -> list[Version]:
    """Every version of the registry, the newest first."""
    publications = sorted(logs.read(settings.lake, "publications"), key=lambda row: (row["day"], row["decided_at"]))
    serving = dict(stack[-1] for kind in KINDS if (stack := served(publications, kind)))
    verdicts = {row["candidate"] or row["model_version"]: _verdict(row) for row in publications}
    judged = _judged(settings)
    rows = sorted(logs.read(settings.lake, "model_versions"), key=lambda row: (row["day"], row["created_at"]), reverse=True)
    return [
        Version(
            model_version=row["model_version"],
            kind=row["kind"],
            method=row["method"],
            day=row["day"],
            trained_until=f"{row['trained_until']:%Y-%m-%d %H:%M}",
            items=row["items"],
            serves_from=serving.get(row["model_version"]),
            verdict=verdicts.get(row["model_version"]),
            judged=judged.get(row["model_version"], {}),
            is_whole=_is_whole(settings, row),
        )
        for row in rows
    ]


def _verdict(row: logs.Row) -> str:
    return f"{row['decision']} {row['day']}"


def _judged(settings: Settings) -> dict[str, dict[str, tuple[float, float | None, float | None]]]:
    """Version -> measure -> mean and bounds on the newest day that it was judged on."""
    found: dict[str, dict[str, tuple[float, float | None, float | None]]] = {}
    days: dict[str, date] = {}
    for row in sorted(
        _quality(settings, f"evaluation = 'day' AND segment = '{_WHOLE}'"), key=lambda row: row["day"], reverse=True
    ):
        version = row["model_version"]
        if days.setdefault(version, row["day"]) == row["day"]:
            found.setdefault(version, {})[_measure(row)] = (row["value"], row["lower"], row["upper"])
    return found


def _quality(settings: Settings, where: str) -> list[dict[str, Any]]:
    """Rows of `model_quality` that readers see; none before the first evaluation."""
    from jobs.query import answer
    from jobs.query.versions import seen

    if "model_quality" not in seen(settings.lake, {}, None):
        return []
    names = ("model_version", "evaluation", "segment", "metric", "k", "value", "lower", "upper", "events", "users", "day")
    rows = answer(settings, f"SELECT {', '.join(names)} FROM model_quality WHERE {where}")
    return [dict(zip(names, values, strict=True)) for values in zip(*(rows.column(n).to_pylist() for n in names), strict=True)]


def _measure(row: dict[str, Any]) -> str:
    return f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]


def write_versions(found: Sequence[Version], measure: str, form: str, *, width: int | None) -> str:
    """`measure`: what the gate compares, such as ndcg@10."""
    if form == "json":
        return json.dumps([asdict(one) for one in found], indent=1, default=str) + "\n"
    if not found:
        return "no model version yet: the first run that trains makes one\n"
    shown = {
        "version": [one.model_version for one in found],
        "kind": [one.kind for one in found],
        "method": [one.method for one in found],
        "day": [str(one.day) for one in found],
        "items": [f"{one.items:,}" for one in found],
        f"{measure} on its day": [_interval(one.judged.get(measure)) for one in found],
        "decision": [one.verdict or "" for one in found],
        "serves": [_serves(one) for one in found],
    }
    return aligned(list(shown), list(shown.values()), right={"items"}, width=width)


def _serves(one: Version) -> str:
    if not one.is_whole:
        return "weights deleted"
    return "" if one.serves_from is None else f"since {one.serves_from}"


def _interval(found: tuple[float, float | None, float | None] | None) -> str:
    if found is None:
        return "-"
    mean, lower, upper = found
    return f"{mean:.4f}" if lower is None or upper is None else f"{mean:.4f} ({lower:.4f}..{upper:.4f})"


def card(settings: Settings, version: str) -> str:
    """What a version is, what it learnt from, how it was judged and beside whom, and what was decided: Markdown.

    Raises:
        ValueError: there is no such version.
    """
    row = _known(settings, version)
    trained = [one for one in logs.read(settings.lake, "training_runs") if one["model_version"] == version]
    lines = [f"# {version}", ""]
    does = _DOES.get(row["kind"], "ranks {:,} items")
    lines += [f"A {row['kind']} version ({row['method']}) that {does.format(row['items'])}, made for {row['day']}."]
    lines += ["", "## Learnt from", "", f"Events that arrived before {row['trained_until']:%Y-%m-%d %H:%M} UTC."]
    lines += [
        f"{one['windows']:,} windows with {one['targets']:,} targets, {one['epochs']} epochs in {one['seconds']:.0f} s on "
        f"{one['processes']} process{'es' if one['processes'] > 1 else ''}; loss {_loss(one['train_loss'])}, on the validation "
        f"fold {_loss(one['validation_loss'])} (run {one['run_id']})."
        for one in trained
    ]
    lines += _settings_lines(json.loads(row["settings"]))
    judged = _metric_lines(row) if row["kind"] in _DOES else _judged_lines(settings, version)
    lines += ["", "## Judged", "", *judged]
    decisions = in_order(logs.read(settings.lake, "publications"), kind=serves_as(row))
    decided = [one for one in decisions if version in _concerned(one)]
    lines += ["", "## Decided", ""]
    lines += [f"- {one['day']}: {_told(one, version)}. {one['reason']}" for one in decided] or ["Nothing yet."]
    return "\n".join(lines) + "\n"


def _concerned(decision: logs.Row) -> tuple[str | None, str]:
    return decision["candidate"], decision["model_version"]


def _told(decision: logs.Row, version: str) -> str:
    if decision["candidate"] not in (None, version) and decision["decision"] in (KEPT, REFUSED):
        return f"it goes on serving, {decision['candidate']} is {decision['decision']}"
    return str(decision["decision"])


def _loss(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _settings_lines(settings: dict[str, Any]) -> list[str]:
    if not settings:
        return []
    shown = [f"{section}.{key}={value}" for section, keys in settings.items() for key, value in keys.items()]
    return ["", "Settings: " + ", ".join(shown) + "."]


def _metric_lines(version: logs.Row) -> list[str]:
    """What was measured when it was made, a row each."""
    return [f"- {name}: {value:,.4f}" for name, value in json.loads(version["metrics"]).items()] or ["Not yet."]


def _judged_lines(settings: Settings, version: str) -> list[str]:
    """Two tables for each day and kind of evaluation, the version and the baselines on the same events: whole, and in parts."""
    rows = [row for row in _quality(settings, "evaluation <> 'paired'") if row["k"] in (0, settings.gate.k)]
    whole, parts = ([row for row in rows if (row["segment"] == _WHOLE) == is_whole] for is_whole in (True, False))
    rows = whole
    exams = sorted({(row["day"], row["evaluation"]) for row in rows if row["model_version"] == version}, reverse=True)
    lines: list[str] = []
    for day, evaluation in exams:
        same = [row for row in rows if (row["day"], row["evaluation"]) == (day, evaluation)]
        mine = [row for row in same if row["model_version"] == version]
        measures = list(dict.fromkeys(_measure(row) for row in mine))
        names = [version, *sorted({row["model_version"] for row in same if row["model_version"].startswith(_BASELINE)})]
        lines += [f"{evaluation} {day}: {mine[0]['events']:,} target events of {mine[0]['users']:,} users", ""]
        lines += ["| " + " | ".join(["", *measures]) + " |", "|---" * (len(measures) + 1) + "|"]
        for name in names:
            of = {_measure(row): (row["value"], row["lower"], row["upper"]) for row in same if row["model_version"] == name}
            lines.append("| " + " | ".join([name, *(_interval(of.get(measure)) for measure in measures)]) + " |")
        lines += ["", *_segment_lines([row for row in parts if (row["day"], row["evaluation"]) == (day, evaluation)], names)]
    return lines[:-1] if lines else ["Not yet."]


def _segment_lines(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """ndcg of some of the events, a row a segment."""
    of = {(row["segment"], row["model_version"]): row for row in rows if row["metric"] == "ndcg"}
    segments = list(dict.fromkeys(segment for segment, _ in of))
    if not segments:
        return []
    lines = ["| ndcg | " + " | ".join(["events", *names]) + " |", "|---" * (len(names) + 2) + "|"]
    for segment in segments:
        found = [of.get((segment, name)) for name in names]
        events = next(row["events"] for row in found if row is not None) if any(found) else 0
        means = [_interval(None if row is None else (row["value"], row["lower"], row["upper"])) for row in found]
        lines.append("| " + " | ".join([segment, f"{events:,}", *means]) + " |")
    return [*lines, ""]
