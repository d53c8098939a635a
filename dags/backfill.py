"""Days made again, or for the first time, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param
from wherewhen_command import OURS, SETTINGS, Command

BACKFILL_DOC = """
### What it does
Runs the pipeline day by day from `start` to `end`, as `wherewhen backfill` does: where nights were missed, where a log's
finished days have changed, or after a release. *Trigger* asks for the days; where `only` names no steps it is the whole night.

### The task failed: what to do
The last line of the log says what is wrong. Clear the task: it goes on at the day that it had come to. While another run holds
the lake the task waits.
"""


class Backfill(Command):
    """Runs the days asked for."""

    def asked(self, context: Any) -> Sequence[str]:
        params = context["params"]
        only = ["--only", params["only"]] if params["only"] else []
        return ["backfill", "--start", params["start"], "--end", params["end"], *only]


with DAG(
    dag_id="backfill",
    description="The pipeline for days that were missed or changed",
    doc_md=BACKFILL_DOC,
    schedule=None,
    **OURS,
    params={
        "start": Param(type="string", format="date", description="First day (UTC)"),
        "end": Param(type="string", format="date", description="Last day (UTC)"),
        "only": Param(None, type=["null", "string"], description="Steps, separated by commas; empty: all"),
        **SETTINGS,
    },
) as dag:
    Backfill(task_id="backfill", execution_timeout=timedelta(hours=48))
