"""Who is ranked again on a night: everybody whose lists may come out different.

What a list is made of is the version, code and settings; the user's events, main places and dismissals; the day asked from,
which moves in steps (`ASKED_FROM`); and of the items on it what reasons say of them. Of items on no list only this counts,
that one may be listed again, or that the settings' rules see it otherwise. Whoever is left out would get the very lists that
are there.
"""

from __future__ import annotations

import json
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
from jobs.lake import consent
from jobs.lake.context import Context
from jobs.lake.store import Days, keyframe_before
from jobs.score.blending import Blend
from jobs.score.moments import ASKED_FROM, end_of
from jobs.score.reasons import rounded
from jobs.staleness import standing
from models.queries import Vocabulary

_TOLD = ("title", "category", "told_users", "withdrawn")


def told_before(
    context: Context, model_version: str, blend: Blend | None, folder: Path, catalogue: pa.Table
) -> DataFrame | None:
    """The items of which lists say something else now, `item_id`; None: everybody is to be ranked again.

    folder: of the version. blend: the policy that mixes lists, by shares that move nightly. catalogue: `item_facts` of today.
    """
    yesterday = context.days.last - timedelta(days=1)
    if context.bootstrap or blend is not None or not _goes_on(context, yesterday, model_version):
        return None
    from models import registry  # loads torch, which a night on which everybody is ranked leaves to Spark's workers

    before = context.stored("served_items", Days(first=yesterday, last=yesterday)).select(*catalogue.column_names).toArrow()
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


def _goes_on(context: Context, yesterday: date, model_version: str) -> bool:
    """Whether the lists of the day before are what this version, code and settings made of what was known then, unmixed."""
    run = standing(context.settings, "score", yesterday)
    if run is None:
        return False
    details = json.loads(run["details"])
    return details.get("model_version") == model_version and details.get("policy") is None


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
