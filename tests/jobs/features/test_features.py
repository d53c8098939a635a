"""Features as of any moment: each equals what a reader of that day would have found."""

import csv
import random
import shutil
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from conf.contracts import SLOTS
from conf.settings import load_settings
from conf.tables import TABLES
from jobs import interaction, label, time_series
from jobs.features import FEATURE_TABLES, features_as_of, features_file
from jobs.features.stored import keep_allowed, session
from jobs.lake.context import Context
from jobs.lake.identities import load_key, pseudonym, pseudonym_sql
from jobs.lake.runs import Night
from jobs.lake.schema import arrow_schema, spark_schema
from jobs.lake.store import Days, Lake
from jobs.spatial.cells import cell_daily

# Over a month's first, on which states are copied.
FIRST, LAST = date(2024, 1, 15), date(2024, 2, 20)
PLACES = ("here", "there")
EVENT = {
    "event_type": "check_in", "row_hash": "r", "category": "coffee", "region": "here", "cell": "8a", "slot": SLOTS[1],
    "local_hour": 8, "users": 1, "consents": None,
}  # fmt: skip


def user(number):
    return pseudonym(f"u{number}", load_key())


def rows_of(spark, name, rows):
    schema = spark_schema(TABLES[name])
    return spark.createDataFrame([tuple(row.get(field.name) for field in schema) for row in rows], schema)


def random_events(rng, days, users=5):
    for day in days:
        for number in range(users):
            for _ in range(rng.choice([0, 0, 1, 3])):
                dated = day - timedelta(days=rng.choice([0, 0, 2]))
                yield {
                    **EVENT,
                    "event_id": f"e{rng.random()}",
                    "user_id": user(number),
                    "item_id": rng.choice("ab"),
                    "category": rng.choice(["coffee", "gym", None]),
                    "region": rng.choice(PLACES),
                    "slot": rng.choice(SLOTS[:3]),
                    "event_date": dated,
                    "event_timestamp": datetime(dated.year, dated.month, dated.day, rng.randrange(24)),
                    "day": day,
                }


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    """The settings of a lake with some of its tables."""
    settings = load_settings("conf/foursquare.yaml", [f"lake={tmp_path_factory.mktemp('features')}/lake"])
    rng = random.Random(7)
    events = list(random_events(rng, Days(first=FIRST, last=LAST)))
    # Later on one user is silent for long.
    events = [one for one in events if one["user_id"] != user(4) or one["day"] < date(2024, 1, 25)]
    lake, days = Lake(spark, settings.lake), Days(first=FIRST, last=LAST)
    written = Context(settings=settings, lake=lake, days=days, first_day=FIRST, run_id="test", bootstrap=True, pins={})
    written.write("events", rows_of(spark, "events", events))
    written.write("cell_daily", cell_daily(written.arrivals("events")))
    for step in (label, time_series, interaction):
        step.run(written)
    return settings


@pytest.fixture
def context(made, make_context):
    return make_context(LAST, first_day=FIRST, settings=made)


def night(context):
    """As if it had left the lake as the context sees it."""
    return Night(
        run_id="test", day=LAST, first_day=FIRST, versions=context.pins, settings_hash="", code_version="",
    )  # fmt: skip


def joined(context, entities, tables=None):
    return features_as_of(context.settings, night(context), entities, tables)


ASKED = pa.schema(
    [
        ("number", pa.int32()), ("user_id", pa.string()), ("event_timestamp", pa.timestamp("us", "UTC")),
        ("category", pa.string()), ("region", pa.string()), ("slot", pa.string()),
    ]
)  # fmt: skip


def table_of(rows, schema=ASKED):
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def asked(seed, rows=80):
    """Moments before, within and after the log, around the month's first too, of users known and not."""
    rng = random.Random(seed)
    days = (-3, 0, 1, 12, 17, 18, 30, (LAST - FIRST).days + 1, (LAST - FIRST).days + 8)
    made = [
        (
            number,
            rng.choice(["u0", "u1", "u2", "u4", "stranger", None]),
            datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
            + timedelta(days=rng.choice(days), seconds=rng.randrange(86_400)),
            rng.choice(["coffee", "gym", "opera", None]),
            rng.choice(PLACES),
            rng.choice(SLOTS[:3]),
        )
        for number in range(rows)
    ]
    return table_of(made)


def as_read_then(make_context, settings, name, day):
    """A state as a reader at the end of `day` finds it, aged; a snapshot's newest partition."""
    contract = TABLES[name]
    context = make_context(day, first_day=FIRST, settings=settings)
    if contract.kind == "snapshot":
        return context.snapshot(name).collect()
    aged = [f"{one.aged or one.name} AS {one.name}" for one in contract.columns if one.name not in ("gone", "day")]
    state = context.state(name).withColumn("age_days", F.date_diff(F.lit(day), "changed_on"))
    return state.selectExpr(*aged).collect()


def test_each_row_gets_what_was_known_before_its_day(context, make_context):
    entities = asked(1)
    tables = ("user_interests", "user_slot_affinity", "time_series_features", "region_slot_lift")
    found = joined(context, entities, tables)
    assert found.select(ASKED.names).equals(entities)
    found = [SimpleNamespace(**row) for row in found.to_pylist()]
    keys = {
        "user_interests": [("user_interests", lambda row: (hidden(row), row.category))],
        "user_slot_affinity": [("user_slot_affinity", lambda row: (hidden(row), row.slot, row.category))],
        "region_slot_lift": [("region_slot_lift", lambda row: (row.region, row.slot, row.category))],
        "time_series_features": [
            ("time_series_features_user", lambda row: (f"user:{hidden(row)}", "check_in")),
            ("time_series_features_category", lambda row: (f"category:{row.category}", "check_in")),
            ("time_series_features_region", lambda row: (f"region:{row.region}", "check_in")),
            (
                "time_series_features_region_category",
                lambda row: (f"region_category:{row.region} | {row.category}", "check_in"),
            ),
            ("time_series_features_region_slot", lambda row: (f"region_slot:{row.region} | {row.slot}", "check_in")),
        ],
    }
    hits = dict.fromkeys([prefix for roles in keys.values() for prefix, _ in roles], 0)
    for name in tables:
        key = [one for one in TABLES[name].key if one != "day"]
        then = {}
        for row in found:
            before = min(row.event_timestamp.date() - timedelta(days=1), LAST)
            if before not in then:
                stored = as_read_then(make_context, context.settings, name, before) if before >= FIRST else []
                then[before] = {tuple(one[part] for part in key): one.asDict() for one in stored}
            for prefix, of_row in keys[name]:
                wanted = then[before].get(of_row(row), {})
                hits[prefix] += bool(wanted)
                late = (row.event_timestamp.date() - timedelta(days=1) - before).days
                for column, got in vars(row).items():
                    if column.rpartition("__")[0] != prefix:
                        continue
                    value = wanted.get(column.rpartition("__")[2])
                    moves = column.rpartition("__")[2] != "day" and late and name != "region_slot_lift"
                    if not moves or value is None:
                        assert got == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value), column
    assert all(count > 5 for count in hits.values()), hits


def hidden(row):
    return None if row.user_id is None else pseudonym(row.user_id, load_key())


def test_values_go_on_ageing_after_the_newest_day(context):
    moments = [datetime(2024, 2, 21) + timedelta(days=later) for later in (0, 10, 100)]
    entities = pa.table({"user_id": ["u0"] * 3, "category": ["coffee"] * 3, "event_timestamp": moments})
    tables = ["user_interests", "time_series_features"]
    found = [SimpleNamespace(**row) for row in joined(context, entities, tables).to_pylist()]
    half_lives = [1, 10 / 7, 100 / 7]
    weights = [row.user_interests__short_weight for row in found]
    assert weights[1] == pytest.approx(weights[0] * 0.5 ** half_lives[1]) and weights[2] < weights[1]
    assert [row.time_series_features_user__days_since - found[0].time_series_features_user__days_since for row in found] == [
        0, 10, 100,
    ]  # fmt: skip
    assert found[0].time_series_features_user__events_90d > 0 == found[2].time_series_features_user__events_90d


def test_a_later_state_is_never_seen(made, make_context, tmp_path):
    """What happens on the day of the moment, or after it, changes nothing."""
    shutil.copytree(made.lake, tmp_path / "lake")
    context = make_context(LAST, first_day=FIRST, settings=made.model_copy(update={"lake": f"{tmp_path}/lake"}))
    entities = asked(2)
    entities = entities.filter(pa.compute.less(entities["event_timestamp"], datetime(2024, 2, 5, tzinfo=UTC)))
    before = joined(context, entities)
    for name in ("user_interests", "time_series_features", "user_slot_affinity", "region_slot_lift"):
        rows = context.lake.read(name, context.pins[name])
        value = {"user_interests": "long_weight", "region_slot_lift": "lift", "user_slot_affinity": "weight"}.get(name, "level")
        changed = rows.withColumn(value, F.when(F.col("day") >= "2024-02-05", F.lit(99.0)).otherwise(F.col(value)))
        context.lake.replace(name, changed, "true")
    again = make_context(LAST, first_day=FIRST, settings=context.settings)
    assert joined(again, entities).equals(before)


@pytest.mark.parametrize("name", ["anna", "", "o'hara", "\u6771\u4eac \U0001f35c", "x" * 300])
def test_users_go_by_the_pseudonyms_of_the_lake(name):
    key = load_key()
    expression, values = pseudonym_sql("$name", key)
    with session("1g") as database:
        assert database.execute(f"SELECT {expression}", {**values, "name": name}).fetchone() == (pseudonym(name, key),)


@pytest.mark.parametrize(
    ("columns", "tables", "said"),
    [
        (("user_id",), None, "no column event_timestamp"),
        (("user_id", "event_timestamp"), ["events"], "events is no feature table; these are items"),
        (("user_id", "event_timestamp"), ["user_interests"], "user_interests needs the column category"),
        (("name", "event_timestamp"), None, "name no owner of any table. They need: items: item_id"),
        (("user_id", "event_timestamp"), None, "no event_timestamp that can be read"),
    ],
)
def test_mistakes_are_named(context, columns, tables, said):
    entities = pa.table({name: pa.array([None], pa.string()) for name in columns})
    with pytest.raises(ValueError, match=said):
        joined(context, entities, tables)


def test_files_keep_their_order_and_their_columns(context, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.features.finished_night", lambda settings: night(context))
    rows = [SimpleNamespace(**row) for row in asked(3, rows=400).to_pylist()]
    path = tmp_path / "asked.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "event_timestamp", "category", 'odd, "name"'])
        writer.writerows(
            [row.user_id, row.event_timestamp.replace(tzinfo=None), row.category, f'a "{row.number}",\\'] for row in rows
        )
    with pytest.raises(ValueError, match=r"ends in .csv or .parquet"):
        features_file(context.settings, path, tmp_path / "out.json")
    for kind in ("csv", "parquet"):
        output = tmp_path / f"out.{kind}"
        joined_tables = features_file(context.settings, path, output)
        assert {"user_interests", "time_series_features_category", "time_series_features_user"} < set(joined_tables)
        assert sorted(one.name for one in tmp_path.iterdir() if "out" in one.name and kind in one.name) == [output.name]
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    with (tmp_path / "out.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(table) == len(written) == len(rows)
    for row, one, text in zip(rows, table, written, strict=True):
        assert one["user_id"] == row.user_id and one['odd, "name"'] == f'a "{row.number}",\\' == text['odd, "name"']
        assert text["user_id"] == (row.user_id or "")
        level = one["time_series_features_user__level"]
        assert text["time_series_features_user__level"] == ("" if level is None else str(level))
    assert set(FEATURE_TABLES) <= set(TABLES)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("asked.csv", b"", "is empty: its first line must name the columns"),
        (
            "asked.csv",
            b"user_id,event_timestamp\nanna,2024-02-01,more\n",
            "line 2: 3 values, where the header names 2",
        ),
        ("asked.csv", b"user_id,event_timestamp,region\nanna,2024-02-01\n", "line 2: 2 values, where the header names 3"),
        ("asked.csv", b",user_id,event_timestamp\n0,anna,2024-02-01\n", "column 1 of the entities has no name"),
        (
            "asked.csv",
            b'user_id,event_timestamp\nanna,"2024-02-01\n01:00"\nbert,"2024-02-01\n' + b"carl,2024-02-01\n" * 200_000,
            "the row that begins in line 4 cannot be read: ",
        ),
        ("asked.csv", b"user_id,event_timestamp\n\xff\xfe,2024-02-01\n", "cannot be read"),
        ("asked.csv", b"user_id,event_timestamp,User_ID\na,2024-02-01,a\n", "two columns called user_id"),
        ("asked.csv", b"user_id,event_timestamp,RowId\na,2024-02-01,a\n", "column RowId, a name that is taken"),
        ("asked.csv", b"user_id,event_timestamp,user_mobility__PATTERN\na,2024-02-01,a\n", "user_mobility__pattern already"),
        ("asked.csv", b"user_id,event_timestamp\na,12024-06-16 10:00:00\n", "no event_timestamp that can be read"),
        ("asked.csv.gz", b"no gzip", "cannot be read"),
        ("asked.csv", b"user_id,event_timestamp\nanna,noon\n", "no event_timestamp that can be read"),
        ("asked.parquet", b"PAR1 and no more", "cannot be read"),
        ("asked.txt", b"user_id", "ends in .csv, .csv.gz or .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_written(context, tmp_path, monkeypatch, name, content, said):
    monkeypatch.setattr("jobs.features.finished_night", lambda settings: night(context))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        features_file(context.settings, tmp_path / name, tmp_path / "out.csv")
    assert [one.name for one in tmp_path.iterdir() if "out" in one.name] == []


def test_nothing_of_a_file_is_guessed(context, tmp_path, monkeypatch):
    """Signs that elsewhere begin comments, patterns in names of files, and folders that look like partitions."""
    monkeypatch.setattr("jobs.features.finished_night", lambda settings: night(context))
    folder = tmp_path / "region=there" / "day=2024-01-01"
    folder.mkdir(parents=True)
    lines = [
        "user_id,event_timestamp,region",
        "#u1,2024-02-01,here",
        "u2,2024-02-01T10:00+02:00,",
        "",
        '"u\n3",2024-02-01,"a ""b"""',
    ]
    (folder / "as[k]ed*.csv").write_text("\n".join(lines) + "\n")
    (folder / "asked1.csv").write_text("\n".join(lines[:2]) + "\n")
    features_file(context.settings, folder / "as[k]ed*.csv", tmp_path / "out.csv", ["user_mobility"])
    with (tmp_path / "out.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [(row["user_id"], row["region"]) for row in written] == [("#u1", "here"), ("u2", ""), ("u\n3", 'a "b"')]
    assert written[1]["event_timestamp"] == "2024-02-01 08:00:00" and "day" not in written[0]


def test_an_open_quote_at_the_end_is_no_value(context, tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.features.finished_night", lambda settings: night(context))
    (tmp_path / "asked.csv").write_text(
        'user_id,event_timestamp,note\nanna,2024-02-01,\nbert,2024-02-01,"x\ncarl,2024-02-01,\n'
    )
    with pytest.raises(ValueError, match="the row that begins in line 3 cannot be read: unexpected end of data"):
        features_file(context.settings, tmp_path / "asked.csv", tmp_path / "out.csv")


def test_where_the_log_asks_for_consent_only_who_allows_it_has_features(made, make_context, tmp_path):
    """Through the command's function, from tables as they are stored."""
    shutil.copytree(made.lake, tmp_path / "lake")
    settings = load_settings(
        "conf/foursquare.yaml",
        [f"lake={tmp_path}/lake", "sources.consents={mapping: conf/sources/simulated.yaml, path: consents}"],
    )
    context = make_context(LAST, first_day=FIRST, settings=settings)
    said = {"purposes": ["labels"], "stated_at": datetime(2024, 2, 1), "gone": False, "changed_on": FIRST, "day": LAST}
    rows = [
        {**said, "user_id": user(0), "since": {"labels": FIRST}},
        {**said, "user_id": user(1), "since": {"labels": LAST}},
        {**said, "user_id": user(2), "since": {"location": FIRST}},
    ]
    context.lake.replace("consents", rows_of(context.spark, "consents", rows), f"day = '{LAST}'")
    asking = make_context(LAST, first_day=FIRST, settings=settings)
    at = datetime(2024, 2, 10)
    entities = pa.table({"user_id": ["u0", "u1", "u2", "u3"], "category": ["coffee"] * 4, "event_timestamp": [at] * 4})
    tables = ["user_interests", "time_series_features"]
    found = joined(asking, entities, tables).to_pylist()
    of_all = joined(make_context(LAST, first_day=FIRST, settings=made), entities, tables).to_pylist()
    assert all(row["user_interests__long_weight"] is not None for row in of_all)
    assert [row["user_interests__long_weight"] is not None for row in found] == [True, False, False, False]
    assert found[0] == of_all[0]
    asked_for = [row["time_series_features_user__level"] for row in found]
    assert asked_for == [row["time_series_features_user__level"] for row in of_all], "series are for no purpose of their own"


@pytest.mark.parametrize(("notices", "wanted"), [((), {"stays", "anew"}), (("v2",), {"stays"})])
def test_of_people_who_do_not_allow_it_now_nothing_is_handed_out(notices, wanted):
    """Whatever was stored before they withdrew; who allowed it anew begins anew."""
    day = date(2024, 3, 1)
    contract = TABLES["user_mobility"]
    rows = [("stays", 0), ("stays", 4), ("withdrew", 0), ("anew", 0), ("anew", 6), ("silent", 0)]
    said = [
        ("stays", 0, {"location": day}, "v2"), ("withdrew", 0, {"location": day}, "v2"), ("withdrew", 5, {"labels": day}, "v2"),
        ("anew", 0, {"location": day}, "v1"), ("anew", 3, {}, "v1"), ("anew", 5, {"location": day + timedelta(days=5)}, "v1"),
    ]  # fmt: skip
    with session("1g") as database:
        database.execute("CREATE TABLE user_mobility (user_id VARCHAR, changed_on DATE)")
        database.executemany("INSERT INTO user_mobility VALUES (?, ?)", [(who, day + timedelta(days=n)) for who, n in rows])
        consents = [
            {
                "user_id": who,
                "day": day + timedelta(days=n),
                "since": list(since.items()),
                "notice_version": notice,
                "gone": False,
            }
            for who, n, since, notice in said
        ]
        consents.append({"user_id": "silent", "day": day, "since": [], "notice_version": "v2", "gone": True})
        database.register("stored", pa.Table.from_pylist(consents, arrow_schema(TABLES["consents"])))
        database.execute("CREATE TABLE consents AS SELECT * FROM stored")
        keep_allowed(database, contract, notices)
        left = database.execute("SELECT user_id, changed_on FROM user_mobility").fetchall()
    assert {who for who, _ in left} == wanted and ("anew", day) not in left
    assert len([who for who, _ in left if who == "stays"]) == 2
