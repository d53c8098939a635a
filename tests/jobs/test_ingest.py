"""From files to raw_events, items, users and the vault."""

import gzip
import hashlib
import hmac
import json
import random
import shutil
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from pyspark.sql import functions as F

from conf.mapping import Mapping
from conf.tables import TABLES
from jobs import ingest
from jobs.ingest.attributes import declared_items, items_by_day, mentioned_items, users_by_day
from jobs.ingest.landing import Landing
from jobs.ingest.sources import feedings
from jobs.lake import logs, runs
from jobs.lake.context import Refused
from jobs.lake.identities import load_key, pseudonym, unseal
from jobs.lake.schema import spark_schema

FIRST = date(2024, 1, 30)
ROW = {
    "user_id": "anna", "item_id": "i1", "event_type": "view", "event_timestamp": "2024-01-30T10:00:00Z", "latitude": 40.75,
    "longitude": -73.99, "device": "ios", "scene": "feed", "session_id": "s1",
}  # fmt: skip


def row(**different):
    """One JSON line; a field given as None is left out."""
    return json.dumps({name: value for name, value in {**ROW, **different}.items() if value is not None})


def land(root, day, lines, name="events.jsonl"):
    folder = root / str(day)
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(line + "\n" for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def settings_over(make_settings, path, mapping=None, **more):
    """Settings over `path`; `mapping` is one of conf/sources, or a dictionary."""
    made = make_settings("conf/local.yaml", f"sources.events.path={path}", *[f"{key}={value}" for key, value in more.items()])
    if isinstance(mapping, str):
        return make_settings("conf/local.yaml", f"sources.events.path={path}", f"sources.events.mapping={mapping}")
    return made


def mapped(tmp_path, events, **more):
    """A mapping file over CSVs with the columns user, item, at, and what `events` adds; its path."""
    columns = {"user_id": "user", "item_id": "item", "event_time": "at", **events.pop("columns", {})}
    content = {
        "description": "test", "target_events": ["click"],
        "events": {"format": "csv", "options": {"header": "true"}, "columns": columns, **events}, **more,
    }  # fmt: skip
    Mapping.model_validate(content)
    path = tmp_path / f"mapping{abs(hash(json.dumps(content, sort_keys=True)))}.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def run(context):
    """Run the step and record it as done, as the runner does."""
    ingest.run(context)
    made = {"outputs": context.outputs, "rows_out": context.rows_out, "details": json.dumps(context.details)}
    record = runs.row("test", "ingest", context.days.last, first_day=context.days.first, **made)
    logs.append(context.lake.root, "runs", [record])
    return context


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def raw_of(spark, made, days):
    """raw_events of these days without writing anything."""
    landing = Landing(spark)
    source = feedings(landing, made)["events"]
    from jobs.ingest.sources import with_day

    rows = source.read(spark, source.files(landing, days))
    dated = with_day(rows, source, made.mapping, first_day=FIRST, undated_day=FIRST)
    return ingest.raw_events(dated, made.mapping.events, load_key(), made.privacy)


def test_rows_arrive_as_they_were_written_under_pseudonyms(make_settings, make_context, tmp_path):
    lines = [
        row(),
        json.dumps(dict(reversed(json.loads(row()).items()))),  # the same row, its fields in another order
        row(user_id="bert", latitude="forty", text='with "quotes", and\ttabs'),
        row(user_id="  ", item_id="", extra={"nested": [1, 2]}),
        '{"user_id": "anna", "item_id": "i2", "event_ty',
        "",
        '{"user_id": "cleo"} and more',
    ]
    land(tmp_path / "landing", FIRST, lines)
    context = run(make_context(FIRST, settings=settings_over(make_settings, tmp_path / "landing")))
    assert context.rows_in == context.rows_out["raw_events"] == 6
    found = sorted(
        stored(context, "raw_events").collect(), key=lambda one: (one.broken or "", one.user_id or "", one.latitude or "")
    )
    key = load_key()
    anna, bert = pseudonym("anna", key), pseudonym("bert", key)
    whole = [one for one in found if one.broken is None]
    assert sorted((one.user_id, one.item_id) for one in whole if one.user_id) == sorted(
        [(anna, "i1"), (anna, "i1"), (bert, "i1")]
    )
    [nobody] = [one for one in whole if one.user_id is None]
    assert nobody.item_id is None and nobody.event_type == "view", "blank is missing, the rest of the row stays"
    [first, second] = [one for one in whole if one.user_id == anna]
    assert first.row_hash == second.row_hash and len({one.row_hash for one in found}) == 5
    [other] = [one for one in whole if one.user_id == bert]
    assert (other.latitude, other.longitude, other.text) == ("forty", "-73.99", 'with "quotes", and\ttabs')
    broken = [one for one in found if one.broken is not None]
    assert {one.broken for one in broken} == {lines[4], lines[6]}
    assert all(getattr(one, name) is None for one in broken for name in ("user_id", "item_id", "event_time", "latitude"))
    assert {one.day for one in found} == {FIRST}

    vault = {one.user_id: unseal(bytes(one.sealed), key) for one in stored(context, "vault").collect()}
    assert vault == {anna: "anna", bert: "bert"}
    again = run(make_context(FIRST, settings=context.settings))
    assert stored(again, "vault").count() == 2, "who is known is not added again"
    assert stored(again, "raw_events").count() == 6
    raw_ids = [f'"{name}"'.encode() for name in ("anna", "bert")]
    for file in (tmp_path / "lake").rglob("*"):
        if file.is_file() and "raw_events" not in file.parts:
            assert not any(name in file.read_bytes() for name in raw_ids), f"{file} holds a user's own id"


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=strategies.data())
def test_split_merged_and_reordered_files_hold_equal_rows(spark, make_settings, tmp_path_factory, data):
    """Every landing folder holds the same lines, laid out differently."""
    root = tmp_path_factory.mktemp("layouts")
    count = data.draw(strategies.integers(1, 12))
    kinds = strategies.sampled_from([{}, {"user_id": None}, {"text": "a, b"}, {"rating": 4.0}, {"latitude": None}])
    lines = [row(item_id=f"i{n % 5}", **data.draw(kinds)) for n in range(count)] + ['{"user_id": ']
    layouts = 4
    for layout in range(layouts):
        order = data.draw(strategies.permutations(lines))
        cuts = sorted(data.draw(strategies.lists(strategies.integers(0, len(lines)), max_size=3)))
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(lines)], strict=True)):
            name = data.draw(strategies.sampled_from(["events-{}.jsonl", "events-{}.json.gz", "events.d/{}.jsonl"]))
            path = root / str(FIRST + timedelta(days=layout)) / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = "".join(line + "\n" for line in order[start:end]).encode()
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    made = settings_over(make_settings, root)
    rows = raw_of(spark, made, [FIRST + timedelta(days=n) for n in range(layouts)])
    by_day = {}
    for one in rows.collect():
        by_day.setdefault(one.day, []).append(str({name: value for name, value in one.asDict().items() if name != "day"}))
    assert len(by_day) == layouts
    assert all(sorted(found) == sorted(by_day[FIRST]) and len(found) == len(lines) for found in by_day.values())


def test_csv_columns_may_move_and_come_from_file_to_file(spark, make_settings, tmp_path):
    mapping = mapped(tmp_path, {"event_types": {"c": "click"}, "columns": {"event_type": "what"}})
    files = {
        "a.csv": ["user,item,at,what", 'anna,"i, 1",2024-01-30,c', '"say ""hi""",i2,2024-01-30,view', "anna,i3"],
        "b.csv": ["\ufeffwhat, at ,item,user,more", 'c,2024-01-30,"i, 1",anna,', "c,2024-01-30,i4,anna,x"],
        "empty.csv": [],
    }
    for name, lines in files.items():
        land(tmp_path / "landing", FIRST, lines, name)
    (tmp_path / "landing" / str(FIRST) / "_SUCCESS").write_text("")
    (tmp_path / "landing" / str(FIRST) / ".a.csv.partial").write_text("user,item,at,what\nx,y,z,c\n")
    found = raw_of(spark, settings_over(make_settings, tmp_path / "landing", mapping), [FIRST]).collect()
    key = load_key()
    assert sorted((one.item_id or "", one.event_type or "", one.broken or "") for one in found) == [
        ("", "", "anna,i3"), ("i, 1", "click", ""), ("i, 1", "click", ""), ("i2", "view", ""), ("i4", "click", ""),
    ]  # fmt: skip
    hashes = [one.row_hash for one in found if one.item_id == "i, 1"]
    assert hashes[0] == hashes[1], "the same row under another header, a further column empty"
    assert pseudonym('say "hi"', key) in {one.user_id for one in found}


def test_wide_rows_keep_their_flags_and_other_formats_are_read_as_text(spark, make_settings, tmp_path):
    mapping = mapped(tmp_path, {"format": "parquet", "options": {}, "wide": {"click": "clicked"}, "seen": "impression"})
    folder = tmp_path / "landing" / str(FIRST)
    frame = spark.createDataFrame(
        [(7, "i1", True, 1.5), (8, "i2", None, None)], "user int, item string, clicked boolean, more double"
    )
    frame.selectExpr("*", "timestamp'2024-01-30 10:00:00.5' at").coalesce(1).write.parquet(str(folder / "part.parquet"))
    found = {
        one.item_id: one
        for one in raw_of(spark, settings_over(make_settings, tmp_path / "landing", mapping), [FIRST]).collect()
    }
    assert found["i1"].user_id == pseudonym("7", load_key())
    assert found["i1"].event_time == "2024-01-30 10:00:00.5" and found["i1"].event_type is None
    assert found["i1"].flags == {"click": "true"} and found["i2"].flags == {"click": None}


def test_a_log_without_folders_arrives_on_its_own_dates(spark, make_settings, make_context, tmp_path):
    mapping = mapped(tmp_path, {"event_type": "click"})
    log = tmp_path / "log.csv"
    log.write_text(
        "user,item,at\nanna,i1,2024-01-31T23:30:00Z\nanna,i2,2024-01-31T23:30:00-01:00\nbert,i3,never\n"
        "bert,i4,1970-01-01T00:00:00Z\nbert,i5,2024-02-03T01:00:00Z\n"
    )
    made = settings_over(make_settings, log, mapping)
    first = ingest.first_day(spark, made, date(2024, 2, 1))
    assert first == date(2024, 1, 31)
    context = run(make_context(first, date(2024, 2, 1), bootstrap=True, settings=made))
    days = {one.item_id: one.day for one in stored(context, "raw_events").collect()}
    assert days == {"i1": first, "i2": date(2024, 2, 1), "i3": first, "i4": first}, "a date of 1970 is no arrival day"
    with pytest.raises(ValueError, match=r"begins with 2024-01-31, after --day 2024-01-30"):
        ingest.first_day(spark, made, date(2024, 1, 30))

    night = run(make_context(date(2024, 2, 2), first_day=first, settings=made))
    assert night.rows_in == 0 and night.rows_out["raw_events"] == 0
    with log.open("a") as file:
        file.write("bert,i6,never\n")
    with pytest.raises(Refused, match=r"2024-01-31 .*3 events then, 4 now.*backfill --start 2024-01-31 --end 2024-02-02"):
        ingest.run(make_context(date(2024, 2, 3), first_day=first, settings=made))


def test_a_changed_folder_of_a_finished_day_stops_the_night(make_settings, make_context, tmp_path):
    landing = tmp_path / "landing"
    land(landing, FIRST, [row(), row(item_id="i2")])
    made = settings_over(make_settings, landing)
    run(make_context(FIRST, settings=made))
    second, third = FIRST + timedelta(days=1), FIRST + timedelta(days=2)
    land(landing, FIRST, [row(item_id="i2"), row()])  # written again, the same rows
    for day in (second, third, third + timedelta(days=1)):
        (landing / str(day)).mkdir()
    run(make_context(second, first_day=FIRST, settings=made))
    before = {name: len(list((tmp_path / "lake" / name / "_delta_log").glob("*.json"))) for name in ("raw_events", "items")}

    land(landing, second, [row(event_timestamp="2024-01-31T00:00:00Z")])  # a folder that came after its night
    with pytest.raises(Refused, match=rf"{second} .*0 events then, 1 now.*backfill --start {second} --end {second}"):
        ingest.run(make_context(third, first_day=FIRST, settings=made))
    assert before == {name: len(list((tmp_path / "lake" / name / "_delta_log").glob("*.json"))) for name in before}

    run(make_context(second, first_day=FIRST, settings=made))  # the backfill
    run(make_context(third, first_day=FIRST, settings=made))
    land(landing, FIRST, ["item_id,title,description,category,brand,price,latitude,longitude", "i1,T,D,C,B,1,,"], "items.csv")
    with pytest.raises(Refused, match=rf"{FIRST} .*backfill --start {FIRST} --end {third}"):
        ingest.run(make_context(third + timedelta(days=1), first_day=FIRST, settings=made))
    shutil.rmtree(landing / str(FIRST))  # archived: its rows are in the lake
    ingest.run(make_context(third + timedelta(days=1), first_day=FIRST, settings=made))


ITEM = {name: None for name in ("title", "description", "category", "brand", "price", "latitude", "longitude", "tags")}


def items_frame(spark, rows):
    """Feed rows: (item, day offset, fields)."""
    names = list(ITEM)
    values = [
        (item, FIRST + timedelta(days=day), None, *({**ITEM, **more}[name] for name in names)) for item, day, more in rows
    ]
    return spark.createDataFrame(
        values, "item_id string, day date, broken string, " + ", ".join(f"{name} string" for name in names)
    )


def log_frame(spark, rows):
    """Events that name a category: (item, day offset, time, category)."""
    values = [(item, FIRST + timedelta(days=day), at, category) for item, day, at, category in rows]
    return spark.createDataFrame(values, "item_id string, day date, event_time string, category string")


def test_items_follow_their_feed_and_their_first_category_sticks(spark):
    feed = items_frame(
        spark,
        [
            ("fed", 0, {"title": "a", "category": "X", "price": "1.5", "tags": "u| v |u", "latitude": "95", "longitude": "1"}),
            ("fed", 1, {"title": "a", "category": "X", "price": "1.5", "tags": '["u", "v"]'}),  # the same, written otherwise
            ("fed", 2, {"title": "b", "price": "cheap"}),
            ("late", 3, {"title": "c", "category": "Z", "latitude": "1", "longitude": "2"}),
            ("late", 3, {"title": "b", "category": "Y"}),
        ],
    )
    log = log_frame(
        spark,
        [
            ("fed", 0, "1", "other"), ("fed", 3, "1", "other"),
            ("late", 0, "2", "q"), ("late", 0, "1", "p"), ("late", 1, "1", None), ("late", 2, "1", "r"),
            ("bare", 1, "1", None), ("bare", 3, "1", None), ("bare", 4, "5", "s"),
        ],
    )  # fmt: skip
    none = spark.createDataFrame([], spark_schema(TABLES["items"])).drop("gone", "day")
    found = items_by_day(declared_items(feed), mentioned_items(log), none).collect()
    states = {(one.item_id, (one.day - FIRST).days): one for one in found}
    shown = {key: (one.title, one.category, one.price, one.tags) for key, one in states.items()}
    assert shown == {
        ("fed", 0): ("a", "X", 1.5, ["u", "v"]),
        ("fed", 2): ("b", "X", None, None),
        ("late", 0): (None, "p", None, None),
        ("late", 3): ("c", "Z", None, None),
        ("bare", 1): (None, None, None, None),
        ("bare", 4): (None, "s", None, None),
    }
    assert states["fed", 0].latitude is None and states["late", 3].latitude == 1.0
    assert all(one.changed_on == one.day and not one.gone for one in found)


def test_users_are_written_on_the_days_they_change(spark):
    pairs = "array<struct<key:string,value:string>>"
    young, old = [("age", "young"), ("lang", "en")], [("age", "old")]
    rows = [("u", 0, young), ("u", 1, young), ("u", 2, old), ("w", 1, []), (None, 1, old)]
    values = [(user, FIRST + timedelta(days=day), None, known) for user, day, known in rows]
    frame = spark.createDataFrame(values, f"user_id string, day date, broken string, attributes {pairs}")
    before = spark.createDataFrame([("w", {}, FIRST)], "user_id string, attributes map<string,string>, changed_on date")
    found = {(one.user_id, (one.day - FIRST).days): one.attributes for one in users_by_day(frame, before).collect()}
    assert found == {("u", 0): dict(young), ("u", 2): dict(old)}


def test_an_items_file_without_days_is_known_before_the_first_day(make_settings, make_context, tmp_path):
    mapping = mapped(
        tmp_path, {"event_type": "click", "files": "log*"},
        items={
            "options": {"header": "true"}, "files": "films*",
            "columns": {"item_id": "id", "title": "title", "category": {"sql": "split(genres, '[|]')[0]"}, "tags": "genres"},
        },
    )  # fmt: skip
    (tmp_path / "in").mkdir()
    log, films = tmp_path / "in" / "log.csv", tmp_path / "in" / "films.csv"
    log.write_text("user,item,at\nanna,1,2024-01-31\nanna,2,2024-02-01\n")
    films.write_text('id,title,genres\n1,"Crime, The",Drama|Crime\n3,Unseen,\n')
    made = settings_over(make_settings, log, mapping)
    first = date(2024, 1, 31)
    context = run(make_context(first, settings=made))
    found = {one.item_id: (one.title, one.category, one.tags, one.day) for one in stored(context, "items").collect()}
    assert found == {"1": ("Crime, The", "Drama", ["Drama", "Crime"], first), "3": ("Unseen", None, None, first)}
    films.write_text('id,title,genres\n1,"Crime, The",Drama|Crime\n3,Seen,War\n')
    with log.open("a") as file:  # the log grows, so its finished days are read and compared again
        file.write("anna,3,2024-02-01\n")
    night = run(make_context(date(2024, 2, 1), first_day=first, settings=made))
    changed = {one.item_id: one.title for one in stored(night, "items").where(F.col("day") == "2024-02-01").collect()}
    # The first of a month is a keyframe: item 1 is copied, item 3 changed, item 2 is new.
    assert changed == {"1": "Crime, The", "2": None, "3": "Seen"}
    assert stored(night, "items").where("day = '2024-02-01' AND changed_on = day").count() == 2


def test_real_logs_are_read(spark, make_settings, shared_data):
    """The shipped mappings fit the logs they are for: a sample of each, read in place."""
    for name, path, first in (
        ("foursquare", "foursquare_nyc/checkins.csv.gz", {"event_type": "check_in", "event_time": "2012-04-03T18:00:00Z"}),
        ("movielens", "movielens_1m/sequences.csv.gz", {"event_type": "rating", "item_id": "1198", "event_time": "0"}),
        ("amazon", "amazon_reviews/reviews.parquet", {"event_type": "review", "value": "4.0"}),
    ):
        made = make_settings(f"conf/{name}.yaml", f"sources.events.path={shared_data / path}")
        rows = raw_of(spark, made, []).limit(20).collect()
        assert len(rows) == 20 and all(one.broken is None and one.user_id and one.item_id for one in rows), name
        assert {key: getattr(rows[0], key) for key in first} == first, name
    landing = Landing(spark)
    films = feedings(
        landing, make_settings("conf/movielens.yaml", f"sources.events.path={shared_data}/movielens_1m/sequences.csv.gz")
    )["items"]
    known = {one.item_id: one for one in films.read(spark, films.files(landing, [])).limit(50).collect()}
    assert (known["1"].title, known["1"].category, known["1"].tags) == (
        "Toy Story (1995)",
        "Animation",
        "Animation|Children's|Comedy",
    )


def test_hashes_depend_on_every_field_and_on_nothing_else(spark, make_settings, tmp_path):
    """Against hashlib, field by field; the user id enters as the pseudonym, and all is keyed."""
    fields = {**ROW, "unmapped": "x"}
    lines = [json.dumps(fields), *[json.dumps({**fields, name: "changed"}) for name in fields]]
    random.Random(1).shuffle(lines)
    land(tmp_path / "landing", FIRST, lines)
    found = [one.row_hash for one in raw_of(spark, settings_over(make_settings, tmp_path / "landing"), [FIRST]).collect()]
    assert len(set(found)) == len(fields) + 1
    said = {name: str(value) for name, value in fields.items() if name != "user_id"}
    text = "\x1e".join([*[f"{name}\x1f{said[name]}" for name in sorted(said)], f"user_id\x1f{pseudonym('anna', load_key())}"])
    secret = hmac.new(load_key(), b"wherewhen row", hashlib.sha256).hexdigest()
    assert hashlib.sha256((secret + text).encode()).hexdigest()[:32] in found


def test_a_source_whose_mapping_does_not_say_how_to_read_it_is_refused(spark, make_settings, tmp_path):
    (tmp_path / "2024-01-01").mkdir()
    (tmp_path / "2024-01-01" / "events.jsonl").write_text("")
    given = f"sources.consents={{mapping: conf/sources/foursquare.yaml, path: {tmp_path}}}"
    settings = make_settings("conf/local.yaml", f"sources.events.path={tmp_path}", given)
    with pytest.raises(ValueError, match=r"sources.consents: .*foursquare.yaml maps no consents; add a section"):
        feedings(Landing(spark), settings)
