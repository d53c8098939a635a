"""Erasure in a lake that the pipeline made: what comes in again, what the next night sees, what stands in sinks."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import deltalake
import psycopg
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from conf.settings import Folder, Postgres, Settings, load_settings
from jobs import ingest
from jobs.backfill import run_days
from jobs.erase import erase
from jobs.export import export
from jobs.lake import files, logs, runs
from jobs.lake.context import Refused
from jobs.lake.erasure import OF_TEXTS
from jobs.lake.identities import load_key, pseudonym
from jobs.lake.person import Person, owned
from jobs.lake.runs import newest_night
from jobs.pipeline import choose
from jobs.runner import run
from jobs.simulate import World, simulate
from jobs.sinks import folder, postgres
from jobs.subject import subject, write_folder
from tests.begun import NEXT

DAY = NEXT - timedelta(days=1)  # the last that is finished


@pytest.fixture(scope="module")
def server(postgres):
    return postgres.get_uri()


@pytest.fixture(scope="module", params=["few", pytest.param(2000, marks=pytest.mark.soak)])
def world(request, spark, tmp_path_factory, server) -> Settings:
    """So many users' lake after every step, in PostgreSQL and folders too; the landing folders go on for a day more."""
    root = tmp_path_factory.mktemp("erasing")
    if request.param == "few":
        settings = request.getfixturevalue("begun").copy(
            root / "place", "report.users=25", f"report.path={root}/pages/{{day}}.html"
        )
    else:
        settings = many_users(spark, root, request.param)
    sinks = {
        "shop": Postgres(kind="postgres", dsn=server, table="lists"),
        "raw": Postgres(kind="postgres", dsn=server, table="raw", source="raw_events"),
        "lists": Folder(kind="parquet", path=str(root / "out" / "lists")),
        "series": Folder(kind="csv", path=str(root / "out" / "series"), source="time_series_features"),
    }
    settings = settings.model_copy(update={"sinks": sinks})
    for _ in range(2):  # a second delivery, so that the one before is kept
        export(spark, settings, whole=True)
    run(spark, settings, DAY, steps=choose(only=("report",)))
    return settings


def many_users(spark, root: Path, users: int) -> Settings:
    simulate(spark, root / "world", World(users=users, items=25, days=8, end_day=NEXT, seed=5, bot_rate=0.0))
    small = ["train.epochs=1", "model.width=16", "model.layers=1", "evaluate.bootstrap_samples=20", "score.slots=false"]
    settings = load_settings(
        overrides=[f"lake={root / 'lake'}", f"sources.events.path={root / 'world' / 'landing'}",
                   f"report.path={root}/pages/{{day}}.html", f"report.users={users}", *small]
    )  # fmt: skip
    run(spark, settings, DAY, bootstrap=True)
    return settings


def rows_seen(settings: Settings, name: str, person: Person) -> list[str]:
    """All rows of the version that readers see, but the person's."""
    root = Path(settings.lake) / name
    table = deltalake.DeltaTable(str(root), version=newest_night(settings.lake).versions[name])
    found = []
    for file in files.listed(table).values():
        rows = pq.ParquetFile(root / file.path).read()
        found += [f"{file.day} {row}" for row in rows.filter(pc.invert(owned(person, rows))).to_pylist()]
    return sorted(found)


def stored(settings: Settings, name: str) -> list[dict]:
    """All rows of the newest version."""
    root = Path(settings.lake) / name
    table = deltalake.DeltaTable(str(root))
    return [row for file in files.listed(table).values() for row in pq.ParquetFile(root / file.path).read().to_pylist()]


def user_of(line: str) -> str | None:
    """Whose event it is; None of a broken line."""
    try:
        return json.loads(line).get("user_id")
    except json.JSONDecodeError:
        return None


def bots(landed: Path) -> set[str]:
    """Their events are quarantined, so that they have no lists."""
    with open(landed.parents[1] / "truth" / "users.csv", newline="") as file:
        return {row["user_id"] for row in csv.DictReader(file) if row["is_bot"] == "true"}


def test_one_of_many_goes_and_does_not_come_back(spark, world, server, tmp_path):
    landed = Path(world.sources["events"].path) / str(DAY)
    users = [user_of(line) for file in landed.glob("events*") for line in file.read_text().splitlines()]
    [(busiest, _)] = Counter(user for user in users if user not in {None, *bots(landed)}).most_common(1)
    person = Person.of(busiest)
    said = subject(world, person.raw_id)
    held = {name: len(rows) for name, rows in said["tables"].items() if name not in OF_TEXTS}
    assert {"raw_events", "events", "users", "vault", "user_sequences", "recommendations", "training_windows"} <= set(held)
    assert set(said["sinks"]) == set(world.sinks) and person.pseudonym not in json.dumps(said)
    write_folder(said, tmp_path / "subject")
    assert len((tmp_path / "subject" / "table-events.jsonl").read_text().splitlines()) == held["events"]
    expected = {name: rows_seen(world, name, person) for name in newest_night(world.lake).versions if name not in OF_TEXTS}
    assert sum(map(bool, expected.values())) > 20
    assert person.pseudonym[:8] in world.report.page(DAY).read_text()

    certificate = json.loads(erase(world, person.raw_id, tmp_path / "certificate.json").certificate.read_text())
    removed = certificate["rows_removed"]
    assert {name: count for name, count in removed.items() if count and name not in OF_TEXTS} == held
    assert certificate["sinks"] == {name: len(rows) for name, rows in said["sinks"].items()}
    assert certificate["scan"]["hits"] == 0 and certificate["scan"]["mentions"] == []
    assert certificate["models_trained_on_the_person"] == said["models_trained_on_the_person"] != []
    assert not world.report.page(DAY).exists() and world.report.index.exists(), "it showed the person, the index nobody"
    assert expected == {name: rows_seen(world, name, person) for name in expected}
    left = subject(world, person.raw_id)
    assert left["tables"] == {} and left["sinks"] == {} and len(left["erasures"]) == 2
    for sink in ("lists", "series"):
        assert len(folder.deliveries(Path(world.sinks[sink].path))) == 2, "the delivery before is kept, without the person"
    for table in ("lists", "raw"):
        with psycopg.connect(server) as connection:
            named = f"SELECT count(*) FROM {table} t WHERE position('{person.raw_id}' in t::text) > 0"
            assert connection.execute(named).fetchone() == (0,) < connection.execute(f"SELECT count(*) FROM {table}").fetchone()

    # The landing files still hold the person.
    run_days(spark, world, DAY, DAY, steps=choose(to_step="clean"), watch=lambda step, report: None)
    assert subject(world, person.raw_id)["tables"] == {}
    # Forecasts are of nobody, and a Monday's selection of their methods is the longest of these steps.
    run(spark, world, NEXT, steps=[step for step in choose(to_step="interaction") if step.name != "forecast"])
    assert subject(world, person.raw_id)["tables"] == {}, "the next night runs, without the person"
    run(spark, world, NEXT, steps=choose(only=("ingest",)), bootstrap=True)
    assert subject(world, person.raw_id)["tables"] == {}
    newest = max(logs.read(world.lake, "runs", "step = 'ingest'"), key=lambda row: row["finished_at"])
    left_out = json.loads(newest["details"])["erased"]
    assert left_out > 0 and newest["rows_in"] == newest["rows_out"]["raw_events"] + left_out


def land(root: Path, day: date, events: list[str], users: list[str]) -> None:
    (root / str(day)).mkdir(parents=True)
    (root / str(day) / "events.jsonl.gz").write_bytes(gzip.compress("".join(line + "\n" for line in events).encode()))
    (root / str(day) / "users.csv").write_text("".join(f"{line}\n" for line in ["user_id,age_band,gender,language", *users]))


def event(user: str, day: date, item: str = "i1") -> str:
    return json.dumps({"user_id": user, "item_id": item, "event_type": "view", "event_timestamp": f"{day}T10:00:00Z"})


def ingested(context) -> dict:
    """Run the step and record it as done, as the runner does."""
    ingest.run(context)
    day, settings = context.days.last, context.settings
    made = {"outputs": context.outputs, "rows_in": context.rows_in, "rows_out": context.rows_out}
    record = runs.row("test", "ingest", day, first_day=context.days.first, details=json.dumps(context.details), **made)
    logs.append(settings.lake, "runs", [record])
    return record


@pytest.mark.parametrize("erase_landing", [False, True])
def test_nights_go_on_after_an_erasure_and_changed_folders_are_still_refused(
    make_settings, make_context, tmp_path, erase_landing
):
    landing, first = tmp_path / "landing", date(2024, 1, 30)
    days = [first + timedelta(days=n) for n in range(4)]
    for day in days:
        land(
            landing, day, [event("anna", day), event("bert", day), '{"user_id": "anna", "it'], ["anna,20,f,en", "bert,30,m,de"]
        )
    settings = make_settings(
        "conf/local.yaml", f"sources.events.path={landing}", f"privacy.erase_landing={str(erase_landing).lower()}"
    )

    def night(day: date) -> dict:
        return ingested(make_context(day, first_day=first, settings=settings))

    whole = ingested(make_context(first, days[1], bootstrap=True, settings=settings))
    assert whole["rows_out"]["raw_events"] == 6
    certificate = json.loads(erase(settings, "anna").certificate.read_text())
    assert certificate["rows_removed"]["raw_events"] == 4 and certificate["rows_removed"]["users"] == 1
    assert sum(certificate["landing"].get("records_removed", {}).values()) == (12 if erase_landing else 0)
    content = gzip.decompress((landing / str(first) / "events.jsonl.gz").read_bytes()).decode()
    assert content == (event("bert", first) + "\n" if erase_landing else content) and ("anna" in content) != erase_landing

    third = night(days[2])
    assert third["rows_out"]["raw_events"] == 1 and third["rows_in"] == (1 if erase_landing else 3)
    assert json.loads(third["details"]).get("erased", 0) == (0 if erase_landing else 2)
    bert = pseudonym("bert", load_key())
    for name in ("vault", "users"):
        assert {row["user_id"] for row in stored(settings, name)} == {bert}, name
    (landing / str(first) / "more.jsonl").write_text("")  # a file that the mapping does not name
    (landing / str(first) / "events-late.jsonl").write_text(event("bert", first, "i2") + "\n")
    with pytest.raises(Refused, match=f"the source rows of {first} changed"):
        night(days[3])
    (landing / str(first) / "events-late.jsonl").unlink()
    night(first)  # the backfill of a day before the erasure
    rows = stored(settings, "raw_events")
    assert {row["user_id"] for row in rows} == {bert} and all(row["broken"] is None for row in rows)


def test_postgres_erases_by_every_column_that_names(server):
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE TABLE q (user_id text, row text, broken text, entity_type text, entity_id text)")
        rows = [("12", None, None, None, None), ("7", None, None, None, None), (None, '{"broken": "12,i"}', None, None, None),
                (None, '{"text": "12"}', None, None, None), (None, None, 'x "12"', None, None), (None, None, "112", None, None),
                (None, None, None, "user", "12"), (None, None, None, "item", "12")]  # fmt: skip
        connection.cursor().executemany("INSERT INTO q VALUES (%s, %s, %s, %s, %s)", rows)
        sink = Postgres(kind="postgres", dsn=server, table="q")
        assert len(postgres.rows_of(sink, Person.of("12"))) == 4 == postgres.erase(sink, Person.of("12"))
        assert postgres.rows_of(sink, Person.of("12")) == [] and connection.execute("SELECT count(*) FROM q").fetchone() == (4,)
        assert postgres.erase(sink, Person.of("' OR true --\x00%s")) == 0
        assert postgres.erase(Postgres(kind="postgres", dsn=server, table="not_there"), Person.of("12")) == 0
        connection.execute("DROP TABLE q")
