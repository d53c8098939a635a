"""Training of the interest model: one process or many, from pinned Parquet files to a registry folder.

`train_all` is what TorchDistributor runs in every process; its argument and what it leaves behind
(a folder per task, with `result.json`) are plain. Shape suffixes: B windows, W events of a window,
T moments asked about per window, N targets, L events of history, D width, V items.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from conf.settings import Model, Train
from models import histories as past
from models.catalogue_loss import catalogue_loss, ranks
from models.histories import EventColumns
from models.interest import InterestModel, best_device, events_of, grown, new_network
from models.network import BucketBias, Events, Moments, Network
from models.queries import FIRST, PADDING, Histories, Vocabulary
from models.windows import Batches, Source, Windows

log = logging.getLogger("wherewhen")
_WARM_UP = 0.05
_CLIP = 1.0
_BUCKETS_FASTER = 5.0
_SECONDS_BETWEEN_LINES = 5.0
_RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training. `train_windows` and `validation_windows` are their numbers; 0 of the latter trains to the end.

    `prior` is a .npy file of (V,) float32 first biases of the items; `parent` a registry folder to go on from.
    """

    name: str
    model: Model
    train: Train
    vocabulary: Path
    source: Source
    train_windows: int
    validation_windows: int
    folder: Path
    prior: Path | None = None
    parent: Path | None = None

    @property
    def epochs(self) -> int:
        return self.train.epochs if self.parent is None else self.train.warm_epochs

    @property
    def learning_rate(self) -> float:
        return self.train.learning_rate if self.parent is None else self.train.warm_learning_rate


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a training went. Losses are means in nats per target; `losses` are those of the epochs."""

    epochs: int
    seconds: float
    processes: int
    train_loss: float | None
    validation_loss: float | None
    losses: list[float]


def train_all(tasks: Sequence[Task], processes: Processes) -> None:
    """Train the tasks one after the other, in this process of `processes`; `result_of` tells how each went."""
    with processes.joined():
        for task in tasks:
            result = train(task, processes)
            if processes.rank == 0:
                (task.folder / _RESULT).write_text(json.dumps(asdict(result)))


def train_here(tasks: Sequence[Task]) -> None:
    """`train_all` in a process that a launcher started, with RANK and WORLD_SIZE in its environment."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train_all(tasks, Processes.launched())


def result_of(task: Task) -> Result:
    return Result(**json.loads((task.folder / _RESULT).read_text()))


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

    def __exit__(self, *exc: object) -> None:
        dist.destroy_process_group()


class Objective(nn.Module):
    """Loss of a batch: the sum of -log softmax over the catalogue at the moments that are targets."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, events: Events, moments: Moments, target_BT: Tensor) -> Tensor:
        return catalogue_loss(*self.parts(events, moments, target_BT))

    def parts(
        self, events: Events, moments: Moments, target_BT: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Arguments of the loss for the targets alone; `target_BT` is 0 where there is none."""
        reading = self.network(events, moments)
        chosen_BT = target_BT >= FIRST
        place_BL = (reading.item_BL - FIRST).clamp(min=0)
        place_NL = place_BL.unsqueeze(1).expand_as(reading.pull_BTL)[chosen_BT]
        return (
            reading.vector_BTD[chosen_BT],
            self.network.item_matrix(),
            self.network.item_bias,
            reading.pull_BTL[chosen_BT],
            place_NL,
            target_BT[chosen_BT] - FIRST,
        )


def examples(windows: Windows, vocabulary: Vocabulary) -> tuple[Events, Moments, Tensor]:
    """A batch as the network reads it: the first W - 1 events, and the last T places as moments asked about.

    A moment is given its time, and the clock and place of what came before it: no other column of its
    own event. (B, T) target indices come third, 0 where a place is no target.
    """
    rows, size = windows.item_NW.shape
    targets = np.where(windows.is_target_NW == 1, windows.item_NW, PADDING)
    asked = int(size - np.argmax((targets >= FIRST).any(axis=0))) if (targets >= FIRST).any() else 1
    tail = slice(size - asked, size)
    flat = EventColumns(
        item_E=windows.item_NW.ravel(), category_E=windows.category_NW.ravel(), event_type_E=windows.event_type_NW.ravel(),
        timestamp_E=windows.timestamp_NW.ravel(), hour_of_week_E=windows.hour_of_week_NW.ravel(),
        latitude_E=windows.latitude_NW.ravel(), longitude_E=windows.longitude_NW.ravel(),
    )  # fmt: skip
    row_NW = np.arange(rows)[:, None] * size + np.zeros(size, dtype=np.int64)
    first_NW = row_NW + (windows.item_NW == PADDING).sum(axis=1, keepdims=True)
    # Padding stands before the first event and is an owner of its own.
    owner_NW = np.where(np.arange(size) + row_NW < first_NW, row_NW, first_NW)
    stop_NW = past.stop_before(owner_NW.ravel(), flat.timestamp_E).reshape(rows, size)
    queries = past.queries_before(
        flat,
        past.Moments(
            first_B=first_NW[:, tail].ravel(),
            stop_B=stop_NW[:, tail].ravel(),
            timestamp_B=windows.timestamp_NW[:, tail].ravel(),
        ),
    )
    last_BT = np.where(stop_NW > first_NW, stop_NW - 1 - row_NW, -1)[:, tail]
    histories = Histories(
        item_BL=windows.item_NW[:, :-1], category_BL=windows.category_NW[:, :-1], event_type_BL=windows.event_type_NW[:, :-1],
        timestamp_BL=windows.timestamp_NW[:, :-1], hour_of_week_BL=windows.hour_of_week_NW[:, :-1],
        latitude_BL=windows.latitude_NW[:, :-1], longitude_BL=windows.longitude_NW[:, :-1],
    )  # fmt: skip
    moments = Moments(
        timestamp_BT=torch.from_numpy(queries.timestamp_B.reshape(rows, asked)),
        hour_of_week_BT=torch.from_numpy(queries.hour_of_week_B.reshape(rows, asked)),
        latitude_BT=torch.from_numpy(queries.latitude_B.reshape(rows, asked)),
        longitude_BT=torch.from_numpy(queries.longitude_B.reshape(rows, asked)),
        last_BT=torch.from_numpy(last_BT),
    )
    return events_of(histories, slice(None), size - 1, vocabulary), moments, torch.from_numpy(targets[:, tail].astype(np.int64))


def hide(moments: Moments, share: float) -> Moments:
    """Query dropout: of this share of the moments, half lose time and place, a quarter each one of them."""
    drawn_BT = torch.rand(moments.last_BT.shape, device=moments.last_BT.device)
    no_time_BT = drawn_BT < 0.75 * share
    no_place_BT = (drawn_BT < 0.5 * share) | ((drawn_BT >= 0.75 * share) & (drawn_BT < share))
    return Moments(
        timestamp_BT=moments.timestamp_BT,
        hour_of_week_BT=moments.hour_of_week_BT.masked_fill(no_time_BT, -1.0),
        latitude_BT=moments.latitude_BT.masked_fill(no_place_BT, torch.nan),
        longitude_BT=moments.longitude_BT.masked_fill(no_place_BT, torch.nan),
        last_BT=moments.last_BT,
    )


def train(task: Task, processes: Processes) -> Result:
    """One training in this process (of many, where there are many); rank 0 saves the weights in `task.folder`.

    The weights with the least validation loss are kept; they then learn the validation fold too, which
    holds the newest events, at the rate of a night.
    """
    began = time.monotonic()
    vocabulary = Vocabulary.load(task.vocabulary)
    torch.manual_seed(task.train.seed)
    network = _first_weights(task, vocabulary).to(processes.device)
    run = _Run(task, processes, network, vocabulary)
    best, best_metrics, worse = None, {"loss": math.inf}, 0
    losses: list[float] = []
    run.start("train", task.train_windows, task.epochs, task.learning_rate)
    for epoch in range(task.epochs):
        losses.append(run.epoch(epoch))
        if task.validation_windows:
            metrics = run.validate()
            run.tell(f"epoch {epoch + 1} of {task.epochs}: loss {losses[-1]:.4f}, validation {_in_words(metrics)}")
            worse = 0 if metrics["loss"] < best_metrics["loss"] else worse + 1
            if worse == 0:
                best_metrics, best = metrics, copy.deepcopy(network.state_dict())
        if run.out_of_time or worse >= task.train.patience:
            break
    if best is not None:
        network.load_state_dict(best)
        run.start("validation", task.validation_windows, task.train.warm_epochs, task.train.warm_learning_rate)
        for epoch in range(task.train.warm_epochs):
            run.epoch(epoch)
    metrics = best_metrics if best is not None else {}
    if processes.rank == 0:
        task.folder.mkdir(parents=True, exist_ok=True)
        InterestModel(network, vocabulary, device=processes.device, metrics=metrics).save(task.folder)
    return Result(
        epochs=len(losses),
        seconds=time.monotonic() - began,
        processes=processes.count,
        train_loss=losses[-1] if losses else None,
        validation_loss=metrics.get("loss"),
        losses=losses,
    )


def _in_words(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _first_weights(task: Task, vocabulary: Vocabulary) -> Network:
    if task.parent is not None:
        parent = InterestModel.load(task.parent, torch.device("cpu"))
        return grown(parent.network, vocabulary)
    network = new_network(task.model, vocabulary)
    if task.prior is not None:
        with torch.no_grad():
            network.item_bias.copy_(torch.from_numpy(np.load(task.prior)))
    return network


def _groups(network: Network, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Biases are not decayed; those of buckets are sums over many events and may move faster."""
    buckets = [module.weight for module in network.modules() if isinstance(module, BucketBias)]
    fast = {id(weight) for weight in buckets}
    rest = [weight for weight in network.parameters() if id(weight) not in fast]
    return [
        {"params": [weight for weight in rest if weight.ndim > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [weight for weight in rest if weight.ndim <= 1], "lr": learning_rate, "weight_decay": 0.0},
        {"params": buckets, "lr": _BUCKETS_FASTER * learning_rate, "weight_decay": 0.0},
    ]


class _Run:
    """The moving parts of one training."""

    def __init__(self, task: Task, processes: Processes, network: Network, vocabulary: Vocabulary) -> None:
        self.task, self.processes, self.network, self.vocabulary = task, processes, network, vocabulary
        self.out_of_time = False
        self.began = self.said = time.monotonic()
        self.bare = Objective(network)
        self.objective: nn.Module = self.bare
        if processes.count > 1:
            devices = [processes.local_rank] if processes.device.type == "cuda" else None
            self.objective = nn.parallel.DistributedDataParallel(self.bare, device_ids=devices, broadcast_buffers=False)
        self.folds = {
            fold: Batches(
                task.source.of(fold),
                batch_size=task.train.batch_size,
                seed=task.train.seed,
                rank=processes.rank,
                ranks=processes.count,
            )
            for fold in ("train", "validation")
        }
        # Dropout must differ between processes, weights must not.
        torch.manual_seed(task.train.seed * 1000 + processes.rank)

    def start(self, fold: str, windows: int, epochs: int, learning_rate: float) -> None:
        """Begin passes over a fold with a fresh optimizer and schedule."""
        self.batches, self.epochs = self.folds[fold], epochs
        self.steps, self.step = epochs * max(1, math.ceil(windows / self.task.train.batch_size)), 0
        self.optimizer = torch.optim.AdamW(_groups(self.network, learning_rate, self.task.train.weight_decay))
        total = self.steps
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: share_of_peak(step, total))

    def epoch(self, number: int) -> float:
        """One pass; the mean loss per target, over all processes."""
        self.network.train()
        loss_sum, count_sum = 0.0, 0.0
        for windows in self.batches.epoch(number):
            loss, count, late = self._learn(windows)
            loss_sum, count_sum = loss_sum + loss, count_sum + count
            self._progress(number, loss_sum / max(count_sum, 1.0))
            if late:
                self.out_of_time = True
                break
        return loss_sum / max(count_sum, 1.0)

    def _learn(self, windows: Windows) -> tuple[float, float, bool]:
        events, moments, target_BT = self._example(windows)
        if self.task.model.query_dropout:
            moments = hide(moments, self.task.model.query_dropout)
        late = time.monotonic() - self.began > self.task.train.max_seconds
        count, any_late = self.processes.summed(float((target_BT >= FIRST).sum()), float(late))
        with self._precision():
            loss = self.objective(events, moments, target_BT)
        # Averaged over processes by DDP, hence times their number: the mean over the targets of all.
        (loss * (self.processes.count / max(count, 1.0))).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        (total,) = self.processes.summed(loss.item())
        return total, count, any_late > 0

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss, ndcg@10, hit@1 and hit@10 on the validation fold, over all processes."""
        self.network.eval()
        sums = np.zeros(5)
        for windows in self.folds["validation"].epoch(0):
            events, moments, target_BT = self._example(windows)
            loss_N, rank_N = ranks(*self.bare.parts(events, moments, target_BT))
            gain_N = torch.where(rank_N <= 10, 1.0 / torch.log2(1.0 + rank_N.double()), 0.0)
            found = [loss_N.double().sum(), gain_N.sum(), (rank_N == 1).sum(), (rank_N <= 10).sum()]
            sums += np.array([*(float(value) for value in found), len(rank_N)])
        totals = self.processes.summed(*sums.tolist())
        names = ("loss", "ndcg@10", "hit@1", "hit@10")
        return {name: total / max(totals[4], 1.0) for name, total in zip(names, totals[:4], strict=True)}

    def _example(self, windows: Windows) -> tuple[Events, Moments, Tensor]:
        events, moments, target_BT = examples(windows, self.vocabulary)
        device = self.processes.device
        return events.to(device), moments.to(device), target_BT.to(device)

    def _precision(self) -> AbstractContextManager[object]:
        if self.processes.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def _progress(self, epoch: int, loss: float) -> None:
        if time.monotonic() - self.said < _SECONDS_BETWEEN_LINES:
            return
        passed, done = time.monotonic() - self.began, self.step / self.steps
        rate, left = self.step * self.task.train.batch_size / passed, passed * (1 - done) / done
        self.tell(f"epoch {epoch + 1} of {self.epochs}, loss {loss:.4f}, {rate:,.0f} windows/s, at most {left:,.0f} s left")

    def tell(self, words: str) -> None:
        self.said = time.monotonic()
        if self.processes.rank == 0:
            log.info("training %s: %s", self.task.name, words)


def share_of_peak(step: int, total: int) -> float:
    """Learning rate at a step as a share of its peak: a short warm-up, then a cosine down to 0."""
    warm = max(1, round(_WARM_UP * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))
