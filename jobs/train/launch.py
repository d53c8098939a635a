"""Starts trainings: in this process, or in several by Spark's TorchDistributor."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections import deque
from collections.abc import Sequence

from pyspark.sql import SparkSession

from models.processes import Processes
from models.tasks import Result, Task
from models.training import FAILED, result_of, train_all, train_here

_SIGTERM = 15
# What a process says whose sums another has left.
_LEFT_ALONE = re.compile(
    r"Connection (closed|reset)|DistBackendError|DistNetworkError|\bgloo\b|\bNCCL\b|timed? ?out", re.IGNORECASE
)


def launch(spark: SparkSession | None, tasks: Sequence[Task], processes: int, log: logging.Logger) -> list[Result]:
    """Train the tasks one after the other and say how each went; all in one start.

    A start through TorchDistributor costs about 6 seconds of processor time (torchrun and a fresh
    Python that imports torch), more than a night's own training: so one process is this process, and needs no `spark`.

    Raises:
        RuntimeError: a process failed or was killed, which ends the others; says which, and what it said.
    """
    if processes == 1:
        train_all(tasks, Processes.alone())
    else:
        from pyspark.ml.torch.distributor import TorchDistributor

        assert spark is not None, "several processes are started by Spark"
        # Spark hands out GPUs only where it was given them; else each process takes that of its rank.
        has_gpus = "gpu" in spark.sparkContext.resources
        distributor = TorchDistributor(num_processes=processes, local_mode=True, use_gpu=has_gpus)
        lines = _Lines(log)
        try:
            with contextlib.redirect_stdout(lines):
                distributor.run(train_here, list(tasks))
        except RuntimeError as error:
            raise RuntimeError(what_failed("\n".join([*lines.newest, str(error)]))) from error
    return [result_of(task) for task in tasks]


def what_failed(output: str) -> str:
    """The process that failed first and why, out of what all of them and torchrun said.

    A killed process says nothing, but torchrun knows its signal; those it leaves alone fail for their connections.
    """
    ended = re.findall(r"\brank\s*: (\d+) .*?exitcode\s*: (-?\d+)", output, re.DOTALL)
    killed = [(rank, -int(code)) for rank, code in ended if int(code) < 0 and -int(code) != _SIGTERM]
    again = "run the day again: it goes on from the last checkpoint"
    if killed:
        rank, signal = killed[0]
        return f"{FAILED} {rank}: it was ended by signal {signal} (9: perhaps for want of memory); {again}"
    said = list(dict.fromkeys(re.findall(rf"^{FAILED} \d+: .*$", output, re.MULTILINE)))
    own = [line for line in said if not _LEFT_ALONE.search(line)]
    return f"{(own or said)[0]}; {again}" if said else f"training failed: {output.strip().splitlines()[-1]}"


class _Lines(io.TextIOBase):
    """What processes print, as lines of the log: stdout is for results. `newest` are kept to find out what failed."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.newest: deque[str] = deque(maxlen=2000)

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self.newest.append(line)
            if line.startswith("training "):
                self.log.info("%s", line)
            elif line.strip():
                self.log.debug("%s", line.strip())
        return len(text)
