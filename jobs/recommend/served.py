"""Lists by the version that serves, from what the newest finished night left of the users asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from conf.contracts import AGAINST, SLOTS
from conf.settings import Settings
from jobs.feedback import MISPLACED
from jobs.feedback import TABLE as FEEDBACK
from jobs.lake.consent import LOCATION
from jobs.lake.publications import in_force
from jobs.query import pseudonym_of
from jobs.score.lists import Scorer
from jobs.score.moments import EVENT_FIELDS, Moment
from jobs.seeing.reading import Reader, Row, literal
from models.registry import load_ranker

COLUMNS = ("user_id", "rank", "item_id", "title", "score", "reason", "model_version")
_AT_ONCE = 1000
_TIME = pa.timestamp("us", tz="UTC")
_ITEMS = pa.schema(
    [
        ("item_id", pa.string()), ("title", pa.string()), ("category", pa.string()), ("users", pa.int64()),
        ("kept", pa.int32()), ("withdrawn", pa.bool_()), ("brand", pa.string()), ("boost", pa.float64()),
    ]
)  # fmt: skip
_KINDS = {"event_timestamp": _TIME, "local_timestamp": _TIME, "latitude": pa.float64(), "longitude": pa.float64()}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """`at`: when, None: as the newest night asked; `near`: latitude and longitude, None: where each was last known."""

    at: datetime | None = None
    near: tuple[float, float] | None = None
    k: int | None = None


@dataclass(kw_only=True)
class Served:
    """What answers: a version, the items as the night knew them; `unknown` counts those asked about who have no past."""

    settings: Settings
    reader: Reader
    scorer: Scorer
    model_version: str
    items: Mapping[str, Row]
    unknown: int = 0

    @staticmethod
    def of(settings: Settings, asked: Asked) -> Served:
        """
        Raises:
            ValueError: nothing is finished or published, or a time that is before the newest night.
        """
        reader = Reader.of(settings)
        day = reader.day
        if asked.at is not None and asked.at < datetime.combine(day, datetime.min.time(), UTC) and settings.mapping.has_times:
            raise ValueError(
                f"--at {asked.at:%Y-%m-%dT%H:%M} lies before {day}, the newest finished day: what is known came later"
            )
        items = reader.rows("SELECT item_id, title, category, users, kept, withdrawn, brand, boost FROM served_items")
        version = _in_force(reader)
        scorer = Scorer(
            folder=str(Path(settings.lake) / version["folder"]),
            load=lambda folder: load_ranker(Path(folder)),
            facts=_Held(pa.Table.from_pylist(items, _ITEMS)),
            day=day,
            k=settings.score.k if asked.k is None else asked.k,
            slots=False,
            has_times=settings.mapping.has_times,
            repeats=settings.mapping.repeats,
            length=settings.sequences.length,
            targets=settings.mapping.target_events,
            caps=settings.score.caps,
            diversity=settings.score.diversity,
            moment=_moment(asked),
        )
        known = {row["item_id"]: row for row in items}
        return Served(settings=settings, reader=reader, scorer=scorer, model_version=version["model_version"], items=known)

    def lists(self, users: Sequence[str], history: Mapping[str, Sequence[Row]]) -> Iterator[tuple[object, ...]]:
        """Rows of `COLUMNS` for the users (ids of the caller's), in their order; `history`: what they did since the night."""
        waiting = iter(users)
        while some := list(islice(waiting, _AT_ONCE)):
            yield from self._lists(some, history)

    def _lists(self, users: Sequence[str], history: Mapping[str, Sequence[Row]]) -> Iterator[tuple[object, ...]]:
        by_pseudonym = {pseudonym_of(user, self.settings): user for user in users}
        among = f"user_id IN ({', '.join(map(literal, by_pseudonym))})"
        events, seen, kept = self._stored(among)
        unwanted = self._dismissed(among)
        self.unknown += sum(pseudonym not in kept and not history.get(user) for pseudonym, user in by_pseudonym.items())
        for pseudonym, user in by_pseudonym.items():
            new = [{**row, "category": self.items.get(row["item_id"], {}).get("category")} for row in history.get(user, ())]
            events[pseudonym] = _merged(events.get(pseudonym, []), new, self.scorer)
            if not self.settings.mapping.repeats:
                taken = {row["item_id"] for row in new if row["event_type"] in self.scorer.targets}
                seen[pseudonym] = sorted({*(seen.get(pseudonym) or ()), *taken})
        batch = _batch(list(by_pseudonym), events, seen, kept, unwanted)
        for answer in self.scorer([batch]):
            for row in answer.select(["user_id", "lists"]).to_pylist():
                for entry in row["lists"]:
                    yield self._row(by_pseudonym[row["user_id"]], entry)

    def _row(self, user: str, entry: Row) -> tuple[object, ...]:
        item = entry["item_id"]
        title = self.items.get(item, {}).get("title")
        return user, entry["rank"], item, title, entry["score"], entry["reason"], self.model_version

    def _stored(self, among: str) -> tuple[dict[str, list[Row]], dict[str, list[str]], dict[str, int]]:
        """Of each user the events, what was taken in all, and how many events are kept where older ones were cut off."""
        fields = ", ".join(f"e['{name}'] AS {name}" for name in (*EVENT_FIELDS, "arrived_on", "event_id"))
        inner = f"SELECT user_id, unnest(events) AS e FROM user_sequences WHERE {among}"
        rows = self.reader.rows(f"SELECT user_id, {fields} FROM ({inner}) AS one ORDER BY user_id, event_timestamp, event_id")
        located = self._located(among)
        events: dict[str, list[Row]] = {}
        for row in rows:
            if located is not None and not (located.get(row["user_id"]) and located[row["user_id"]] <= row["arrived_on"]):
                row |= {"latitude": None, "longitude": None}
            events.setdefault(row["user_id"], []).append(row)
        whole = self.reader.rows(f"SELECT user_id, seen, events_total FROM user_sequences WHERE {among}")
        kept = {
            row["user_id"]: size if row["events_total"] > (size := len(events.get(row["user_id"], ()))) else 0 for row in whole
        }
        return events, {row["user_id"]: row["seen"] or [] for row in whole}, kept

    def _dismissed(self, among: str) -> dict[str, list[str]]:
        """The items that each user has dismissed of late, as the night knew them."""
        if not self.reader.has(FEEDBACK):
            return {}
        since = self.reader.day - timedelta(days=self.settings.score.dismissed_days)
        found: dict[str, list[str]] = {}
        against, misplaced = (", ".join(map(literal, names)) for names in (AGAINST, MISPLACED))
        of_late = f"day > DATE '{since}' AND event_type IN ({against}) AND (unmatched IS NULL OR unmatched IN ({misplaced}))"
        for row in self.reader.rows(f"SELECT DISTINCT user_id, item_id FROM {FEEDBACK} WHERE {among} AND {of_late}"):
            found.setdefault(row["user_id"], []).append(row["item_id"])
        return found

    def _located(self, among: str) -> dict[str, Any] | None:
        """Where the log asks for consent: the day since which each user allows the location."""
        if not self.settings.asks_consent:
            return None
        if not self.reader.has("consents"):
            return {}
        accepted = self.settings.privacy.notice_versions
        rows = self.reader.rows(f"SELECT user_id, since['{LOCATION}'] AS since, notice_version FROM consents WHERE {among}")
        return {row["user_id"]: row["since"] for row in rows if not accepted or row["notice_version"] in accepted}


@dataclass(frozen=True, eq=False)
class _Held:
    """Stands where a worker has a broadcast."""

    value: pa.Table


def _in_force(reader: Reader) -> Row:
    """The served version's row of the registry."""
    decided = reader.rows("SELECT * FROM publications") if reader.has("publications") else []
    newest = in_force(decided, before=reader.day + timedelta(days=1))
    if newest is None:
        raise ValueError(f"nothing is published in {reader.root}: run a night through step evaluate first")
    return reader.rows(f"SELECT * FROM model_versions WHERE model_version = {literal(newest['model_version'])}")[-1]


def _moment(asked: Asked) -> Moment:
    latitude, longitude = (None, None) if asked.near is None else asked.near
    offset = None
    if asked.at is not None and asked.near is not None:
        offset = _clock(asked.at, asked.near)
    at = None if asked.at is None else int(asked.at.timestamp())
    return Moment(timestamp=at, latitude=latitude, longitude=longitude, offset=offset)


def _clock(at: datetime, near: tuple[float, float]) -> float | None:
    """Hours by which clocks at the place are ahead of UTC."""
    from zoneinfo import ZoneInfo

    from tzfpy import get_tz

    name = get_tz(near[1], near[0])
    ahead = at.astimezone(ZoneInfo(name)).utcoffset() if name else None
    return None if ahead is None else ahead.total_seconds() / 3600.0


def _merged(stored: list[Row], new: list[Row], scorer: Scorer) -> list[Row]:
    """The newest events of both, by time; new ones by the clock that the newest stored one was lived by."""
    if not new:
        return stored
    clock = next((row for row in reversed(stored) if row["local_timestamp"] is not None), None)
    ahead = None if clock is None else clock["local_timestamp"] - clock["event_timestamp"]
    placed = [
        {**row, "local_timestamp": None if ahead is None else row["event_timestamp"] + ahead, "slot": None} for row in new
    ]
    return sorted([*stored, *placed], key=lambda row: row["event_timestamp"])[-scorer.length :]


def _batch(
    users: Sequence[str],
    events: Mapping[str, list[Row]],
    seen: Mapping[str, list[str]],
    kept: Mapping[str, int],
    unwanted: Mapping[str, list[str]],
) -> pa.RecordBatch:
    """As `jobs.score.scoring_input` has it."""
    columns: dict[str, pa.Array] = {"user_id": pa.array(users, pa.string())}
    for name in EVENT_FIELDS:
        kind = _KINDS.get(name, pa.string())
        columns[name] = pa.array([[row[name] for row in events[user]] for user in users], pa.list_(kind))
    columns["seen"] = pa.array([seen.get(user, []) for user in users], pa.list_(pa.string()))
    columns["unwanted"] = pa.array([unwanted.get(user) for user in users], pa.list_(pa.string()))
    columns["kept"] = pa.array([kept.get(user, 0) for user in users], pa.int32())
    for axis in ("place_latitude", "place_longitude"):
        columns[axis] = pa.array([[None] * len(SLOTS)] * len(users), pa.list_(pa.float64()))
    columns["digest_before"] = pa.nulls(len(users), pa.int64())
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
