"""The graph of the night: each step's name, reads and writes. The order follows from them.

Standard library only, so that a scheduler can import it. `X@-1` is the state of table X before the
day (of a fact: all partitions before it): no edge, and a step may read its own table so. `X?` is
read as it stands, whoever wrote it last (the registry): no edge either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

BEFORE = "@-1"
AS_IT_STANDS = "?"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One job, `jobs/<name>.py`.

    `stage`: steps that a scheduler shows as one.
    `after`: steps whose tables it may read, by the settings, and so waits for.
    `appends`: logs to which it adds rows of a kind of its own, beside the step that writes them; nobody waits for these.
    `purposes`: what a user must have allowed for the step to see the user's events (see `jobs.lake.consent`).
    `minutes` is a generous limit for a scheduler's time-out; `torch`: Spark's workers run models in it.
    """

    name: str
    stage: str
    does: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    after: tuple[str, ...] = ()
    appends: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    minutes: int = 60
    gpu: bool = False
    torch: bool = False

    @property
    def edges(self) -> tuple[str, ...]:
        """The tables of this very day that the step waits for."""
        return tuple(name for name in self.reads if not name.endswith((BEFORE, AS_IT_STANDS)))

    @property
    def tables_written(self) -> tuple[str, ...]:
        """What it makes, and where it adds rows."""
        return (*self.writes, *self.appends)

    @property
    def tables_read(self) -> frozenset[str]:
        """Of whatever day."""
        return frozenset(name.removesuffix(BEFORE).removesuffix(AS_IT_STANDS) for name in self.reads)


STEPS: tuple[Step, ...] = (
    Step(
        name="ingest",
        stage="arriving",
        does="reads what landed, replaces user ids by pseudonyms, keeps what is declared of items, users and surroundings",
        reads=("raw_events@-1", "items@-1", "users@-1", "consents@-1", "context@-1", "item_relations@-1", "item_vectors@-1"),
        writes=(
            "raw_events", "raw_feedback", "items", "users", "consents", "context", "item_relations", "item_vectors", "vault",
        ),
    ),
    Step(
        name="clean",
        stage="arriving",
        does="parses, checks and places every row; quarantines what is wrong, with the reasons",
        reads=("raw_events", "raw_events@-1", "items", "consents", "value_ranges@-1", "item_positions@-1"),
        writes=("events", "events_quarantine", "value_ranges"),
    ),
    Step(
        name="sequences",
        stage="arriving",
        does="keeps each user's last events in order",
        reads=("events", "user_sequences@-1"),
        writes=("user_sequences",),
    ),
    Step(
        name="text",
        stage="meaning",
        does="reads each distinct text once: sentence vector, keywords, sentiment, topic, brands and items that it names",
        reads=(
            "items", "events", "consents", "text_semantics@-1", "item_texts@-1", "text_topics@-1", "item_names@-1",
            "text_mentions@-1", "sentiment_models@-1",
        ),
        writes=("text_semantics", "item_texts", "text_topics", "item_names", "text_mentions", "sentiment_models"),
        gpu=True,
        torch=True,
    ),
    Step(
        name="tags",
        stage="meaning",
        does="says under which words each item goes, and weighs each user's over long and short times",
        reads=(
            "items", "items@-1", "item_relations", "item_relations@-1", "text_semantics", "item_tags@-1", "tag_synonyms@-1",
            "events", "consents", "user_tags@-1",
        ),
        writes=("item_tags", "tag_synonyms", "user_tags"),
        purposes=("labels",),
        torch=True,
    ),
    Step(
        name="label",
        stage="meaning",
        does="weighs each user's categories over long and short times and labels interests and events",
        reads=("events", "consents", "user_interests@-1"),
        writes=("event_labels", "user_interests"),
        purposes=("labels",),
    ),
    Step(
        name="time_series",
        stage="when_and_where",
        does="counts activity per user, item, category, region and slot; describes each as a time series, with its anomalies",
        reads=("events", "activity_daily@-1", "time_series_features@-1"),
        writes=("activity_daily", "time_series_features"),
    ),
    Step(
        name="forecast",
        stage="when_and_where",
        does="forecasts categories, regions and the busiest items 14 days ahead; selects a method for each every week",
        reads=("activity_daily", "activity_daily@-1", "forecast_quality@-1", "forecast_networks@-1"),
        writes=("forecasts", "forecast_quality", "forecast_networks"),
        torch=True,
    ),
    Step(
        name="spatial",
        stage="when_and_where",
        does="finds users' places, when they are there, how they move, where items are, hotspots, trends, regional flows",
        reads=(
            "events", "consents", "user_sequences@-1", "user_places@-1", "user_slot_places@-1", "user_mobility@-1",
            "item_positions@-1", "cell_daily@-1",
        ),
        writes=("user_places", "user_slot_places", "user_mobility", "item_positions", "cell_daily", "hotspots",
            "hotspot_trends", "hotspot_areas", "region_flows", "region_stays", "region_interests",
        ),
        purposes=("location",),
    ),
    Step(
        name="interaction",
        stage="when_and_where",
        does="joins when and where: users' and regions' categories by slot, and which follows on which",
        reads=("events", "consents", "user_sequences@-1", "cell_daily", "cell_daily@-1", "user_slot_affinity@-1"),
        writes=("user_slot_affinity", "region_slot_lift", "transitions"),
        purposes=("location",),
    ),
    Step(
        name="labeller",
        stage="meaning",
        does="learns weekly which interests last, from users who allow training too; says it of the day's, if it beat the rule",
        reads=("event_labels", "user_interests", "consents", "model_versions?", "publications?"),
        writes=("learned_labels",),
        appends=("model_versions", "publications"),
        purposes=("labels",),
    ),
    Step(
        name="train",
        stage="learning",
        does="cuts windows from events before the day and trains a candidate model on them",
        reads=(
            "events@-1", "consents", "user_sequences@-1", "items@-1", "item_texts@-1", "text_semantics@-1", "item_tags@-1",
            "item_vectors@-1", "model_versions?", "publications?",
        ),
        writes=("training_windows", "model_versions", "training_runs"),
        purposes=("training",),
        minutes=240,
        gpu=True,
    ),
    Step(
        name="ranker",
        stage="learning",
        does="counts what is known of items before the day, and grows the trees that order a moment's few candidates by it",
        reads=("events@-1", "consents", "items@-1", "feedback@-1", "model_versions?"),
        writes=(),
        appends=("model_versions",),
        purposes=("training",),
        torch=True,
    ),
    Step(
        name="evaluate",
        stage="learning",
        does="judges the candidate on the day's events against the published model and baselines; decides",
        reads=("events", "events@-1", "users", "consents", "user_sequences@-1", "model_versions", "publications?"),
        writes=("model_quality", "publications"),
        after=("ranker",),
        purposes=("training",),
        torch=True,
    ),
    Step(
        name="feedback",
        stage="learning",
        does="matches what was done to entries of lists to the lists as they were",
        reads=("raw_feedback", "feedback@-1", "recommendations@-1"),
        writes=("feedback",),
    ),
    Step(
        name="policy",
        stage="learning",
        does="learns from how lists did how much of them is to come from which source, by region, slot and activity",
        reads=("feedback", "feedback@-1", "consents", "model_versions?", "publications?"),
        writes=(),
        appends=("model_versions", "publications"),
        purposes=("training",),
    ),
    Step(
        name="score",
        stage="serving",
        does="ranks the catalogue for every user and slot with the published model, a reason per item",
        reads=(
            "user_sequences", "consents", "user_places", "items", "model_versions", "publications", "recommendations@-1",
            "served_items@-1", "feedback",
        ),
        after=("policy",),
        writes=("recommendations", "served_items"),
        gpu=True,
        torch=True,
    ),
    Step(
        name="evolution",
        stage="serving",
        does="says what the interest model has made of each user, and expects of the coming days by category",
        reads=("user_sequences", "consents", "model_versions", "publications", "interest_forecasts@-1", "user_vectors@-1"),
        writes=("interest_forecasts", "user_vectors"),
        purposes=("labels",),
        gpu=True,
        torch=True,
    ),
    Step(
        name="export",
        stage="serving",
        does="delivers recommendations, other tables and segments to the sinks",
        reads=("recommendations", "consents", "vault"),
        writes=("export_log",),
        after=("tags", "labeller", "forecast", "interaction", "evolution"),
        purposes=("export",),
    ),
    Step(
        name="drift",
        stage="watching",
        does="measures how far the day's events, the scores and the lists have moved from those before",
        reads=("events", "events@-1", "user_sequences", "consents", "recommendations", "recommendations@-1", "publications"),
        writes=("drift",),
    ),
    Step(
        name="report",
        stage="watching",
        does="writes the day's page: what ran, rows, quality, a heatmap, series, sample lists; and the index of all days",
        reads=(
            "recommendations", "model_quality", "publications", "drift", "export_log", "events_quarantine", "cell_daily",
            "hotspots", "hotspot_trends", "activity_daily", "time_series_features", "forecasts", "user_places",
        ),
        writes=(),
    ),
)  # fmt: skip


def order(steps: Iterable[Step] = STEPS) -> tuple[Step, ...]:
    """The steps so that every reader comes after the writer; ties keep the given order.

    Raises:
        ValueError: the steps form a cycle, two write one table, or one reads or appends to what none writes.
    """
    steps = tuple(steps)
    upstream = dependencies(steps)
    try:
        ready = TopologicalSorter(upstream)
        ready.prepare()
    except CycleError as error:
        raise ValueError(f"the steps form a cycle: {' -> '.join(error.args[1])}") from None
    position = {step.name: index for index, step in enumerate(steps)}
    by_name = {step.name: step for step in steps}
    ordered: list[Step] = []
    waiting: list[str] = []
    while ready.is_active():
        waiting = sorted([*waiting, *ready.get_ready()], key=position.__getitem__)
        name = waiting.pop(0)
        ordered.append(by_name[name])
        ready.done(name)
    return tuple(ordered)


def dependencies(steps: Iterable[Step] = STEPS) -> dict[str, set[str]]:
    """Step name -> names of the steps that must be done before it on the same day."""
    steps = tuple(steps)
    writer: dict[str, str] = {}
    for step in steps:
        for table in step.writes:
            if table in writer:
                raise ValueError(f"{table} is written by both {writer[table]} and {step.name}")
            writer[table] = step.name
    for step in steps:
        for table in step.reads:
            if table.removesuffix(BEFORE).removesuffix(AS_IT_STANDS) not in writer:
                raise ValueError(f"{step.name} reads {table}, which no step writes")
        for table in step.appends:
            if table not in writer:
                raise ValueError(f"{step.name} appends to {table}, which no step writes")
    return {step.name: {*(writer[table] for table in step.edges), *step.after} for step in steps}


def downstream(name: str, steps: Iterable[Step] = STEPS) -> tuple[Step, ...]:
    """The step and all that read what it writes, of the day or of days before, directly or not; in order."""
    ordered = order(steps)
    written = {table for step in ordered if step.name == name for table in step.writes}
    found = {name}
    while more := {
        step.name
        for step in ordered
        if step.name not in found and written & {table.removesuffix(BEFORE) for table in step.reads}
    }:
        found |= more
        written |= {table for step in ordered if step.name in more for table in step.writes}
    return tuple(step for step in ordered if step.name in found)


def choose(
    from_step: str | None = None, to_step: str | None = None, only: tuple[str, ...] = (), steps: Iterable[Step] = STEPS
) -> tuple[Step, ...]:
    """The steps of a run, in order.

    Raises:
        ValueError: an unknown step, or a range that ends before it begins.
    """
    ordered = order(steps)
    names = [step.name for step in ordered]
    for name in (from_step, to_step, *only):
        if name is not None and name not in names:
            raise ValueError(f"there is no step {name}; the steps are {', '.join(names)}")
    if only:
        return tuple(step for step in ordered if step.name in only)
    first = names.index(from_step) if from_step else 0
    last = names.index(to_step) if to_step else len(names) - 1
    if first > last:
        raise ValueError(f"--from-step {from_step} comes after --to-step {to_step}")
    return ordered[first : last + 1]


def picture(steps: Iterable[Step] = STEPS) -> str:
    """The flow as a Mermaid graph, without the arrows that follow from others."""
    steps = tuple(steps)
    direct = dependencies(steps)
    upstream: dict[str, set[str]] = {}
    lines = ["flowchart LR"]
    for step in order(steps):
        before = direct[step.name]
        implied = {name for one in before for name in upstream[one]}
        upstream[step.name] = before | implied
        lines += [f"  {name} --> {step.name}" for name in sorted(before - implied)]
    return "\n".join(lines)


def outline(steps: Iterable[Step] = STEPS) -> str:
    """The steps, what they do and what they write, as a Markdown table."""
    lines = ["| step | does | writes |", "|---|---|---|"]
    lines += [f"| {step.name} | {step.does} | {', '.join(step.tables_written) or 'a page'} |" for step in order(steps)]
    return "\n".join(lines)
