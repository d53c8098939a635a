"""Steps under spark-submit, on a standalone cluster of one worker on loopback: they leave what they leave on one machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from conf.settings import Settings, load_settings
from jobs.lake.runs import pins
from tests.clusters import Cluster, cluster_of, started
from tests.stored import rows_of

DAY = date(2024, 6, 16)

pytestmark = pytest.mark.timeout(1800)  # each step starts a JVM


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with cluster_of(1, tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def lakes(cluster, tmp_path_factory) -> tuple[Settings, Settings]:
    """Two lakes of one log, up to sequences: made on this machine, and on the cluster at the same time."""
    folder = tmp_path_factory.mktemp("lakes")
    land(folder / "landing")
    here, there = (
        load_settings(overrides=[f"lake={folder / name}", f"sources.events.path={folder / 'landing'}"])
        for name in ("here", "there")
    )
    words = ("run", "--day", str(DAY), "--bootstrap", "--only", "ingest,clean,sequences")
    running = [started([sys.executable, "-m", "jobs.cli"], here, *words, env=dict(os.environ)), cluster.submit(there, *words)]
    for process in running:
        said = process.communicate(timeout=900)
        assert process.returncode == 0, said[1][-4000:]
    return here, there


def land(root: Path) -> None:
    """Three days of twelve users who check in at six of twenty items each, and a broken line a day."""
    for back in range(3):
        day = DAY - timedelta(days=back)
        (root / str(day)).mkdir(parents=True)
        rows = [
            {"user_id": f"u{user}", "item_id": f"i{(5 * user + 7 * number + back) % 20}", "event_type": "check_in",
             "event_timestamp": f"{day}T{8 + 2 * number:02}:{4 * user:02}:00Z", "latitude": 40.7 + user / 1000,
             "longitude": -74.0 + number / 1000}
            for user in range(12) for number in range(6)
        ]  # fmt: skip
        lines = [*map(json.dumps, rows), f'{{"user_id": "u1", "event_timestamp": "{day}']
        (root / str(day) / "events.json").write_text("".join(f"{line}\n" for line in lines))


def test_steps_on_a_cluster_leave_what_they_leave_on_one_machine(cluster, lakes):
    """`clean` runs Python on the worker, `sequences` reads what it wrote."""
    for name, rows in {"raw_events": 219, "events": 216, "events_quarantine": 3, "user_sequences": 36}.items():
        one, other = (rows_of(settings, name, pins(settings.lake)[name]) for settings in lakes)
        assert one == other and len(one) == rows, name
    finished = cluster.state()["completedapps"]
    assert any(one["name"] == "wherewhen" and one["cores"] == 1 for one in finished), "it ran on the worker"


@pytest.mark.soak
def test_a_refusal_keeps_its_exit_code(cluster, lakes):
    _, there = lakes
    done = cluster.submit(there, "run", "--day", str(DAY + timedelta(days=2)), "--only", "ingest")
    said, also = done.communicate(timeout=600)
    # spark-submit sends what Python says on stderr to stdout.
    assert done.returncode == 3, also[-4000:]
    assert said.splitlines()[-1].startswith("refused: ") and f"backfill --start {DAY + timedelta(days=1)}" in said
