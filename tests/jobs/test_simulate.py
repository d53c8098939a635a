"""The simulator keeps its own truth: what `truth/` says is what `landing/` shows."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import jobs.simulate as simulator
from conf.contracts import SLOTS
from jobs.simulate import World, simulate
from jobs.simulate.atlas import local_clock, slot_of
from jobs.simulate.catalogue import catalogue_of
from jobs.simulate.lives import live
from jobs.simulate.people import people_of
from jobs.simulate.taxonomy import NAMES
from jobs.simulate.wording import review_texts
from jobs.simulate.world import Purpose

NAMING = ["user_id", "item_id", "event_type", "event_timestamp"]
METRES_PER_DEGREE = 111_195.0


def a_world(**changes: Any) -> World:
    """60 users x 10 days with defects common enough to be there."""
    world = World(
        users=60,
        items=300,
        days=10,
        end_day=date(2024, 5, 31),
        seed=7,
        duplicate_rate=0.04,
        position_rate=0.05,
        time_rate=0.04,
        missing_rate=0.1,
        late_rate=0.1,
        broken_rate=0.03,
        bot_rate=0.03,
    )
    return replace(world, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def landed(output: Path) -> pd.DataFrame:
    """Every readable line with its landing day (`day`) and its text (`line`)."""
    rows = []
    for path in sorted((output / "landing").glob("*/events-*.jsonl")):
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line) | {"day": path.parent.name, "line": line})
            except ValueError:
                continue
    return pd.DataFrame(rows)


def truth(output: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(output / "truth" / f"{name}.csv", dtype=str, keep_default_na=False)


def metres(a: pd.DataFrame, b: pd.DataFrame, place: str) -> pd.Series:
    """Distances from positions in `a` to the positions `<place>latitude, ..longitude` in `b`, row by row."""
    latitude, longitude = (b[f"{place}{axis}"].astype(float).to_numpy() for axis in ("latitude", "longitude"))
    north = (a["latitude"] - latitude) * METRES_PER_DEGREE
    east = (a["longitude"] - longitude) * METRES_PER_DEGREE * np.cos(np.radians(latitude))
    return np.hypot(north, east)


def defective(output: Path, kind: str) -> Counter[tuple[str, ...]]:
    """How often each row of a kind is listed, as (day, user, item, type, time)."""
    listed = truth(output, "defective_rows")
    return Counter(listed.loc[listed["kind"] == kind, ["day", *NAMING]].itertuples(index=False, name=None))


def keys(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(rows[["day", *NAMING]].fillna("").itertuples(index=False, name=None))


@pytest.fixture(scope="module")
def small(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("small")
    simulate(spark, output, a_world())
    return output


@pytest.fixture(scope="module")
def town(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough people for their habits to show; without the defects that would blur them."""
    output = tmp_path_factory.mktemp("town")
    rates = dict.fromkeys(
        (
            "duplicate_rate",
            "position_rate",
            "time_rate",
            "missing_rate",
            "late_rate",
            "broken_rate",
            "bot_rate",
            "near_duplicate_rate",
        ),
        0.0,
    )
    simulate(spark, output, a_world(users=900, items=600, days=8, **rates))
    return output


@pytest.fixture(scope="module")
def town_events(town: Path) -> pd.DataFrame:
    """The town's events with the user's local hour, slot, and the item's category."""
    events = landed(town)
    users = truth(town, "users").set_index("user_id")
    moment = pd.to_datetime(events["event_timestamp"])
    zone = events["user_id"].map(users["time_zone"])
    local = pd.concat([moment[zone == name].dt.tz_convert(name).dt.tz_localize(None) for name in zone.unique()])
    local = local.reindex(events.index)
    items = truth(town, "items").set_index("item_id")
    slot = slot_of(local.dt.weekday.to_numpy(), local.dt.hour.to_numpy())
    return events.assign(
        moment=moment,
        local=local,
        slot=[SLOTS[index] for index in slot],
        category=events["item_id"].map(items["category"]),
    )


def test_same_seed_gives_the_same_bytes_whatever_the_partitions(spark: Any, small: Path, tmp_path: Path) -> None:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        simulate(spark, tmp_path, a_world())
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert contents(tmp_path) == contents(small)


def write_here(folder: Path, world: World) -> None:
    """Without Spark, the last task first."""
    tasks = [pa.RecordBatch.from_pydict({"id": [task]}) for task in reversed(range(world.days * world.parts))]
    list(simulator._write_tasks(iter(tasks), folder=folder, world=world))
    simulator._finish_pieces(folder, world)


def test_tasks_in_another_order_and_process_write_the_same_bytes(small: Path, tmp_path: Path) -> None:
    write_here(tmp_path, a_world())
    assert contents(tmp_path / "landing") == contents(small / "landing")
    for name in ("users.csv", "bursts.csv", "defective_rows.csv"):
        assert (tmp_path / "truth" / name).read_bytes() == (small / "truth" / name).read_bytes()


def test_another_seed_gives_other_bytes(spark: Any, small: Path, tmp_path: Path) -> None:
    simulate(spark, tmp_path, a_world(seed=8))
    other, ours = contents(tmp_path / "landing"), contents(small / "landing")
    events = [name for name in other if "events" in name]
    assert len(events) == 10
    assert all(other[name] != ours[name] for name in events)


def test_one_folder_per_day_and_one_file_in_each(small: Path) -> None:
    world = a_world()
    folders = sorted(path.name for path in (small / "landing").iterdir())
    assert folders == [(world.end_day - timedelta(days=back)).isoformat() for back in reversed(range(10))]
    assert all([path.name for path in (small / "landing" / day).glob("events*")] == ["events-0000.jsonl"] for day in folders)
    assert {path.name for path in small.iterdir()} == {"landing", "truth"}


def test_lines_are_the_good_rows_and_the_defects(small: Path) -> None:
    days, defects = truth(small, "days").set_index("day"), truth(small, "defects")
    counted = defects.assign(rows=defects["rows"].astype(int)).groupby("day")["rows"].sum()
    for day, row in days.iterrows():
        text = (small / "landing" / str(day) / "events-0000.jsonl").read_text()
        assert text.endswith("\n")
        assert text.count("\n") == int(row["lines"]) == int(row["good"]) + counted.get(day, 0)
    summary = truth(small, "summary").set_index("name")["value"].astype(int)
    assert summary["lines"] == days["lines"].astype(int).sum()
    assert summary["good"] == days["good"].astype(int).sum()


def test_listed_defects_are_the_counted_ones(small: Path) -> None:
    defects = truth(small, "defects")
    counted = {(row.day, row.kind): int(row.rows) for row in defects.itertuples() if row.kind not in ("bot", "broken")}
    listed = truth(small, "defective_rows").groupby(["day", "kind"]).size().to_dict()
    assert listed == counted
    assert {kind for _, kind in counted} >= {"late", "duplicate", "position_jump", "time_future", "missing_user_id"}


def test_broken_lines_are_the_unreadable_ones(small: Path) -> None:
    defects = truth(small, "defects")
    broken = defects[defects["kind"] == "broken"].set_index("day")["rows"].astype(int)
    lines = truth(small, "days").set_index("day")["lines"].astype(int)
    readable = landed(small).groupby("day").size()
    assert broken.sum() > 10
    assert (lines - readable).to_dict() == broken.reindex(lines.index, fill_value=0).to_dict()


def test_duplicates_are_exact_and_no_other_rows_are_equal(small: Path) -> None:
    rows = landed(small)
    copies = rows[rows.duplicated(["day", "line"])]
    assert len(copies) > 10
    assert Counter(keys(copies)) == defective(small, "duplicate")


def test_late_rows_lie_in_a_later_folder_and_ordinary_ones_in_their_own(small: Path) -> None:
    rows = landed(small)
    bots = truth(small, "users").query("is_bot == 'true'")["user_id"]
    known = [set(defective(small, kind)) for kind in ("late", "time_future", "time_ancient", "time_unreadable")]
    key = pd.Series(keys(rows), index=rows.index)
    late, *wrong = (key.isin(kind) for kind in known)
    own = pd.to_datetime(rows["event_timestamp"], errors="coerce", format="ISO8601").dt.strftime("%Y-%m-%d")
    delay = (pd.to_datetime(rows["day"]) - pd.to_datetime(own)).dt.days
    assert delay[late].between(1, 5).all()
    assert late.sum() > 20
    ordinary = ~late & ~wrong[0] & ~wrong[1] & ~wrong[2] & rows["event_timestamp"].notna()
    assert (delay[ordinary] == 0).all()
    assert (delay[wrong[0]] < 0).all()
    assert (rows.loc[wrong[1], "event_timestamp"].str[:10] == "1970-01-01").all()
    assert own[wrong[2]].isna().all()
    assert len(bots) == 2


def test_wrong_positions_and_missing_fields_are_as_listed(small: Path) -> None:
    rows = landed(small)
    key = pd.Series(keys(rows), index=rows.index)
    kinds = truth(small, "defective_rows")["kind"].unique()
    of = {kind: rows[key.isin(set(defective(small, kind)))] for kind in kinds}
    assert (of["position_out_of_range"]["latitude"] > 90).all()
    assert (of["position_null_island"][["latitude", "longitude"]] == 0).all(axis=None)
    home = truth(small, "users").set_index("user_id").loc[of["position_jump"]["user_id"]]
    assert (metres(of["position_jump"], home, "home_") > 1_000_000).all()
    assert of["missing_position"]["latitude"].isna().all()
    is_search = rows["text"].notna() & rows["rating"].isna()
    for field in ("device", "item_id", "user_id", "event_type", "event_timestamp"):
        lacking = rows[field].isna() & ~(is_search & (field == "item_id"))
        assert Counter(keys(rows[lacking])) == defective(small, f"missing_{field}")


def test_bots_are_fast_and_people_are_not(small: Path) -> None:
    bots = set(truth(small, "users").query("is_bot == 'true'")["user_id"])
    rows = landed(small)
    per_day = rows.groupby(["user_id", "day"]).size()
    is_bot = per_day.index.get_level_values("user_id").isin(bots)
    assert per_day[is_bot].min() >= 60 > per_day[~is_bot].max()
    defects = truth(small, "defects")
    assert per_day[is_bot].sum() == defects[defects["kind"] == "bot"]["rows"].astype(int).sum()


def test_a_line_holds_only_known_fields_and_no_nulls(small: Path) -> None:
    rows = landed(small)
    fields = [*NAMING, "latitude", "longitude", "device", "scene", "session_id", "rating", "text"]
    assert set(rows.columns) - {"day", "line"} == set(fields)
    assert not rows["line"].str.contains("null|NaN").any()
    rated = rows["rating"].notna()
    assert set(rows.loc[rated, "event_type"].dropna()) == {"review"}
    assert rows["rating"].dropna().between(1, 5).all()
    sought = rows[rows["event_type"] == "search"]
    assert sought["item_id"].isna().all()
    assert sought["text"].str.len().min() > 0


def test_items_and_users_land_when_they_are_new_or_changed(small: Path) -> None:
    items = truth(small, "items").set_index("item_id")
    expected = set(items["added_on"].items()) | {(item, day) for item, day in items["changed_on"].items() if day}
    found: set[tuple[str, str]] = set()
    for path in sorted((small / "landing").glob("*/items.csv")):
        with path.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        assert list(rows[0]) == ["item_id", "title", "description", "category", "brand", "price", "latitude", "longitude"]
        assert all(row["brand"] in row["title"] and '"' in row["description"] for row in rows)
        found |= {(row["item_id"], path.parent.name) for row in rows}
    assert found == expected
    assert items["changed_on"].ne("").sum() > 3
    assert items["added_on"].nunique() > 3
    users = truth(small, "users")
    joined = [
        (row["user_id"], path.parent.name)
        for path in sorted((small / "landing").glob("*/users.csv"))
        for row in csv.DictReader(path.open())
    ]
    assert sorted(joined) == sorted(zip(users["user_id"], users["joined_on"], strict=True))


def test_people_spend_the_night_at_home_and_office_hours_at_work(town: Path, town_events: pd.DataFrame) -> None:
    users = truth(town, "users").set_index("user_id").loc[town_events["user_id"]]
    at_home = metres(town_events, users, "home_") < 200
    at_work = metres(town_events, users, "work_") < 200
    night = town_events["slot"].isin(["weekday_night", "weekend_night"])
    assert at_home[night].mean() > 0.8
    # While they act on goods; places are acted on where these are.
    office = (town_events["local"].dt.weekday < 5) & town_events["local"].dt.hour.between(9, 15)
    goods = town_events["category"].isin(["Books", "Electronics", "Clothing", "Video Games", "Toys"])
    assert at_work[office & goods].mean() > 0.7


def test_events_on_places_are_at_the_place(town: Path, town_events: pd.DataFrame) -> None:
    items = truth(town, "items").set_index("item_id")
    items = items[items["latitude"] != ""]
    visits = town_events[town_events["item_id"].isin(items.index)]
    away = metres(visits, items.loc[visits["item_id"]], "")
    assert away.max() < 60
    assert (town_events["event_type"] == "check_in").sum() == (visits["event_type"] == "check_in").sum()


def test_slots_have_their_categories(town_events: pd.DataFrame) -> None:
    def lift(category: str, slot: str) -> float:
        is_category = town_events["category"] == category
        return is_category[town_events["slot"] == slot].mean() / is_category[town_events["slot"] != slot].mean()

    assert lift("Coffee Shop", "weekday_morning") > 3
    assert lift("Bar", "weekend_evening") > 3
    assert lift("Farmers Market", "weekend_morning") > 3


def test_hotspots_draw_people_in_their_slots(town: Path, town_events: pd.DataFrame) -> None:
    visits = town_events[town_events["event_type"] == "check_in"]
    for spot in truth(town, "hotspots").itertuples():
        users = truth(town, "users").set_index("user_id")["city"]
        of_city = visits[visits["user_id"].map(users) == spot.city]
        centre = pd.DataFrame({"latitude": [spot.latitude] * len(of_city), "longitude": [spot.longitude] * len(of_city)})
        inside = metres(of_city, centre, "") < float(spot.radius_metres) + 50
        in_slot = of_city["slot"].isin(spot.slots.split("|"))
        assert inside[in_slot].mean() > 0.8 * float(spot.weight)
        assert inside[in_slot].mean() > 1.5 * inside[~in_slot].mean()


def test_one_visit_leads_to_the_next(town: Path, town_events: pd.DataFrame) -> None:
    visits = town_events[town_events["event_type"] == "check_in"].sort_values(["user_id", "moment"])
    soon = (visits["moment"].shift(-1) - visits["moment"]).dt.total_seconds() < 3600
    following = visits["category"].shift(-1).where(soon & (visits["user_id"] == visits["user_id"].shift(-1)))
    for habit in truth(town, "habits").itertuples():
        begins = visits["category"] == habit.category
        found = (following[begins] == habit.next_category).mean()
        assert abs(found - float(habit.probability)) < 0.2, habit
        assert found > 2 * (visits["category"] == habit.next_category).mean()


def test_people_come_back_to_what_they_like(town: Path, town_events: pd.DataFrame) -> None:
    users = truth(town, "users").set_index("user_id")
    interests = town_events["user_id"].map(users["interests"]).fillna("").str.split("|")
    of_interest = [category in liked for category, liked in zip(town_events["category"], interests, strict=True)]
    assert np.mean(of_interest) > 0.4  # 3 of 24 categories would be 0.13
    taken = town_events[town_events["event_type"].isin(["check_in", "click", "purchase"])].sort_values("moment")
    again = taken.duplicated(["user_id", "item_id"])
    assert again[taken["day"] == taken["day"].max()].mean() > 0.3


def test_nobody_flies_through_the_city(town_events: pd.DataFrame) -> None:
    ordered = town_events.sort_values(["user_id", "moment"])
    same_user = (ordered["user_id"] == ordered["user_id"].shift()).iloc[1:]
    moved = metres(ordered.iloc[1:], ordered.iloc[:-1], "")
    passed = ordered["moment"].diff().dt.total_seconds().iloc[1:]
    too_fast = same_user & (moved > 300) & (moved / passed > 50)
    # Two sessions at either side of UTC midnight may be close in time: a handful.
    assert too_fast.mean() < 0.0005


def test_mean_events_per_day_are_as_asked(town: Path, town_events: pd.DataFrame) -> None:
    joined = pd.to_datetime(truth(town, "users")["joined_on"])
    days = (pd.Timestamp(a_world().end_day) - joined).dt.days + 1
    assert len(town_events) / days.sum() == pytest.approx(2.5, rel=0.1)


def test_bursts_and_trends_move_demand() -> None:
    world = a_world(users=4000, days=200)
    people, catalogue = people_of(world, 0), catalogue_of(world)

    def shares(day: int) -> tuple[np.ndarray, np.ndarray]:
        users = np.flatnonzero(people.joined <= day)
        events = live(world, people, catalogue, day, users, world.stream(Purpose.LIVES, 0, day))
        events = events.take(events.item >= 0)
        return events.user, catalogue.category[events.item]

    # 196 days are 28 weeks: the same weekday. Neither category has an annual season.
    (_, early), (user, late) = shares(3), shares(199)
    up, down = NAMES.index("Video Games"), NAMES.index("Cosmetics")
    ratio = ((late == up).mean() / (late == down).mean()) / ((early == up).mean() / (early == down).mean())
    assert ratio > 2
    window = 199 // 45
    burst, begins, ends = (field[user, window] for field in (people.burst_category, people.burst_start, people.burst_end))
    is_on = (burst >= 0) & (begins <= 199) & (ends >= 199)
    is_off = (burst >= 0) & ~is_on
    assert (late == burst)[is_on].mean() > 3 * (late == burst)[is_off].mean()


def test_reviews_agree_with_their_ratings_and_name_the_brand(town: Path, town_events: pd.DataFrame) -> None:
    reviews = town_events[town_events["event_type"] == "review"]
    brands = reviews["item_id"].map(truth(town, "items").set_index("item_id")["brand"])
    assert all(brand in text for brand, text in zip(brands, reviews["text"], strict=True))
    one = np.zeros(5, dtype=np.int64)
    texts = review_texts(np.arange(1, 6), one, one, one).to_pylist()
    assert len(set(texts)) == 3
    bad = reviews["text"].str.contains("awful|bad, and|waste|worst")
    good = reviews["text"].str.contains("perfect|made my day|excellent|the best")
    assert (bad == (reviews["rating"] <= 2)).all()
    assert (good == (reviews["rating"] >= 4)).all()


def test_large_days_are_split_over_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world(users=60, days=2, bot_rate=0.0)
    assert world.parts == 1
    monkeypatch.setattr("jobs.simulate.world.ROWS_PER_FILE", 100)
    assert world.parts == 2
    write_here(tmp_path, world)
    for day in (tmp_path / "landing").iterdir():
        assert sorted(path.name for path in day.glob("events*")) == ["events-0000.jsonl", "events-0001.jsonl"]
    users = truth(tmp_path, "users")["user_id"]
    assert list(users) == [f"u{number:06d}" for number in range(60)]
    landing = pd.concat([pd.read_csv(path) for path in (tmp_path / "landing").glob("*/users.csv")])
    assert sorted(landing["user_id"]) == list(users)
    days = truth(tmp_path, "defective_rows")["day"]
    assert days.is_monotonic_increasing


def test_the_smallest_world(spark: Any, tmp_path: Path) -> None:
    simulate(spark, tmp_path, World(users=1, items=1, days=1, end_day=date(2024, 2, 29), seed=0, bot_rate=0.0))
    assert (tmp_path / "landing" / "2024-02-29" / "events-0000.jsonl").is_file()


def test_slots_follow_local_time_and_nights_count_to_their_evening() -> None:
    # Saturday 02:00 still belongs to Friday's night; 2024-03-10 is New York's change to summer time.
    weekday, hour = np.array([5, 5, 6, 0, 4, 4]), np.array([2, 23, 5, 5, 12, 18])
    assert [SLOTS[index] for index in slot_of(weekday, hour)] == [
        "weekday_night",
        "weekend_night",
        "weekend_night",
        "weekend_night",
        "weekday_afternoon",
        "weekday_evening",
    ]
    hours = local_clock(date(2024, 3, 10)).hour[0]
    assert list(hours[:9]) == [19, 20, 21, 22, 23, 0, 1, 3, 4]


def test_refuses_to_overwrite(spark: Any, small: Path, tmp_path: Path) -> None:
    before = contents(small)
    with pytest.raises(ValueError, match=r"landing exists: give another output folder"):
        simulate(spark, small, a_world(seed=8))
    assert contents(small) == before
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"was not simulated"):
        simulate(spark, tmp_path, a_world())


def test_an_empty_landing_and_the_rest_of_a_killed_run_are_replaced(spark: Any, small: Path, tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    for remains in (tmp_path / "truth", tmp_path / ".simulate-unfinished" / "landing" / "2024-05-22"):
        remains.mkdir(parents=True)
        (remains / "summary.csv").write_text("half")
    simulate(spark, tmp_path, a_world())
    assert contents(tmp_path) == contents(small)


def test_a_run_that_dies_leaves_no_landing(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator, "truth_tables", dies)
    with pytest.raises(KeyboardInterrupt):
        simulate(spark, tmp_path, a_world(users=1, items=1, days=1))
    assert not (tmp_path / "landing").exists()
    assert not (tmp_path / "truth").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "users is 0"),
        ({"days": -1}, "days is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"late_rate": 1.5}, "late_rate is 1.5"),
        ({"missing_rate": 0.9, "broken_rate": 0.2}, "sum to"),
        ({"events_per_user_day": 0.0}, "events_per_user_day is 0"),
        ({"days": 1_000_000}, "before the calendar begins"),
    ],
)
def test_refuses_impossible_worlds(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_world(**change)
