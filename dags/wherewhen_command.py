"""What the DAGs have in common: tasks that run the pipeline's command, and the parameters that are asked for.

A task runs the command in the pipeline's own environment (Airflow's is another), so that what a person runs by hand and
what runs at night are the same. Set by the environment of the scheduler and its workers:

WHEREWHEN_COMMAND   the command; `.venv/bin/wherewhen` of this checkout, or on a cluster for example
                    `/opt/wherewhen/.venv/bin/spark-submit --master spark://host:7077 jobs/cli.py`
WHEREWHEN_CONFIG    settings file; conf/local.yaml
WHEREWHEN_SCHEDULE  when nights begin (UTC), as cron has it; `30 2 * * *`; `none`: by hand alone
WHEREWHEN_AT_ONCE   steps that may run side by side; 1, as on one machine each takes spark.driver_memory
WHEREWHEN_POOL      the pool of all tasks; Airflow's default. One of a single slot makes a backfill wait for the night that
                    is at work in Airflow's queue, where else its task is at work and waits for the lake
WHEREWHEN_GPU_POOL  the pool of the step that trains, in place of that
WHEREWHEN_ALERT_URL      where it is told, by a JSON POST, that a night is late; not set: nowhere. It takes an executor that
                         runs callbacks, as LocalExecutor does
WHEREWHEN_LATE_MINUTES   so long after it was due; 360
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, BaseOperator, DeadlineAlert, DeadlineReference, Param, SyncCallback, TaskGroup
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# A DAG bundle is a checkout of which Airflow knows the folder `dags` alone.
if (_checkout := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.append(_checkout)

from jobs import pipeline

ROOT = Path(_checkout)
WRONG_USAGE, REFUSED = 2, 3
SCHEDULE = os.environ.get("WHEREWHEN_SCHEDULE") or "30 2 * * *"
# What a run says that another has kept from the lake, and how often it is tried whether that one has ended.
HELD, HELD_SECONDS = " is held by ", 60.0
LANDS = "ingest"
# The asset of nights alone.
NIGHT = "wherewhen://lake/night"
ALERT_URL = "WHEREWHEN_ALERT_URL"
GRACE_SECONDS, ALERT_SECONDS = 20, 10
OURS = {
    "catchup": False,
    "max_active_runs": 1,
    "max_active_tasks": int(os.environ.get("WHEREWHEN_AT_ONCE") or 1),
    "start_date": datetime(2024, 1, 1, tzinfo=UTC),
    "default_args": {
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "pool": os.environ.get("WHEREWHEN_POOL") or "default_pool",
    },
    "tags": ["wherewhen"],
}
SETTINGS = {
    "config": Param(os.environ.get("WHEREWHEN_CONFIG", "conf/local.yaml"), type="string", description="Settings file"),
    "overrides": Param([], type="array", items={"type": "string"}, description="key.path=value, a line each"),
}


def lake_assets(steps: Sequence[pipeline.Step]) -> list[Asset]:
    """The tables that steps write. An event of one says in `extra` which day is there."""
    return [Asset(f"wherewhen://lake/{table}") for table in sorted({one for step in steps for one in step.writes})]


def late(context: dict[str, Any], what: str, minutes: int) -> None:
    """Tells that a run is not done when it should be; called by Airflow, in a process of its own."""
    run = context.get("dag_run", {}).get("dag_run_id", "")
    said = f"{what} is not done {minutes} minutes after it was due"
    message = {"what": "late", "dag_run": run, "minutes": minutes, "text": f"wherewhen: {said}"}
    request = urllib.request.Request(os.environ[ALERT_URL], json.dumps(message).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=ALERT_SECONDS).close()


def deadline(what: str) -> DeadlineAlert | None:
    """Where there is somebody to tell. (With one, `airflow dags test` of Airflow 3.3 ends with an error of its own.)"""
    if not os.environ.get(ALERT_URL):
        return None
    minutes = int(os.environ.get("WHEREWHEN_LATE_MINUTES") or 360)
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=minutes),
        callback=SyncCallback(late, kwargs={"what": what, "minutes": minutes}),
    )


class Command(BaseOperator):
    """Runs the command; exit codes 2 and 3 fail at once, others after a retry.

    While another run holds the lake it waits, until its own time is over: DAG runs of two DAGs know nothing of each other.
    """

    def __init__(self, *, words: Sequence[str] = (), **more: Any) -> None:
        super().__init__(**more)
        self.words = tuple(words)
        self._process: subprocess.Popen[str] | None = None

    def asked(self, context: Any) -> Sequence[str]:
        """The command's own words."""
        return self.words

    def execute(self, context: Any) -> None:
        code, last = self.ended(context)
        while code == REFUSED and HELD in last:
            time.sleep(HELD_SECONDS)
            code, last = self.ended(context)
        self.fail_for(code, last)

    def fail_for(self, code: int, last: str) -> None:
        """Raises for an exit code other than 0, as it is to be tried again or not."""
        if code in (WRONG_USAGE, REFUSED):
            raise AirflowFailException(f"{self.task_id} ended with {code}, which no retry mends: {last}")
        if code != 0:
            raise AirflowException(f"{self.task_id} ended with {code}: {last}")

    def ended(self, context: Any) -> tuple[int, str]:
        """Run it to its end: the exit code, and the last line that it said."""
        words = [*_command(), *_options(context["params"]), *self.asked(context)]
        self.log.info("%s", shlex.join(words))
        # What Airflow's own environment says of Python must not reach the other one.
        environment = {
            key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        }
        # A session of its own, so that the JVM below goes when the step must.
        self._process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        last = ""
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                last = line.strip() or last
                self.log.info("%s", line.rstrip())
            code = self._process.wait()
        finally:
            self.on_kill()
        return code, last

    def on_kill(self) -> None:
        """End the command's processes; what is stopped at any point leaves its tables as they were."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)


class RunStep(Command):
    """Runs one step of the pipeline for one day."""

    def __init__(self, *, step: str, **more: Any) -> None:
        super().__init__(**more)
        self.step = step

    def asked(self, context: Any) -> Sequence[str]:
        accepts = self.step == LANDS and context["params"].get("accept")
        return ["run", "--day", str(day_of(context)), "--only", self.step, *(["--accept"] if accepts else [])]

    def execute(self, context: Any) -> None:
        super().execute(context)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {"day": str(day_of(context))}


def steps_as_tasks(steps: Sequence[pipeline.Step], told: Sequence[Asset], kind: type[RunStep] = RunStep) -> dict[str, RunStep]:
    """A task for each step, after those that it needs, a group a stage. `told`: assets that are there when the last is done."""
    # Tasks keep the steps' names: a group is for the eye.
    stages = dict.fromkeys(step.stage for step in steps)
    groups = {stage: TaskGroup(stage, prefix_group_id=False) for stage in stages}
    pools = {"train": pool} if (pool := os.environ.get("WHEREWHEN_GPU_POOL")) else {}
    tasks = {
        step.name: kind(
            task_id=step.name,
            task_group=groups[step.stage],
            step=step.name,
            execution_timeout=timedelta(minutes=step.minutes),
            # Readers see a night's tables when its last step is done.
            outlets=list(told) if step is steps[-1] else [],
            doc_md=f"{step.does}\n\nreads {', '.join(step.reads)}\n\nwrites {', '.join(step.tables_written) or 'a page'}",
            **({"pool": pools[step.name]} if step.name in pools else {}),
        )
        for step in steps
    }
    for name, upstream in pipeline.dependencies().items():
        if name in tasks:
            tasks[name].set_upstream([tasks[before] for before in sorted(upstream) if before in tasks])
    return tasks


def _command() -> list[str]:
    return shlex.split(os.environ.get("WHEREWHEN_COMMAND", str(ROOT / ".venv" / "bin" / "wherewhen")))


def _options(params: Any) -> list[str]:
    overrides = [word for override in params["overrides"] for word in ("--set", override)]
    return ["--config", params["config"], *overrides]


def day_of(context: Any) -> date:
    """The day asked for, else that of the night by whose end the run was started, else the day before the run's own.

    A triggered run may have no logical date.
    """
    if context["params"]["day"]:
        return date.fromisoformat(context["params"]["day"])
    told = [event.extra.get("day") for events in (context.get("triggering_asset_events") or {}).values() for event in events]
    if days := [day for day in told if day]:  # one that was made by hand may name none
        return date.fromisoformat(max(days))
    run = context["dag_run"]
    moment: datetime = run.logical_date or run.run_after
    return moment.astimezone(UTC).date() - timedelta(days=1)
