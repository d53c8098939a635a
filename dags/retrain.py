"""A model learnt anew when a night shows that its users, or their lists, have moved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, Param, Variable
from airflow.sdk.exceptions import AirflowSkipException
from wherewhen_command import NIGHT, OURS, REFUSED, SETTINGS, Command, RunStep, day_of, lake_assets, steps_as_tasks

from jobs import pipeline

RETRAIN_DOC = """
### What it does
After each night `wherewhen check`. Where the day's events, scores or lists are further from those before than their bounds
(`drift` in the settings), the night is run again from `train` and `ranker` on, both as on the weekday on which weights are
fresh. The gate holds what they make against what served before the day, as it did in the night, and the day's lists are made
again by what then serves; readers go on with the night as it was until the last task is done. At most once in `days_apart`
days (Airflow's variable `wherewhen_retrained` has the last one), as a model that learnt anew moves lists by itself. Each week a
night learns anew without it (`train.from_scratch_on`).

### A task failed: what to do
As in `nightly`. While another run holds the lake a task waits. `refused:` (exit code 3) by a later step than `train` mostly
means that the next night has begun meanwhile: mark the run failed, the next check decides anew.

### By hand
*Trigger* with `always` learns anew whatever `check` says.
"""


class Check(Command):
    """Goes on where something is past its bound, and skips what follows otherwise."""

    def asked(self, context: Any) -> Sequence[str]:
        return ["check", "--day", str(day_of(context))]

    def execute(self, context: Any) -> None:
        params, day = context["params"], day_of(context)
        if params["always"]:
            return
        before = Variable.get(RETRAINED, default=None)
        if before and 0 <= (day - date.fromisoformat(before)).days < params["days_apart"]:
            raise AirflowSkipException(f"learnt anew on {before} already, less than {params['days_apart']} days ago")
        code, last = self.ended(context)
        if code == 0:
            raise AirflowSkipException(f"nothing of {day} is past its bound")
        if code != REFUSED:
            self.fail_for(code, last)


class Again(RunStep):
    """Runs one step for the day; what learns does so as on the weekday on which weights are fresh."""

    def asked(self, context: Any) -> Sequence[str]:
        if self.step not in LEARN:
            return super().asked(context)
        weekday = f"{day_of(context):%A}".lower()
        return ["--set", f"train.from_scratch_on={weekday}", "--set", "train.only_on=null", *super().asked(context)]

    def execute(self, context: Any) -> None:
        super().execute(context)
        if self.outlets:  # the last
            Variable.set(RETRAINED, str(day_of(context)))


RETRAINED, LEARN = "wherewhen_retrained", ("train", "ranker")


def again() -> list[pipeline.Step]:
    """What learns, and all that waits for it: a night is finished when each of its steps is newer than what it waits for."""
    names, needed = set(LEARN), pipeline.dependencies()
    for step in pipeline.order():
        if needed[step.name] & names:
            names.add(step.name)
    return [step for step in pipeline.order() if step.name in names]


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
    steps = again()
    tasks = steps_as_tasks(steps, lake_assets(steps), Again)
    check.set_downstream([tasks[name] for name in LEARN])
