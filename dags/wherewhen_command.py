"""What the DAGs have in common: tasks that run the pipeline's command, and the parameters that are asked for.

A task runs the command in the pipeline's own environment (Airflow's is another), so that what a person runs by hand and
what runs at night are the same. Set by the environment of the scheduler and its workers:

WHEREWHEN_COMMAND   the command; `.venv/bin/wherewhen` of this checkout, or on a cluster for example
                    `/opt/wherewhen/.venv/bin/spark-submit --master spark://host:7077 jobs/cli.py`
WHEREWHEN_CONFIG    settings file; conf/local.yaml
WHEREWHEN_AT_ONCE   steps that may run side by side; 1, as on one machine each takes spark.driver_memory
WHEREWHEN_POOL      the pool of all tasks; Airflow's default. One of a single slot makes a backfill wait for the night that
                    is at work, where else it would be refused
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

ROOT = Path(__file__).resolve().parents[1]
WRONG_USAGE, REFUSED = 2, 3
GRACE_SECONDS = 20
OURS = {
    "catchup": False,
    "max_active_runs": 1,
    "max_active_tasks": int(os.environ.get("WHEREWHEN_AT_ONCE", "1")),
    "start_date": datetime(2024, 1, 1, tzinfo=UTC),
    "default_args": {
        "retries": 1,
        "retry_delay": timedelta(minutes=5),
        "pool": os.environ.get("WHEREWHEN_POOL", "default_pool"),
    },
    "tags": ["wherewhen"],
}
SETTINGS = {
    "config": Param(os.environ.get("WHEREWHEN_CONFIG", "conf/local.yaml"), type="string", description="Settings file"),
    "overrides": Param([], type="array", items={"type": "string"}, description="key.path=value, a line each"),
}


class Command(BaseOperator):
    """Runs the command; exit codes 2 and 3 fail at once, others after a retry."""

    def __init__(self, *, words: Sequence[str] = (), **more: Any) -> None:
        super().__init__(**more)
        self.words = tuple(words)
        self._process: subprocess.Popen[str] | None = None

    def asked(self, context: Any) -> Sequence[str]:
        """The command's own words."""
        return self.words

    def execute(self, context: Any) -> None:
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
        if code in (WRONG_USAGE, REFUSED):
            raise AirflowFailException(f"{self.task_id} ended with {code}, which no retry mends: {last}")
        if code != 0:
            raise AirflowException(f"{self.task_id} ended with {code}: {last}")

    def on_kill(self) -> None:
        """End the command's processes; what is stopped at any point leaves its tables as they were."""
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


def day_of(context: Any) -> date:
    """The day asked for, else the day before the run's own; a triggered run may have no logical date."""
    if context["params"]["day"]:
        return date.fromisoformat(context["params"]["day"])
    run = context["dag_run"]
    moment: datetime = run.logical_date or run.run_after
    return moment.astimezone(UTC).date() - timedelta(days=1)
