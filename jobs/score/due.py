"""Who is ranked again on a night: everybody whose lists may come out different.

What a list is made of is the version with its index, code and settings; the user's events, main places and dismissals; the
day asked from, which moves in steps (`ASKED_FROM`); and of the items on it what reasons say of them. Of items on no list only
this counts, that one may be listed again, or that the settings' rules see it otherwise. Whoever is left out would get the very
lists that are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.settings import Score
from jobs import feedback
from jobs.lake import consent, logs, tombstones
from jobs.lake.context import Context
from jobs.lake.store import Days, keyframe_before
from jobs.score.items import counted, recounted
from jobs.score.moments import ASKED_FROM, end_of
from jobs.score.reasons import rounded
from jobs.staleness import standing
from models.queries import Vocabulary

_TOLD = ("title", "category", "told_users", "withdrawn")


def served_before(context: Context) -> tuple[logs.Row, DataFrame] | None:
    """Step `score`'s run of the day before and the items as it knew them, if this code and settings made them of what is there.

    None: all is to be made anew, as nobody knows what has changed.
    """
    yesterday = context.days.last - timedelta(days=1)
    run = None if context.bootstrap else standing(context.settings, "score", yesterday)
    return None if run is None else (run, context.stored("served_items", Days(first=yesterday, last=yesterday)))


def items_counted(context: Context, served: tuple[logs.Row, DataFrame] | None) -> DataFrame:
    """`jobs.score.items.counted` of everybody: where a day before goes on by who changed, else by all sequences.

    Whoever withdraws a consent, or was erased since, is in no sequence that changed.
    """
    targets, settings = context.settings.mapping.target_events, context.settings
    if served is None or settings.asks_consent or tombstones.erased_since(settings.lake, served[0]["finished_at"]):
        return counted(context.state("user_sequences"), targets)
    changed = context.changed("user_sequences").select("user_id").distinct()
    then, now = (seen("user_sequences", among=changed) for seen in (context.before, context.state))
    return recounted(served[1], then, now, targets)


def told_before(
    context: Context,
    served: tuple[logs.Row, DataFrame] | None,
    made_by: Mapping[str, str | None],
    folder: Path,
    catalogue: pa.Table,
) -> DataFrame | None:
    """The items of which lists say something else now, `item_id`; None: everybody is to be ranked again.

    made_by: the `model_version`, the digest of the `index` by which it lists, and the `policy` that mixes lists, by shares that
    move nightly; None: without. folder: of the version. catalogue: `item_facts` of today.
    """
    if served is None or made_by["policy"] is not None or not _is(made_by, served[0]):
        return None
    from models import registry  # loads torch, which a night on which everybody is ranked leaves to Spark's workers

    before = served[1].select(*catalogue.column_names).toArrow()
    if pc.max(before["kept"]) != pc.max(catalogue["kept"]):
        return None
    both = _told(before).join(_told(catalogue), "item_id", join_type="full outer", left_suffix="_before")
    # Nobody is given what the version does not know.
    both = both.filter(pc.is_in(both["item_id"], pa.array(Vocabulary.load(folder / registry.VOCABULARY).items, pa.string())))
    was_withdrawn, is_withdrawn = (pc.fill_null(both[name], False) for name in ("withdrawn_before", "withdrawn"))
    if pc.any(pc.and_not(was_withdrawn, is_withdrawn)).as_py():
        return None
    if any(_differs(both, name).any() for name in _ranked_by(context.settings.score)):
        return None
    changed = both.filter(pa.array(np.any([_differs(both, name) for name in _TOLD], axis=0))).select(["item_id"])
    context.note(items_changed=len(changed))
    return context.spark.createDataFrame(changed)


def _is(made_by: Mapping[str, str | None], run: logs.Row) -> bool:
    """Whether a run's lists are made by the same."""
    details = json.loads(run["details"])
    return all(details.get(name) == value for name, value in made_by.items())


def _ranked_by(rules: Score) -> tuple[str, ...]:
    """What of an item moves others on a list."""
    if rules.diversity:
        # How much it weighs goes by the span of the best scores, listed or not.
        return ("boost", "category", "brand", "withdrawn")
    return ("boost", "category", "brand") if rules.caps else ("boost",)


def _differs(both: pa.Table, name: str) -> np.ndarray:
    one, other = both[f"{name}_before"], both[name]
    is_same = pc.if_else(pc.and_(pc.is_null(one), pc.is_null(other)), True, pc.fill_null(pc.equal(one, other), False))
    return ~is_same.to_numpy()


def _told(facts: pa.Table) -> pa.Table:
    told = facts.select(["item_id", "title", "category", "withdrawn", "brand"])
    told = told.append_column("boost", pc.fill_null(facts["boost"], 0.0))
    return told.append_column("told_users", pa.array(rounded(facts["users"].to_numpy())))


def users_due(context: Context, told: DataFrame) -> DataFrame:
    """Who is to be ranked again, `user_id`: from rows as they are stored, so that nothing is sorted of those who are not.

    Superseded rows among them name a few more than need be; they get the lists that they have.
    """
    yesterday = context.days.last - timedelta(days=1)
    reach = Days(first=keyframe_before(yesterday, context.first_day), last=yesterday)
    listed = context.over(reach).arrivals("recommendations").where(~F.col("gone"))
    by = [listed.join(F.broadcast(told), on="item_id", how="left_semi")]
    by += [context.changed(table) for table in ("user_sequences", "user_places")]
    known = context.over(Days(first=keyframe_before(context.days.last, context.first_day), last=context.days.last))
    sequences = known.arrivals("user_sequences")
    if context.settings.asks_consent:
        by.append(context.changed(consent.CONSENTS))
        sequences = context.state("user_sequences")  # the newest event of all need not be the newest that may be used
    by.append(sequences.where(_asked_from_moves(context.days.last)))
    # Dismissals of the day are new, those of so long ago hold no more.
    ends = (context.days.last - timedelta(days=ago) for ago in (0, context.settings.score.dismissed_days))
    by += [feedback.dismissed(context, Days(first=day, last=day)) for day in ends]
    return reduce(DataFrame.unionByName, [rows.select("user_id") for rows in by]).distinct()


def _asked_from_moves(day: date) -> Column:
    """Whether the day that a user is asked from is another than the night before."""
    newest = F.element_at("events.event_timestamp", -1)
    idle = F.floor((F.lit(end_of(day)) - F.unix_seconds(newest)) / 86_400)
    return (F.size("events") > 0) & idle.isin(*ASKED_FROM.tolist())
