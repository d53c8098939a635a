"""Lists by an index of the items (`models.nearest`), where the settings ask for it: which nights, its file, how much it finds.

The file stays with the version: lists of users who are not ranked again are those that it would give. Where it is lost it is
made anew, and finds other items here and there, so everybody is ranked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from conf.learning import ENCODERS
from jobs.lake.context import Context
from jobs.score.lists import Catalogue, Scorer, forget_catalogue

if TYPE_CHECKING:
    from jobs.score.blending import Blend

MEASURED = 64  # users
_LOW = 0.9
_TELL_S = 10.0


def looked_at(context: Context, method: str, blend: Blend | None) -> int | None:
    """How many items are to be scored for each moment; None: all. Where settings ask for fewer the run's record says why."""
    wanted = context.settings.score.nearest
    if wanted is None:
        return None
    if method not in ENCODERS or blend is not None:
        why = "lists are mixed" if blend is not None else f"{method} has no item vectors"
        context.log.info("score.nearest: every item is scored, as %s", why)
        context.note(nearest=f"all: {why}")
        return None
    context.note(nearest=wanted)
    return wanted


def index_of(context: Context, scorer: Scorer, sample: Callable[[], DataFrame]) -> str | None:
    """The digest of the version's index, which is made if it is not there; None: there are no more items than are looked at.

    sample: some users' rows of `scoring_input`, of which is measured what share of the items of their exact lists the index
    finds; the record says so each night.
    """
    from models import nearest, registry
    from models.queries import Vocabulary

    folder, many = Path(scorer.folder), scorer.nearest
    assert many is not None
    details = nearest.described(folder)
    if details is None and len(Vocabulary.load(folder / registry.VOCABULARY).items) <= many:
        return None
    asked = {"nearest": many, "k": scorer.k}
    if details is None or not details.items() >= asked.items():
        exact = replace(scorer, nearest=None).catalogue()
        if details is None:
            _build(context, folder, exact)
        details = (nearest.described(folder) or {}) | asked | {"recall": _recall(scorer, exact, many, sample().toArrow())}
        nearest.describe(folder, details)
        forget_catalogue()
    recall = details["recall"]
    context.note(index=details["digest"], recall=recall)
    if recall is not None:
        say = context.log.warning if recall < _LOW else context.log.info
        remedy = "; raise score.nearest for more" if recall < _LOW else ""
        say("lists by the index hold %.1f%% of the items of exact ones%s", 100 * recall, remedy)
    return str(details["digest"])


def _build(context: Context, folder: Path, exact: Catalogue) -> None:
    import torch

    from models import nearest

    assert exact.bulk is not None
    matrix_DV, bias_V = (values.cpu().numpy() for values in (exact.bulk.matrix_DV, exact.bulk.bias_V))
    began = told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= _TELL_S:
            told = now
            context.log.info("index of the items: %d of %d", done, len(bias_V))

    nearest.build(folder, matrix_DV, bias_V, threads=torch.get_num_threads(), tell=tell)
    context.log.info("index of the items: %d in %.0f s", len(bias_V), time.monotonic() - began)


def _recall(scorer: Scorer, exact: Catalogue, many: int, users: pa.Table) -> float | None:
    """Of the items of the users' exact lists the share that their lists by the index hold; None: there are no lists."""
    batches = users.combine_chunks().to_batches()
    wanted = [_listed(scorer.score(batch, exact)) for batch in batches]
    by_index = exact.by_index(scorer.folder, many)
    found = [_listed(scorer.score(batch, by_index)) for batch in batches]
    total = sum(map(len, wanted))
    hits = sum(len(one & other) for one, other in zip(wanted, found, strict=True))
    return float(np.round(hits / total, 4)) if total else None


def _listed(answer: pa.RecordBatch) -> set[tuple[str, str, str]]:
    rows = answer.select(["user_id", "lists"]).to_pylist()
    return {(row["user_id"], entry["slot"], entry["item_id"]) for row in rows for entry in row["lists"]}
