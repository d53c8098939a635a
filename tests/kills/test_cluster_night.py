"""A whole night by spark-submit on two workers, of which one is killed during features, training and scoring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from jobs.lake import logs
from jobs.lake.runs import newest_night
from jobs.pipeline import order
from tests.clusters import ROOT, cluster_of
from tests.night import DAY

DURING = ("time_series", "train", "score")
# Once a step is at work: its plans are made, and rows are on their way.
SECONDS_IN = 3.0
DONE, REFUSED = 0, 3


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_night_survives_the_loss_of_workers_and_leaves_what_one_machine_leaves(night, tmp_path, capsys):
    settings = night.lake("clustered")
    names = [step.name for step in order()]
    before = {names[names.index(name) - 1]: name for name in DURING}
    killed, said, done = {}, [], []
    with cluster_of(2, tmp_path) as cluster:
        options = [word for override in night.overrides("clustered") for word in ("--set", override)]
        command = [*cluster.submitting(), *options, "run", "--day", str(DAY)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=cluster.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

        def lose(step):
            time.sleep(SECONDS_IN)
            cluster.kill_worker()
            killed[step] = step not in done
            cluster.add_worker()

        try:
            for line in process.stdout:
                said.append(line.rstrip())
                done.append(line.split()[0] if line.startswith("  ") and line.split() else "")
                if done[-1] in before:
                    threading.Thread(target=lose, args=(before[done[-1]],), daemon=True).start()
            # Of so few users' day the candidate may be refused, as it then is on one machine.
            assert process.wait(60) in (DONE, REFUSED), "\n".join(said[-40:])
        finally:
            process.kill()
        finished = cluster.state()["completedapps"]
    assert killed == dict.fromkeys(DURING, True), "each while its step was at work"
    assert any(one["name"] == "wherewhen" for one in finished)
    assert newest_night(settings.lake).day == DAY
    seconds = {
        row["step"]: row["seconds"] for row in logs.read(settings.lake, "runs", f"day = DATE '{DAY}' AND status = 'done'")
    }
    with capsys.disabled():
        sys.stdout.write(json.dumps({name: round(value, 1) for name, value in seconds.items()}) + f" {os.cpu_count()} cores\n")
    assert night.differences(settings) == {}
