"""What must not reach the lake: addresses and exact coordinates; and what is known of places without them."""

from __future__ import annotations

import csv
import json
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from pyspark.sql import functions as F

from conf.settings import Privacy, load_settings
from jobs.ingest.privacy import coarsened, ip_positions, limited, read_database, rounding_m
from jobs.lake.identities import load_key, pseudonym
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run

DAY = date(2024, 2, 1)
LISBON = {"location": {"latitude": 38.7223, "longitude": -9.1393, "accuracy_radius": 20}}
HERE = ("40.748817", "-73.985428")  # an exact position
NETWORKS = {
    "8.8.8.0/24": LISBON,
    "9.9.9.0/24": {"location": {"latitude": 48, "longitude": 2.35}},  # a city, but not how far around
    "11.0.0.0/24": {"country": {"iso_code": "PT"}},
    "12.0.0.0/24": {"location": {"latitude": "north", "longitude": 1.0}},
    "10.0.0.0/8": LISBON,
    "2001:4860::/32": LISBON,
}
BAD = ["", "  ", "localhost", "8.8.8", "8.8.8.8.8", "8.8.8.256", "8.8.8.8:443", "10.1.2.3", "127.0.0.1", "::1", "fe80::1%eth0",
       "13.0.0.1", "11.0.0.1", "12.0.0.1", "8.8.8.8\x00", "1" * 400, "２.８.８.８"]  # fmt: skip


def database(path, *versions):
    writer = MMDBWriter(versions[0] if versions else 6, "Test-City", ipv4_compatible=not versions, float_type="f64")
    for network, record in NETWORKS.items():
        if ":" not in network or not versions:
            writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return str(path)


@pytest.fixture(scope="module")
def cities(tmp_path_factory):
    return database(tmp_path_factory.mktemp("mmdb") / "cities.mmdb")


def positions(spark, path, addresses):
    content = read_database(Privacy(ip_database=path))
    held = spark.sparkContext.broadcast(content)
    frame = spark.createDataFrame([(address,) for address in addresses], "ip string").repartition(2)
    rows = frame.select("ip", ip_positions(F.col("ip"), held, path).alias("at")).select("ip", "at.*").collect()
    return {row.ip: (row.latitude, row.longitude, row.precision_m) for row in rows}


def test_addresses_are_looked_up_and_bad_ones_are_nowhere(spark, cities, tmp_path):
    lisbon, nowhere = (38.7223, -9.1393, 20_000.0), (None, None, None)
    good = {
        "8.8.8.8": lisbon,
        " 8.8.8.9 ": lisbon,
        "2001:4860::8888": lisbon,
        "::ffff:8.8.8.8": lisbon,
        "9.9.9.9": (48.0, 2.35, 50_000.0),
    }
    found = positions(spark, cities, [*good, *BAD, None])
    assert found == good | dict.fromkeys([*BAD, None], nowhere)
    four = database(tmp_path / "four.mmdb", 4)
    assert positions(spark, four, ["2001:4860::8888", "8.8.8.8"]) == {"2001:4860::8888": nowhere, "8.8.8.8": lisbon}


def test_coarse_addresses_are_networks(spark):
    cases = {
        "8.8.8.8": "8.8.8.0/24",
        "2001:4860:1:2::3": "2001:4860:1::/48",
        "::ffff:8.8.8.8": "8.8.8.0/24",
        "10.1.2.3": "10.1.2.0/24",
    }
    frame = spark.createDataFrame([(one,) for one in [*cases, "8.8.8.8:443", "x", None]], "ip string")
    found = {row.ip: row.net for row in frame.select("ip", coarsened(F.col("ip")).alias("net")).collect()}
    assert found == cases | dict.fromkeys(["8.8.8.8:443", "x", None])
    kept = limited(frame.withColumn("broken", F.col("ip")), Privacy(ip="keep"))
    assert kept.where("ip IS NOT DISTINCT FROM broken").count() == frame.count() == len(cases) + 3


def test_a_missing_or_broken_database_is_one_line(tmp_path, cities):
    (tmp_path / "text.mmdb").write_text("no database\n" * 100)
    (tmp_path / "cut.mmdb").write_bytes(Path(cities).read_bytes()[:-60])
    (tmp_path / "empty.mmdb").touch()
    for name, said in (
        ("none.mmdb", "cannot be read (No such file"), ("", "cannot be read (Is a directory"),
        ("text.mmdb", "is not a database"), ("cut.mmdb", "is not a database"), ("empty.mmdb", "is not a database"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"privacy.ip_database: ") as caught:
            read_database(Privacy(ip_database=str(tmp_path / name)))
        assert said in str(caught.value) and "\n" not in str(caught.value), name


def test_coordinates_are_rounded_and_wrong_ones_stay_wrong(spark):
    cases = [
        (HERE, ("40.75", "-73.99")),
        (("-89.999999", "179.999999"), ("-90.0", "180.0")),
        (("4.0748817e1", "1"), ("40.75", "1.0")),
        (("0", "-0.0"), ("0.0", "0.0")),
        (("91.123456", HERE[1]), ("##.######", "-73.99")),
        (("583959.37", "4507350.99"), ("######.##", "#######.##")),
        (("40°44'55.7\"N", "x"), ("##°##'##.#\"N", "x")),
        (("NaN", "Infinity"), ("NaN", "Infinity")),
        ((None, HERE[1]), (None, "-73.99")),
        ((None, None), (None, None)),
    ]
    rows = [(f"{n:02}", *given, None) for n, (given, _) in enumerate(cases)]
    frame = spark.createDataFrame(rows, "id string, latitude string, longitude string, broken string")
    shown = sorted(limited(frame, Privacy(coordinate_decimals=2)).collect(), key=lambda row: row.id)
    assert [(row.latitude, row.longitude) for row in shown] == [wanted for _, wanted in cases]
    assert shown[0].position_precision_m == rounding_m(2) == 786.3 and shown[0].position_source == "source"
    assert shown[-1].position_source is None and shown[-1].position_precision_m is None
    as_they_are = sorted(limited(frame, Privacy()).collect(), key=lambda row: row.id)
    assert [(row.latitude, row.longitude) for row in as_they_are] == [given for given, _ in cases]
    assert as_they_are[0].position_precision_m is None


EVENTS = [  # user, item, address, latitude, longitude, place
    ("fix", "i1", "8.8.8.8", *HERE, ""),
    ("address", "i1", "8.8.8.8", "", "", ""),
    ("named", "i1", "8.8.8.8", "", "", "central"),
    ("unnamed", "i1", "8.8.8.8", "", "", "nowhere"),
    ("private", "i1", "10.1.2.3", "", "", ""),
    ("garbage", "i1", "8.8.8.8.8", "", "", ""),
    ("wrong", "i1", "8.8.8.8", HERE[0], "east", ""),
    ("six", "i1", "2001:4860:77:88::9", "", "", ""),
]


@pytest.fixture(scope="module")
def lakes(spark, cities, tmp_path_factory):
    """One log, two ways to treat it: name -> settings, ingested, cleaned and put in space."""
    folder = tmp_path_factory.mktemp("privacy")
    with (folder / "log.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "ip", "lat", "lon", "place", "at"])
        rows.writerows([*event, f"{DAY}T10:0{n}:00Z"] for event in EVENTS for n in range(3))
        file.write(f"torn,i1,8.8.8.8,{HERE[0]}\nalso torn 2001:4860:77:88::9 {HERE[1]}\n")
    (folder / "places.csv").write_text("place,latitude,longitude\ncentral,51.5081,-0.1281\n")
    columns = {
        "user_id": "user",
        "item_id": "item",
        "event_time": "at",
        "ip": "ip",
        "latitude": "lat",
        "longitude": "lon",
        "place": "place",
    }
    events = {
        "options": {"header": "true"},
        "event_type": "check_in",
        "columns": columns,
        "place_gazetteer": str(folder / "places.csv"),
    }
    mapping = {"description": "test", "target_events": ["check_in"], "events": events}
    (folder / "mapping.yaml").write_text(json.dumps(mapping))
    made = {}
    for name, more in {
        "drop": [f"privacy.ip_database={cities}"],
        "coarse": [f"privacy.ip_database={cities}", "privacy.ip=coarsen", "privacy.coordinate_decimals=2"],
    }.items():
        overrides = [
            f"lake={folder / name}",
            f"sources.events.path={folder / 'log.csv'}",
            f"sources.events.mapping={folder / 'mapping.yaml'}",
        ]
        made[name] = load_settings(overrides=[*overrides, *more])
        steps = choose(only=("ingest", "clean", "sequences", "spatial") if name == "drop" else ("ingest", "clean"))
        run(spark, made[name], DAY, steps=steps, bootstrap=True)
    return made


def stored(spark, settings, name):
    lake = Lake(spark, settings.lake)
    names = {pseudonym(event[0], load_key()): event[0] for event in EVENTS}
    return {names.get(row.user_id): row for row in lake.read(name, lake.version(name)).collect()}


def test_positions_come_from_the_log_a_name_or_an_address_in_this_order(spark, lakes):
    rows = stored(spark, lakes["drop"], "events")
    found = {user: (row.position_source, row.position_precision_m, row.latitude is not None) for user, row in rows.items()}
    by_address = ("ip", 20_000.0, False)
    assert found == {
        "fix": ("source", None, True), "address": by_address, "named": ("gazetteer", None, True), "unnamed": by_address,
        "private": (None, None, False), "garbage": (None, None, False), "six": by_address,
    }  # fmt: skip
    assert (rows["named"].latitude, rows["named"].longitude) == (51.5081, -0.1281)
    for user in ("address", "unnamed", "six"):
        row = rows[user]
        assert row.cell is None and row.region.startswith("PT/") and row.time_zone == "Europe/Lisbon", (
            "a region is known all the same"
        )
    raw = stored(spark, lakes["drop"], "raw_events")
    assert (raw["address"].latitude, raw["address"].longitude) == ("38.7223", "-9.1393")


def test_spatial_steps_take_no_address_for_a_fix(spark, lakes):
    here = {user for user, row in stored(spark, lakes["drop"], "user_places").items() if not row.gone}
    assert here == {"fix", "named"}
    assert {user for user, row in stored(spark, lakes["drop"], "user_mobility").items() if not row.gone} == {"fix", "named"}
    lake = Lake(spark, lakes["drop"].lake)
    [position] = lake.read("item_positions", lake.version("item_positions")).collect()
    assert position.events == 6 == lake.read("cell_daily", lake.version("cell_daily")).agg(F.sum("events").alias("n")).first().n


def test_addresses_in_the_lake_are_as_the_settings_say(spark, lakes):
    kept = {name: {user: row.ip for user, row in stored(spark, made, "raw_events").items()} for name, made in lakes.items()}
    assert set(kept["drop"].values()) == {None}
    assert (
        kept["coarse"]["fix"] == "8.8.8.0/24"
        and kept["coarse"]["six"] == "2001:4860:77::/48"
        and kept["coarse"]["garbage"] is None
    )


def test_hashes_tell_nobody_who_lacks_the_key_what_was_left_out(spark, lakes, monkeypatch):
    """Rows that differ in what is left out stay apart, equal rows equal, and the hash is another under another key."""
    lake = Lake(spark, lakes["drop"].lake)
    hashes = {row.row_hash for row in lake.read("raw_events", lake.version("raw_events")).collect()}
    coarse = Lake(spark, lakes["coarse"].lake)
    assert hashes == {row.row_hash for row in coarse.read("raw_events", coarse.version("raw_events")).collect()}
    assert len(hashes) == 3 * len(EVENTS) + 2


def holds(lake, text):
    """The files of a lake in which a text stands, as bytes or as a value."""
    files = [path for path in Path(lake).rglob("*") if path.is_file()]
    tables = {path: str(pq.read_table(path).to_pydict()) for path in files if path.suffix == ".parquet"}
    return [path for path in files if text.encode() in path.read_bytes() or text in tables.get(path, "")]


def test_no_byte_of_the_lake_holds_what_was_left_out(spark, lakes):
    """The quarantined and the unreadable rows as well."""
    quarantine = Lake(spark, lakes["coarse"].lake)
    rows = [row for row in quarantine.read("events_quarantine", quarantine.version("events_quarantine")).collect()]
    assert sorted(row.reasons[0] for row in rows) == ["bad_coordinates"] * 3 + ["broken"] * 2
    assert holds(lakes["coarse"].lake, "8.8.8.0/24") and holds(lakes["drop"].lake, HERE[0]), "the scan finds what is there"
    for text in ("8.8.8.8", "2001:4860:77:88::9", "10.1.2.3"):
        assert not holds(lakes["drop"].lake, text) and not holds(lakes["coarse"].lake, text), text
    for text in (*HERE, HERE[0][:6], HERE[1][:7]):
        assert not holds(lakes["coarse"].lake, text), text
