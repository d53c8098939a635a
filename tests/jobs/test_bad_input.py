"""Input that cannot be read gives one clear line, and nothing already stored changes."""

import gzip
import re
from datetime import date, timedelta
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from jobs.pipeline import choose
from jobs.runner import one_line, run

DAY = date(2024, 6, 14)
HEADER = "user_id,venue_id,category,latitude,longitude,utc_time"
GOOD = [f"{n % 7},{n % 5},Bar,40.7{n % 10},-73.9,2024-06-14T{n % 24:02}:00:00Z" for n in range(40)]
STEPS = choose(to_step="clean")


@pytest.fixture
def run_on(spark, make_settings, tmp_path):
    """run_on(content) -> runs ingest and clean of the next day over a log of that content."""

    def go(content: bytes | None, *, name="log.csv", day=DAY, bootstrap=False):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        settings = make_settings("conf/foursquare.yaml", f"sources.events.path={path}")
        run(spark, settings, day, steps=STEPS, bootstrap=bootstrap)
        return settings

    return go


def text(*lines: str) -> bytes:
    return "\n".join(lines).encode() + b"\n"


def versions(lake: str) -> dict[str, int]:
    tables = [path for path in Path(lake).iterdir() if (path / "_delta_log").is_dir() and path.name != "runs"]
    return {path.name: deltalake.DeltaTable(path).version() for path in tables}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.csv", None, "does not exist"),
        ("log.csv", b"", "is empty"),
        ("log.csv", text(HEADER.replace(",", ";"), *[line.replace(",", ";") for line in GOOD]), "no column"),
        ("log.csv", text(HEADER.replace("utc_time", "when"), *GOOD), "utc_time"),
        ("log.csv.gz", gzip.compress(text(HEADER, *GOOD * 5000))[:-3000], "truncated|cannot be read"),
        ("log.csv.gz", text(HEADER, *GOOD), "gzip|cannot be read"),
    ],
    ids=["missing file", "empty", "delimiter", "missing column", "truncated gzip", "no gzip"],
)
def test_one_line_says_what_is_wrong_and_nothing_stored_changes(run_on, tmp_path, name, content, said):
    settings = run_on(text(HEADER, *GOOD), bootstrap=True)
    before = versions(settings.lake)
    (tmp_path / "log.csv").unlink()
    with pytest.raises(Exception) as caught:
        run_on(content, name=name, day=DAY + timedelta(days=1))
    line = one_line(caught.value)
    assert "\n" not in line and len(line) < 500

    assert re.search(said, line), line
    assert versions(settings.lake) == before


def test_broken_lines_are_quarantined_and_good_ones_stay(run_on, spark):
    broken = ['1,2,"unclosed,40.7,-73.9,2024-06-14T01:00:00Z', "1,2,Bar", "\xff\xfe,,,,,", "x" * 100_000]
    settings = run_on(text(HEADER, *GOOD, *broken), bootstrap=True)
    events = spark.read.format("delta").load(f"{settings.lake}/events")
    quarantine = spark.read.format("delta").load(f"{settings.lake}/events_quarantine")
    assert events.count() == len(set(GOOD))
    assert quarantine.count() == len(broken)


def test_a_table_of_another_contract_is_refused(run_on, make_settings):
    lake = Path(make_settings().lake)
    deltalake.write_deltalake(str(lake / "events"), pa.table({"user_id": ["a"], "day": pa.array([DAY])}), partition_by=["day"])
    with pytest.raises(ValueError, match=r"events was written under another contract: .*event_id is missing"):
        run_on(text(HEADER, *GOOD), bootstrap=True)
    assert deltalake.DeltaTable(lake / "events").version() == 0
