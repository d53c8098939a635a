"""What a training is asked to learn, and how one went: plain values, which go to other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from conf.learning import Model, Train
from models.batches import Source


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training. Without windows in the validation fold it goes on to its last epoch.

    `prior` is a .npy file of (V,) float32 first biases of the items; `parent` a registry folder to go on from;
    `checkpoint` the file to go on from if it is there, and to keep as long as this goes on; `taken_types` the event types
    after which an item is not recommended again; `knowledge` a file of `models.knowledge`, in the vocabulary's order.
    `after_epoch(number, measures)` is told in process 0 of each epoch over the training fold (again of one that is done
    again after an interruption), from 1: `train_loss`, `seconds` so far, and what was measured on the validation fold;
    where it answers True the pass ends.
    `learns_validation`: whether the weights kept learn the validation fold too, in the end.
    """

    name: str
    model: Model
    train: Train
    vocabulary: Path
    source: Source
    folder: Path
    prior: Path | None = None
    parent: Path | None = None
    checkpoint: Path | None = None
    taken_types: tuple[str, ...] = ()
    knowledge: Path | None = None
    after_epoch: Callable[[int, Mapping[str, float]], bool] | None = None
    learns_validation: bool = True

    @property
    def passes(self) -> list[Pass]:
        """Over the training fold; then over the validation fold, which holds the newest events, at the rate of a night."""
        given = self.train
        warm = Pass(fold="validation", epochs=given.warm_epochs, learning_rate=given.warm_learning_rate)
        first = replace(warm, fold="train")
        if self.parent is None:
            first = replace(first, epochs=given.epochs, learning_rate=given.learning_rate)
        return [first, warm] if self.validates and self.learns_validation else [first]

    @property
    def validates(self) -> bool:
        return self.source.of("validation").count > 0


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Epochs over a fold with one optimizer and schedule. `learning_rate` is the peak."""

    fold: str
    epochs: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a training went. Losses are means in nats per target; `losses` are those of the epochs."""

    epochs: int
    seconds: float
    processes: int
    train_loss: float | None
    validation_loss: float | None
    losses: list[float]
