"""The night as a DAG: one task a step, in the order that `jobs.pipeline` derives from reads and writes.

A task runs the command in the pipeline's own environment (Airflow's is another), so that what a person runs by hand and
what runs at night are the same. Set by the environment of the scheduler and its workers:

WHEREWHEN_COMMAND   the command; `.venv/bin/wherewhen` of this checkout, or on a cluster for example
                    `/opt/wherewhen/.venv/bin/spark-submit --master spark://host:7077 jobs/cli.py`
WHEREWHEN_CONFIG    settings file; conf/local.yaml
WHEREWHEN_AT_ONCE   steps that may run side by side; 1, as on one machine each takes spark.driver_memory
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

ROOT = Path(__file__).resolve().parents[1]
# A DAG bundle is a checkout of which Airflow knows the folder `dags` alone.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from jobs import pipeline  # noqa: E402

WRONG_USAGE, REFUSED = 2, 3
LANDS = "ingest"
GRACE_SECONDS = 20

NIGHT_DOC = f"""
### What it does
Every night at 02:30 UTC: the pipeline for the day before, a task a step. Nothing is served from a night before its
last task is done: readers stay with the night before it.

### A task failed: what to do
The last line of the log says what is wrong and what to do. Then clear the task: a step replaces what it wrote,
so it may run as often as you like, and what is done stays done.

| the log ends with | meaning | what to do |
|---|---|---|
| `error:` | something broke; it was tried twice | mend it (disk, memory, source, database), clear the task |
| `error:` and exit code 2 | the settings or parameters are wrong | correct them, clear the task |
| `refused:` (exit code 3) | a check said no: a day would be skipped, input of a finished day changed, \
another process writes the lake | do what the line says: wait, or run the command that it names \
(mostly `wherewhen backfill --start ... --end ...`), then clear the task or leave it |
| `refused:` by ingest | the day's folder is missing, or holds far fewer or more rows than such days do | \
wait for the rows and clear the task; or trigger the day with `accept` |
| time-out | the step took longer than its limit | look why with `wherewhen runs`; clear the task |

`wherewhen doctor` looks over the machine, `wherewhen runs --day D` shows what every step did.

### By hand
*Trigger* asks for the day (empty: yesterday, UTC), the settings file, whether to accept what landed as it is,
and overrides such as `lake=/data/lake`, a line each.

```mermaid
{pipeline.picture()}
```
"""


class RunStep(BaseOperator):
    """Runs one step for one day by the command; exit codes 2 and 3 fail at once, others after a retry."""

    def __init__(self, *, step: str, **more: Any) -> None:
        super().__init__(**more)
        self.step = step
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        words = [*_command(), *_options(context["params"]), "run", "--day", str(_day(context)), "--only", self.step]
        if self.step == LANDS and context["params"]["accept"]:
            words.append("--accept")
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
        if code in (WRONG_USAGE, REFUSED):
            raise AirflowFailException(f"{self.step} ended with {code}, which no retry mends: {last}")
        if code != 0:
            raise AirflowException(f"{self.step} ended with {code}: {last}")

    def on_kill(self) -> None:
        """End the step's processes; a step that is stopped at any point leaves its tables as they were."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)


def _command() -> list[str]:
    return shlex.split(os.environ.get("WHEREWHEN_COMMAND", str(ROOT / ".venv" / "bin" / "wherewhen")))


def _options(params: Any) -> list[str]:
    overrides = [word for override in params["overrides"] for word in ("--set", override)]
    return ["--config", params["config"], *overrides]


def _day(context: Any) -> date:
    """The day asked for, else the day before the run's own; a triggered run may have no logical date."""
    if context["params"]["day"]:
        return date.fromisoformat(context["params"]["day"])
    run = context["dag_run"]
    moment: datetime = run.logical_date or run.run_after
    return moment.astimezone(UTC).date() - timedelta(days=1)


with DAG(
    dag_id="nightly",
    description="From raw behaviour logs to recommendations, for one day",
    doc_md=NIGHT_DOC,
    schedule="30 2 * * *",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    # A night that was missed is not run out of order: the next one is refused and names the backfill.
    catchup=False,
    max_active_runs=1,
    max_active_tasks=int(os.environ.get("WHEREWHEN_AT_ONCE", "1")),
    default_args={"retries": 1, "retry_delay": timedelta(minutes=5)},
    params={
        "day": Param(None, type=["null", "string"], format="date", description="Run date (UTC); empty: the day before"),
        "config": Param(os.environ.get("WHEREWHEN_CONFIG", "conf/local.yaml"), type="string", description="Settings file"),
        "accept": Param(False, type="boolean", description="Take what landed as it is: no folder, few or many rows"),
        "overrides": Param([], type="array", items={"type": "string"}, description="key.path=value, a line each"),
    },
    tags=["wherewhen"],
) as dag:
    tasks = {
        step.name: RunStep(
            task_id=step.name,
            step=step.name,
            execution_timeout=timedelta(minutes=step.minutes),
            doc_md=f"{step.does}\n\nreads {', '.join(step.reads)}\n\nwrites {', '.join(step.tables_written) or 'a page'}",
        )
        for step in pipeline.order()
    }
    for name, upstream in pipeline.dependencies().items():
        tasks[name].set_upstream([tasks[before] for before in sorted(upstream)])
