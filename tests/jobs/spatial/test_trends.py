"""Hotspots that come, stay and go."""

from datetime import date, timedelta

import h3
import numpy as np
import pymannkendall
import pytest
from pyspark.sql import functions as F

from jobs.spatial import trends
from jobs.spatial.hotspots import discoveries, getis_ord, neighbours
from jobs.spatial.windows import in_windows

CELLS = sorted(h3.grid_disk(h3.latlng_to_cell(40.72, -73.99, 9), 7))
MONDAY = date(2024, 6, 24)


@pytest.mark.parametrize("weeks", [8, 13, 40])
def test_mann_kendall_agrees_with_its_peer(weeks):
    rng = np.random.default_rng(weeks)
    values = np.concatenate([rng.normal(0, 1, (30, weeks)), rng.integers(0, 4, (30, weeks)), np.ones((1, weeks))])
    values[:10] += np.linspace(0, 2, weeks)
    tau, p = trends.mann_kendall(values)
    for row in range(60):
        peer = pymannkendall.original_test(values[row])
        assert tau[row] == pytest.approx(peer.Tau) and p[row] == pytest.approx(peer.p, abs=1e-12)
    assert tau[60] == 0 and p[60] == 1


def planted(rng, weeks, start):
    """Weekly counts (C, weeks), and the centres of hotspots that come in week `start`, stay, and go in that week."""
    number = {cell: place for place, cell in enumerate(CELLS)}
    inner = [place for place, cell in enumerate(CELLS) if all(near in number for near in h3.grid_disk(cell, 2))]
    counts = rng.poisson(2, (len(CELLS), weeks))
    centres = rng.choice(inner, 3, replace=False)
    for centre, first, last in zip(centres, (start, 0, 0), (weeks, weeks, start), strict=True):
        around = [number[cell] for cell in h3.grid_disk(CELLS[centre], 1)]
        counts[around, first:last] += rng.poisson(6, (len(around), last - first))
    return counts, centres


def test_planted_hotspots_are_named_within_weeks(record_property):
    """Delay: the weeks from the change until it is told, of three hotspots in each of 30 cities."""
    start, weeks, near = 16, 28, neighbours(CELLS)
    delays, stays, others, looked = {1: [], 3: []}, [], 0, 0
    for seed in range(30):
        counts, (comes, remains, goes) = planted(np.random.default_rng(seed), weeks, start)
        z = getis_ord(counts.astype(float), near)
        is_hot = discoveries(trends.ndtr(-z), 0.05) & (z > 0)
        told = {1: None, 3: None}
        around = {place for centre in (comes, remains, goes) for place in near[centre].nonzero()[1]}
        around |= {place for one in list(around) for place in near[one].nonzero()[1]}
        away = np.setdiff1d(np.arange(len(CELLS)), list(around))
        for end in range(trends.TREND_WEEKS, weeks + 1):
            window = slice(end - trends.TREND_WEEKS, end)
            trend = trends.trend_of(is_hot[:, window], *trends.mann_kendall(z[:, window]))
            others, looked = others + np.count_nonzero(trend[away]), looked + len(away)
            for kind, centre in ((1, comes), (3, goes)):
                if told[kind] is None and end > start and trend[centre] == kind:
                    told[kind] = end - start
            if end > start + trends.TREND_WEEKS - 4:
                stays.append(trend[remains] == 2)
        for kind, delay in told.items():
            delays[kind].append(99 if delay is None else delay)
    told_share = {kind: np.mean(np.array(found) < 99) for kind, found in delays.items()}
    record_property("weeks until told, median and share: emerging", (np.median(delays[1]), told_share[1]))
    record_property("weeks until told, median and share: fading", (np.median(delays[3]), told_share[3]))
    record_property("share: persistent ones told, cells without a trend told one", (np.mean(stays), others / looked))
    assert np.median(delays[1]) <= 4 and told_share[1] > 0.75, delays[1]
    assert np.median(delays[3]) <= 4 and told_share[3] > 0.75, delays[3]
    assert np.mean(stays) > 0.9 and others / looked < 5e-4


def test_table_of_a_planted_city(spark, make_settings):
    counts, (comes, remains, goes) = planted(np.random.default_rng(3), 13, 9)
    first_day = MONDAY - timedelta(days=7 * 13 - 1)
    rows = [
        (first_day + timedelta(days=7 * week + visit % 7), cell, "US/New York", f"u{visit}", None)
        for cell, row in zip(CELLS, counts, strict=True)
        for week, events in enumerate(row)
        for visit in range(events)
    ]
    # One person's own hotspot is nobody else's.
    habit = [(first_day + timedelta(days=day), CELLS[0], "US/New York", "same", None) for day in range(91) for _ in range(2)]
    rows = [row for row in rows if row[1] != CELLS[0]] + habit
    events = spark.createDataFrame(rows, "day date, cell string, region string, user_id string, allowed_until date")
    settings = make_settings().spatial

    def table(day, since):
        windows = in_windows(events.withColumn("arrived_on", F.col("day")), [day], 91)
        return {row.cell: row for row in trends.hotspot_trends(since, windows, settings).collect()}

    found = table(MONDAY, first_day)
    assert found[CELLS[comes]].trend == "emerging" and found[CELLS[remains]].trend == "persistent"
    assert found[CELLS[goes]].trend == "fading" and CELLS[0] not in found
    row = found[CELLS[comes]]
    assert (row.weeks, row.region, row.day) == (13, "US/New York", MONDAY) and row.tau > 0 and 3 <= row.hot_weeks <= 6
    assert (row.latitude, row.longitude) == pytest.approx(h3.cell_to_latlng(row.cell))
    shorter = table(MONDAY, MONDAY - timedelta(days=7 * 9))
    assert {one.weeks for one in shorter.values()} == {9}
    assert table(MONDAY, MONDAY - timedelta(days=7 * 7)) == {}, "seven weeks are too few"
