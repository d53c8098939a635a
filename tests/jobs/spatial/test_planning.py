"""Flows, stays and interests of regions, against their definitions event by event; small groups never show."""

import random
from collections import defaultdict
from datetime import date, datetime, timedelta
from itertools import pairwise
from statistics import median

import numpy as np
import pytest

from jobs.spatial.planning import region_flows, region_interests, region_stays
from jobs.spatial.sphere import EARTH_RADIUS_M

DAY = date(2024, 6, 24)
SLOTS = ("weekday_morning", "weekday_evening", None)
SCHEMA = (
    "snapshot_day date, user_id string, event_id string, event_timestamp timestamp, region string, slot string, "
    "category string, latitude double, longitude double"
)


def random_events(seed, users=25):
    rng = random.Random(seed)
    west, east = ((40.70, -74.00), (40.701, -74.00), (40.71, -74.00)), ((40.75, -73.90), (40.75, -73.92))
    spots = {"west": west, "east": east, None: ((None, None),)}
    rows = []
    for user in range(users):
        at = datetime(2024, 6, 1)
        for number in range(rng.randrange(3, 25)):
            at += timedelta(hours=rng.choice([0.5, 1, 3, 8, 8.5, 30]))
            region = rng.choice(["west", "west", "east", None])
            spot = rng.choice(spots[region]) if rng.random() < 0.8 else (None, None)
            place = (DAY, f"u{user}", f"e{user}-{number:02}", at, region, rng.choice(SLOTS), rng.choice(["bar", "gym", None]))
            rows.append((*place, *spot))
    return rows


def by_group(rows, key, least):
    """Rows by group and slot (`any` too), of `least` users or more. `key(row)`: (group, slot, user, values)."""
    groups = defaultdict(list)
    for row in rows:
        group, slot, user, values = key(row)
        for part in {slot, "any"} - {None}:
            groups[*group, part].append((user, values))
    users = {name: len({user for user, _ in found}) for name, found in groups.items()}
    return {name: (users[name], [values for _, values in found]) for name, found in groups.items() if users[name] >= least}


def trips_of(rows):
    for user in {row[1] for row in rows}:
        own = sorted((row for row in rows if row[1] == user and row[4] is not None), key=lambda row: (row[3], row[2]))
        yield from pairwise(own)


def trip_key(trip):
    one, two = trip
    return (one[4], two[4]), one[5], one[1], ((two[3] - one[3]).total_seconds(), distance(one[7:], two[7:]))


def distance(one, other):
    if None in (*one, *other):
        return None
    (a, b), (c, d) = np.radians(one), np.radians(other)
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2))


@pytest.mark.parametrize("least", [1, 12])
def test_flows_stays_and_interests_follow_their_definitions(spark, make_settings, least):
    rows = random_events(least)
    events = spark.createDataFrame(rows, SCHEMA)
    settings = make_settings("conf/local.yaml", f"spatial.planning_min_users={least}").spatial

    near = [(one, two) for one, two in trips_of(rows) if (two[3] - one[3]) <= timedelta(hours=8)]
    moved = [(one, two) for one, two in near if one[4] != two[4] or (distance(one[7:], two[7:]) or 0) >= 150]
    wanted = by_group(moved, trip_key, least)
    found = {(row.origin, row.destination, row.slot): row for row in region_flows(events, settings).collect()}
    assert set(found) == set(wanted) and len(found) >= 3
    for name, (users, values) in wanted.items():
        row, metres = found[name], [metres for _, metres in values if metres is not None]
        assert (row.trips, row.users, row.day) == (len(values), users, DAY)
        assert row.median_duration_s == median(seconds for seconds, _ in values)
        assert row.median_distance_m == (pytest.approx(median(metres)) if metres else None)

    stays = []
    for user in {row[1] for row in rows}:
        own = sorted((row for row in rows if row[1] == user and row[4] is not None), key=lambda row: (row[3], row[2]))
        for one, before in zip(own, [None, *own], strict=False):
            if before is not None and before[4] == one[4] and one[3] - before[3] <= timedelta(hours=8):
                stays[-1].append(one)
            else:
                stays.append([one])
    wanted = by_group(stays, lambda stay: ((stay[0][4],), stay[0][5], stay[0][1], stay), least)
    found = {(row.region, row.slot): row for row in region_stays(events, settings).collect()}
    assert set(found) == set(wanted) and len(found) >= 3
    for name, (users, some) in wanted.items():
        lasted = [(stay[-1][3] - stay[0][3]).total_seconds() for stay in some if len(stay) > 1]
        assert (found[name].stays, found[name].users) == (len(some), users)
        assert found[name].median_duration_s == (median(lasted) if lasted else None)

    known = [row for row in rows if row[4] is not None and row[6] is not None]
    wanted = by_group(known, lambda row: ((row[4], row[6]), row[5], row[1], None), least)
    totals = by_group(known, lambda row: ((row[4],), row[5], row[1], None), 0)
    found = {(row.region, row.category, row.slot): row for row in region_interests(events, settings).collect()}
    assert set(found) == set(wanted) and len(found) >= 3
    for (region, category, slot), (users, some) in wanted.items():
        row = found[region, category, slot]
        assert (row.events, row.users, row.day) == (len(some), users, DAY)
        assert row.share == pytest.approx(len(some) / len(totals[region, slot][1]))


def test_few_people_are_never_shown(spark, make_settings):
    events = spark.createDataFrame(random_events(5, users=9), SCHEMA)
    settings = make_settings().spatial
    assert settings.planning_min_users == 10
    for table in (region_flows, region_stays, region_interests):
        assert table(events, settings).count() == 0
