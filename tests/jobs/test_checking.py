"""`check`: what it prints and ends with, without a JVM, over a table that the command finds by the runs' records."""

import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from conf.settings import load_settings
from conf.tables import TABLES
from jobs.checking import findings, write_findings
from jobs.lake import logs, runs
from jobs.lake.schema import create

ROOT = Path(__file__).parents[2]
DAY = date(2024, 6, 16)
ROW = {
    "subject": "slot", "measure": "psi", "value": 0.01, "chance": 0.05, "bins": 4, "rows": 100, "users": 50,
    "reference_rows": 400, "reference_users": 60, "model_version": "v1", "day": DAY,
}  # fmt: skip


@pytest.fixture
def lake(tmp_path):
    """A quiet day, and one on which the slots moved; no night is finished."""
    settings = load_settings(overrides=[f"lake={tmp_path / 'lake'}"])
    path = f"{settings.lake}/drift"
    create(path, TABLES["drift"])
    quiet = [
        ROW,
        {**ROW, "subject": "score", "value": None, "chance": None},
        {**ROW, "subject": "lists", "measure": "new_items", "chance": None, "value": 0.3},
    ]
    moved = [{**row, "day": DAY + timedelta(days=1)} for row in [{**ROW, "value": 0.5}, *quiet[1:]]]
    schema = pa.schema(deltalake.DeltaTable(path).schema().to_arrow())
    deltalake.write_deltalake(path, pa.Table.from_pylist(quiet + moved, schema=schema), mode="append")
    version = deltalake.DeltaTable(path).version()
    logs.append(settings.lake, "runs", [runs.row("r", "drift", DAY + timedelta(days=1), outputs={"drift": version})])
    # Of a run that was killed: no record names it.
    killed = pa.Table.from_pylist([{**ROW, "measure": "kl", "value": 9.0}], schema=schema)
    deltalake.write_deltalake(path, killed, mode="append")
    return settings


def command(settings, *words, day=DAY):
    program = "import sys; sys.modules['pyspark'] = None; from jobs.cli import main; main()"
    options = ["--set", f"lake={settings.lake}", *words, "check", "--day", str(day)]
    return subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, check=False, cwd=ROOT)


def test_within_the_bounds_ends_with_0_and_past_one_with_3(lake):
    quiet = command(lake)
    assert quiet.returncode == 0, quiet.stderr
    lines = [line.split() for line in quiet.stdout.splitlines()]
    assert lines == [
        ["what", "measure", "value", "bound"],
        ["lists", "new_items", "0.3000", "0.8000"],
        ["score", "psi", "-", "0.2500", "nothing", "to", "compare", "with"],
        ["slot", "psi", "0.0100", "0.2500"],
    ]
    moved = command(lake, day=DAY + timedelta(days=1))
    assert moved.returncode == 3 and "0.5000  0.2500  past its bound" in moved.stdout
    assert command(lake, "--set", "drift.max_psi=0.5", day=DAY + timedelta(days=1)).returncode == 0
    assert command(lake, "--set", "drift.max_new_items=0.2").returncode == 3


def test_json_is_for_programs(lake):
    found = json.loads(write_findings(findings(lake, DAY), "json", width=None))
    assert found[2] == {"subject": "slot", "measure": "psi", "value": 0.01, "bound": 0.25, "is_past": False}
    assert found[1]["value"] is None


def test_a_day_that_was_not_measured_says_what_to_do(lake, tmp_path):
    missing = command(lake, day=DAY + timedelta(days=9))
    assert missing.returncode == 1 and missing.stdout == ""
    assert "which has 2024-06-16 to 2024-06-17" in missing.stderr and "wherewhen run --day 2024-06-25" in missing.stderr
    with pytest.raises(
        ValueError, match=r"no drift was measured in .* yet: run a day first \(wherewhen run --day 2024-06-16\)"
    ):
        findings(load_settings(overrides=[f"lake={tmp_path / 'none'}"]), DAY)
    assert command(lake, day="yesterday").returncode == 2
