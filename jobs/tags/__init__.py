"""tags: says under which words each item goes, and weighs each user's over long and short times."""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.lake.context import Context
from jobs.lake.store import keyframe_before
from jobs.tags.items import followed_claims, in_force, item_tags, own_claims
from jobs.tags.synonyms import tag_synonyms, with_meanings
from jobs.tags.users import tagged_events, user_tags

ITEMS, RELATIONS, ITEM_TAGS, SYNONYMS, USER_TAGS = "items", "item_relations", "item_tags", "tag_synonyms", "user_tags"


def run(context: Context) -> None:
    """An event counts for the tags that its item had at the end of the day on which the event arrived; a later change
    of the item's tags is of later events. So a night and a bootstrap know the same of it, and a new item has tags."""
    context.write(ITEM_TAGS, _item_tags(context).persist())
    settings = context.settings.label
    events = tagged_events(context.arrivals("events"), _known(context, ITEM_TAGS, "item_id"))
    context.write(USER_TAGS, user_tags(events, context.before(USER_TAGS), context.days, settings).persist())


def _item_tags(context: Context) -> DataFrame:
    # Only where what is told of tags moved may the tags of an item move that did not change itself.
    all_items = bool(context.fit_days()) or any(context.rows_by_day(RELATIONS).values())
    items = _known(context, ITEMS, "item_id") if all_items else in_force(context.changed(ITEMS), None, "item_id")
    claims = own_claims(items, context.state("text_semantics"))
    if RELATIONS in context.pins:
        claims = claims.persist()
        claims = claims.unionByName(followed_claims(items, claims, _known(context, RELATIONS, "relation_id")))
    return item_tags(items, _meant(context, claims), context.before(ITEM_TAGS), context.days)


def _meant(context: Context, claims: DataFrame) -> DataFrame:
    """The claims under the tags that theirs mean, by the newest `tag_synonyms`, which are made here when they are due."""
    synonyms, due = context.before(SYNONYMS, lookback_days=31), context.fit_days()
    if due:
        claims = claims.persist()
        context.write(SYNONYMS, tag_synonyms(claims, due, context.settings.text, context.settings.label.synonym_likeness))
        synonyms = synonyms.unionByName(context.arrivals(SYNONYMS))
    else:
        context.clear(SYNONYMS)
    # What held until now too: on the day on which a meaning ends, the items of its tag are looked at.
    newest = keyframe_before(context.days.first - timedelta(days=1), context.first_day)
    return with_meanings(claims, synonyms.where(F.col("day") >= F.lit(newest)), sorted({newest, *due}))


def _known(context: Context, name: str, owner: str) -> DataFrame:
    """A state's rows before the run and on each day on which they changed, with the days on which they hold."""
    eve = F.lit(context.days.first - timedelta(days=1))
    before = context.before(name).withColumns({"gone": F.lit(False), "day": eve})
    return in_force(context.changed(name), before, owner)
