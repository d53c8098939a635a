"""`maintain`: what is needed stays readable, what is not goes, from a lake written without Spark."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from pyarrow import parquet

from conf.settings import SettingsError, load_settings
from conf.tables import TABLES
from jobs.lake import files, logs, maintenance
from jobs.lake.context import Refused
from jobs.lake.maintenance import dropped_before, kept_models, maintain
from jobs.lake.runs import pins
from jobs.lake.schema import create
from jobs.query import answer, render
from jobs.rebuild import rebuild

FIRST, LAST = date(2024, 1, 1), date(2024, 6, 10)
NOW = datetime.now(UTC)
VALUES = {"string": "x", "double": 1.0, "bigint": 1, "int": 1, "boolean": False, "date": FIRST, "timestamp": NOW}
RUN = {"status": "done", "settings_hash": "s", "code_version": "c", "rows_out": {}, "details": "{}", "seconds": 1.0}


class Written:
    """A lake whose days are written as Spark would write them: a fresh folder a write, one commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = load_settings(overrides=[f"lake={root}", "maintain.keep_days=7"])

    def batch(self, name: str, days: list[date], **changes: object) -> list[files.File]:
        contract, batch = TABLES[name], f"batch={uuid.uuid4().hex}"
        valid = {one.name: VALUES.get(one.type) for one in contract.columns if not one.nullable or one.type == "string"}
        made = []
        for day in days:
            row = {**valid, **{key: value for key, value in (("changed_on", day),) if key in valid}, **changes}
            path = self.root / name / batch / f"day={day}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            row.pop("day", None)
            parquet.write_table(pa.Table.from_pylist([row]), path)
            (path.parent / ".part-0.parquet.crc").write_bytes(b"crc")
            at = int(NOW.timestamp() * 1000)
            made.append(
                files.File(
                    path=str(path.relative_to(self.root / name)),
                    size=path.stat().st_size,
                    rows=1,
                    changed_at_ms=at,
                    day=str(day),
                )
            )
        return made

    def replace(self, name: str, days: list[date], **changes: object) -> int:
        path = str(self.root / name)
        if not deltalake.DeltaTable.is_deltatable(path):
            create(path, TABLES[name])
        where = f"day >= '{days[0]}' AND day <= '{days[-1]}'"
        return files.committed(deltalake.DeltaTable(path), self.batch(name, days, **changes), where)

    def finish(
        self, day: date, outputs: dict[str, int], *, ago: float, step: str = "clean", inputs: dict[str, int] | None = None
    ):
        row = {**RUN, "run_id": f"{step}-{day}-{ago}", "step": step, "day": day, "first_day": FIRST, "outputs": outputs}
        row |= {"inputs": inputs or {}, "finished_at": NOW - timedelta(days=ago)}
        logs.append(str(self.root), "runs", [row])

    def rows(self, name: str, version: int | None = None) -> list[dict]:
        table = deltalake.DeltaTable(str(self.root / name), version=version)
        return deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all()

    def data(self, name: str) -> set[str]:
        folder = self.root / name
        return {str(one.relative_to(folder)) for one in folder.rglob("*.parquet") if "_delta_log" not in one.parts}


@pytest.fixture
def lake(tmp_path) -> Written:
    return Written(tmp_path / "lake")


def days_of(rows) -> list[str]:
    return sorted(str(day) for day in rows.column("day").to_pylist())


def test_files_of_versions_that_nobody_needs_go_and_all_others_stay_readable(lake):
    days = [LAST - timedelta(days=n) for n in (3, 2, 1, 0)]
    versions = [lake.replace("cell_daily", [day], cell=f"first-{day}") for day in days]
    again = [lake.replace("cell_daily", [LAST], cell=f"again-{n}") for n in range(4)]
    lake.finish(LAST, {"cell_daily": versions[-1]}, ago=40)
    lake.finish(LAST, {"cell_daily": again[1]}, ago=3, inputs={"cell_daily": again[0]})
    lake.finish(LAST, {"cell_daily": again[3]}, ago=1, step="night")
    before = {version: lake.rows("cell_daily", version) for version in (again[0], again[1], again[3])}
    assert len(lake.data("cell_daily")) == 8

    said = {one.name: one for one in maintain(lake.settings, dry_run=True, now=NOW + timedelta(days=2))}
    assert said["cell_daily"].freed.files >= 4 and len(lake.data("cell_daily")) == 8, "a dry run deletes nothing"
    young = {one.name: one for one in maintain(lake.settings)}
    assert young["cell_daily"].freed.files == 0, "what a running reader could hold stays"
    done = {one.name: one for one in maintain(lake.settings, now=NOW + timedelta(days=2))}
    assert done["cell_daily"].freed == said["cell_daily"].freed
    assert len(lake.data("cell_daily")) == 6, "three days, and of the last the versions read, left, and shown"
    assert not [path for path in (lake.root / "cell_daily").glob("batch=*") if not any(path.rglob("*.parquet"))]
    for version, rows in before.items():
        assert lake.rows("cell_daily", version) == rows
    with pytest.raises(deltalake.exceptions.DeltaError):
        lake.rows("cell_daily", versions[0])
    # The next write, and another round, go on from there.
    lake.replace("cell_daily", [LAST + timedelta(days=1)])
    maintain(lake.settings, now=NOW + timedelta(days=2))
    assert len(days_of(lake.rows("cell_daily"))) == 5


def test_what_a_killed_run_left_goes_once_it_is_old(lake):
    version = lake.replace("cell_daily", [LAST])
    lake.batch("cell_daily", [LAST])  # written, never committed
    lake.finish(LAST, {"cell_daily": version}, ago=0)
    maintain(lake.settings)
    assert len(lake.data("cell_daily")) == 2, "the run may still be going on"
    [done] = [one for one in maintain(lake.settings, now=NOW + timedelta(days=2)) if one.name == "cell_daily"]
    assert done.freed.files == 4 and len(lake.data("cell_daily")) == 1, (
        "the file, its checksum, the commits that made the table"
    )
    assert (lake.root / "cell_daily" / next(iter(lake.data("cell_daily")))).with_name(".part-0.parquet.crc").exists()


def test_logs_are_compacted_and_say_the_same(lake):
    for number in range(15):
        lake.finish(LAST, {"cell_daily": number}, ago=number)
    rows = logs.read(str(lake.root), "runs")
    [done] = [one for one in maintain(lake.settings) if one.name == "runs"]
    assert done.compacted == 15
    table = deltalake.DeltaTable(str(lake.root / "runs"))
    assert len(table.file_uris()) == 2, "all in one, and the row of this maintenance"
    again = [row for row in logs.read(str(lake.root), "runs") if row["step"] != "maintain"]
    assert sorted(again, key=lambda row: row["run_id"]) == sorted(rows, key=lambda row: row["run_id"])
    assert pins(str(lake.root)) == {"cell_daily": 0}
    # Rows of years do not make the log slow to load.
    maintain(lake.settings, now=NOW + timedelta(days=60))
    assert len(lake.data("runs")) <= 3 and len(logs.read(str(lake.root), "runs")) == 17
    assert list((lake.root / "runs" / "_delta_log").glob("*.checkpoint.parquet"))


def test_compaction_keeps_no_least_and_greatest_values(lake):
    row = {"user_id": "somebody", "sealed": b"box", "added_at": NOW}
    for _ in range(11):
        logs_append_vault(lake, row)
    lake.finish(LAST, {}, ago=0)
    maintain(lake.settings)
    newest = sorted((lake.root / "vault" / "_delta_log").glob("*.json"))[-1].read_text()
    assert '"add"' in newest and "somebody" not in newest


def logs_append_vault(lake, row):
    path = str(lake.root / "vault")
    if not deltalake.DeltaTable.is_deltatable(path):
        create(path, TABLES["vault"])
    schema = pa.schema(deltalake.DeltaTable(path).schema().to_arrow())
    deltalake.write_deltalake(path, pa.Table.from_pylist([row], schema=schema), mode="append")


def with_retention(lake, **days):
    # Past the check of the settings: a history of years would be slow to write.
    keep = lake.settings.maintain.model_copy(update={"retention": days})
    return lake.settings.model_copy(update={"maintain": keep})


def test_days_past_their_retention_go_and_states_keep_two_keyframes(lake):
    days = [LAST - timedelta(days=7 * n) for n in range(14, -1, -1)]
    outputs = {name: lake.replace(name, days) for name in ("raw_events", "cell_daily", "item_positions", "hotspots")}
    lake.finish(FIRST, {}, ago=9, step="ingest")
    lake.finish(LAST, outputs, ago=8)
    lake.finish(LAST, outputs, ago=8, step="night")
    settings = with_retention(lake, raw_events=20, item_positions=20, hotspots=0)
    done = {one.name: one for one in maintain(settings)}
    assert days_of(lake.rows("raw_events")) == [str(day) for day in days if day >= LAST - timedelta(days=20)]
    assert done["raw_events"].before == LAST - timedelta(days=20) and done["raw_events"].dropped == 12
    assert days_of(lake.rows("item_positions")) == [str(day) for day in days if day >= date(2024, 5, 1)]
    assert days_of(lake.rows("hotspots")) == [str(LAST)], "the newest snapshot is what readers see"
    assert len(days_of(lake.rows("cell_daily"))) == 15 and done["cell_daily"].dropped == 0
    assert pins(str(lake.root)) == {
        **outputs,
        **{name: outputs[name] + 1 for name in ("raw_events", "item_positions", "hotspots")},
    }
    assert dropped_before(str(lake.root))["raw_events"] == LAST - timedelta(days=20)
    with pytest.raises(Refused, match=f"removed the days of raw_events before {LAST - timedelta(days=20)}"):
        rebuild(None, settings, "events", lambda step, report: None)
    # What readers of the newest night see does not change before the next night.
    [[count]] = [
        list(row.values()) for row in json.loads(render(answer(settings, "select count(*) as n from raw_events"), "json"))
    ]
    assert count == 15
    [again] = [one for one in maintain(settings) if one.name == "raw_events"]
    assert again.dropped == 0


def test_retention_waits_for_a_run_that_is_not_finished(lake):
    days = [LAST - timedelta(days=n) for n in (100, 1)]
    lake.finish(LAST, {"cell_daily": lake.replace("cell_daily", days)}, ago=1)
    lake.replace("cell_daily", [LAST])  # a killed step: committed to the table, in no pin
    [done] = [one for one in maintain(with_retention(lake, cell_daily=20)) if one.name == "cell_daily"]
    assert "waits" in done.note and len(days_of(lake.rows("cell_daily"))) == 3


def test_nothing_that_an_erasure_made_out_of_date_is_kept(lake):
    before = lake.replace("cell_daily", [LAST], cell="with the person")
    lake.finish(LAST, {"cell_daily": before}, ago=1)
    after = lake.replace("cell_daily", [LAST], cell="without")
    erased = {"erasure_id": "e", "tombstone": "t", "key_check": "k", "pieces": 1, "status": "done"}
    erased |= {"recorded_at": datetime.now(UTC)}
    logs.append(str(lake.root), "erasures", [erased])
    lake.finish(LAST, {"cell_daily": after}, ago=0, step="night")
    maintain(lake.settings, now=NOW + timedelta(days=2))
    assert len(lake.data("cell_daily")) == 1 and lake.rows("cell_daily", after).column("cell").to_pylist() == ["without"]
    with pytest.raises(deltalake.exceptions.DeltaError):
        lake.rows("cell_daily", before)


def test_models_that_serve_are_young_or_come_next_are_kept(lake):
    def version(name, day, kind="interest"):
        (lake.root / "models" / name).mkdir(parents=True)
        (lake.root / "models" / name / "version.json").write_text("{}")
        row = {"model_version": name, "kind": kind, "method": "x", "day": day, "trained_until": NOW, "folder": f"models/{name}"}
        return {**row, "settings": "{}", "metrics": "{}", "items": 1, "created_at": NOW}

    def served(name, day, kind="interest"):
        row = {
            "day": day,
            "kind": kind,
            "model_version": name,
            "decision": "published",
            "reason": "x",
            "run_id": str(day),
        }
        return {**row, "decided_at": NOW}

    ago = {
        name: LAST - timedelta(days=days)
        for name, days in (("new", 1), ("edge", 9), ("old", 20), ("serving", 30), ("first", 50))
    }
    tells = {name: LAST - timedelta(days=days) for name, days in (("lately", 16), ("late", 25), ("labels", 60), ("gone", 70))}
    rows = [version(name, day) for name, day in ago.items()]
    rows += [version(name, day, kind="labeller") for name, day in tells.items()]
    logs.append(str(lake.root), "model_versions", rows)
    decided = [served("first", ago["first"]), served("serving", ago["serving"])]
    # Of the same kind they would be what served last, and before it.
    decided += [served("rule", tells["late"], "labeller"), served("labels", tells["labels"], "labeller")]
    logs.append(str(lake.root), "publications", decided)
    lake.finish(LAST, {}, ago=0)
    (lake.root / "models" / ".half-adopted").mkdir()
    (lake.root / "models" / ".half-adopted" / "weights").write_text("x")
    kept = {"new", "edge", "serving", "first", "lately", "labels"}
    assert kept_models(str(lake.root), LAST - timedelta(days=7)) == kept | {"rule"}
    maintain(lake.settings, now=NOW + timedelta(days=2))
    assert {one.name for one in (lake.root / "models").iterdir()} == kept


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "maintain.retention={raw_events: 30}",
            r"maintain.retention.raw_events: 30 days are less .*forecast.history_days: 182 days",
        ),
        ("maintain.retention={events: 0}", "maintain.retention.events: .*greater than or equal to 1"),
        ("maintain.retention={runs: 400}", "maintain.retention.runs: no table with days; these are raw_events"),
        ("maintain.retention={event: 400}", "maintain.retention.event: no table with days"),
        ("maintain.grace_hours=0", "maintain.grace_hours: .*greater than or equal to 1"),
    ],
)
def test_mistakes_name_the_key(override, said):
    with pytest.raises(SettingsError, match=said):
        load_settings(overrides=[override])


def test_settings_that_are_right_load_and_do_not_change_the_hash():
    settings = load_settings(overrides=["maintain.retention={raw_events: 400, events: null}", "maintain.keep_days=60"])
    assert settings.maintain.retention == {"raw_events": 400, "events": None}
    assert settings.hash() == load_settings().hash()
    with pytest.raises(SettingsError, match=r"forecast.history_days: 182 days"):
        load_settings(overrides=["maintain.retention={events: 90}"])


def test_a_lake_elsewhere_and_an_empty_one_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="local disk"):
        maintain(load_settings(overrides=["lake=s3://bucket/lake"]))
    with pytest.raises(ValueError, match="nothing ran"):
        maintain(load_settings(overrides=[f"lake={tmp_path}"]))


def test_the_line_of_a_table_says_all_that_was_done():
    one = maintenance.Done(name="events", dropped=3, before=FIRST, kept=2)
    assert one.line().split(None, 1) == [
        "events",
        "0 files deleted (0 bytes), days before 2024-01-01 dropped (3 files), 2 versions kept",
    ]
