"""Settings of what every model is held against."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from conf.section import Section

BaselineName = Literal["popularity", "user_frequency", "markov", "kernels", "content", "item_cf", "als"]
BASELINES: tuple[str, ...] = get_args(BaselineName)


class Markov(Section):
    global_prior: float = Field(10.0, gt=0)
    frequency_prior: float = Field(5.0, gt=0)
    personal_prior: float = Field(2.0, gt=0)


class Kernels(Section):
    frequency: float = Field(0.5, ge=0)
    recency: float = Field(0.5, ge=0)
    hour: float = Field(0.5, ge=0)
    weekday: float = Field(0.2, ge=0)
    previous: float = Field(0.3, ge=0)
    half_life_days: float = Field(14.0, gt=0)
    hours: float = Field(2.0, gt=0)
    prior: float = Field(1.0, gt=0)


class Content(Section):
    half_life_events: float = Field(50.0, gt=0)
    prior: float = Field(5.0, gt=0)


class ItemCf(Section):
    last: int = Field(50, ge=2)
    neighbours: int = Field(100, ge=1)
    shrinkage: float = Field(10.0, ge=0)
    half_life_events: float = Field(10.0, gt=0)
    itself: float = Field(1.0, ge=0)


class Als(Section):
    factors: int = Field(64, ge=1)
    regularisation: float = Field(0.1, gt=0)
    confidence: float = Field(10.0, ge=0)
    iterations: int = Field(10, ge=1, le=25)
    half_life_events: float = Field(50.0, gt=0)


class Baselines(Section):
    judged: tuple[BaselineName, ...] = ("popularity", "user_frequency", "markov", "kernels")
    markov: Markov = Markov()
    kernels: Kernels = Kernels()
    content: Content = Content()
    item_cf: ItemCf = ItemCf()
    als: Als = Als()

    @field_validator("judged")
    @classmethod
    def _has_popularity(cls, judged: tuple[str, ...]) -> tuple[str, ...]:
        if "popularity" not in judged:
            raise ValueError("popularity is what a first model must beat, and cannot be left out")
        return judged
