"""Runs ours and a peer by turns, each in a process of its own, and says the figures in one JSON line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
OURS, PEER = sys.executable, str(ROOT / ".venv-bench/bin/python")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run: `said` is the JSON that it printed last, with `seconds` of work and `startup_s` before it."""

    peak_mb: float
    said: Mapping[str, Any]


@dataclass
class _Memory:
    """Peak proportional set size of a process and all below it, sampled: shared pages count once."""

    process: psutil.Process
    peak_mb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def sample(self) -> None:
        pause = 0.5
        # The kernel walks every page of them for a sample: a twentieth of the time at most.
        while not self._stop.wait(pause):
            total, began = 0, time.monotonic()
            try:
                tree = [self.process, *self.process.children(recursive=True)]
            except psutil.Error:
                return
            for one in tree:
                try:
                    total += one.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_mb = max(self.peak_mb, total / 2**20)
            pause = max(0.5, 20 * (time.monotonic() - began))

    def stop(self) -> None:
        self._stop.set()


def measured(command: Sequence[str], environment: Mapping[str, str]) -> Measured:
    """Run a command to its end.

    Raises:
        ValueError: it failed; with the end of what it said.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(environment), cwd=ROOT
    )
    memory = _Memory(process=psutil.Process(process.pid))
    thread = threading.Thread(target=memory.sample, daemon=True)
    thread.start()
    said, log = process.communicate()
    memory.stop()
    thread.join()
    if process.returncode:
        raise ValueError(f"{' '.join(command)} ended with {process.returncode}: {log[-2000:]}")
    return Measured(peak_mb=memory.peak_mb, said=json.loads(said.strip().splitlines()[-1]))


def seconds(runs: Sequence[Measured]) -> dict[str, float]:
    """The median, the least and the greatest of the runs' seconds."""
    times = [float(run.said["seconds"]) for run in runs]
    return {"median": round(median(times), 2), "least": round(min(times), 2), "greatest": round(max(times), 2)}


def line(
    *, name: str, size: int, ours: Sequence[Measured], peer: str, peers: Sequence[Measured], limit: float
) -> dict[str, Any]:
    """The line of a benchmark. `limit`: ours may take so many times the peer's time."""
    ours_s, peer_s = seconds(ours), seconds(peers)
    return {
        "name": name,
        "size": size,
        "ours_s": ours_s["median"],
        "peer": peer,
        "peer_s": peer_s["median"],
        "ratio": round(peer_s["median"] / ours_s["median"], 3),
        "limit_s": round(limit * peer_s["median"], 2),
        "runs": len(ours),
        "ours_range_s": [ours_s["least"], ours_s["greatest"]],
        "peer_range_s": [peer_s["least"], peer_s["greatest"]],
        "ours_startup_s": round(median(float(run.said["startup_s"]) for run in ours), 2),
        "peer_startup_s": round(median(float(run.said["startup_s"]) for run in peers), 2),
        "ours_peak_mb": round(max(run.peak_mb for run in ours)),
        "peer_peak_mb": round(max(run.peak_mb for run in peers)),
    }


def say(said: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()
