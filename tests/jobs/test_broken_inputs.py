"""2,000 generated inputs that are broken in their bytes, types, encodings or sizes: none stops a run, none costs a good row.

1,940 are lines among good lines, taken through a bootstrap; 60 are files, each read alone.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import zlib
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from jobs import ingest
from jobs.ingest.landing import Landing
from jobs.ingest.sources import feedings, with_day
from jobs.lake.failures import one_line
from jobs.lake.identities import load_key, pseudonym
from jobs.lake.runs import pins
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run

FIRST, DAYS = date(2024, 1, 30), 5
LINES, FILES = 970, 60
FIELDS = ("user_id", "item_id", "event_type", "event_timestamp", "latitude", "longitude", "rating", "text")
NUMBERS = ("latitude", "longitude", "rating")
TEXTS = [
    "", " ", "\t", "\x00", "a\x00b", "\x01\x1b[31m", "\x1e\x1f", "\u2028", "\u202eabc", "\ufeff", "e\u0301", "x" * 200_000,
    "\U0001f642" * 2000, "null", "None", "true", "{}", "[]",
    "\\", "\\N", "''", "'; DROP TABLE events; --", "=1+1", "../../etc/passwd",
    "%s%n", "${jndi:ldap://x}", "<script>", "day=2024-01-01", "a/b", "*", "__HIVE_DEFAULT_PARTITION__",
    "שלום", "推荐系统", "ｆｕｌｌ",
]  # fmt: skip
NUMERALS = [
    "NaN", "nan", "Infinity", "-Infinity", "1e400", "-1e308", "4.9e-324", "-0.0", "0", "90.0000001", "-180.0", "181", "9" * 400,
    "1,5", "1_000", "0x10", "١٢", "½", "1e", "--1", "1.2.3", "five",
]  # fmt: skip
TIMES = [
    "0000-00-00T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2024-02-30T10:00:00Z", "12:30", "2024",
    "2024-01-30T25:00:00Z", "2024-01-30T23:59:60Z", "-2024-01-30T10:00:00Z", "+292278994-08-17T07:12:55Z", "1706608800", "now",
    "9223372036854775807", "1e18", "2024-01-30T10:00:00+99:99", "2024-01-30T10:00:00[Europe/Paris]", "today", "epoch",
    "30/01/2024 10:00", "2024-01-30T10:00:00+0530", "１９７０-01-01",
]  # fmt: skip
VALUES = [
    True, None, 0, -1, 1e308, 5e-324, 10**400, -(2**63), [], {}, [1, [2, [3]]], {"user_id": "good0"}, list(range(5000)),
    "\ud800", "\udfff\ud800",
]  # fmt: skip


def good(number: int, day: date) -> dict[str, object]:
    """A row that nothing is wrong with, of a user of its own."""
    moment = f"{day}T{8 + number % 12:02}:{number % 60:02}:{number * 7 % 60:02}Z"
    place = {"latitude": 40.7 + number % 50 / 1000, "longitude": -74.0 + number % 70 / 1000}
    words = f"number {number}, naïve “quoted” 文"
    return {
        "user_id": f"good{number}", "item_id": f"item{number % 40}", "event_type": "click", "event_timestamp": moment,
        **place, "rating": float(1 + number % 5), "text": words,
    }  # fmt: skip


def as_json(row: dict[str, object]) -> bytes:
    # Lone surrogates can only stand in JSON as escapes.
    return json.dumps(row, ensure_ascii="ud" in ascii(row.get("text", ""))).encode("utf-8", errors="replace")


def as_csv(row: dict[str, object]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(["" if row.get(name) is None else row[name] for name in FIELDS])
    return out.getvalue().encode("utf-8", errors="replace")


WRITERS = {"json": as_json, "csv": as_csv}


# What can be wrong with a line: (chance, the row, how rows are written) -> its bytes.


def other_text(chance, row, write):
    return write(row | {chance.choice(FIELDS): chance.choice(TEXTS)})


def other_number(chance, row, write):
    return write(row | {chance.choice(NUMBERS): chance.choice(NUMERALS)})


def other_time(chance, row, write):
    return write(row | {"event_timestamp": chance.choice(TIMES)})


def other_type(chance, row, write):
    return write(row | {chance.choice(FIELDS): chance.choice(VALUES)})


def without_fields(chance, row, write):
    return write({name: row[name] for name in chance.sample(FIELDS, chance.randint(0, len(FIELDS) - 1))})


def more_fields(chance, row, write):
    return write(row)[:-1] + chance.choice(
        [b',"rating":1,"rating":2}', b"," * 30_000, b',"a":' + b"[" * 3000, b',"\\u0000":0}']
    )


def flipped_bits(chance, row, write):
    line = bytearray(write(row))
    for _ in range(chance.randint(1, 8)):
        line[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
    return bytes(line)


def cut(chance, row, write):
    line = write(row)
    start, end = sorted(chance.sample(range(len(line)), 2))
    return chance.choice([line[:start], line[end:], line[:start] + line[end:], line + line[:start], line[:start] + line])


def spliced(chance, row, write):
    line, at = write(row), chance.randrange(100)
    noise = chance.choice(
        [chance.randbytes(chance.randint(1, 60)), b'"', b'""', b"\\", b"}", b"{", b"\x00" * 40, b"\xef\xbb\xbf"]
    )
    return line[:at] + noise + line[at:]


def noise(chance, row, write):
    return chance.choice(
        [chance.randbytes(chance.randint(1, 400)), b"\x1f\x8b\x08" + chance.randbytes(40), b"PAR1", b"[]", b"1"]
    )


def other_encoding(chance, row, write):
    words = {"text": "日本語 абв é"}
    encoding = chance.choice(["utf-16", "utf-16-be", "utf-32", "latin-1", "cp1251", "gb18030", "shift_jis", "utf-7", "cp037"])
    return write(row | words).decode().encode(encoding, errors="replace")


DAMAGES = [
    other_text, other_number, other_time, other_type, without_fields, more_fields, flipped_bits, cut, spliced, noise,
    other_encoding,
]  # fmt: skip


def on_one_line(line: bytes) -> bytes:
    """What ends a line would make two inputs of one; and a blank line is no row."""
    return re.sub(rb"[\r\n]", b"?", line) if line.strip(b" \r\n\t\x00") else b"?"


def landed(root: Path, kind: str, seed: int, lines: int) -> dict[str, dict[str, object]]:
    """Landing folders in which each broken line stands between good ones; gives the good rows by user."""
    chance, write = random.Random(seed), WRITERS[kind]
    rows, number = {}, 0
    per_day = lines // DAYS
    for day in (FIRST + timedelta(days=back) for back in range(DAYS)):
        for part in range(2):
            content = [",".join(FIELDS).encode()] if kind == "csv" else []
            for nth in range(per_day // 2):
                for _ in range(2):
                    row = good(number, day)
                    rows[str(row["user_id"])] = row | {"day": day}
                    content.append(write(row))
                    number += 1
                damaged = good(number, day) | {"user_id": f"bad{number}"}
                content.insert(len(content) - 1, on_one_line(DAMAGES[nth % len(DAMAGES)](chance, damaged, write)))
            text = b"".join(line + (b"\r\n" if part else b"\n") for line in content)
            path = root / str(day) / f"events-{part}.{kind}{'.gz' if part else ''}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(text) if part else text)
    return rows


@pytest.fixture
def made_over(make_settings, tmp_path):
    """made_over(kind): settings over tmp_path/landing, whose files are CSV or JSON lines with the same fields."""
    columns = {name: name for name in ("user_id", "item_id", "event_type", "latitude", "longitude", "text")}
    columns |= {"event_time": "event_timestamp", "value": "rating"}

    def make(kind, *more):
        options = {"csv": {"header": "true"}, "parquet": {}, "json": {}}[kind]
        feed = {"format": kind, "files": "events*", "options": options, "columns": columns}
        mapping = tmp_path / f"{kind}.yaml"
        mapping.write_text(json.dumps({"description": "test", "target_events": ["click"], "events": feed}))
        overrides = [f"sources.events.path={tmp_path / 'landing'}", f"sources.events.mapping={mapping}", *more]
        return make_settings("conf/local.yaml", *overrides)

    return make


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_broken_lines_stop_nothing_and_cost_no_good_row(spark, made_over, tmp_path, kind):
    rows = landed(tmp_path / "landing", kind, seed=7, lines=LINES)
    made = made_over(kind)
    run(spark, made, FIRST + timedelta(days=DAYS - 1), steps=choose(to_step="clean"), bootstrap=True)
    stored = {name: Lake(spark, made.lake).read(name, version) for name, version in pins(made.lake).items() if name != "runs"}
    assert stored["raw_events"].count() == len(rows) + LINES, "a line was lost"
    found = {one.user_id: one for one in stored["events"].collect()}
    key = load_key()
    for user, row in rows.items():
        one = found[pseudonym(user, key)]
        assert (one.item_id, one.event_type, one.day, one.value) == (row["item_id"], "click", row["day"], row["rating"])
        assert (one.latitude, one.longitude) == pytest.approx((row["latitude"], row["longitude"]))
        assert one.text == row["text"] and f"{one.event_timestamp:%Y-%m-%dT%H:%M:%SZ}" == row["event_timestamp"]
    reasons = stored["events_quarantine"].select(F.explode("reasons").alias("reason")).distinct().collect()
    expected = {
        "broken",
        "no_user",
        "no_item",
        "no_time",
        "bad_time",
        "bad_coordinates",
        "bad_value",
        "bad_event_type",
        "future",
    }
    assert {one.reason for one in reasons} >= expected


# What can happen to a file: (chance, its bytes) -> its bytes.


def truncated(chance, content):
    return content[: chance.randrange(len(content))]


def overwritten(chance, content):
    start, size = chance.randrange(len(content)), chance.choice([1, 16, 512])
    block = chance.choice([b"\x00" * size, chance.randbytes(size), b"\n" * size])
    return content[:start] + block + content[start + size :]


def joined(chance, content):
    return content + content[chance.randrange(len(content)) :]


def of_another_kind(chance, content):
    png, pdf = b"\x89PNG\r\n\x1a\n" + chance.randbytes(300), b"%PDF-1.7\n" + chance.randbytes(300)
    return chance.choice(
        [png, pdf, b"\x00" * 4096, b"<html><body>502 Bad Gateway</body></html>\n" * 20, b"\n", chance.randbytes(900)]
    )


def recoded(chance, content):
    return content.decode("latin-1").encode(chance.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"]))


FILE_DAMAGES = [truncated, overwritten, overwritten, joined, of_another_kind, recoded]


def file_of(kind: str, rows: list[dict[str, object]]) -> bytes:
    if kind == "parquet":
        sink = io.BytesIO()
        columns = {name: [None if row[name] is None else str(row[name]) for row in rows] for name in FIELDS}
        pq.write_table(pa.table(columns), sink)
        return sink.getvalue()
    head = [",".join(FIELDS).encode()] if kind.startswith("csv") else []
    content = b"".join(line + b"\n" for line in [*head, *[WRITERS[kind.removesuffix(".gz")](row) for row in rows]])
    return gzip.compress(content) if kind.endswith(".gz") else content


def whole_rows(kind: str, content: bytes, rows: list[dict[str, object]]) -> set[str] | None:
    """The users whose rows another reader finds undamaged in the file; None: it cannot read it as what it should be."""
    try:
        if kind == "parquet":
            found = pq.read_table(io.BytesIO(content)).to_pylist()
            return {str(row["user_id"]) for row in rows if {name: str(row[name]) for name in FIELDS} in found}
        if kind.endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error, ValueError, KeyError):
        return None
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if kind.startswith("csv") and lines[0] != ",".join(FIELDS).encode():
        return None
    write = WRITERS[kind.removesuffix(".gz")]
    return {str(row["user_id"]) for row in rows if write(row) in lines}


def test_broken_files_cost_no_good_row_or_are_refused_by_name(spark, made_over, tmp_path):
    chance, key, refused = random.Random(11), load_key(), 0
    rows = [good(number, FIRST) for number in range(60)]
    for number in range(FILES):
        kind = ("json", "csv", "json.gz", "csv.gz", "parquet")[number % 5]
        damage = FILE_DAMAGES[number // 5 % len(FILE_DAMAGES)]
        content = damage(chance, file_of(kind, rows))
        path = tmp_path / f"{number}-{damage.__name__}" / str(FIRST) / f"events.{kind}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        made = made_over(kind.split(".")[0], f"sources.events.path={path.parents[1]}")
        expected = whole_rows(kind, content, rows)
        try:
            found = {one.user_id for one in arrived(spark, made).collect()}
        except Exception as error:
            line = one_line(error)
            assert expected is None or not expected, f"{path}: {len(expected or ())} good rows, but {line}"
            assert path.name in line and line.isprintable() and len(line) < 1500 and "\tat " not in line, line
            refused += 1
        else:
            lost = {user for user in expected or () if pseudonym(user, key) not in found}
            assert not lost, f"{path}: {sorted(lost)[:3]} and {len(lost)} in all"
    assert FILES / 10 < refused < FILES * 0.7


def arrived(spark, made):
    """raw_events without writing anything."""
    landing = Landing(spark)
    source = feedings(landing, made)["events"]
    rows = source.read(spark, source.files(landing, [FIRST]))
    dated = with_day(rows, source, made.mapping, first_day=FIRST, undated_day=FIRST)
    return ingest.raw_events(dated, made.mapping.events, load_key(), made.privacy)
