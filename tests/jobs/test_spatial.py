"""The step as a whole: nights equal the bootstrap, hotspots and positions on planted data, what logs may lack."""

import math
from datetime import UTC, date, datetime, timedelta

import h3
import numpy as np
import pytest
from pyspark.sql import functions as F
from scipy.stats import norm

from conf.contracts import SLOTS
from conf.tables import TABLES
from jobs import spatial
from jobs.lake.context import Skipped
from jobs.lake.schema import spark_schema
from jobs.lake.store import Days
from jobs.spatial.hotspots import hotspots
from jobs.spatial.positions import item_positions
from jobs.spatial.sphere import EARTH_RADIUS_M
from jobs.spatial.windows import in_windows, snapshot_days

FIRST, LAST = date(2024, 1, 28), date(2024, 2, 2)  # from a Sunday to a Friday, over the end of a month
TABLES_WRITTEN = (
    "user_places",
    "user_slot_places",
    "user_mobility",
    "item_positions",
    "cell_daily",
    "hotspots",
    "hotspot_trends",
    "hotspot_areas",
    "region_flows",
    "region_stays",
    "region_interests",
)
SETTINGS = (
    "sequences.length=12",
    "spatial.hotspot_min_cells=5",
    "spatial.hotspot_min_users=2",
    "spatial.hotspot_window_days=7",
    "spatial.planning_min_users=2",
)
HERE = (40.70, -74.00)


def haversine_m(latitude, longitude, to_latitude, to_longitude):
    north, to_north = np.radians(latitude), np.radians(to_latitude)
    half = np.sin((to_north - north) / 2) ** 2
    half = half + np.cos(north) * np.cos(to_north) * np.sin(np.radians(np.subtract(to_longitude, longitude)) / 2) ** 2
    return 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(half))


def event(number, **changed):
    """A valid row of `events`; `day` follows the event's date unless given, the cell its position."""
    row = {
        "event_id": f"e{number:05d}", "user_id": "u", "item_id": "i", "event_type": "check_in",
        "event_timestamp": datetime(2024, 1, 28, 12, tzinfo=UTC), "latitude": HERE[0], "longitude": HERE[1],
        "region": "US/New York/New York City", "category": "cafe", "slot": "weekday_afternoon", "row_hash": f"r{number}",
        **changed,
    }  # fmt: skip
    row = dict.fromkeys(TABLES["events"].names) | row
    row["event_date"] = row["event_timestamp"].date()
    row["day"] = row["day"] or row["event_date"]
    if row["latitude"] is not None:
        row["latitude"], row["longitude"] = float(row["latitude"]), float(row["longitude"])
        row["cell"] = row["cell"] or h3.latlng_to_cell(row["latitude"], row["longitude"], 9)
    return row


def frame(spark, name, rows):
    names = TABLES[name].names
    return spark.createDataFrame([tuple(row[column] for column in names) for row in rows], spark_schema(TABLES[name]))


def random_events(seed=1, users=8, per_day=3):
    """Late rows, users that pause, an empty day, rows without a position, slot, category or item; a hotspot from Monday on."""
    rng = np.random.default_rng(seed)
    spots = HERE + rng.normal(0, 0.004, (10, 2))
    rows = []
    for day in [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]:
        if day == date(2024, 1, 30):
            continue
        for user in range(users):
            for _ in range(rng.poisson(per_day) if rng.random() < 0.7 else 0):
                own = datetime.combine(
                    day - timedelta(days=int(rng.integers(0, 3)) if rng.random() < 0.2 else 0), datetime.min.time(), UTC
                )
                own += timedelta(minutes=int(rng.integers(0, 24)) * 60)
                spot = spots[int(rng.integers(0, 3)) if rng.random() < 0.6 else int(rng.integers(10))] + rng.normal(0, 2e-4, 2)
                placed = rng.random() < 0.9 and user != 7
                changed = {"user_id": f"u{user}", "item_id": f"i{rng.integers(6)}", "slot": SLOTS[rng.integers(8)], "day": day}
                changed |= {"latitude": spot[0] if placed else None, "longitude": spot[1] if placed else None}
                changed |= {"region": f"R{int(spot[0] > HERE[0])}" if placed else None}
                for name in ("category", "slot", "item_id"):
                    if rng.random() < 0.05:
                        changed[name] = None
                rows.append(event(len(rows), event_timestamp=own, **changed))
    rows.append(event(len(rows), user_id="once", event_timestamp=datetime(2024, 1, 31, 5, tzinfo=UTC)))
    centre = h3.latlng_to_cell(51.5, -0.1, 9)
    crowd = [(cell, FIRST) for cell in sorted(h3.grid_disk(centre, 5))] + [(centre, date(2024, 1, 29))] * 12
    for number, (cell, day) in enumerate(crowd):
        latitude, longitude = h3.cell_to_latlng(cell)
        at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
        changed = {"user_id": f"crowd{number % 3}", "latitude": latitude, "longitude": longitude, "region": "GB/London"}
        rows.append(event(len(rows), event_timestamp=at, **changed))
    return rows


def sequences_of(rows, day, length):
    """What `user_sequences` holds of the users that arrived on `day`."""
    fields = [field.name for field in spark_schema(TABLES["user_sequences"])["events"].dataType.elementType]
    states = []
    for user in sorted({row["user_id"] for row in rows if row["day"] == day}):
        own = sorted(
            (row for row in rows if row["user_id"] == user and row["day"] <= day),
            key=lambda row: (row["event_timestamp"], row["event_id"]),
        )
        events = [tuple((row | {"arrived_on": row["day"]})[name] for name in fields) for row in own[-length:]]
        states.append(
            {
                "user_id": user,
                "events": events,
                "seen": None,
                "events_total": len(own),
                "gone": False,
                "changed_on": day,
                "day": day,
            }
        )
    return states


@pytest.fixture
def in_lake(make_context, make_settings, tmp_path, spark):
    """in_lake(name, rows) -> contexts over a lake that holds `rows` as events: make(first, last=None, **more)."""

    def fill(name, rows, *overrides, config="conf/local.yaml"):
        settings = make_settings(config, f"lake={tmp_path / name}", *overrides)
        first = min(row["day"] for row in rows)
        last = max(row["day"] for row in rows)
        make_context(first, last, bootstrap=True, settings=settings).write("events", frame(spark, "events", rows))
        return lambda day, until=None, **more: make_context(day, until, first_day=first, settings=settings, **more)

    yield fill
    spark.catalog.clearCache()


def stored(context, name):
    """The rows of a table as sorted tuples, maps as sorted pairs."""
    lake = context.lake
    rows = lake.read(name, lake.version(name)).select(*TABLES[name].names).collect()
    plain = [
        tuple(
            tuple(sorted(value.items())) if isinstance(value, dict) else tuple(value) if isinstance(value, list) else value
            for value in row
        )
        for row in rows
    ]
    keys = [TABLES[name].names.index(column) for column in ("day", *TABLES[name].key)]
    return sorted(plain, key=lambda row: [str(row[key]) for key in keys])


def assert_equal_tables(ours, theirs):
    assert len(ours) == len(theirs)
    for left, right in zip(ours, theirs, strict=True):
        for one, other in zip(left, right, strict=True):
            assert one == (pytest.approx(other, rel=1e-9, abs=1e-12) if isinstance(other, float) else other), (left, right)


def test_nights_equal_the_bootstrap(in_lake, spark):
    rows = random_events()
    whole = in_lake("whole", rows, *SETTINGS)(FIRST, LAST, bootstrap=True)
    spatial.run(whole)
    spark.catalog.clearCache()
    make_night = in_lake("nights", rows, *SETTINGS)
    for day in whole.days:
        night = make_night(day)
        spatial.run(night)
        spark.catalog.clearCache()
        if states := sequences_of(rows, day, 12):
            make_night(day).write("user_sequences", frame(spark, "user_sequences", states))
    for name in TABLES_WRITTEN:
        assert_equal_tables(stored(night, name), stored(whole, name))
    check_contents(whole, rows)


def check_contents(context, rows):
    """That what was found equal is not trivial."""
    places = stored(context, "user_places")
    names = TABLES["user_places"].names
    gone = {row[names.index("user_id")] for row in places if row[names.index("gone")]}
    assert {"u7", "once"} <= gone, "one has no positions, the other a single event"
    assert len({row[names.index("place_id")] for row in places}) >= 2
    assert {row[names.index("role")] for row in places} >= {"home", "other"}
    frames = [row for row in places if row[names.index("day")] == date(2024, 2, 1)]
    assert any(row[names.index("changed_on")] < date(2024, 2, 1) for row in frames), "a keyframe copies"
    assert date(2024, 1, 30) not in {row[-1] for row in places}, "nobody arrived on that day"
    where = [dict(zip(TABLES["user_slot_places"].names, row, strict=True)) for row in stored(context, "user_slot_places")]
    sums = {}
    for row in where:
        key = row["user_id"], row["slot"], row["day"]
        sums[key] = sums.get(key, 0.0) + row["probability"] + row["gone"]
    assert all(total == pytest.approx(1) for total in sums.values()) and len({slot for _, slot, _ in sums}) == 9
    assert {row["user_id"] for row in where if row["gone"]} == {"u7"}, "who was seen once is elsewhere"
    same = ("user_id", "place_id", "latitude", "day")
    known = {tuple(row[names.index(name)] for name in same) for row in places}
    numbered = {tuple(row[name] for name in same) for row in where if row["place_id"] >= 0}
    assert numbered and numbered <= known, "places are numbered as in user_places of the day"
    moved = stored(context, "user_mobility")
    assert any(row[TABLES["user_mobility"].names.index("user_id")] == "once" and not row[-3] for row in moved)
    hot = stored(context, "hotspots")
    assert {row[-1] for row in hot} == {date(2024, 1, 29)} and h3.latlng_to_cell(51.5, -0.1, 9) in {row[0] for row in hot}
    areas = stored(context, "hotspot_areas")
    assert {row[0] for row in areas} == {"dbscan", "kmeans"} and {row[-1] for row in areas} == {FIRST, date(2024, 1, 29)}
    cells = stored(context, "cell_daily")
    assert sum(row[TABLES["cell_daily"].names.index("events")] for row in cells) == sum(row["cell"] is not None for row in rows)


def test_item_positions_cross_the_antimeridian_and_keep_the_digits_of_small_spreads(spark):
    rng = np.random.default_rng(2)
    spots = np.array([[-17.0, 179.9999], [-17.0, -179.9997], [-17.0002, 179.9999]])
    near = HERE + rng.normal(0, 1e-6, (500, 2))
    wide = np.stack([rng.uniform(-60, 60, 40), rng.uniform(-30, 60, 40)], axis=1)
    rows = [event(n, item_id="fiji", latitude=lat, longitude=lon) for n, (lat, lon) in enumerate(spots)]
    rows += [event(100 + n, item_id="near", latitude=lat, longitude=lon) for n, (lat, lon) in enumerate(near)]
    rows += [event(700 + n, item_id="wide", latitude=lat, longitude=lon) for n, (lat, lon) in enumerate(wide)]
    rows += [event(800 + n, item_id="still", latitude=12.3456789, longitude=-98.7654321) for n in range(9)]
    events = frame(spark, "events", rows)
    before = spark.createDataFrame([], spark_schema(TABLES["item_positions"]))
    found = {row.item_id: row for row in item_positions(events, before).collect()}
    assert found["fiji"].longitude == pytest.approx(-179.99997, abs=2e-5) or found["fiji"].longitude == pytest.approx(
        179.99997, abs=1e-4
    )
    for name, points in (("fiji", spots), ("near", near), ("wide", wide)):
        row = found[name]
        squares = haversine_m(*points.T, row.latitude, row.longitude) ** 2
        assert row.events == len(points)
        # The spread is that of straight lines, which are shorter over thousands of kilometres.
        assert row.spread_m == pytest.approx(math.sqrt(squares.mean()), rel=0.05 if name == "wide" else 1e-6)
    assert (found["near"].latitude, found["near"].longitude) == pytest.approx(tuple(near.mean(axis=0)), abs=1e-9)
    assert found["still"].spread_m == 0.0 and found["still"].latitude == pytest.approx(12.3456789, abs=1e-12)
    vectors = np.stack(
        [np.cos(np.radians(wide[:, 0])) * np.exp(1j * np.radians(wide[:, 1])), 1j * np.sin(np.radians(wide[:, 0]))]
    )
    sums = vectors.sum(axis=1)
    assert found["wide"].longitude == pytest.approx(np.degrees(np.angle(sums[0])), abs=1e-9)
    assert found["wide"].latitude == pytest.approx(np.degrees(np.arctan2(sums[1].imag, abs(sums[0]))), abs=1e-9)


def grid_events(centre, counts, **changed):
    """One event per user and visit: `counts` by cell around `centre`."""
    rows = []
    for cell, events in counts.items():
        latitude, longitude = h3.cell_to_latlng(cell)
        for number in range(events):
            user = changed.get("user_id", f"{centre}-{cell}-{number}")
            rows.append(event(0, cell=cell, latitude=latitude, longitude=longitude, **(changed | {"user_id": user})))
    return rows


def snapshot(spark, rows, settings, day=date(2024, 1, 28), window=7):
    events = frame(spark, "events", [row | {"event_id": f"e{number}"} for number, row in enumerate(rows)])
    found = hotspots(in_windows(events, [day], window), settings).collect()
    return {(row.cell, row.slot): row for row in found}


def direct_gi(counts):
    """Ord and Getis (1995), cell by cell."""
    cells, x = list(counts), np.array(list(counts.values()), dtype=float)
    n, mean, deviation = len(x), x.mean(), math.sqrt((x**2).mean() - x.mean() ** 2)
    z = {}
    for cell in cells:
        w = np.array([1.0 if other in h3.grid_disk(cell, 1) else 0.0 for other in cells])
        z[cell] = (w @ x - mean * w.sum()) / (deviation * math.sqrt((n * (w**2).sum() - w.sum() ** 2) / (n - 1)))
    return z


def direct_discoveries(p, rate):
    """The largest k with p_(k) <= k / n rate; all up to it."""
    ordered = sorted(p.items(), key=lambda item: item[1])
    passing = [k for k, (_, value) in enumerate(ordered, 1) if value <= k / len(ordered) * rate]
    return {cell for cell, _ in ordered[: max(passing, default=0)]}


def test_hotspots_are_those_of_the_formula_and_of_the_plan(spark, make_settings):
    rng = np.random.default_rng(4)
    centre = h3.latlng_to_cell(*HERE, 9)
    counts = {cell: int(rng.poisson(2)) + 1 for cell in sorted(h3.grid_disk(centre, 6))}
    far = sorted(h3.grid_ring(centre, 5))[0]
    for cell in h3.grid_disk(centre, 1):
        counts[cell] += 8
    counts[far] += 30
    quiet = dict.fromkeys(h3.grid_disk(h3.latlng_to_cell(48.85, 2.35, 9), 3), 1)
    favourite = h3.latlng_to_cell(35.68, 139.69, 9)
    habit = dict.fromkeys(h3.grid_disk(favourite, 3), 1) | {favourite: 40}
    rows = grid_events("a", counts) + grid_events("b", quiet, region="FR/Paris")
    rows += grid_events("c", habit, region="JP/Tokyo", user_id="one person")
    found = snapshot(spark, rows, make_settings().spatial)
    z = direct_gi(counts)
    hot = direct_discoveries({cell: norm.sf(value) for cell, value in z.items()}, 0.05)
    assert {cell for cell, slot in found if slot == "any"} == hot
    assert {centre, far} <= hot and len(hot) < 20
    for cell in hot:
        row = found[cell, "any"]
        assert (row.events, row.users, row.region) == (counts[cell], counts[cell], "US/New York/New York City")
        assert row.z == pytest.approx(z[cell]) and row.p_value == pytest.approx(norm.sf(z[cell]), rel=1e-6)
        assert (row.latitude, row.longitude) == pytest.approx(h3.cell_to_latlng(cell))
    assert (found[centre, "any"].cluster_id, found[far, "any"].cluster_id) == (0, 1), "the larger cluster comes first"
    assert {slot for _, slot in found} == {"any", "weekday_afternoon"}


def test_a_slot_is_compared_with_all_cells_of_the_region(spark, make_settings):
    centre = h3.latlng_to_cell(*HERE, 9)
    disk = sorted(h3.grid_disk(centre, 5))
    rows = grid_events("all", dict.fromkeys(disk, 2), slot=None)
    rows += grid_events("night", {centre: 8}, slot="weekend_night")
    found = snapshot(spark, rows, make_settings().spatial)
    z = direct_gi({cell: 8 * (cell == centre) for cell in disk})
    assert found[centre, "weekend_night"].z == pytest.approx(z[centre])
    assert {slot for _, slot in found} <= {"weekend_night", "any"}
    small = [row for row in rows if row["cell"] in h3.grid_disk(centre, 2)]
    assert snapshot(spark, small, make_settings().spatial) == {}, "19 cells are too few"


def test_snapshots_are_made_on_mondays_and_the_first_day():
    days = Days(first=FIRST, last=LAST)
    assert snapshot_days(days, FIRST) == [FIRST, date(2024, 1, 29)]
    assert snapshot_days(days, FIRST - timedelta(days=9)) == [date(2024, 1, 29)]


def test_windows_hold_the_days_up_to_the_snapshot(spark):
    rows = spark.createDataFrame([(date(2024, 1, day),) for day in (1, 2, 8, 9)], "day date")
    found = in_windows(rows.withColumn("was", F.col("day")), [date(2024, 1, 8)], 7).collect()
    assert sorted(row.was.day for row in found) == [2, 8]


def test_a_log_without_times_has_places_but_no_roles(in_lake, make_context, tmp_path):
    mapping = tmp_path / "timeless.yaml"
    mapping.write_text(
        "description: positions in order\ntarget_events: [check_in]\nevents:\n  event_type: check_in\n  time_format: position\n"
        "  columns: {user_id: u, item_id: i, event_time: n, latitude: a, longitude: o}\n"
    )
    day = date(2000, 1, 1)
    rows = [
        event(
            n,
            slot=None,
            event_timestamp=datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=n),
            day=day,
            latitude=40.7 + n % 3 / 100,
        )
        for n in range(9)
    ]
    context = in_lake("timeless", rows, f"sources.events.mapping={mapping}")(day, bootstrap=True)
    spatial.run(context)
    names = TABLES["user_places"].names
    places = [dict(zip(names, row, strict=True)) for row in stored(context, "user_places")]
    assert [place["place_id"] for place in places] == [0, 1, 2]
    assert {(place["role"], place["confidence"], place["slot_visits"], place["main_slots"]) for place in places} == {
        ("other", 0.0, (), ())
    }
    assert {row[TABLES["cell_daily"].names.index("slot")] for row in stored(context, "cell_daily")} == {"any"}
    assert "no times" in context.details["left_out"]


def test_a_log_without_places_is_skipped(make_context, make_settings):
    context = make_context(date(2000, 1, 1), bootstrap=True, settings=make_settings("conf/movielens.yaml"))
    with pytest.raises(Skipped, match="no places"):
        spatial.run(context)
