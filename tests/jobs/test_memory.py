"""The peak of memory that a step's record says."""

from __future__ import annotations

import subprocess
import sys

from jobs.runner import _MemoryWatch

HOLDS = "held = b'x' * (200 << 20); print('held', flush=True); input()"


def test_what_processes_below_hold_counts():
    with _MemoryWatch() as before:
        pass
    command = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with _MemoryWatch() as beside:
            pass
        process.communicate(b"\n")
    assert 200 < beside.peak_mb - before.peak_mb < 300
