"""The LSTM's trainings: one on what was known at each stage's first origin, to be judged there, and one to forecast with."""

from __future__ import annotations

import base64

from pyspark.sql import DataFrame

from jobs.forecast.judging import Origins
from jobs.forecast.methods import Histories
from jobs.forecast.series import Span, histories
from jobs.forecast.trying import NOW
from models import forecaster
from models.forecaster import Forecaster


def trained(rows: DataFrame, span: Span, origins: Origins, seed: int) -> dict[str, Forecaster]:
    """By stage, and `NOW`; what has too short a history is left out. Bounded by the catalogue, series come to the driver."""
    table = rows.select("place", "counted").toArrow().sort_by("place").combine_chunks()
    if not table.num_rows:
        return {}
    [batch] = table.to_batches()
    return trained_at(histories(batch, span), origins, seed)


def trained_at(known: Histories, origins: Origins, seed: int) -> dict[str, Forecaster]:
    """By stage what was known at its first origin has taught, and `NOW` all."""
    ends = {stage: min(found) for stage, found in origins.items() if found} | {NOW: known.counts_PD.shape[1]}
    made = {moment: _trained(known.until(end), seed) for moment, end in ends.items()}
    return {moment: network for moment, network in made.items() if network is not None}


def _trained(known: Histories, seed: int) -> Forecaster | None:
    return forecaster.train(known.counts_PD, known.first, known.last, seed=seed)


def stored(network: Forecaster) -> str:
    """The weights as text, for a table."""
    return base64.b64encode(network.dumped()).decode()


def read(text: str) -> Forecaster:
    return Forecaster.loaded(base64.b64decode(text))
