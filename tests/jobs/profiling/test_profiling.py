"""From a file to what its columns hold and to a mapping that works; whatever the file."""

import gzip
import json
import os
import random
from datetime import datetime

import pandas as pd
import pytest
import yaml

from conf.mapping import Mapping, load_mapping
from conf.settings import CONF_DIR
from jobs.cli import app, guarded, register
from jobs.profiling import profile
from jobs.profiling.moments import moments
from jobs.profiling.sample import MAX_COLUMNS, sample
from jobs.profiling.showing import heading, masked, table

ROWS = [f"u{n % 7},i{n % 5},2024-01-{1 + n % 28:02}T10:00:00Z" for n in range(60)]
PLAIN = "\n".join(["user,item,at", *ROWS]) + "\n"


def proposed(path, rows=100_000):
    """The proposal for a file; what it would write loads and is the same."""
    found = profile(path, rows)
    written = path.with_name("mapping.yaml.proposed") if os.access(path.parent, os.W_OK) else None
    content = yaml.safe_load(found.proposal.as_yaml())
    assert content == found.proposal.content
    if not found.proposal.missing and written is not None:
        written.write_text(found.proposal.as_yaml())
        assert load_mapping(written) == found.proposal.mapping()
        written.unlink()
    return found.proposal


def file(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


RANDOM = random.Random(1)
BEHAVIOURS = ("pv", "pv", "buy", "fav")
LOGS = {
    "semicolons, a BOM, German times": (
        "log.csv",
        "\ufeffuser;item;at\n" + "".join(f"u{n % 7};i{n % 5};0{1 + n % 9}.02.2024 10:{10 + n % 50}\n" for n in range(100)),
        {"options": {"sep": ";", "header": "true"}, "time_format": "dd.MM.yyyy HH:mm", "time_zone": "UTC"},
        {"user_id": "user", "item_id": "item", "event_time": "at"},
    ),
    "tabs and no header": (
        "u.data",
        "".join(f"{n * 7 % 90}\t{n * 13 % 160}\t{1 + n % 5}\t{880000000 + n * 977}\n" for n in range(900)),
        {"options": {"sep": "\t", "header": "false"}, "time_format": "epoch_seconds", "event_type": "rating"},
        {"user_id": "_c0", "item_id": "_c1", "event_time": "_c3", "value": "_c2"},
    ),
    "two colons": (
        "ratings.dat",
        "".join(f"{n * 7 % 90}::{n * 13 % 160}::{1 + n % 5}::{880000000 + n * 977}\n" for n in range(900)),
        {"options": {"sep": "::", "header": "false"}, "time_format": "epoch_seconds", "event_type": "rating"},
        {"user_id": "_c0", "item_id": "_c1", "event_time": "_c3", "value": "_c2"},
    ),
    "types of events under other names": (
        "behavior.csv",
        "user_id,product_id,cat,behavior,ts\n"
        + "".join(f"{n % 31},{n * 7 % 90},{n % 8},{BEHAVIOURS[n % 4]},{1511544070000 + n}\n" for n in range(400)),
        {"event_types": {"pv": "view", "buy": "purchase", "fav": "like"}, "time_format": "epoch_millis"},
        {"user_id": "user_id", "item_id": "product_id", "category": "cat", "event_type": "behavior", "event_time": "ts"},
    ),
    "wide flags": (
        "short.csv",
        "user_id,video_id,time_ms,is_click,is_like,tab\n"
        + "".join(f"{n % 31},{n * 7 % 90},{1650000000000 + n},{n % 2},{int(n % 9 == 0)},{n % 3}\n" for n in range(400)),
        {"wide": {"click": "is_click", "like": "is_like"}, "seen": "impression", "time_format": "epoch_millis"},
        {"user_id": "user_id", "item_id": "video_id", "event_time": "time_ms"},
    ),
    "check-ins with a weekday and other ids": (
        "tsmc.csv",
        "user_name,tweet_user_id,venueId,venueCategory,lat,lng,utcTime\n"
        + "".join(
            f"Jo,{n % 50},4b{RANDOM.getrandbits(64):x},{('Bar', 'Zoo')[n % 2]},40.7{100 + n % 800},-73.9{999 - n % 800},"
            f"Tue Apr 0{1 + n % 9} 18:00:0{n % 10} +0000 2012\n"
            for n in range(200)
        ),
        {"event_type": "check_in", "time_format": "EEE MMM dd HH:mm:ss Z yyyy"},
        {
            "user_id": "tweet_user_id", "item_id": "venueId", "event_time": "utcTime", "category": "venueCategory",
            "latitude": "lat", "longitude": "lng",
        },
    ),
    "a JSON list": (
        "orders.json",
        json.dumps(
            [{"userId": f"u{n % 5}", "productId": n % 9, "createdAt": f"2024-01-{1 + n % 28:02}", "amount": n / 2}
                for n in range(60)]
        ),
        {"format": "json", "options": {"multiLine": "true"}, "event_type": "purchase", "time_format": "iso"},
        {"user_id": "userId", "item_id": "productId", "event_time": "createdAt", "value": "amount"},
    ),
    "text over several lines": (
        "words.csv",
        "user_id,product_id,date,review\n"
        + "".join(f'u{n % 7},p{n % 5},01/{10 + n % 20}/2024,"nice, really\nvery ""nice"" {n}"\n' for n in range(100)),
        {"options": {"multiLine": "true", "header": "true"}, "time_format": "MM/dd/yyyy", "event_type": "review"},
        {"user_id": "user_id", "item_id": "product_id", "event_time": "date", "text": "review"},
    ),
    "Latin-1": (
        "latin.csv",
        PLAIN.replace("item,at", "item,at,category").replace("00Z\n", "00Z,Café\n").encode("latin-1"),
        {"options": {"header": "true", "encoding": "ISO-8859-1"}, "time_format": "iso"},
        {"user_id": "user", "item_id": "item", "event_time": "at", "category": "category"},
    ),
    "times in microseconds": (
        "plays.csv",
        "user,track,ts\n" + "".join(f"u{n % 7},t{n % 5},{1_700_000_000_000_000 + n}\n" for n in range(50)),
        {"event_type": "play", "time_format": "epoch_millis"},
        {"user_id": "user", "item_id": "track", "event_time": {"sql": "cast(`ts` as bigint) div 1000"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOGS)
def test_logs_of_many_kinds_get_a_mapping(tmp_path, name):
    called, content, events, columns = LOGS[name]
    found = proposed(file(tmp_path, called, content)).content["events"]
    assert {key: found.get(key) for key in events} == events
    assert found["columns"] == columns


WRONG = {
    "empty": ("log.csv", "", "is empty"),
    "blank lines": ("log.csv", "\n\n \n", "is empty: it holds blank lines only"),
    "only a header": ("log.csv", "user,item,at\n", "holds no rows: only a header"),
    "binary": ("log.csv", bytes(range(256)) * 20, "is binary"),
    "zip": ("log.zip", b"PK\x03\x04" + bytes(100), "zip archive: unpack it"),
    "UTF-16": ("log.csv", PLAIN.encode("utf-16"), "UTF-16: convert it"),
    "no Parquet": ("log.parquet", b"PAR1" + bytes(200), "cannot be read as Parquet"),
    "truncated gzip": ("log.csv.gz", gzip.compress(os.urandom(9000).hex().encode())[:5000], "gzip, but damaged"),
    "one huge line": ("log.csv", "a" * (17 << 20), "longer than 16 MiB"),
    "no objects": ("log.json", "{oh\n" * 20, "begins like JSON, but no line is an object"),
    "half a list": ("log.json", '[{"a": 1}, {', "begins like a JSON list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_log_is_told_in_one_line(tmp_path, name):
    called, content, said = WRONG[name]
    path = file(tmp_path, called, content)
    with pytest.raises(ValueError, match=said) as raised:
        profile(path, 1000)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_missing_files_and_folders_are_named(tmp_path):
    for path, said in ((tmp_path / "none.csv", "No such file"), (tmp_path, "is a folder")):
        with pytest.raises(ValueError, match=said):
            profile(path, 10)


ODD = {
    "one column": ("x\n" + "".join(f"{n}\n" for n in range(50)), {"user_id", "item_id", "event_time"}),
    "ragged lines": ("user,item,at\nu1\nu1,i1,2024-01-01,more\n" + "u2,i2,2024-01-02\n" * 9, set()),
    "an open quote": ('user,item,at\nu1,"i1,2024-01-01\n' + "u2,i2,2024-01-02\n" * 60, set()),
    "mixed types": ("user,item,at\n" + 'x,1e400,17\n1.5,nan,yesterday\n"",,\n' * 30, {"event_time"}),
    "a name twice": ("user,item,at,x,x\n" + "u1,i1,2024-01-01,1,2\n" * 9, set()),
    "no name": (",user,item,at\n" + "".join(f"{n},{row}\n" for n, row in enumerate(ROWS)), set()),
    "strange names": ('"us: er",#item,at?,💥,"- a: [b]"\n' + "u1,i1,2024-01-01,a,b\n" * 9, {"user_id"}),
    "NUL and controls": (PLAIN + "u\0,i\x07,2024-01-01\n", set()),
    "apache": (
        '1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326\n' * 30,
        {"user_id", "item_id", "event_time"},
    ),
    "deep JSON": ('{"a":' * 50_000 + "1" + "}" * 50_000 + '\n{"user_id": "u"}\n', {"item_id", "event_time"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_files_get_a_table_and_are_told_what_is_missing(tmp_path, name):
    content, missing = ODD[name]
    path = file(tmp_path, "odd", content)
    found = profile(path, 1000)
    assert table(found.columns, found.proposal.uses(), 80) and heading(found.sample)
    assert set(proposed(path).missing) == missing


def test_very_wide_files_are_cut_and_it_is_said(tmp_path):
    names = ",".join(f"c{n}" for n in range(5000))
    path = file(tmp_path, "wide.csv", names + "\n" + (",".join("7" * 5000) + "\n") * 5)
    found = profile(path, 1000)
    assert len(found.columns) == MAX_COLUMNS and "4,700 more" in heading(found.sample)


def test_columns_are_described_exactly(tmp_path):
    path = file(
        tmp_path, "log.csv", "user,item,at,value,ok\n" + "".join(f"{row},{n % 9 or ''},yes\n" for n, row in enumerate(ROWS))
    )
    found = {column.name: column for column in profile(path, 40).columns}
    seen = [n % 9 for n in range(40) if n % 9]
    value = found["value"]
    assert (value.kind, value.nulls, value.distinct, value.least, value.greatest) == ("integer", 40 - len(seen), 8, "1", "8")
    assert (found["at"].kind, found["at"].distinct) == ("time", 28) and found["ok"].kind == "boolean"
    assert not profile(path, 40).sample.whole and profile(path, 60).sample.whole


@pytest.mark.parametrize(
    ("values", "format", "also"),
    [
        (["2024-01-05T10:11:12Z", "2024-01-05 10:11"], "iso", None),
        (["05/07/2024 10:11", "15/07/2024 10:11"], "dd/MM/yyyy HH:mm", None),
        (["05/07/2024", "06/07/2024"], "dd/MM/yyyy", "MM/dd/yyyy"),
        (["5/17/2024 1:05 PM", "12/7/2024 11:05 AM"], "M/d/yyyy h:mm a", None),
        (["20240105", "20231231"], "yyyyMMdd", None),
        (["05/Jan/2024:10:11:12 +0100", "15/Feb/2024:10:11:12 +0100"], "dd/MMM/yyyy:HH:mm:ss Z", None),
        (["Jan 05, 2024", "Feb 15, 2024"], "MMM dd, yyyy", None),
        (["1704449472", "1704449473"], "epoch_seconds", None),
        (["1704449472123", "1704449473123"], "epoch_millis", None),
        (["1234", "5678"], None, None),
        (["19010105", "19051231"], None, None),
        (["soon", "later"], None, None),
    ],
)
def test_times_are_recognised_as_they_are_written(values, format, also):
    distinct = pd.Series(values, index=values)
    found = moments(distinct, pd.Series(1, index=values), datetime(2024, 6, 1))
    assert (found and found.format, found and found.also) == (format, also)


def test_users_are_not_shown(tmp_path):
    mails = "".join(f"anna{n}@example.org,i{n % 5},2024-01-{1 + n % 28:02},10.0.0.{n}\n" for n in range(60))
    path = file(tmp_path, "log.csv", "who,item,at,from\n" + mails)
    found = profile(path, 1000)
    shown = table(found.columns, found.proposal.uses(), None) + found.proposal.as_yaml()
    assert "anna" not in shown and "example.org" not in shown and "10.0.0" not in shown
    assert masked("u000123") == "u… (7)" and masked("470") == "… (3)"


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("rating", "12345", (1, 5)),
        ("score", ("1", "4", "10"), (1, 10)),
        ("rating", ("0", "50", "99"), None),
        ("price", "12345", None),
    ],
)
def test_a_rating_beside_a_text_gets_its_scale(tmp_path, name, values, scale):
    rows = [f"{row},{values[n % len(values)]},a word or two about thing {n}" for n, row in enumerate(ROWS)]
    found = proposed(file(tmp_path, "log.csv", "\n".join([f"user,item,at,{name},review_text", *rows]) + "\n"))
    assert "text" in found.roles and found.mapping().events.rating_scale == scale
    assert (("events", "rating_scale") in found.comments) == (scale is not None)


EXPECTED = {
    "foursquare": ("foursquare_nyc/checkins.csv.gz", {}),
    # What users did with films no column says.
    "movielens": ("movielens_1m/sequences.csv.gz", {"target_events": ["view"], "event_type": "view"}),
    "amazon": ("amazon_reviews/reviews.parquet", {"items": None, "files": None}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_logs_get_the_mappings_that_people_wrote(shared_data, name):
    """Against conf/sources: the events whole, items where they are a file of their own."""
    called, but = EXPECTED[name]
    found = proposed(shared_data / called).mapping()
    assert isinstance(found, Mapping)
    written = load_mapping(CONF_DIR / "sources" / f"{name}.yaml").model_dump()
    written["events"] |= {key: value for key, value in but.items() if key in written["events"] and value is not None}
    if "files" in but:
        written["events"]["files"] = "*"
    got = found.model_dump()
    assert got["events"] == written["events"]
    assert (list(got["target_events"]), got["repeats"]) == (
        but.get("target_events", list(written["target_events"])),
        written["repeats"],
    )
    if "items" not in but and written["items"] is not None:
        assert got["items"]["columns"].keys() == written["items"]["columns"].keys()
        assert got["items"]["files"] == written["items"]["files"]


def test_the_command_writes_a_mapping_once_and_tells_what_is_missing(tmp_path, capsys):
    register()
    path, output = file(tmp_path, "x.csv", "x,y\n1,a\n2,b\n"), tmp_path / "mine.yaml"
    assert guarded(lambda: app(["profile", str(path), "--output", str(output)], standalone_mode=False)) == 1
    shown = capsys.readouterr()
    assert "2 rows and 2 columns" in shown.out and "no column seems to be event_time" in shown.err.splitlines()[-1]
    assert "# not found: event_time" in output.read_text()
    assert guarded(lambda: app(["profile", str(path), "--output", str(output)], standalone_mode=False)) == 1
    assert f"{output} exists" in capsys.readouterr().err


def test_a_sample_is_what_stands_in_the_file(tmp_path):
    assert sample(file(tmp_path, "a.csv", PLAIN), 10).rows["user"].tolist() == [row.split(",")[0] for row in ROWS[:10]]
    packed = sample(file(tmp_path, "b.csv", gzip.compress(PLAIN.encode())), 100)
    assert len(packed.rows) == 60 and "ends in .gz" in packed.notes[0]
