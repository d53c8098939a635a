from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.contracts import SLOTS
from jobs.simulate.atlas import local_clock
from jobs.simulate.catalogue import catalogue_of
from jobs.simulate.columns import DAY_MILLIS, Events
from jobs.simulate.lives import live
from jobs.simulate.people import people_of
from jobs.simulate.world import Purpose, World
from jobs.spatial.places import find_places
from jobs.spatial.presence import ELSEWHERE, EVERY_SLOT, Habits, presence
from jobs.spatial.seen import Path, seen_from, spots_of
from jobs.spatial.sphere import distance_m, offsets

HOUSE, OFFICE, FAR = (40.70, -74.00), (40.75, -73.98), (41.72, -73.95)
HABITS = Habits(half_life_days=30.0, shrinkage=4.0, elsewhere=2.0)
DAY = 86_400.0
MORNING, NIGHT, ANY = (EVERY_SLOT.index(name) for name in ("weekday_morning", "weekday_night", "any"))


def path(visits, arrived_on=None):
    """Visits as (position, slot, day), the day being the time."""
    count = len(visits)
    return Path(
        arrived_on=np.array(arrived_on if arrived_on is not None else [0] * count, dtype=np.int64),
        at=np.array([day * DAY for _, _, day in visits], dtype=float),
        latitude=np.array([spot[0] for spot, _, _ in visits], dtype=float),
        longitude=np.array([spot[1] for spot, _, _ in visits], dtype=float),
        slot=np.array([SLOTS.index(slot) if slot else -1 for _, slot, _ in visits], dtype=np.int64),
        item=np.zeros(count, dtype=np.int64),
        local_day=np.zeros(count, dtype=np.int64),
    )


def found(walked, habits=HABITS, days=(0,), length=200):
    """{(day, slot, place_id): (weight, probability)}, place_id -1 for elsewhere."""
    seen = seen_from(walked, spots_of(walked), np.array(days), length)
    places = find_places(seen, 150.0, 3)
    rows = presence(seen, places, habits)
    number = np.where(rows.place == ELSEWHERE, ELSEWHERE, np.append(places.place_id, 0)[rows.place])
    keys = zip(rows.day.tolist(), rows.slot.tolist(), number.tolist(), strict=True)
    return dict(zip(keys, zip(rows.weight.tolist(), rows.probability.tolist(), strict=True), strict=True))


def test_by_its_definition():
    visits = [(HOUSE, "weekday_night", day) for day in (0, 0, 30, 60)] + [(OFFICE, "weekday_morning", 60)] * 3
    visits += [(FAR, "weekday_morning", 60), (FAR, None, 60)]
    home, work, away = 0.25 * 2 + 0.5 + 1, 3.0, 2.0
    rows = found(path(visits))
    assert {key[1] for key in rows} == {MORNING, NIGHT, ANY}, "a slot without a visit has no rows"
    whole = home + work + away + 2
    overall = {0: home / whole, 1: work / whole, ELSEWHERE: (away + 2) / whole}
    for place, share in overall.items():
        assert rows[0, ANY, place][1] == pytest.approx(share)
        assert rows[0, NIGHT, place][1] == pytest.approx(((home if place == 0 else 0) + 4 * share) / (home + 4))
        in_morning = {0: 0.0, 1: 3.0, ELSEWHERE: 1.0}[place]
        assert rows[0, MORNING, place] == (pytest.approx(in_morning), pytest.approx((in_morning + 4 * share) / (4 + 4)))
    assert rows[0, ANY, ELSEWHERE][0] == pytest.approx(away), "a visit without a slot is one of the week"


def test_shrinkage_and_half_life_at_their_limits():
    visits = [(HOUSE, "weekday_night", 0)] * 5 + [(OFFICE, "weekday_morning", 90)] * 4
    rigid = found(path(visits), replace(HABITS, shrinkage=1e12))
    loose = found(path(visits), replace(HABITS, shrinkage=1e-12, elsewhere=1e-12))
    for place in (0, 1, ELSEWHERE):
        assert rigid[0, NIGHT, place][1] == pytest.approx(rigid[0, ANY, place][1])
        assert loose[0, NIGHT, place][1] == pytest.approx(float(place == 0), abs=1e-9)
    forgetful = found(path(visits), replace(HABITS, half_life_days=1.0, elsewhere=1e-9))
    assert forgetful[0, ANY, 1][1] == pytest.approx(1.0), "what was 90 half-lives ago is forgotten"
    forgiving = found(path(visits), replace(HABITS, half_life_days=1e9))
    assert forgiving[0, ANY, 0] == (pytest.approx(5), pytest.approx(5 / 11))


def test_of_whom_little_is_known_most_is_elsewhere():
    rows = found(path([(HOUSE, "weekday_night", 0)]))
    assert rows == {(0, slot, ELSEWHERE): (1.0, 1.0) for slot in (NIGHT, ANY)}, "one visit makes no place"
    few = found(path([(HOUSE, "weekday_night", 0)] * 3))
    many = found(path([(HOUSE, "weekday_night", 0)] * 30))
    assert few[0, ANY, ELSEWHERE][1] == pytest.approx(2 / 5) and many[0, ANY, ELSEWHERE][1] == pytest.approx(2 / 32)
    nowhere = ((np.nan, np.nan), "weekday_night", 0)
    assert found(path([nowhere, nowhere])) == {}, "without a position nobody was seen anywhere"


def test_silence_changes_nothing_and_a_late_visit_counts_by_its_own_time():
    early = [(HOUSE, "weekday_night", 0)] * 3 + [(OFFICE, "weekday_morning", 30)] * 3
    assert found(path(early)) == found(path([(spot, slot, day + 400) for spot, slot, day in early]))
    # The fourth night arrives a day after what came later.
    visits = [(HOUSE, "weekday_night", 0)] * 4 + [(OFFICE, "weekday_morning", 30)] * 3
    rows = found(path(visits, [0, 0, 0, 1, 0, 0, 0]), days=(0, 1))
    assert rows[0, NIGHT, 0][0] == pytest.approx(1.5) and rows[1, NIGHT, 0][0] == pytest.approx(2.0)
    of_last = {(0, *key[1:]): row for key, row in rows.items() if key[0] == 1}
    assert of_last == found(path(visits))


@given(seed=st.integers(0, 10_000), half_life=st.floats(0.5, 500), shrinkage=st.floats(1e-3, 100), prior=st.floats(1e-3, 50))
def test_probabilities_add_up_and_days_together_or_alone_are_equal(seed, half_life, shrinkage, prior):
    rng = np.random.default_rng(seed)
    spots = rng.normal(0, 0.01, (4, 2)) + HOUSE
    visits = [(spots[rng.integers(4)], [None, *SLOTS][rng.integers(9)], day) for day in range(int(rng.integers(1, 40)))]
    walked = path(visits, np.arange(len(visits)) // 8)
    days = np.unique(walked.arrived_on)
    habits = Habits(half_life_days=half_life, shrinkage=shrinkage, elsewhere=prior)
    together = found(walked, habits, days, 20)
    sums = {}
    for (day, slot, _), (weight, probability) in together.items():
        assert weight >= 0 and 0 <= probability <= 1
        sums[day, slot] = sums.get((day, slot), 0.0) + probability
    assert sums and all(total == pytest.approx(1) for total in sums.values())
    for number, day in enumerate(days):
        alone = found(walked, habits, [day], 20)
        same = {key: row for key, row in together.items() if key[0] == number}
        assert {(number, *key[1:]): pytest.approx(row, rel=1e-9) for key, row in alone.items()} == same


WORLD = World(users=80, items=300, days=90, end_day=date(2024, 6, 30), seed=9, bot_rate=0.0, events_per_user_day=6.0)


def lives():
    """Row of People -> the user's path over all days, by the clocks of the user's city."""
    people, catalogue = people_of(WORLD, 0), catalogue_of(WORLD)
    days = [
        live(WORLD, people, catalogue, day, np.flatnonzero(people.joined <= day), WORLD.stream(Purpose.LIVES, day))
        for day in range(WORLD.days)
    ]
    events = Events.stacked(days)
    events = events.take(np.argsort(events.at, kind="stable"))
    first = WORLD.epoch_day(0)
    clocks = [local_clock(date.fromordinal(WORLD.date_of(0).toordinal() + day)) for day in range(WORLD.days + 1)]
    slots = np.stack([clock.slot for clock in clocks])
    day, hour = events.at // DAY_MILLIS - first, events.at % DAY_MILLIS // 3_600_000
    slot = slots[day, people.city[events.user], hour]
    for user in np.unique(events.user):
        own = events.user == user
        walked = Path(
            arrived_on=np.zeros(own.sum(), dtype=np.int64),
            at=events.at[own] / 1000,
            latitude=events.latitude[own],
            longitude=events.longitude[own],
            slot=slot[own],
            item=events.item[own] + 1,
            local_day=day[own],
        )
        yield people.home[user], people.work[user], walked


def near(places, spot):
    """The place within 200 m of a spot, if there is one."""
    apart = offsets(places.latitude, places.longitude, *[np.full(len(places.day), value) for value in spot])
    distance = distance_m(apart, np.zeros_like(apart))
    return int(np.argmin(distance)) if distance.min(initial=np.inf) < 200 else None


def test_planted_habits_home_at_night_and_work_on_weekdays(record_property):
    at_night, after_noon, in_the_morning = [], [], []
    for home, work, walked in lives():
        seen = seen_from(walked, spots_of(walked), np.array([0]), 500)
        places = find_places(seen, 150.0, 3)
        rows = presence(seen, places, HABITS)
        at_home, at_work = near(places, home), near(places, work)
        known = {EVERY_SLOT[slot] for slot in rows.slot}
        if at_home is None or at_work is None or not known >= {"weekend_night", "weekday_morning", "weekday_afternoon"}:
            continue
        by_slot = {}
        for slot, place, probability in zip(rows.slot.tolist(), rows.place.tolist(), rows.probability.tolist(), strict=True):
            by_slot.setdefault(EVERY_SLOT[slot], {})[place] = probability
        for name in {"weekday_night", "weekend_night"} & known:
            at_night.append(max(by_slot[name], key=by_slot[name].get) == at_home)
        # Shops and cafes are visited then as well; the morning begins at home.
        after_noon.append(by_slot["weekday_afternoon"][at_work] > by_slot["weekday_afternoon"][at_home])
        in_the_morning.append(by_slot["weekday_morning"][at_work] > by_slot["any"][at_work])
    assert len(at_night) > 100
    found = np.mean(at_night), np.mean(after_noon), np.mean(in_the_morning)
    record_property("share: home likeliest at night, work above home after noon, above its week in the morning", found)
    assert np.all(np.array(found) > (0.95, 0.75, 0.6)), found
