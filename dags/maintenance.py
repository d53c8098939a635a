"""Once a week, between two nights: what no reader needs any more goes, and the many small files of a log become one."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from wherewhen_command import OURS, SETTINGS, Command

MAINTENANCE_DOC = """
### What it does
On Sundays at 14:00 UTC `wherewhen maintain`: compacts logs, drops days past `maintain.retention`, and deletes what no version
that is still needed holds. Nothing that the runs of the last `maintain.keep_days` days read is touched.

### The task failed: what to do
Clear it: what is done stays done. While a night is at work on the lake the task waits.
"""

with DAG(
    dag_id="maintenance",
    description="Keeps the lake small",
    doc_md=MAINTENANCE_DOC,
    schedule="0 14 * * 0",
    **OURS,
    params=dict(SETTINGS),
) as dag:
    Command(task_id="maintain", words=("maintain",), execution_timeout=timedelta(hours=4))
