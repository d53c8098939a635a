"""The DAG in Airflow's own environment: its graph, what a task runs, and a whole night."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from conf.settings import load_settings
from jobs.lake import logs
from jobs.lake.runs import newest_night
from jobs.pipeline import STEPS, dependencies, order
from jobs.query import answer, render
from jobs.runner import run
from jobs.simulate import World, simulate

ROOT = Path(__file__).parents[2]
AIRFLOW = ROOT / ".venv-airflow" / "bin"
DAY = date(2024, 6, 16)

pytestmark = pytest.mark.skipif(not (AIRFLOW / "airflow").exists(), reason="needs .venv-airflow: make .venv-airflow/.ready")

LOAD = """
import json, os, signal, sys
from types import SimpleNamespace
from datetime import datetime, timedelta, timezone
sys.path.append(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
from nightly import dag
def execute(step="ingest", *, logical_date=None, run_after=None, **params):
    given = {"day": "2024-06-16", "config": "conf/local.yaml", "accept": False, "overrides": [], **params}
    dag_run = SimpleNamespace(logical_date=logical_date, run_after=run_after)
    try:
        dag.get_task(step).execute({"params": given, "dag_run": dag_run})
    except Exception as error:
        return type(error).__name__, str(error)
    return "done", ""
"""
# Airflow takes seconds to import: each program runs in a fork of what has, under its own environment.
SERVER = """
import json, os, sys, traceback
import airflow.sdk, airflow.dag_processing.dagbag
for line in sys.stdin:
    program, variables, said = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(variables)
        for stream in (1, 2):
            os.dup2(os.open(f"{said}.{stream}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
        code = 1
        try:
            exec(program, {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# Says what it was given, in a file, and ends as it is told.
STUB = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > "$STUB_FILE"
echo "PYTHONPATH=$PYTHONPATH key=$WHEREWHEN_KEY at=$PWD" > "$STUB_FILE.environment"
echo "refused: a day would be skipped"
exit ${STUB_CODE:-0}
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """airflow(program, **variables): what a program prints as JSON in an Airflow of its own."""
    home = tmp_path_factory.mktemp("airflow")
    variables = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": f"{AIRFLOW}{os.pathsep}{os.environ['PATH']}",
    }
    for name in [name for name in variables if name.startswith("WHEREWHEN_") and "KEY" not in name]:
        del variables[name]

    def look(program, **more):
        server.stdin.write(json.dumps([LOAD + program, {**variables, **more}, str(home / "said")]) + "\n")
        server.stdin.flush()
        code = server.stdout.readline().strip()
        assert code == "0", (home / "said.2").read_text()[-3000:]
        return json.loads((home / "said.1").read_text().strip().splitlines()[-1])

    look.variables = variables
    command = [str(AIRFLOW / "python"), "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables, cwd=home) as server:
        yield look
        server.stdin.close()


@pytest.fixture
def stub(tmp_path):
    """A command that does nothing but say what it was called with."""
    path = tmp_path / "stub with a space.sh"
    path.write_text(STUB)
    path.chmod(0o755)
    return {"WHEREWHEN_COMMAND": f"'{path}' first", "STUB_FILE": str(tmp_path / "words")}


def test_airflow_reads_the_graph_that_the_pipeline_has(airflow):
    program = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        "bag = DagBag(dag_folder=os.environ['AIRFLOW__CORE__DAGS_FOLDER'])\n"
        "assert bag.import_errors == {}, bag.import_errors\n"
        "assert sorted(bag.dags) == ['backfill', 'maintenance', 'nightly', 'retrain']\n"
        "tasks = {t.task_id: [sorted(t.upstream_task_ids), t.execution_timeout.total_seconds(), t.retries, t.doc_md,"
        " t.task_group.group_id]"
        " for t in bag.dags['nightly'].tasks}\n"
        "told = {t.task_id: sorted(a.uri for a in t.outlets) for t in dag.tasks if t.outlets}\n"
        "apart = [dag.max_active_runs, dag.max_active_tasks, dag.catchup, dag.get_task('clean').pool, told]\n"
        "print(json.dumps([tasks, *apart, dag.doc_md, dict(dag.params)]))"
    )
    more = {"WHEREWHEN_AT_ONCE": "4", "WHEREWHEN_CONFIG": "conf/foursquare.yaml", "WHEREWHEN_POOL": "lake"}
    tasks, *apart, told, doc, params = airflow(program, **more)
    assert {name: set(task[0]) for name, task in tasks.items()} == dependencies()
    for step in STEPS:
        _, timeout, retries, said, group = tasks[step.name]
        assert (timeout, retries, group) == (60 * step.minutes, 1, step.stage)
        assert step.does in said and all(table in said for table in (*step.reads, *step.writes))
    assert apart == [1, 4, False, "lake"]
    assert list(told) == [order()[-1].name], "readers see a night when its last step is done"
    tables = {f"wherewhen://lake/{table}" for step in STEPS for table in step.writes}
    assert set(told["report"]) == tables | {"wherewhen://lake/night"}
    assert all(word in doc for word in ("exit code 3", "backfill", "doctor", "clear the task", "ingest --> clean"))
    assert params == {"day": None, "config": "conf/foursquare.yaml", "accept": False, "overrides": []}


def test_a_task_runs_the_command_with_what_was_asked_for(airflow, stub):
    overrides = ["lake=/data/a lake", "sinks={a: {kind: csv, path: '$(touch x); y'}}"]
    said = airflow(
        f"print(json.dumps(execute('clean', config='conf/foursquare.yaml', overrides={overrides!r})))",
        **stub,
        PYTHONPATH="/somewhere/else",
        WHEREWHEN_KEY="0f",
    )
    assert said == ["done", ""]
    words = Path(stub["STUB_FILE"]).read_text().splitlines()
    assert words == [
        "first", "--config", "conf/foursquare.yaml", "--set", overrides[0], "--set", overrides[1],
        "run", "--day", "2024-06-16", "--only", "clean",
    ]  # fmt: skip
    assert Path(stub["STUB_FILE"] + ".environment").read_text() == f"PYTHONPATH= key=0f at={ROOT}\n"


def test_other_dags_run_the_same_command(airflow, stub):
    program = (
        "import backfill, maintenance, nightly\n"
        "def told(dag, task, **params):\n"
        "    given = {'config': 'conf/local.yaml', 'overrides': ['lake=/x'], **params}\n"
        "    dag.get_task(task).execute({'params': given})\n"
        "    return open(os.environ['STUB_FILE']).read().splitlines()[5:]\n"
        "days = {'start': '2024-06-01', 'end': '2024-06-07'}\n"
        "print(json.dumps([told(backfill.dag, 'backfill', **days, only=None),"
        " told(backfill.dag, 'backfill', **days, only='label,score'), told(maintenance.dag, 'maintain'),"
        " [backfill.dag.schedule, maintenance.dag.schedule, backfill.dag.max_active_runs, nightly.dag.schedule]]))"
    )
    whole, some, kept, apart = airflow(program, **stub, WHEREWHEN_SCHEDULE="none")
    assert whole == ["backfill", "--start", "2024-06-01", "--end", "2024-06-07"]
    assert some == [*whole, "--only", "label,score"] and kept == ["maintain"]
    assert apart == [None, "0 14 * * 0", 1, None]


def test_what_moved_is_learnt_anew_once_in_so_many_days(airflow, stub):
    program = """
import retrain
from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor
kept = {}
retrain.Variable = SimpleNamespace(get=lambda name, default: kept.get(name, default), set=kept.__setitem__)
def event(**extra):
    return SimpleNamespace(extra=extra)
events = {"wherewhen://lake/night": [event(day="2024-06-15"), event(day="2024-06-16"), event(from_rest_api=True)]}
def checked(code, always=False, before=None, day=None):
    os.environ["STUB_CODE"] = str(code)
    kept.clear()
    if before:
        kept["wherewhen_retrained"] = before
    params = {"day": day, "config": "conf/local.yaml", "overrides": [], "always": always, "days_apart": 7}
    if os.path.exists(os.environ["STUB_FILE"]):
        os.remove(os.environ["STUB_FILE"])
    try:
        retrain.check.execute({"params": params, "triggering_asset_events": events})
    except Exception as error:
        return type(error).__name__
    return os.path.exists(os.environ["STUB_FILE"]) and open(os.environ["STUB_FILE"]).read().split()[3:]
found = [checked(0), checked(3), checked(1), checked(2), checked(3, before="2024-06-10"), checked(3, before="2024-06-09"),
         checked(3, before="2034-06-16"), checked(0, always=True, before="2024-06-15", day="2024-06-14")]
os.environ["STUB_CODE"] = "0"
told = SimpleNamespace(extra=None)
given = {"day": "2024-06-16", "config": "conf/local.yaml", "overrides": ["train.epochs=1"]}
words = []
for name in ("ranker", "report"):
    task = retrain.dag.get_task(name)
    task.execute({"params": given, "outlet_events": {asset: told for asset in task.outlets}})
    words.append(open(os.environ["STUB_FILE"]).read().splitlines()[3:])
after = {t.task_id: sorted(t.upstream_task_ids) for t in retrain.dag.tasks}
assets = sorted(a.uri for a in task.outlets)
print(json.dumps([found, words, after, told.extra, kept, assets, retrain.dag.get_task("train").pool]))
"""
    found, (learns, serves), after, extra, kept, assets, pool = airflow(program, **stub, WHEREWHEN_GPU_POOL="gpus")
    asked = ["check", "--day", "2024-06-16"]
    skipped = "AirflowSkipException"
    assert found == [
        skipped, asked, "AirflowException", "AirflowFailException", skipped, asked, asked, False,
    ]  # fmt: skip
    fresh = ["--set", "train.from_scratch_on=sunday", "--set", "train.only_on=null"]
    epochs = ["--set", "train.epochs=1"]
    assert learns == [*epochs, *fresh, "run", "--day", "2024-06-16", "--only", "ranker"]
    assert serves == [*epochs, "run", "--day", "2024-06-16", "--only", "report"], "what else is run is what a night runs"
    assert kept == {"wherewhen_retrained": "2024-06-16"} and extra == {"day": "2024-06-16"} and pool == "gpus"
    again = set(after) - {"check"}
    assert {"train", "ranker", "evaluate", "score", "export", "report"} < again and "label" not in again
    assert after["train"] == after["ranker"] == ["check"]
    for name in again - {"train", "ranker"}:
        assert set(after[name]) == dependencies()[name] & again != set(), name
    for name in set(dependencies()) - again:
        assert not dependencies()[name] & again, "the night would not be finished"
    assert "wherewhen://lake/recommendations" in assets and "wherewhen://lake/night" not in assets, "it does not start itself"
    assert "wherewhen://lake/raw_events" not in assets, "what was not made again is not told"


def test_a_task_waits_while_another_run_holds_the_lake(airflow, tmp_path):
    busy = tmp_path / "busy.sh"
    busy.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/calls\n[ $(wc -l < {tmp_path}/calls) -gt 2 ] && exit 0\n"
        "echo 'refused: lake is held by run of 2024-06-15: ingest (pid 1); wait until it has ended'\nexit 3\n"
    )
    busy.chmod(0o755)
    program = "import wherewhen_command\nwherewhen_command.HELD_SECONDS = 0.01\nprint(json.dumps(execute()))"
    assert airflow(program, WHEREWHEN_COMMAND=str(busy)) == ["done", ""]
    assert (tmp_path / "calls").read_text().count("x") == 3


def test_a_night_that_is_late_is_told_of(airflow):
    told = []

    class Told(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Told)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = """
from airflow.sdk.execution_time.callback_supervisor import execute_callback
import structlog
[alert] = dag.deadline
given = {**alert.callback.kwargs, "context": {"dag_run": {"dag_run_id": "scheduled__x"}}}
done = [execute_callback(alert.callback.path, given, "nightly.py", None, structlog.get_logger())[0]]
os.environ["WHEREWHEN_ALERT_URL"] = "no address"
done.append(execute_callback(alert.callback.path, given, "nightly.py", None, structlog.get_logger())[0])
print(json.dumps([done, alert.interval.total_seconds(), "pyspark" in sys.modules]))
"""
    address = f"http://127.0.0.1:{server.server_port}"
    done, seconds, has_spark = airflow(program, WHEREWHEN_ALERT_URL=address, WHEREWHEN_LATE_MINUTES="90")
    server.shutdown()
    assert done == [True, False] and seconds == 5400 and not has_spark
    text = "wherewhen: the night is not done 90 minutes after it was due"
    assert told == [{"what": "late", "dag_run": "scheduled__x", "minutes": 90, "text": text}]


def test_what_landed_is_accepted_by_ingest_alone(airflow, stub):
    for step, asked in (("ingest", ["--accept"]), ("clean", [])):
        assert airflow(f"print(json.dumps(execute('{step}', accept=True)))", **stub) == ["done", ""]
        assert Path(stub["STUB_FILE"]).read_text().splitlines()[-2 - len(asked) :] == ["--only", step, *asked]


def test_the_day_is_the_one_asked_for_or_the_day_before(airflow, stub):
    cases = {
        "day=None, run_after=datetime(2024, 3, 1, 2, 30, tzinfo=timezone.utc)": "2024-02-29",
        "day=None, logical_date=datetime(2024, 3, 1, 2, 30, tzinfo=timezone.utc)": "2024-02-29",
        "day='', run_after=datetime(2024, 3, 1, 1, 0, tzinfo=timezone(timedelta(hours=3)))": "2024-02-28",
        "day='2024-05-05', run_after=datetime(2024, 3, 1, tzinfo=timezone.utc)": "2024-05-05",
    }
    each = "days = []\n" + "".join(
        f"assert execute({case}) == ('done', ''); days.append(open(os.environ['STUB_FILE']).read().split()[5])\n"
        for case in cases
    )
    assert airflow(each + "print(json.dumps(days))", **stub) == list(cases.values())


def test_a_refusal_and_a_wrong_usage_are_not_tried_again(airflow, stub):
    each = "found = []\nfor code in '123':\n    os.environ['STUB_CODE'] = code\n    found.append(execute())\n"
    found = airflow(each + "print(json.dumps(found))", **stub)
    assert [kind for kind, _ in found] == ["AirflowException", "AirflowFailException", "AirflowFailException"]
    for code, (_, said) in enumerate(found, start=1):
        assert f"ended with {code}" in said and "refused: a day would be skipped" in said


def test_a_task_that_must_stop_leaves_no_process(airflow, tmp_path):
    slow = tmp_path / "slow.sh"
    slow.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/pid\nwait\n")
    slow.chmod(0o755)
    program = (
        "def stop(*_): raise TimeoutError('time-out')\n"
        "signal.signal(signal.SIGALRM, stop)\n"
        "signal.alarm(3)\n"
        "print(json.dumps(execute()))"
    )
    assert airflow(program, WHEREWHEN_COMMAND=str(slow)) == ["TimeoutError", "time-out"]
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def settings_of(folder, *more):
    """Overrides of a lake in the folder, whose log lands beside it."""
    return [
        f"lake={folder / 'lake'}",
        f"sources.events.path={folder / 'landing'}",
        f"report.path={folder / 'report.html'}",
        "spark.driver_memory=1g",
        *more,
    ]


def by_airflow(airflow, overrides, *to_airflow):
    """A night by `dags test`, each task the real command in a process of its own: its steps in `runs`."""
    variables = {**airflow.variables, "WHEREWHEN_COMMAND": f"{sys.executable} -m jobs.cli"}
    subprocess.run([str(AIRFLOW / "airflow"), "db", "migrate"], check=True, capture_output=True, env=variables)
    asked = json.dumps({"day": str(DAY), "overrides": overrides})
    command = [str(AIRFLOW / "airflow"), "dags", "test", "nightly", "--conf", asked, *to_airflow]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    lake = load_settings(overrides=overrides).lake
    return logs.read(lake, "runs", f"day = DATE '{DAY}' AND status IN ('done', 'skipped')")


def test_a_night_goes_through_airflow_and_a_day_out_of_order_is_refused(airflow, tmp_path):
    """The first two steps of a lake's first day; Airflow itself takes the others as done. The whole night is in `make soak`."""
    landed = {"user_id": "anna", "item_id": "i1", "event_type": "view", "event_timestamp": f"{DAY}T10:00:00Z"}
    (tmp_path / "landing" / str(DAY)).mkdir(parents=True)
    (tmp_path / "landing" / str(DAY) / "events.json").write_text(json.dumps(landed) + "\n")
    overrides = settings_of(tmp_path)
    steps = by_airflow(airflow, overrides, "--mark-success-pattern", r"(?!(ingest|clean)$).*")
    assert {row["step"]: row["rows_in"] for row in steps} == {"ingest": 1, "clean": 1}
    assert len({row["run_id"] for row in steps}) == 2, "a process a task"
    skipped = airflow(
        f"print(json.dumps(execute('ingest', day='{DAY + timedelta(days=2)}', overrides={overrides!r})))",
        WHEREWHEN_COMMAND=f"{sys.executable} -m jobs.cli",
    )
    assert skipped[0] == "AirflowFailException" and f"backfill --start {DAY + timedelta(days=1)}" in skipped[1]


@pytest.mark.soak
def test_a_whole_night(airflow, spark, tmp_path):
    simulate(spark, tmp_path / "world", World(users=25, items=30, days=14, end_day=DAY, seed=5))
    (tmp_path / "world" / "landing").rename(tmp_path / "landing")
    overrides = settings_of(tmp_path, f"sinks.files={{kind: csv, path: {tmp_path / 'lists'}}}", "train.epochs=1")
    settings = load_settings(overrides=overrides)
    run(spark, settings, DAY - timedelta(days=1), bootstrap=True)
    steps = by_airflow(airflow, overrides)
    night = newest_night(settings.lake)
    assert night is not None and night.day == DAY
    assert {row["step"] for row in steps} == {"night", *(step.name for step in STEPS)}
    assert len({row["run_id"] for row in steps if row["step"] != "night"}) == len(STEPS), "a process a task"
    [served] = json.loads(render(answer(settings, "select count(*) as lists from recommendations"), "json"))
    assert served["lists"] > 0 and (tmp_path / "report.html").exists()
