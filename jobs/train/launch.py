"""Starts trainings: in this process, or in several by Spark's TorchDistributor."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence

from pyspark.sql import SparkSession

from models.processes import Processes
from models.training import Result, Task, result_of, train_all, train_here


def launch(spark: SparkSession, tasks: Sequence[Task], processes: int, log: logging.Logger) -> list[Result]:
    """Train the tasks one after the other and say how each went; all in one start.

    A start through TorchDistributor costs about 6 seconds of processor time (torchrun and a fresh
    Python that imports torch), more than a night's own training: so one process is this process.
    """
    if processes == 1:
        train_all(tasks, Processes.alone())
    else:
        from pyspark.ml.torch.distributor import TorchDistributor

        # Spark hands out GPUs only where it was given them; else each process takes that of its rank.
        has_gpus = "gpu" in spark.sparkContext.resources
        distributor = TorchDistributor(num_processes=processes, local_mode=True, use_gpu=has_gpus)
        with contextlib.redirect_stdout(_Lines(log)):
            distributor.run(train_here, list(tasks))
    return [result_of(task) for task in tasks]


class _Lines(io.TextIOBase):
    """What processes print, as lines of the log: stdout is for results."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.startswith("training "):
                self.log.info("%s", line)
            elif line.strip():
                self.log.debug("%s", line.strip())
        return len(text)
