"""This process among those that train together, on GPUs (NCCL) or processors (gloo)."""

from __future__ import annotations

import gc
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist

from models.interest import best_device


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among those that train together."""

    rank: int
    count: int
    local_rank: int

    @staticmethod
    def alone() -> Processes:
        return Processes(rank=0, count=1, local_rank=0)

    @staticmethod
    def launched() -> Processes:
        given = [int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))]
        return Processes(rank=given[0], count=given[1], local_rank=given[2])

    @property
    def device(self) -> torch.device:
        best = best_device()
        return torch.device("cuda", self.local_rank) if best.type == "cuda" else best

    def joined(self) -> AbstractContextManager[object]:
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // self.count))
        else:
            torch.cuda.set_device(self.device)
        return _Group("nccl" if self.device.type == "cuda" else "gloo") if self.count > 1 else nullcontext()

    def summed(self, *values: float) -> list[float]:
        """The sums over all processes."""
        if self.count == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()


class _Group(AbstractContextManager[object]):
    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __enter__(self) -> None:
        dist.init_process_group(self.backend)

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is not None:
            # The others wait for this process within a sum: to leave in order would wait for them.
            return
        # Threads of a group that something still refers to when Python ends abort the process: DDP is part of cycles.
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()
