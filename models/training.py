"""Training of the interest model: one process or many, from pinned Parquet files to a registry folder.

`train_all` is what TorchDistributor runs in every process; its argument and what it leaves behind
(a folder per task, with `result.json`) are plain. A training that is ended goes on from its last checkpoint and comes to
the same weights, to the bit on a CPU: the order of the windows follows from seed and epoch, and what is drawn at a step
(dropout) from seed, step and rank. Shape suffixes: T moments asked about per window, B windows, N targets.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import checkpoint
from models.batches import Batches, in_pieces
from models.catalogue_loss import ranks
from models.descent import Descent, share_of_peak
from models.events import Events, Moments
from models.examples import Objective, examples, hide
from models.interest import InterestModel, grown, halved, new_network
from models.knowledge import Knowledge
from models.network import Network
from models.processes import Processes
from models.queries import FIRST, UNKNOWN, Vocabulary
from models.tasks import Result, Task
from models.windows import Windows

log = logging.getLogger("wherewhen")
# Being a little behind of what time would allow changes nothing, so that a training that ends in time can be repeated.
_BEHIND_TIME = 0.05
_SECONDS_BETWEEN_LINES = 5.0
# Of a step: what a CPU's cache makes faster by a twentieth, and saves much padding; what a GPU's memory bears.
_PLACES_AT_ONCE = {"cpu": 4096, "gpu": 65536}
_RESULT = "result.json"
# Steps whose windows tell what half precision changes.
_ASKED = 2
_JUDGED_BY = "ndcg@10"
# Begins what a process says that fails, for whoever started it.
FAILED = "training failed in process"


@dataclass(kw_only=True)
class Progress:
    """How far a training has come; the sums are those of the epoch that goes on."""

    number: int = 0  # of the pass
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    count_sum: float = 0.0
    targets: float = 0.0  # of all passes so far, and what they were worth
    worth: float = 0.0
    losses: list[float] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    worse: int = 0
    seconds: float = 0.0


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
    processes = Processes.launched()
    try:
        train_all(tasks, processes)
    except Exception as error:
        sys.stdout.write(f"{FAILED} {processes.rank}: {type(error).__name__}: {' '.join(str(error).split())}\n")
        sys.stdout.flush()
        raise


def result_of(task: Task) -> Result:
    return Result(**json.loads((task.folder / _RESULT).read_text()))


def train(task: Task, processes: Processes) -> Result:
    """One training in this process (of many, where there are many); rank 0 saves the weights in `task.folder`.

    The weights that rank the validation fold best are kept; they then learn it too.
    """
    vocabulary = Vocabulary.load(task.vocabulary)
    torch.manual_seed(task.train.seed)
    run = _Run(task, processes, _first_weights(task, vocabulary).to(processes.device), vocabulary)
    run.resume()
    progress = run.progress
    while progress.number < len(task.passes):
        first = progress.number == 0
        while progress.epoch < run.epochs and not (first and run.is_over):
            run.epoch()
            if first:
                run.close_epoch()
        run.next_pass()
    if processes.rank == 0:
        task.folder.mkdir(parents=True, exist_ok=True)
        half = run.lost_by_half() <= task.train.half_within
        InterestModel(run.network, vocabulary, device=processes.device, metrics=progress.best).save(task.folder, half=half)
    return Result(
        epochs=len(progress.losses),
        seconds=run.seconds,
        processes=processes.count,
        train_loss=progress.losses[-1] if progress.losses else None,
        validation_loss=progress.best.get("loss"),
        losses=progress.losses,
    )


def _mean(total: float, weight: float) -> float:
    """Of sums; 0 of nothing."""
    return total / weight if weight else 0.0


def _in_words(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _first_weights(task: Task, vocabulary: Vocabulary) -> Network:
    knowledge = None if task.knowledge is None else Knowledge.load(task.knowledge)
    if task.parent is not None:
        parent = InterestModel.load(task.parent, torch.device("cpu"))
        return grown(parent.network, vocabulary, knowledge)
    network = new_network(task.model, vocabulary, knowledge)
    if task.prior is not None:
        with torch.no_grad():
            network.item_bias.copy_(torch.from_numpy(np.load(task.prior)))
    return network


def _shares(task: Task, device: torch.device) -> Tensor | None:
    """How often each item is a target, relatively."""
    return None if task.prior is None else torch.from_numpy(np.load(task.prior)).exp().to(device)


class _Run:
    """The moving parts of one training."""

    def __init__(self, task: Task, processes: Processes, network: Network, vocabulary: Vocabulary) -> None:
        self.task, self.processes, self.network, self.vocabulary = task, processes, network, vocabulary
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.out_of_time = self.told_to_end = False
        self.began = self.said = self.saved = time.monotonic()
        types = vocabulary.event_type_index
        taken_types = [types[name] for name in task.taken_types if name in types]
        worth = {types[name]: value for name, value in task.train.worth.items() if name in types}
        # NCCL adds up no sparse gradients.
        network.item.sparse = task.train.loss != "full" and (processes.device.type == "cpu" or processes.count == 1)
        self.bare = Objective(network, task.train, _shares(task, processes.device), taken_types, worth).to(processes.device)
        self.objective: nn.Module = self.bare
        if processes.count > 1:
            devices = [processes.local_rank] if processes.device.type == "cuda" else None
            self.objective = DistributedDataParallel(self.bare, device_ids=devices, broadcast_buffers=False)
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
        self._start()

    def _start(self) -> None:
        """Begin a pass with a fresh optimizer and schedule."""
        now = self.task.passes[self.progress.number]
        self.batches, self.epochs = self.folds[now.fold], now.epochs
        self.steps = max(1, now.epochs * self.batches.steps)
        self.descent = Descent(self.network, now.learning_rate, self.task.train.weight_decay)
        self.step = 0
        self.since = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far, before an interruption too."""
        return self.progress.seconds + time.monotonic() - self.began

    @property
    def is_over(self) -> bool:
        return self.out_of_time or self.told_to_end or self.progress.worse >= self.task.train.patience

    def epoch(self) -> None:
        """What is left of one way through the fold; its mean loss per target, over all processes, goes to `losses`."""
        progress = self.progress
        self.network.train()
        for windows in self.batches.epoch(progress.epoch, skip=progress.batch):
            loss, count, late = self._learn(windows)
            progress.batch += 1
            progress.loss_sum, progress.count_sum = progress.loss_sum + loss, progress.count_sum + count
            self._tell_progress(_mean(progress.loss_sum, progress.count_sum))
            if time.monotonic() - self.saved > self.task.train.checkpoint_seconds:
                self.keep()
            if late:
                self.out_of_time = True
                break
        if progress.number == 0:
            progress.losses.append(_mean(progress.loss_sum, progress.count_sum))
        progress.epoch, progress.batch, progress.loss_sum, progress.count_sum = progress.epoch + 1, 0, 0.0, 0.0

    def close_epoch(self) -> None:
        """Judge the weights on the validation fold, and keep the best."""
        progress = self.progress
        metrics = self.validate() if self.task.validates else {}
        if metrics:
            epoch = f"epoch {progress.epoch} of {self.epochs}"
            self.tell(f"{epoch}: loss {progress.losses[-1]:.4f}, validation {_in_words(metrics)}")
            # By what ranks are judged by: the loss is least long before, when the model begins to be too sure of itself.
            progress.worse = 0 if metrics[_JUDGED_BY] > progress.best.get(_JUDGED_BY, -math.inf) else progress.worse + 1
            if progress.worse == 0:
                progress.best, self.best = metrics, copy.deepcopy(self.network.state_dict())
        if self.task.after_epoch is not None:
            measures = {"train_loss": progress.losses[-1], "seconds": self.seconds, **metrics}
            ends = self.processes.rank == 0 and self.task.after_epoch(progress.epoch, measures)
            self.told_to_end = self.processes.summed(float(ends))[0] > 0

    def next_pass(self) -> None:
        """The weights that were best begin it."""
        if self.best is not None:
            self.network.load_state_dict(self.best)
            self.best = None
        self.progress.number, self.progress.epoch = self.progress.number + 1, 0
        if self.progress.number < len(self.task.passes):
            self._start()

    def keep(self) -> None:
        """Save all that the rest of the training depends on. Where that fails it goes on, and the checkpoint before stays."""
        self.saved = time.monotonic()
        if self.task.checkpoint is None or self.processes.rank != 0:
            return
        state = {
            "progress": {**asdict(self.progress), "seconds": self.seconds},
            "network": self.network.state_dict(),
            "best": self.best,
            "descent": self.descent.state_dict(),
            "step": self.step,
        }
        try:
            checkpoint.save(self.task.checkpoint, state)
        except OSError as error:
            self.tell(f"no checkpoint could be written ({error.strerror}: {self.task.checkpoint.parent}); going on without")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one that is whole; every process reads it."""
        if self.task.checkpoint is None:
            return
        try:
            state = checkpoint.load(self.task.checkpoint)
        except checkpoint.Damaged as damaged:
            self.tell(f"{damaged}: starting from the beginning")
            return
        if state is None:
            return
        self.progress, self.best = Progress(**state["progress"]), state["best"]
        self.network.load_state_dict(state["network"])
        self._start()
        self.descent.load_state_dict(state["descent"])
        self.step = state["step"]
        self.since = self.step, time.monotonic()
        now, pass_ = self.progress, self.task.passes[self.progress.number]
        self.tell(
            f"going on from {self.task.checkpoint.name}: {pass_.fold}, epoch {now.epoch + 1} of {self.epochs}, step {now.batch}"
        )

    def _learn(self, windows: Windows) -> tuple[float, float, bool]:
        # Of the step, so that a training that goes on draws what it would have drawn; dropout must differ between processes.
        now = self.progress
        drawn = np.random.SeedSequence([self.task.train.seed, now.number, now.epoch, now.batch, self.processes.rank])
        torch.manual_seed(int(drawn.generate_state(1, np.uint64)[0]))
        types_N = windows.event_type_NW[(windows.is_target_NW == 1) & (windows.item_NW >= FIRST)]
        spent = self.seconds / self.task.train.max_seconds if self.processes.rank == 0 else 0.0
        count, worth, spent = self.processes.summed(float(len(types_N)), self._worth(types_N), spent)
        now.targets, now.worth = now.targets + count, now.worth + worth
        # By what targets were worth in the mean so far: a step without the dear ones is not to weigh as much as one with them.
        per_target = _mean(now.worth, now.targets)
        share = self.processes.count / (count * per_target) if count else 0.0
        pieces, total = self._pieces(windows), 0.0
        for place, piece in enumerate(pieces, start=1):
            shared = self.objective if place < len(pieces) else None
            with shared.no_sync() if isinstance(shared, DistributedDataParallel) else nullcontext():
                loss = self._loss(piece)
                # Averaged over processes by DDP, hence times their number: the mean over the targets of all.
                (loss * share).backward()
            total += loss.item()
        self.descent.step(self._share_of_peak(spent))
        self.step += 1
        (total,) = self.processes.summed(total)
        return total, worth, spent > 1.0

    def _share_of_peak(self, spent: float) -> float:
        """The learning rate follows the steps, and nothing else, unless the time (of which the share `spent` is over) runs
        out before: then it goes down with the time, since weights that end at a high rate rank badly."""
        done = self.step / self.steps
        if self.progress.number == 0:
            done = max(done, spent - _BEHIND_TIME)
        return share_of_peak(done * self.steps, self.steps)

    def _pieces(self, windows: Windows) -> list[Windows]:
        """The windows of a step as they are learnt one after the other; the gradients add up to the same."""
        places = _PLACES_AT_ONCE["cpu" if self.processes.device.type == "cpu" else "gpu"]
        return in_pieces(windows, places, self.task.train.windows_at_once)

    def _worth(self, type_N: np.ndarray) -> float:
        """Of targets of these event types together: their number, where each counts 1."""
        worth_E = self.bare.worth_E
        if worth_E is None:
            return float(len(type_N))
        return float(worth_E[torch.from_numpy(np.where(type_N < len(worth_E), type_N, UNKNOWN).astype(np.int64))].sum())

    def _loss(self, windows: Windows) -> Tensor:
        events, moments, target_BT, type_BT = self._example(windows)
        if self.task.model.query_dropout:
            moments = hide(moments, self.task.model.query_dropout)
        with self._precision():
            loss: Tensor = self.objective(events, moments, target_BT, type_BT)
        return loss

    @torch.no_grad()
    def lost_by_half(self) -> float:
        """By how much weights in half precision move the mean loss of some windows, in nats per target; NaN without any."""
        weights = copy.deepcopy(self.network.state_dict())
        loss = self._loss_of_some()
        self.network.load_state_dict({name: halved(value) for name, value in weights.items()})
        moved = abs(self._loss_of_some() - loss)
        self.network.load_state_dict(weights)
        return moved

    def _loss_of_some(self) -> float:
        self.network.eval()
        asked = (self._example(piece) for windows in islice(self.batches.epoch(0), _ASKED) for piece in self._pieces(windows))
        losses = [ranks(*self.bare.parts(events, moments, target_BT))[0] for events, moments, target_BT, _ in asked]
        return torch.cat(losses).double().mean().item() if losses else math.nan

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss, ndcg@10, hit@1 and hit@10 on the validation fold, each target by its worth, over all processes."""
        self.network.eval()
        sums = np.zeros(5)
        pieces = (piece for windows in self.folds["validation"].epoch(0) for piece in self._pieces(windows))
        for events, moments, target_BT, type_BT in map(self._example, pieces):
            loss_N, rank_N = ranks(*self.bare.parts(events, moments, target_BT))
            worth_N = self.bare.worth(target_BT, type_BT)
            worth_N = torch.ones_like(loss_N) if worth_N is None else worth_N
            gain_N = torch.where(rank_N <= 10, 1.0 / torch.log2(1.0 + rank_N.double()), 0.0)
            measured = (loss_N.double(), gain_N, rank_N == 1, rank_N <= 10, torch.ones_like(gain_N))
            sums += np.array([float((value_N * worth_N.double()).sum()) for value_N in measured])
        totals = self.processes.summed(*sums.tolist())
        names = ("loss", "ndcg@10", "hit@1", "hit@10")
        return {name: _mean(total, totals[4]) for name, total in zip(names, totals[:4], strict=True)}

    def _example(self, windows: Windows) -> tuple[Events, Moments, Tensor, Tensor]:
        events, moments, target_BT, type_BT = examples(windows, self.vocabulary)
        device = self.processes.device
        return events.to(device), moments.to(device), target_BT.to(device), type_BT.to(device)

    def _precision(self) -> AbstractContextManager[object]:
        kind, wanted = self.processes.device.type, self.task.train.precision
        if wanted == "bf16" or (wanted is None and kind == "cuda"):
            return torch.autocast(kind, dtype=torch.bfloat16)
        return nullcontext()

    def _tell_progress(self, loss: float) -> None:
        if time.monotonic() - self.said < _SECONDS_BETWEEN_LINES:
            return
        first, began = self.since
        a_step = (time.monotonic() - began) / max(1, self.step - first)
        rate, left = self.task.train.batch_size / a_step, a_step * (self.steps - self.step)
        epoch = f"epoch {self.progress.epoch + 1} of {self.epochs}"
        self.tell(f"{epoch}, loss {loss:.4f}, {rate:,.0f} windows/s, at most {left:,.0f} s left")

    def tell(self, words: str) -> None:
        self.said = time.monotonic()
        if self.processes.rank == 0:
            log.info("training %s: %s", self.task.name, words)
