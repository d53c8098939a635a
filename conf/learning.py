"""Settings of learning, and of what is made of it: the network, its training, the search, judgement, and the gate."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from conf.section import Section

Encoder = Literal["transformer", "lstm", "gru", "rnn"]
ENCODERS: tuple[str, ...] = get_args(Encoder)
Fusion = Literal["gate", "attention", "concatenation"]
HYBRID = "hybrid"  # the method of what orders candidates by trees
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[str, ...] = get_args(Weekday)


class Model(Section):
    encoder: Encoder = "transformer"
    window: int = Field(64, ge=4)
    width: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    query_dropout: float = Field(0.1, ge=0, lt=1)
    fusion: Fusion = "gate"
    times: bool = True
    places: bool = True
    repeats: bool = True
    knowledge: bool = True


class Train(Section):
    processes: int = Field(1, ge=1)
    epochs: int = Field(20, ge=1)
    patience: int = Field(3, ge=1)
    batch_size: int = Field(64, ge=1)
    windows_at_once: int | None = Field(None, ge=1)
    loss: Literal["full", "sampled", "gbce"] = "full"
    negatives: int = Field(512, ge=1)
    calibration: float = Field(0.75, ge=0, le=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    max_seconds: float = Field(1200.0, gt=0)
    precision: Literal["fp32", "bf16"] | None = None
    half_within: float = Field(0.001, ge=0)
    checkpoint_seconds: float = Field(60.0, ge=0)
    warm_epochs: int = Field(1, ge=1)
    warm_learning_rate: float = Field(5e-4, gt=0)
    worth: dict[str, Annotated[float, Field(gt=0, le=1000)]] = {}
    from_scratch_on: Weekday | None = "monday"
    only_on: Weekday | None = None
    seed: int = 1
    tracking: str | None = "lake"

    @model_validator(mode="after")
    def _comes_to_fresh_weights(self) -> Train:
        if self.only_on is not None and self.from_scratch_on not in (None, self.only_on):
            raise ValueError(
                f"only_on: what is learnt on {self.only_on} alone is never learnt from scratch on {self.from_scratch_on}: "
                f"set train.from_scratch_on to {self.only_on} too, or to null"
            )
        return self


class Span(Section):
    """From `low` to `high`, both included; `log`: evenly over magnitudes."""

    low: int | float
    high: int | float
    log: bool = False


# One of these values, or a span of them; null: as it is set.
Tried = Annotated[list[bool | int | float | str], Field(min_length=1)] | Span | None


class Tune(Section):
    space: dict[Literal["model", "train"], dict[str, Tried] | None] = {
        "model": {
            "width": [32, 48, 64, 96, 128],
            "layers": [1, 2, 3],
            "dropout": Span(low=0.0, high=0.5),
            "query_dropout": Span(low=0.05, high=0.3),
        },
        "train": {
            "learning_rate": Span(low=3e-4, high=1e-2, log=True),
            "weight_decay": Span(low=1e-3, high=0.3, log=True),
            "batch_size": [32, 64, 128],
        },
    }


class Evaluate(Section):
    ks: tuple[int, ...] = (1, 5, 10, 20)
    holdout_share: float = Field(0.1, gt=0, lt=0.5)
    attributes: tuple[str, ...] = ()
    bootstrap_samples: int = Field(200, ge=20)


class Labeller(Section):
    by: Literal["learned", "rule"] = "learned"
    max_moments: int = Field(500_000, ge=10_000)


class Ranker(Section):
    by: Literal["trees", "network"] = "trees"
    max_moments: int = Field(40_000, ge=100)


class Gate(Section):
    margin: float = Field(0.01, ge=0)
    days: int = Field(14, ge=1)
    metric: Literal["ndcg", "hit", "mrr"] = "ndcg"
    k: int = Field(10, ge=1)
    min_coverage: float = Field(0.2, ge=0)
    min_likeness: float = Field(0.05, ge=0, le=1)
    max_empty_lists: float = Field(0.01, ge=0, le=1)
    max_gain: float = Field(0.5, gt=0)

    @property
    def measure(self) -> tuple[str, int]:
        """What it compares, (metric, k); k is 0 where there is no cut-off."""
        return self.metric, 0 if self.metric == "mrr" else self.k

    @property
    def label(self) -> str:
        name, k = self.measure
        return f"{name}@{k}" if k else name
