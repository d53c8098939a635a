"""Every sentence is read back and its numbers are counted again, event by event."""

import re
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.contracts import SLOTS
from jobs.score.reasons import ANY, NO_DATE, Entries, Names, Past, Places, distance_m, reasons

HERE, NEAR, FAR = (40.75, -73.98), (40.7535, -73.98), (40.80, -73.98)  # 389 m and 5.6 km from HERE
TYPES = ("check_in", "purchase")
EVENT = {"item": 0, "category": 0, "slot": 1, "type": 0, "date": 19_845, "at": HERE}
NAMES = Names(
    titles=["Blue Bottle", None, None, "<b>Evil</b>\n title"],
    items=["i0", "i1", "i2", "i3"],
    categories=["Coffee Shop", "Gym"],
    types=TYPES,
    chosen_by=np.array([5, 1, 0, 2]),
    kept=0,
)
CATEGORY_OF_ITEM = np.array([0, 0, -1, 1])


def told(events, item, slot="weekday_morning", place=HERE, is_main=True, kept=0, names=NAMES):
    """The reason for one item on the list of one user with the given events."""
    code = ANY if slot == "any" else SLOTS.index(slot)
    users = 2  # the second user has the same events elsewhere and must not count
    rows = [{**EVENT, **event, "user": user} for event in events for user in range(users)]
    past = Past(
        user_E=np.array([row["user"] for row in rows], dtype=int),
        item_E=np.array([row["item"] for row in rows], dtype=int),
        category_E=np.array([row["category"] for row in rows], dtype=int),
        slot_E=np.array([row["slot"] for row in rows], dtype=int),
        type_E=np.array([row["type"] for row in rows], dtype=int),
        date_E=np.array([row["date"] for row in rows], dtype=int),
        latitude_E=np.array([row["at"][0] for row in rows], dtype=float),
        longitude_E=np.array([row["at"][1] for row in rows], dtype=float),
        kept_U=np.full(users, kept),
    )
    places = Places(
        latitude_US=np.full((users, ANY + 1), place[0]),
        longitude_US=np.full((users, ANY + 1), place[1]),
        is_main_US=np.full((users, ANY + 1), is_main),
    )
    items = np.array([item])
    entries = Entries(user_C=np.array([0]), slot_C=np.array([code]), item_C=items, category_C=CATEGORY_OF_ITEM[items])
    return reasons(past, places, entries, names)[0]


def test_own_events_come_first_with_their_slot_and_newest_date():
    events = [{"date": 19_845 - n, "slot": 1 if n < 4 else 3} for n in range(7)]
    assert told(events, 0) == "you visited Blue Bottle 7 times, 4 of them on weekday mornings, last on 2024-05-02"
    assert told(events, 0, "any") == "you visited Blue Bottle 7 times, last on 2024-05-02"
    assert told(events, 0, "weekend_night") == "you visited Blue Bottle 7 times, last on 2024-05-02"
    assert told(events[:4], 0) == "you visited Blue Bottle 4 times, all on weekday mornings, last on 2024-05-02"
    assert told(events[:2], 0, "any") == "you visited Blue Bottle twice, last on 2024-05-02"
    assert told(events[:1], 0) == "you visited Blue Bottle once, on 2024-05-02, a weekday morning"


def test_items_without_a_title_are_called_by_category_or_id():
    assert told([{"item": 1}], 1, "any") == "you visited this Coffee Shop once, on 2024-05-02"
    assert told([{"item": 2, "category": -1}], 2, "any") == "you visited item i2 once, on 2024-05-02"
    assert told([{"item": 3}], 3, "any") == "you visited <b>Evil</b> title once, on 2024-05-02"


def test_words_follow_the_event_types():
    assert told([{"type": 1}], 0, "any") == "you bought Blue Bottle once, on 2024-05-02"
    assert told([{"type": 0}, {"type": 1}], 0, "any") == "you chose Blue Bottle twice, last on 2024-05-02"
    assert (
        told([{"type": 0}, {"type": 1}], 1) == "2 weekday-morning choices in Coffee Shop within 500 m of your main place then"
    )
    rated = Names(**{**vars(NAMES), "types": ("rating",)})
    timeless = {"slot": -1, "date": NO_DATE}
    assert told([timeless], 0, "any", names=rated) == "you rated Blue Bottle once"
    assert told([timeless], 1, "any", (np.nan, np.nan), names=rated) == "1 rating in Coffee Shop"
    assert told([], 3, "any", names=rated) == "rated by 2 users"


def test_a_category_counts_near_the_place_then_in_the_slot_then_at_all():
    near = [{"at": NEAR}, {"at": HERE}, {"at": FAR}, {"at": NEAR, "slot": 2}]
    assert told(near, 1) == "2 weekday-morning visits to Coffee Shop within 500 m of your main place then"
    assert told(near, 1, is_main=False) == "2 weekday-morning visits to Coffee Shop within 500 m of where you were last"
    assert told(near, 1, "any", is_main=False) == "3 visits to Coffee Shop within 500 m of where you were last"
    assert told(near, 1, place=(np.nan, np.nan)) == "3 weekday-morning visits to Coffee Shop"
    assert told(near, 1, place=(0.0, 0.0)) == "3 weekday-morning visits to Coffee Shop"
    assert told(near, 1, "weekend_night", place=(0.0, 0.0)) == "4 visits to Coffee Shop"


def test_without_a_past_the_public_count_is_told():
    assert told([], 0) == "chosen by 5 users"
    assert told([], 1) == "chosen by 1 user"
    assert told([], 2) == "new: not chosen by any user so far"
    for users, said in ((99, "99"), (100, "at least 100"), (129, "at least 120"), (45_678, "at least 45000")):
        assert told([], 0, names=Names(**{**vars(NAMES), "chosen_by": np.array([users])})) == f"chosen by {said} users"
    cut = Names(**{**vars(NAMES), "kept": 200})
    assert told([], 2, names=cut) == "new: not among the last 200 events of any user"
    assert told([], 0, names=cut) == "chosen by 5 users (last 200 events of each)"


def test_a_shortened_past_says_so():
    assert told([{}, {}], 0, "any", kept=200).endswith("last on 2024-05-02, among your last 200 events")
    assert told([{}], 1, "weekend_night", (0, 0), kept=200) == "1 visit to Coffee Shop, among your last 200 events"


def test_distance():
    assert distance_m(*map(np.array, (0.0, 0.0, 0.0, 1.0))) == pytest.approx(111_195, abs=1)
    assert distance_m(*map(np.array, (*HERE, *NEAR))) == pytest.approx(389, abs=1)


events_of_users = st.fixed_dictionaries({
    "item": st.integers(0, 3),
    "category": st.integers(-1, 1),
    "slot": st.integers(-1, 7),
    "type": st.integers(0, 1),
    "date": st.integers(19_800, 19_845),
    "at": st.sampled_from([HERE, NEAR, FAR, (np.nan, np.nan)]),
})  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(events_of_users, max_size=12), st.integers(0, 3), st.sampled_from([*SLOTS, "any"]), st.booleans())
def test_every_number_can_be_counted_again(events, item, slot, is_main):
    sentence = told(events, item, slot, HERE, is_main)
    code = ANY if slot == "any" else SLOTS.index(slot)
    own = [event for event in events if event["item"] == item]
    of_category = [event for event in events if event["category"] == CATEGORY_OF_ITEM[item] != -1]
    in_slot = [event for event in of_category if code in (ANY, event["slot"])]
    near = [event for event in in_slot if event["at"] in (HERE, NEAR)]
    number = re.search(r"(?:^|by |title |Bottle |Shop |i\d )(\d+|once|twice)", sentence)
    count = {"once": 1, "twice": 2}.get(number[1]) or int(number[1]) if number else 0
    if sentence.startswith("you "):
        assert count == len(own)
        assert str(date(1970, 1, 1).fromordinal(719_163 + max(event["date"] for event in own))) in sentence
        if share := re.search(r"(\d+|all)( of them)? on " + slot.replace("_", " "), sentence):
            assert share[1] in ("all", str(len([event for event in own if event["slot"] == code])))
    elif "within" in sentence:
        assert not own and count == len(near)
    elif "-" in sentence.split()[1]:
        assert not own and count == len(in_slot)
    elif "user" not in sentence:
        assert not own and count == len(of_category)
    else:
        assert not own and not of_category and count == NAMES.chosen_by[item]
