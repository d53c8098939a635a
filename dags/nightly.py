"""The night as a DAG: one task a step, in the order that `jobs.pipeline` derives from reads and writes.

The tables are assets: a DAG with `schedule=[Asset("wherewhen://lake/recommendations")]` starts when lists are there; of which
day stands in `extra` of the event.
"""

from __future__ import annotations

from airflow.sdk import DAG, Asset, Param
from wherewhen_command import NIGHT, OURS, SCHEDULE, SETTINGS, deadline, lake_assets, steps_as_tasks

from jobs import pipeline

NIGHT_DOC = f"""
### What it does
Every night (02:30 UTC, or as `WHEREWHEN_SCHEDULE` says): the pipeline for the day before, a task a step. Nothing is served
from a night before its last task is done: readers stay with the night before it.

### A task failed: what to do
The last line of the log says what is wrong and what to do. Then clear the task: a step replaces what it wrote,
so it may run as often as you like, and what is done stays done. While another run holds the lake a task waits.

| the log ends with | meaning | what to do |
|---|---|---|
| `error:` | something broke; it was tried twice | mend it (disk, memory, source, database), clear the task |
| `error:` and exit code 2 | the settings or parameters are wrong | correct them, clear the task |
| `refused:` (exit code 3) | a check said no: a day would be skipped, input of a finished day changed \
| do what the line says: wait, or run the command that it names \
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


with DAG(
    dag_id="nightly",
    description="From raw behaviour logs to recommendations, for one day",
    doc_md=NIGHT_DOC,
    schedule=None if SCHEDULE == "none" else SCHEDULE,
    deadline=deadline("the night"),
    # A night that was missed is not run out of order: the next one is refused and names the backfill.
    **OURS,
    params={
        "day": Param(None, type=["null", "string"], format="date", description="Run date (UTC); empty: the day before"),
        "accept": Param(False, type="boolean", description="Take what landed as it is: no folder, few or many rows"),
        **SETTINGS,
    },
) as dag:
    # What follows on a night follows on this one, not on lists that were made again.
    steps_as_tasks(pipeline.order(), [*lake_assets(pipeline.STEPS), Asset(NIGHT)])
