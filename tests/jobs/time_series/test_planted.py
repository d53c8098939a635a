"""What the simulator plants in time is found again, and what is planted on top of it: changes and unusual days."""

from datetime import date

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from conf.contracts import SERIES_DAYS
from jobs.simulate import taxonomy
from jobs.simulate.atlas import CITIES
from jobs.simulate.catalogue import catalogue_of
from jobs.simulate.lives import live
from jobs.simulate.people import people_of
from jobs.simulate.world import Purpose, World
from jobs.time_series.features import features_of

WORLD = World(users=3000, items=800, days=SERIES_DAYS, end_day=date(2024, 6, 30), seed=5, bot_rate=0.0)
LAST = (WORLD.end_day - date(1970, 1, 1)).days
CATEGORIES = len(taxonomy.CATEGORIES)
RATE = 0.05


@pytest.fixture(scope="module")
def counts():
    """Events per day of each category in each city (of its people), (N, cities * categories)."""
    people, catalogue = people_of(WORLD, 0), catalogue_of(WORLD)
    days = []
    for day in range(SERIES_DAYS):
        users = np.flatnonzero(people.joined <= day)
        events = live(WORLD, people, catalogue, day, users, WORLD.stream(Purpose.LIVES, day))
        told = events.item >= 0
        key = people.city[events.user[told]] * CATEGORIES + catalogue.category[events.item[told]]
        days.append(np.bincount(key, minlength=len(CITIES) * CATEGORIES))
    return np.array(days, dtype=float)


def described(counts):
    return features_of(counts, np.ones((24, counts.shape[1])), np.full(counts.shape[1], LAST), 0)


def test_seasons_and_slopes(counts, record_property):
    """Over all cities, of goods: their slots say nothing of the weekday, as those of places do."""
    found = described(counts.reshape(SERIES_DAYS, len(CITIES), CATEGORIES).sum(axis=1))
    goods = np.flatnonzero(~taxonomy.IS_PLACE)
    swing = np.array([entry.weekly[0] for entry in taxonomy.CATEGORIES])
    seasonal, all_off = goods[swing[goods] > 0], []
    for number in seasonal:
        peak = taxonomy.CATEGORIES[number].weekly[1] + 0.5
        off = (found["weekly_peak_day"][number] - peak + 3.5) % 7 - 3.5
        all_off.append(abs(off))
        assert abs(off) < 0.7, taxonomy.NAMES[number]
        assert found["season_strength"][number] > 0.5, taxonomy.NAMES[number]
    # A demand that rises takes its share from the others, so slopes are relative to theirs.
    annual = np.array([entry.annual[0] for entry in taxonomy.CATEGORIES])
    trends = np.array([entry.trend_per_day for entry in taxonomy.CATEGORIES])
    steady = goods[annual[goods] == 0]
    relative = found["slope"] / found["level"]
    relative = (relative - np.median(relative))[steady]
    record_property(
        "categories, greatest days off the weekly peak, least strength",
        (len(seasonal), max(all_off), found["season_strength"][seasonal].min()),
    )
    likeness, furthest = np.corrcoef(relative, trends[steady])[0, 1], np.abs(relative - trends[steady]).max()
    record_property("slopes: correlation with the planted, greatest error per day", (likeness, furthest))
    assert likeness > 0.9 and furthest < 0.002


def test_unusual_days(counts, record_property):
    rng = np.random.default_rng(1)
    usual = counts[-85:-1].mean(axis=0)
    busy = np.flatnonzero(usual >= 3)
    planted = rng.permutation(busy)[: len(busy) // 5]
    high, low = planted[::2], planted[1::2][usual[planted[1::2]] >= 20]
    disturbed = counts.copy()
    disturbed[-1, high] += rng.poisson(2.0 * usual[high] + 5)
    disturbed[-1, low] = rng.binomial(disturbed[-1, low].astype(int), 0.15)
    found = described(disturbed)
    is_anomaly = false_discovery_control(found["anomaly_p"]) <= RATE
    truth = np.isin(np.arange(counts.shape[1]), [*high, *low])
    right = (is_anomaly & truth).sum()
    precision, recall = right / is_anomaly.sum(), right / truth.sum()
    undisturbed = (false_discovery_control(described(counts)["anomaly_p"]) <= RATE).mean()
    record_property("unusual days: precision, recall, share where nothing is planted", (precision, recall, undisturbed))
    assert precision > 0.85 and recall > 0.85 and undisturbed < 0.03


def test_changes_of_level(counts, record_property):
    rng = np.random.default_rng(2)
    busy = np.flatnonzero(counts.mean(axis=0) >= 3)
    planted = rng.permutation(busy)[: len(busy) // 4]
    begins = rng.integers(14, SERIES_DAYS - 13, len(planted))
    disturbed = counts.copy()
    for series, day in zip(planted, begins, strict=True):
        disturbed[day:, series] = rng.binomial(disturbed[day:, series].astype(int), 0.4)
    found = described(disturbed)
    is_change = found["change_p"][planted] < 0.001
    off = np.abs(found["change_days_ago"][planted] - (SERIES_DAYS - 1 - begins))
    record_property(
        "changes of level: recall, median days off, share within 3", (is_change.mean(), np.median(off), (off <= 3).mean())
    )
    assert is_change.mean() > 0.9, "recall"
    assert np.median(off) <= 1 and (off <= 3).mean() > 0.8
    assert (found["change_log_ratio"][planted][is_change] < -0.4).mean() > 0.95
