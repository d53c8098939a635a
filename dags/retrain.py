"""A model learnt anew when a night shows that its users, or their lists, have moved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, Param
from airflow.sdk.exceptions import AirflowSkipException
from wherewhen_command import NIGHT, OURS, REFUSED, SETTINGS, Command, RunStep, day_of, lake_assets, steps_as_tasks

from jobs import pipeline

RETRAIN_DOC = """
### What it does
After each night `wherewhen check`. Where the day's events, scores or lists are further from those before than their bounds
(`drift` in the settings), the night is run again from `train` on, with fresh weights and whatever weekday it is; `evaluate`
decides as always whether the new version serves, and readers go on with the night as it was until the last task is done. At
most once in `days_apart` days, as a model that learnt anew moves lists by itself. Each week a night learns anew without it
(`train.from_scratch_on`).

### A task failed: what to do
As in `nightly`. `refused:` (exit code 3) mostly means that another run is at work on the lake: clear the task when it has
ended.

### By hand
*Trigger* with `always` learns anew whatever `check` says.
"""


class Check(Command):
    """Goes on where something is past its bound, and skips what follows otherwise."""

    def asked(self, context: Any) -> Sequence[str]:
        return ["check", "--day", str(day_of(context))]

    def execute(self, context: Any) -> None:
        params, day, instance = context["params"], day_of(context), context["ti"]
        if not params["always"]:
            before = instance.xcom_pull(task_ids=self.task_id, key=RETRAINED, include_prior_dates=True)
            if before and (day - date.fromisoformat(before)).days < params["days_apart"]:
                raise AirflowSkipException(f"learnt anew on {before} already, less than {params['days_apart']} days ago")
            code, _ = self.ended(context)
            if code == 0:
                raise AirflowSkipException(f"nothing of {day} is past its bound")
            if code != REFUSED:
                raise RuntimeError(f"check ended with {code}")
        instance.xcom_push(key=RETRAINED, value=str(day))


class Again(RunStep):
    """Runs one step for the day, as on the weekday on which weights are fresh."""

    def asked(self, context: Any) -> Sequence[str]:
        weekday = f"{day_of(context):%A}".lower()
        return ["--set", f"train.from_scratch_on={weekday}", "--set", "train.only_on=null", *super().asked(context)]


RETRAINED, FIRST = "retrained", "train"


def again() -> list[pipeline.Step]:
    """The first step and all that wait for it: a night is finished when each of its steps is newer than what it waits for."""
    found, needed = [], pipeline.dependencies()
    for step in pipeline.order():
        if step.name == FIRST or needed[step.name] & {one.name for one in found}:
            found.append(step)
    return found


with DAG(
    dag_id="retrain",
    description="Learns anew where drift says so",
    doc_md=RETRAIN_DOC,
    schedule=[Asset(NIGHT)],
    **OURS,
    params={
        "day": Param(None, type=["null", "string"], format="date", description="Run date (UTC); empty: that of the night"),
        "always": Param(False, type="boolean", description="Learn anew whatever `check` says"),
        "days_apart": Param(7, type="integer", minimum=1, description="At most once in so many days"),
        **SETTINGS,
    },
) as dag:
    check = Check(task_id="check", execution_timeout=timedelta(minutes=30))
    tasks = steps_as_tasks(again(), lake_assets(), Again)
    check.set_downstream(tasks[FIRST])
