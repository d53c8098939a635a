from datetime import date

import h3
import numpy as np
import pytest

from conf.contracts import SLOTS
from jobs.spatial.mobility import describe
from jobs.spatial.places import HOME, OTHER, ROLES, WORK, find_places
from jobs.spatial.seen import Path, seen_from, spots_of
from jobs.spatial.sphere import EARTH_RADIUS_M

HOUSE, OFFICE, CAFE = (40.70, -74.00), (40.75, -73.98), (40.72, -73.95)


def haversine_m(latitude, longitude, to_latitude, to_longitude):
    north, to_north = np.radians(latitude), np.radians(to_latitude)
    half = np.sin((to_north - north) / 2) ** 2
    half = half + np.cos(north) * np.cos(to_north) * np.sin(np.radians(np.subtract(to_longitude, longitude)) / 2) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(half))


def path(*events, arrived_on=None, item=None, local_day=None):
    """Events as (position, slot), position None for an event without one."""
    spots = [spot or (np.nan, np.nan) for spot, _ in events]
    return Path(
        arrived_on=np.array(arrived_on if arrived_on is not None else [0] * len(events)),
        at=np.arange(len(events), dtype=float),
        latitude=np.array([spot[0] for spot in spots]),
        longitude=np.array([spot[1] for spot in spots]),
        slot=np.array([SLOTS.index(slot) if slot else -1 for _, slot in events]),
        item=np.array(item if item is not None else [1] * len(events)),
        local_day=np.array(local_day if local_day is not None else [0] * len(events)),
    )


def places_of(path, days=(0,), length=200):
    seen = seen_from(path, spots_of(path), np.array(days), length)
    return find_places(seen, 150.0, 3), seen


def test_places_are_numbered_by_visits_and_know_their_slots():
    events = [(OFFICE, "weekday_morning")] * 4 + [(HOUSE, "weekday_night")] * 5 + [(OFFICE, "weekday_evening")] * 2
    events += [(CAFE, "weekend_morning")] * 2 + [(HOUSE, None)] * 2
    places, _ = places_of(path(*events))
    assert list(places.place_id) == [0, 1] and list(places.visits) == [7, 6]
    np.testing.assert_allclose(places.latitude, [HOUSE[0], OFFICE[0]], atol=1e-9)
    np.testing.assert_allclose(places.share, [7 / 15, 6 / 15])
    assert [ROLES[role] for role in places.role] == ["home", "work"]
    main = [{SLOTS[slot] for slot in np.flatnonzero(row)} for row in places.is_main]
    assert main == [{"weekday_night"}, {"weekday_morning", "weekday_evening"}]
    assert places.slot_visits.sum() == 11, "visits without a slot are in none"
    np.testing.assert_allclose(places.radius_m, 0, atol=1e-6)


def test_a_role_needs_evidence_and_the_right_hours():
    visits = [(HOUSE, "weekday_night")] + [(OFFICE, "weekday_afternoon")] * 3 + [(CAFE, "weekend_afternoon")] * 9
    places, _ = places_of(path(*visits, *[(HOUSE, "weekday_morning")] * 2))
    by_spot = dict(zip(places.latitude.round(2), places.role, strict=True))
    assert by_spot == {CAFE[0]: OTHER, OFFICE[0]: WORK, HOUSE[0]: OTHER}, "one night is 2 of the 3 that a home needs"
    mostly_weekend = [(HOUSE, "weekday_night")] * 3 + [(CAFE, "weekday_morning")] * 3 + [(CAFE, "weekend_afternoon")] * 4
    places, _ = places_of(path(*mostly_weekend))
    assert WORK not in places.role
    timeless, _ = places_of(path(*[(HOUSE, None)] * 5))
    assert list(timeless.role) == [OTHER] and list(timeless.confidence) == [0.0]


def test_a_cafe_of_every_morning_is_not_the_office():
    visits = [(HOUSE, "weekday_night")] * 5 + [(CAFE, "weekday_morning")] * 9 + [(OFFICE, "weekday_morning")] * 4
    of_one_item, _ = places_of(path(*visits))
    assert dict(zip(of_one_item.latitude.round(2), of_one_item.role, strict=True)) == {
        HOUSE[0]: HOME,
        CAFE[0]: WORK,
        OFFICE[0]: OTHER,
    }
    of_many, _ = places_of(path(*visits, item=[0] * 5 + [7] * 9 + [1, 2, 3, 4]))
    assert dict(zip(of_many.latitude.round(2), of_many.role, strict=True)) == {HOUSE[0]: HOME, CAFE[0]: OTHER, OFFICE[0]: WORK}
    np.testing.assert_allclose(of_many.confidence[of_many.role == WORK], 16 / (16 + 9 + 3))


def test_a_day_sees_the_last_events_by_their_own_time_that_had_arrived():
    late = path(
        *[(HOUSE, "weekday_night")] * 3, *[(OFFICE, "weekday_morning")] * 3, *[(CAFE, "weekend_morning")] * 3,
        arrived_on=[0, 0, 0, 2, 2, 2, 1, 1, 1],
    )  # fmt: skip
    places, seen = places_of(late, days=(0, 1, 2), length=6)
    assert list(seen.visits) == [3, 6, 6]
    seen_places = {day: set(places.latitude[places.day == day].round(2)) for day in range(3)}
    assert seen_places == {0: {HOUSE[0]}, 1: {HOUSE[0], CAFE[0]}, 2: {OFFICE[0], CAFE[0]}}


def test_days_asked_for_together_or_alone_are_equal():
    rng = np.random.default_rng(5)
    count, days = 300, np.arange(20)
    spots = rng.normal(0, 0.01, (8, 2)) + HOUSE
    visits = [
        (tuple(spots[rng.integers(8)] + rng.normal(0, 3e-4, 2)) if rng.random() < 0.9 else None, SLOTS[rng.integers(8)])
        for _ in range(count)
    ]
    walked = path(*visits, arrived_on=np.sort(rng.integers(0, 20, count)))
    together, seen = places_of(walked, days=days, length=50)
    moved = describe(seen, together)
    for day in days:
        alone, seen_alone = places_of(walked, days=[day], length=50)
        here, moved_here = together.day == day, moved.day == day
        assert here.sum() >= 1
        for name in vars(alone):
            if name not in ("day", "of_visit"):
                np.testing.assert_allclose(getattr(together, name)[here], getattr(alone, name), rtol=1e-12, err_msg=name)
        for name, value in vars(describe(seen_alone, alone)).items():
            if name != "day":
                np.testing.assert_allclose(getattr(moved, name)[moved_here], value, rtol=1e-9, err_msg=name)


def test_mobility_by_its_definitions():
    rng = np.random.default_rng(7)
    spots = [tuple(HOUSE + rng.normal(0, 0.004, 2)) for _ in range(12)] + [HOUSE] * 6
    walked = path(*[(spot, "weekday_night") for spot in spots], (None, None))
    places, seen = places_of(walked)
    found = describe(seen, places)
    latitude, longitude = np.array(spots).T
    centre = latitude.mean(), longitude.mean()
    gyration = np.sqrt(np.mean(haversine_m(latitude, longitude, *centre) ** 2))
    assert found.radius_of_gyration_m[0] == pytest.approx(gyration, rel=1e-5)
    shares = np.unique([h3.latlng_to_cell(*spot, 9) for spot in spots], return_counts=True)[1] / len(spots)
    assert found.entropy[0] == pytest.approx(-(shares * np.log(shares)).sum()) and found.cells[0] == len(shares)
    home = places.role == HOME
    from_home = haversine_m(latitude, longitude, places.latitude[home], places.longitude[home])
    assert found.home_distance_m[0] == pytest.approx(np.median(from_home))
    assert (found.latitude[0], found.longitude[0]) == spots[-1], "the last placed event, not the last event"


def test_returners_and_daily_ranges():
    near = [tuple(HOUSE + np.random.default_rng(3).normal(0, 0.0003, 2)) for _ in range(5)]
    visits = [*near, *[OFFICE] * 4, *[CAFE] * 3, (41.5, -74.0)]
    walked = path(*[(spot, "weekday_night") for spot in visits], local_day=[1] * 5 + [2] * 2 + [1] * 2 + [2] * 3 + [-1])
    places, seen = places_of(walked)
    found = describe(seen, places)
    latitude, longitude = np.array(visits[:9]).T
    gyration = np.sqrt(np.mean(haversine_m(latitude, longitude, latitude.mean(), longitude.mean()) ** 2))
    assert found.returner_radius_m[0] == pytest.approx(gyration, rel=1e-4), "of the visits to the house and the office"
    assert 2 * found.returner_radius_m[0] < found.radius_of_gyration_m[0], "the trip makes an explorer"
    metres = np.array([111_195, 111_195 * np.cos(np.radians(40.73))])
    boxes = [np.ptp(np.array(some), axis=0) * metres for some in ([*near, OFFICE], [OFFICE, CAFE])]
    assert found.daily_range_m[0] == pytest.approx(np.mean([np.hypot(*box) for box in boxes]), rel=1e-3)

    one_place, seen = places_of(path(*[(HOUSE, None)] * 4, local_day=[-1] * 4))
    found = describe(seen, one_place)
    assert found.returner_radius_m[0] == pytest.approx(0, abs=1e-6) and np.isnan(found.daily_range_m[0])
    none, seen = places_of(path((HOUSE, None)))
    assert np.isnan(describe(seen, none).returner_radius_m[0])


def test_mobility_of_one_event_and_of_none():
    walked = path((None, "weekday_night"), (HOUSE, "weekday_night"), arrived_on=[0, 1])
    places, seen = places_of(walked, days=(0, 1))
    found = describe(seen, places)
    assert list(found.day) == [1] and found.entropy[0] == 0 and not np.signbit(found.entropy[0]) and found.cells[0] == 1
    assert found.radius_of_gyration_m[0] < 1e-3 and np.isnan(found.home_distance_m[0]) and len(places.day) == 0


def synthetic_user(rng, days=60):
    """A life: home and an office some kilometres apart, errands, lunches, trips; one to six events a day."""
    home = np.array(HOUSE) + rng.normal(0, 0.05, 2)
    office = home + rng.choice([-1, 1], 2) * rng.uniform(0.01, 0.06, 2)
    venues = home + rng.normal(0, 0.03, (15, 2))
    events, items = [], []
    for day in range(days):
        weekend = "weekend" if date.fromordinal(738_000 + day).weekday() >= 5 else "weekday"
        for _ in range(rng.integers(1, 7)):
            part = rng.choice(["night", "morning", "afternoon", "evening"], p=[0.12, 0.25, 0.28, 0.35])
            works = weekend == "weekday" and part in ("morning", "afternoon")
            at_home = {"night": 0.95, "evening": 0.6}.get(part, 0.1 if works else 0.5)
            draw, venue = rng.random(), int(15 * rng.random() ** 2)
            is_venue = draw >= (0.7 if works else at_home)
            spot = venues[venue] if is_venue else home if draw < at_home else office
            events.append((tuple(spot + rng.normal(0, 35 / 111_195, 2)), f"{weekend}_{part}"))
            items.append(100 + venue if is_venue else rng.integers(1, 40))
    return home, office, path(*events, item=items)


def test_planted_homes_and_workplaces_are_found(record_property):
    rng = np.random.default_rng(11)
    found = {HOME: 0, WORK: 0}
    users = 150
    for _ in range(users):
        home, office, walked = synthetic_user(rng)
        places, _ = places_of(walked)
        for role, truth in ((HOME, home), (WORK, office)):
            at = places.role == role
            assert at.sum() <= 1
            if at.any():
                found[role] += float(haversine_m(places.latitude[at], places.longitude[at], *truth)[0]) < 200
    record_property("share of homes and workplaces within 200 m", (found[HOME] / users, found[WORK] / users))
    assert found[HOME] > 0.9 * users and found[WORK] > 0.9 * users, found
