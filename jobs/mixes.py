"""Policies as people look at them: what lists are mixed from, and what another mix would have earned. Needs no JVM.

Judged by lists that were shown and answered (table `feedback`), see `models.off_policy`. Where there are very many, by those of
as many users as memory allows: pseudonyms are keyed hashes, so that the first of them in order are drawn by chance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from conf.settings import Settings
from jobs.answered import ENTRY, answered_lists, sampled_below
from jobs.lake import logs
from jobs.lake.publications import POLICY, in_force
from jobs.query.rendering import aligned
from jobs.score.blending import SHUFFLED, SOURCES, context_of
from jobs.seeing.reading import Reader
from models.off_policy import Answered, Estimate, Verdict, as_shown, evaluated
from models.policy import ANY, Policy

_SHOWN_CONTEXTS = 30
AS_SHOWN = "as shown"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the lists that were shown earned, each, and what the mix in question would have."""

    name: str
    days: tuple[date, date]
    shown: Estimate
    verdict: Verdict

    @property
    def is_enough(self) -> bool:
        return self.verdict.is_enough


def shown(settings: Settings, version: str | None) -> tuple[str, Policy]:
    """A policy, by default the one in force.

    Raises:
        ValueError: there is none, or none of that name.
    """
    if version is None:
        found = in_force(logs.read(settings.lake, "publications"), kind=POLICY)
        if found is None:
            how = "set policy.by to feedback" if settings.policy.by == "none" else "run a night"
            raise ValueError(f"no policy is in force in {settings.lake}: {how}")
        version = str(found["model_version"])
    return version, _policy(settings, version)


def _policy(settings: Settings, version: str) -> Policy:
    rows = [row for row in logs.read(settings.lake, "model_versions") if row["model_version"] == version]
    if not rows or rows[-1]["kind"] != POLICY:
        raise ValueError(f"there is no policy {version} in {settings.lake}: `wherewhen models` lists the versions")
    return Policy.load(Path(settings.lake) / rows[-1]["folder"])


def judged(settings: Settings, version: str | None, shares: str | None, days: int) -> Judged:
    """What a policy, or one mix for everybody, would have earned.

    Raises:
        ValueError: no feedback yet, no such policy or source, shares that do not sum to 1.
    """
    if version is not None and shares is not None:
        raise ValueError("give either a version or --shares, not both")
    reader = Reader.of(settings)
    if not reader.has("feedback"):
        raise ValueError(f"no feedback came to {settings.lake} yet: map a feed `feedback`, see the README")
    name, asked = (shares, _given(shares)) if shares is not None else shown(settings, version)
    since = reader.day - timedelta(days=days - 1)
    answered, contexts = _answered(settings, reader, since)
    if isinstance(asked, Policy):
        asked_NS = asked.shares([context_of(*one) for one in contexts]) if contexts else np.zeros((0, len(SOURCES)))
    else:
        asked_NS = np.broadcast_to(asked, (len(contexts), len(SOURCES)))
    return Judged(
        name=name,
        days=(since, reader.day),
        shown=as_shown(answered),
        verdict=evaluated(answered, asked_NS),
    )


def _given(shares: str) -> np.ndarray:
    """
    >>> _given("ranked=0.75,popular=0.25").tolist()
    [0.75, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0]
    """
    share_S = np.zeros(len(SOURCES))
    for part in shares.split(","):
        name, _, value = part.strip().partition("=")
        if name not in SOURCES:
            raise ValueError(f"--shares: there is no source {name}; there are {', '.join(SOURCES)}")
        try:
            share_S[SOURCES.index(name)] = float(value)
        except ValueError:
            raise ValueError(f"--shares: {part} is no share; write {name}=0.1") from None
    if (share_S < 0).any() or abs(share_S.sum() - 1.0) > 1e-6:
        raise ValueError(f"--shares: they are to sum to 1, not {share_S.sum():g}")
    return share_S


def _answered(settings: Settings, reader: Reader, since: date) -> tuple[Answered, list[tuple[str, str]]]:
    """The mixed lists that were shown since a day, of people who allow to learn from them; and the context of each."""
    where = f"day >= '{since}' AND unmatched IS NULL AND policy_version IS NOT NULL AND source <> '{SHUFFLED}'"
    if settings.asks_consent:
        where += " AND user_id IN (SELECT user_id FROM consents WHERE array_has(purposes, 'training'))"
    entries = reader.rows(f"SELECT count(*) AS n FROM feedback WHERE {where}")[0]["n"]
    if (below := sampled_below(entries)) is not None:
        where += f" AND user_id < '{below}'"
    rows = reader.rows(f"SELECT {', '.join(ENTRY)} FROM feedback WHERE {where}")
    return answered_lists(rows, settings.policy.rewards)


def write_mix(found: tuple[str, Policy], form: str, *, width: int | None) -> str:
    version, policy = found
    mean_CS, many_CS = policy.worth()
    rows = [
        {
            "region": region or "all", "slot": slot or "all", "activity": active or "all",
            **{name: round(float(share), 4) for name, share in zip(policy.sources, policy.share_CS[place], strict=True)},
            "earns most": policy.sources[int(mean_CS[place].argmax())], "entries": round(float(policy.seen_CS[place].sum())),
        }
        for place, (region, slot, active) in enumerate(policy.contexts)
    ]  # fmt: skip
    if form == "json":
        return json.dumps({"model_version": version, "contexts": rows}, indent=1) + "\n"
    # The widest, and of the others those that most is known of.
    known = sorted(range(len(rows)), key=lambda place: (policy.contexts[place].count(ANY) < 2, -many_CS[place].sum()))
    some = [rows[place] for place in known[:_SHOWN_CONTEXTS]]
    left = len(rows) - len(some)
    table = aligned(
        list(some[0]), [[str(row[name]) for row in some] for name in some[0]], right=set(policy.sources), width=width
    )
    return f"policy {version}\n{table}" + (f"and {left} contexts more (--format json shows all)\n" if left else "")


def write_verdict(found: Judged, form: str, *, width: int | None) -> str:
    by: Mapping[str, Estimate] = {AS_SHOWN: found.shown, **found.verdict.by}
    if form == "json":
        rewards = {name: vars(one) for name, one in by.items()}
        rest = {"mix": found.name, "users": found.verdict.users, "lists": found.verdict.lists, "is_enough": found.is_enough}
        return json.dumps({**rest, "reward": rewards}, indent=1) + "\n"
    table = aligned(
        ["reward of a list", "mean", "from", "to"],
        [list(by), *[[f"{getattr(one, name):.4f}" for one in by.values()] for name in ("value", "low", "high")]],
        right={"mean", "from", "to"},
        width=width,
    )
    begin, end = found.days
    rests_on = f"{found.verdict.lists:,} lists of {begin} to {end}, as good as {found.verdict.users:,.0f} users"
    too_few = "too little to tell: the mix is too far from what was shown, or answers are few"
    return f"{found.name}\n{table}{rests_on}: {'enough to tell' if found.is_enough else too_few}\n"
