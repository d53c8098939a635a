"""A lake of texts read night by night, at once and by another encoder: a simulated catalogue, a few items more, and reviews."""

import shutil
from datetime import date, datetime, timedelta

import pytest

from conf.settings import load_settings
from jobs import text
from jobs.simulate import World
from jobs.simulate.catalogue import catalogue_of, rows_of_day
from tests.planting import plant

FIRST, LAST = date(2024, 1, 30), date(2024, 2, 3)  # over the first of a month: a keyframe, on which topics are made anew
DAYS = [FIRST + timedelta(days=n) for n in range(5)]
MADE_UP = "whisperwort"  # stands in reviews alone
ITEM = {
    "item_id": "cafe", "title": "Blue Cup", "description": "Coffee by the river.", "category": "Coffee Shop",
    "gone": False, "changed_on": FIRST, "day": FIRST,
}  # fmt: skip
EVENT = {
    "event_id": "e", "user_id": "u", "item_id": "cafe", "event_type": "review", "event_timestamp": datetime(2024, 1, 30, 12),
    "event_date": FIRST, "row_hash": "r", "text": "lovely coffee", "day": FIRST,
}  # fmt: skip


def item(day, **more):
    return {**ITEM, "day": day, "changed_on": day, **more}


def written(day, text, **more):
    return {**EVENT, "day": day, "event_id": f"{day}-{text[:9] if text else text}", "text": text, **more}


ITEMS = [
    item(DAYS[0]),
    item(DAYS[0], item_id="bare", title=None, description=" ", category=None),
    item(DAYS[0], item_id="twin", title=" Blue  Cup", description="Coffee by the river"),
    item(DAYS[2], item_id="late", title="Old Mill", description=None, category="Museum"),
    item(DAYS[3], title="Blue Cup II"),
    item(DAYS[4], item_id="twin", gone=True),
]
EVENTS = [
    written(DAYS[0], "lovely coffee"),
    written(DAYS[1], " lovely\tcoffee \n", user_id="v"),
    written(DAYS[1], None, event_type="check_in"),
    written(DAYS[3], "Old Mill. Museum", event_type="search"),
    written(DAYS[3], "  "),
    written(DAYS[4], "river " * 400),
    written(DAYS[4], "lovely coffee", event_id="again"),
    written(DAYS[4], "咖啡很好喝"),
]
# Beside the catalogue, which the topics are of.
REVIEWS = {
    DAYS[0]: ["The espresso was excellent", "12", "😀"],
    DAYS[1]: ["A novel that I could not put down", "..."],
    DAYS[2]: [f"{MADE_UP} {noun}" for noun in ("coffee", "novel", "yoga", "bread", "museum", "toys", "haircut")],
    DAYS[3]: ["They play loud live music on the stage", "x" * 1_000_000, f"{MADE_UP} espresso"],
}
REVIEWED = {words[:2000] for texts in REVIEWS.values() for words in texts}  # as they are kept


def _planted(folder):
    """Half of the catalogue is there from the first day on."""
    catalogue = rows_of_day(catalogue_of(World(users=1, items=240, days=1, end_day=FIRST, seed=7)), 0)
    items = catalogue[["item_id", "title", "description", "category", "brand"]].to_dict("records")
    days = [DAYS[1 + n % 3 if n // 24 % 2 else 0] for n in range(len(items))]
    listed = [item(day, **one) for one, day in zip(items, days, strict=True)]
    gone = {"item_id": items[0]["item_id"], "gone": True, "day": DAYS[2], "changed_on": DAYS[2]}
    plant(folder / "lake", "items", [*listed, gone, *ITEMS], DAYS)
    reviews = [written(day, words) for day, texts in REVIEWS.items() for words in texts]
    plant(folder / "lake", "events", [*reviews, *EVENTS])
    return _settings(folder)


def _settings(folder, *overrides):
    return load_settings("conf/local.yaml", [f"lake={folder / 'lake'}", *overrides])


@pytest.fixture(scope="session")
def first_night(make_context_in, tmp_path_factory):
    context = make_context_in(_planted(tmp_path_factory.mktemp("first_night")), FIRST)
    text.run(context)
    return context


def _further(make_context_in, first_night, folder, days, *overrides):
    shutil.copytree(first_night.lake.root, folder / "lake")
    contexts = []
    for day in days:
        contexts.append(make_context_in(_settings(folder, *overrides), day, first_day=FIRST))
        text.run(contexts[-1])
    return contexts


@pytest.fixture(scope="session")
def read_by_night(make_context_in, first_night, tmp_path_factory):
    """The context of each night."""
    return [first_night, *_further(make_context_in, first_night, tmp_path_factory.mktemp("by_night"), DAYS[1:])]


@pytest.fixture(scope="session")
def read_by_another(make_context_in, first_night, tmp_path_factory):
    """The contexts of three nights that follow on the first with another encoder."""
    folder = tmp_path_factory.mktemp("by_another")
    return _further(make_context_in, first_night, folder, DAYS[1:4], "text.max_tokens=8")


@pytest.fixture(scope="session")
def read_at_once(make_context_in, tmp_path_factory):
    context = make_context_in(_planted(tmp_path_factory.mktemp("at_once")), FIRST, LAST, bootstrap=True)
    text.run(context)
    return context


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))
