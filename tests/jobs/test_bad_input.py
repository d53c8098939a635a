"""What people get wrong: one clear line, and nothing stored has changed."""

import gzip
import json
import os
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.settings import SettingsError, load_settings
from conf.tables import TABLES
from jobs.lake.compare import compare
from jobs.lake.failures import one_line
from jobs.lake.runs import pins
from jobs.lake.store import Lake
from jobs.pipeline import choose
from jobs.runner import run

DAY = date(2024, 1, 30)
STEPS = choose(to_step="sequences")
GOOD = json.dumps(
    {
        "user_id": "u",
        "item_id": "i",
        "event_type": "view",
        "event_timestamp": "2024-01-30T10:00:00Z",
        "latitude": 1.5,
        "longitude": 2.5,
    }
)
CHECK_INS = "user_id,venue_id,category,latitude,longitude,utc_time\n"


def versions(lake):
    """Table -> version, of everything in the lake but the record of runs."""
    tables = [path.parent for path in lake.glob("*/_delta_log")]
    return {path.name: deltalake.DeltaTable(path).version() for path in tables if path.name != "runs"}


def said(spark, made, day=DAY, steps=STEPS, **how):
    """The one line that the command would print; and that the lake is as it was."""
    lake = Path(made.lake)
    before = versions(lake)
    with pytest.raises(Exception) as raised:
        run(spark, made, day, steps=steps, **how)
    assert versions(lake) == before, "something was stored"
    line = one_line(raised.value)
    assert "\n" not in line and len(line) < 600 and "Traceback" not in line and "org.apache" not in line, line
    return line


CASES = {
    "no such path": ({}, "{in}/nowhere", None, r"sources\.events\.path: {in}/nowhere does not exist"),
    "no such glob": ({}, "{in}/*.csv", None, r"sources\.events\.path: no file matches {in}/\*\.csv"),
    "no landing folders": (
        {"in/x.csv": CHECK_INS},
        "{in}/in",
        None,
        r"{in}/in has no landing folders YYYY-MM-DD.*file or a glob",
    ),
    "an empty file": ({"log.csv": ""}, "{in}/log.csv", None, r"log\.csv is empty: not even a header"),
    "a file of blank lines": ({"log.csv": "\n\n"}, "{in}/log.csv", None, r"log\.csv is empty: not even a header"),
    "a header and no more": ({"log.csv": CHECK_INS}, "{in}/log.csv", None, r"log\.csv holds no rows"),
    "another delimiter": (
        {"log.csv": CHECK_INS.replace(",", ";") + "1;2;c;1.5;2.5;2024-01-30T10:00:00Z\n"},
        "{in}/log.csv",
        None,
        r"log\.csv: no column .*user_id \(for user_id\).*it has user_id;venue_id.*delimiter seems to be ';': set options\.sep",
    ),
    "a missing column": (
        {"log.csv": CHECK_INS.replace("venue_id", "place_id") + "1,2,c,1.5,2.5,2024-01-30\n"},
        "{in}/log.csv",
        None,
        r"log\.csv: no column venue_id \(for item_id\); it has user_id, place_id, category",
    ),
    "a column twice": (
        {"log.csv": CHECK_INS.replace("category", "user_id") + "1,2,c,1.5,2.5,2024-01-30\n"},
        "{in}/log.csv",
        None,
        r"log\.csv: no column category",
    ),
    "no readable time": (
        {"log.csv": CHECK_INS + "1,2,c,1.5,2.5,1704449472\n"},
        "{in}/log.csv",
        None,
        r"none of its 1 rows has a readable time; the mapping says time_format: iso",
    ),
    "a log that begins later": (
        {"log.csv": CHECK_INS + "1,2,c,1.5,2.5,2024-02-01\n"},
        "{in}/log.csv",
        None,
        r"begins with 2024-02-01, after --day 2024-01-30",
    ),
    "no gzip": ({"log.csv.gz": CHECK_INS + "1,2,c,1.5,2.5,2024-01-30\n"}, "{in}/log.csv.gz", None, r"log\.csv\.gz.*gzip"),
    "no parquet": (
        {"reviews.parquet": "user_id\n"},
        "{in}/reviews.parquet",
        "amazon",
        r"reviews\.parquet: cannot be read as parquet",
    ),
    "no json": (
        {"2024-01-30/events.csv": CHECK_INS + "1,2,c,1.5,2.5,2024-01-30\n" * 20},
        "{in}",
        "simulated",
        r"events\.csv: no line is a JSON object, it begins with 'user_id,venue_id.*format right\?",
    ),
    "other names in json": (
        {"2024-01-30/events.json": GOOD.replace("user_id", "uid") + ("\n" + GOOD.replace("user_id", "uid")) * 12},
        "{in}",
        "simulated",
        r"events\.json: no column user_id \(for user_id\); it has event_timestamp",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_in_one_line(spark, make_settings, tmp_path, case):
    files, path, mapping, pattern = CASES[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    where = path.replace("{in}", str(tmp_path))
    made = make_settings(
        "conf/local.yaml", f"sources.events.path={where}", f"sources.events.mapping=conf/sources/{mapping or 'foursquare'}.yaml"
    )
    assert re.search(pattern.replace("{in}", re.escape(str(tmp_path))), line := said(spark, made, bootstrap=True)), line


def test_a_path_that_is_not_set_is_named(spark, make_settings):
    assert "sources.events.path is not set" in said(spark, make_settings())


def test_a_mapping_that_does_not_exist_or_misspells_is_a_wrong_setting(make_settings, tmp_path):
    (tmp_path / "typo.yaml").write_text("description: x\ntarget_events: [a]\nevents: {colums: {}}\n")
    with pytest.raises(SettingsError, match=r"events\.colums"):
        make_settings("conf/local.yaml", f"sources.events.mapping={tmp_path / 'typo.yaml'}")
    with pytest.raises(SettingsError, match=r"no file .*none\.yaml"):
        make_settings("conf/local.yaml", f"sources.events.mapping={tmp_path / 'none.yaml'}")


@pytest.fixture(scope="module")
def finished(spark, tmp_path_factory):
    """A folder with a landing and a lake with one good night of it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "landing" / str(DAY)).mkdir(parents=True)
    (folder / "landing" / str(DAY) / "events.json").write_text((GOOD + "\n") * 3)
    run(spark, settings_in(folder), DAY, steps=STEPS)
    return folder


def settings_in(folder):
    return load_settings(overrides=[f"lake={folder / 'lake'}", f"sources.events.path={folder / 'landing'}"])


@pytest.fixture
def one_day(finished, tmp_path):
    """A copy of its own: settings and the landing path."""
    shutil.copytree(finished, tmp_path / "copy")
    return settings_in(tmp_path / "copy"), tmp_path / "copy" / "landing"


def test_a_night_that_cannot_read_leaves_every_table_as_it_was(spark, one_day):
    made, landing = one_day
    folder = landing / "2024-01-31"
    folder.mkdir()
    rows = "".join(GOOD.replace('"i"', f'"{os.urandom(30).hex()}"').replace("01-30", "01-31") + "\n" for _ in range(3000))
    whole = gzip.compress(rows.encode())
    (folder / "events-0.json").write_text(rows[: rows.index("\n") + 1])
    (folder / "events-1.json.gz").write_bytes(whole[: len(whole) // 2])
    line = said(spark, made, date(2024, 1, 31))
    assert "truncated" in line and "events-1.json.gz" in line, line
    (folder / "events-1.json.gz").write_bytes(b"")
    run(spark, made, date(2024, 1, 31), steps=STEPS)
    assert versions_rows(spark, made, "2024-01-31") == 1, "an empty file holds no rows"


def versions_rows(spark, made, day):
    lake = Lake(spark, made.lake)
    return lake.read("raw_events", lake.version("raw_events"), f"day = '{day}'").count()


def test_a_table_of_another_contract_is_refused(spark, one_day):
    made, _ = one_day
    shutil.rmtree(f"{made.lake}/events")
    deltalake.write_deltalake(f"{made.lake}/events", pa.table({"id": [0, 1, 2]}))
    with pytest.raises(
        ValueError,
        match=r"lake/events was written under another contract: .*column id is unknown.*run `wherewhen rebuild events`",
    ):
        run(spark, made, DAY, steps=choose(only=("clean",)))
    assert deltalake.DeltaTable(f"{made.lake}/events").version() == 0


def test_a_bit_that_flipped_on_the_disk_is_told_and_not_taken_for_a_value(spark, one_day):
    made, _ = one_day
    [file] = deltalake.DeltaTable(f"{made.lake}/raw_events").file_uris()
    path = Path(file.removeprefix("file://"))
    content = bytearray(path.read_bytes())
    places = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content[places.data_page_offset + places.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    line = said(spark, made, steps=choose(only=("clean",)))
    assert line.startswith("a file is damaged") and str(path) in line, line


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk, left):
    """Take all room on the disk but `left` bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(b"x" * max(0, free - left))


def test_a_full_disk_changes_nothing_that_is_stored_and_the_next_run_finishes(spark, one_day, small_disk):
    undisturbed, landing = one_day
    shutil.copytree(undisturbed.lake, small_disk / "lake")
    made = undisturbed.model_copy(update={"lake": str(small_disk / "lake")})
    (landing / "2024-01-31").mkdir()
    rows = [GOOD.replace('"u"', f'"{os.urandom(30).hex()}"').replace("01-30", "01-31") for _ in range(200)]
    (landing / "2024-01-31" / "events.json").write_text("\n".join(rows))
    stored = pins(made.lake)
    # Full at once, in the middle of the first step, and in a later one.
    for left in (0, 60_000, 150_000):
        fill(small_disk, left)
        with pytest.raises(Exception) as raised:
            run(spark, made, date(2024, 1, 31), steps=STEPS)
        line = one_line(raised.value)
        assert "the disk is full" in line and str(small_disk) in line and len(line) < 300, line
        assert left or pins(made.lake) == stored
        (small_disk / "filler").unlink()
    for settings in (made, undisturbed):
        run(spark, settings, date(2024, 1, 31), steps=STEPS)
    for name in ("raw_events", "items", "events", "events_quarantine", "user_sequences"):
        one, other = (Lake(spark, settings.lake).read(name, pins(settings.lake)[name]) for settings in (made, undisturbed))
        found = compare(one, other, TABLES[name])
        assert found.equal, f"{name}: {found}"


def test_a_worker_that_ends_while_spark_reads_from_it_is_no_truncated_file():
    trace = "java.io.EOFException\n\tat java.base/java.io.DataInputStream.readInt(DataInputStream.java:398)\n\tat "
    for reader in (
        "api.python.BasePythonRunner",
        "security.SocketAuthHelper.readUtf8",
        "sql.execution.python.PythonArrowOutput",
    ):
        assert one_line(Exception(f"{trace}org.apache.spark.{reader}(X.scala:9)")).startswith("out of memory")
    gzip = f"{trace}org.apache.hadoop.io.compress.DecompressorStream.getCompressedData(X.java:9)"
    assert one_line(Exception(gzip)).startswith("a compressed input file is truncated")
