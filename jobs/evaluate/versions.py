"""The versions that take part in a day's judgement, as the registry and the publications have them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path

from jobs.lake import commits, logs
from jobs.lake.publications import BASELINE, INTEREST, RANKER, serves_as
from models import registry
from models.baselines import BASELINES, Baseline
from models.queries import Vocabulary

Rows = Sequence[logs.Row]
PREFIX = "baseline:"


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def candidates(versions: Rows, day: date, has_times: bool) -> list[logs.Row]:
    """Of each kind the newest version that was made for the day of all that came before it; a ranker first."""
    return _newest_of_each([row for row in _learnt(versions, day) if not has_times or row["trained_until"] == midnight(day)])


def held_out(versions: Rows, day: date) -> list[logs.Row]:
    """Of each kind the newest version that was made for the day of less, to be judged on more than a day."""
    return _newest_of_each([row for row in _learnt(versions, day) if row["trained_until"] < midnight(day)])


def _learnt(versions: Rows, day: date) -> list[logs.Row]:
    return [
        row for row in versions if row["kind"] in (INTEREST, RANKER) and row["day"] == day and row["method"] not in BASELINES
    ]


def _newest_of_each(rows: Rows) -> list[logs.Row]:
    newest = {row["kind"]: row for row in sorted(rows, key=lambda row: row["created_at"])}
    return [newest[kind] for kind in (RANKER, INTEREST) if kind in newest]


def known(versions: Rows, version: str) -> logs.Row:
    """The row of a version that ranks.

    Raises:
        ValueError: there is no such version; says which there are.
    """
    rank = [row for row in versions if serves_as(row) == INTEREST]
    found = [row for row in rank if row["model_version"] == version]
    if not found:
        newest = sorted(rank, key=lambda row: row["created_at"])[-3:]
        there = ", ".join([*(row["model_version"] for row in newest), *BASELINES])
        raise ValueError(f"there is no model version {version} that ranks; there are {there} (`wherewhen models` lists all)")
    return found[-1]


def folder(root: str, version: logs.Row) -> Path:
    return Path(root) / version["folder"]


def vocabulary(root: str, version: logs.Row) -> Vocabulary:
    """The catalogue of a version, without its weights."""
    return Vocabulary.load(folder(root, version) / "vocabulary.json")


def baseline_version(made: Baseline, root: str, day: date) -> logs.Row:
    """Store a baseline as a version of its own; its row of the registry. What scores equally is the same version."""
    counts, settings = made.counts, made.settings.model_dump(mode="json", include={made.method})
    digest = hashlib.sha256(json.dumps([made.method, settings, counts.vocabulary.items, counts.target_types]).encode())
    for array in made.content.values():
        digest.update(array.tobytes())
    version = f"baseline-{made.method}-{digest.hexdigest()[:16]}"
    with commits.commit(root, "a model folder"):
        registry.save(made, registry.version_folder(root, version))
    return {
        "model_version": version,
        "kind": BASELINE,
        "method": made.method,
        "day": day,
        "trained_until": midnight(day),
        "folder": f"{registry.FOLDER}/{version}",
        "settings": json.dumps({"baselines": settings}),
        "metrics": "{}",
        "items": len(counts.vocabulary.items),
        "created_at": logs.now(),
    }
