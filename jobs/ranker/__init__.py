"""Learns to order the few items that a moment may lead to: the version `hybrid`, which may serve in the network's place.

What is known of items is counted of all that arrived before the day. The trees that order candidates by it are grown once
a week, on the newest moments, by what was known before these; the nights between keep them. A bootstrap makes a second
version besides, for evaluate to judge on the days after a cut; it is never published.
"""

from __future__ import annotations

from jobs.lake.context import Context, Skipped
from jobs.train.lineage import rests

NETWORK = "network"


def run(context: Context) -> None:
    if not (context.mapping.has_times and context.mapping.repeats):
        raise Skipped("what is ordered are items of the own past by when they were taken: the log has no times or no repeats")
    if context.settings.ranker.by == NETWORK:
        context.note(learned="off: ranker.by is network")
        return
    if rests(context):
        context.note(learned=f"no version: train.only_on is {context.settings.train.only_on}")
        return
    from jobs.ranker.learning import learn  # needs LightGBM

    learn(context)
