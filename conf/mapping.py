"""How a foreign log becomes events: the form of the files in `conf/sources`."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from conf.contracts import PURPOSES

EVENT_COLUMNS = (
    "user_id", "item_id", "event_type", "event_time", "latitude", "longitude", "place", "category",
    "device", "scene", "session_id", "value", "text", "ip", "consent", "notice_version",
)  # fmt: skip


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expression(Strict):
    """A value made by a Spark SQL expression over the source's columns (all strings)."""

    sql: str


class Feed(Strict):
    """One file format and what its columns mean. `columns` maps our name to theirs."""

    format: str = "csv"
    files: str = "*"
    options: dict[str, str] = {}
    columns: dict[str, str | Expression]
    attributes: dict[str, str] = {}


class Events(Feed):
    """The main log. Either `event_type` is one constant, or a column, or the rows are wide.

    event_type: the type of every row, where the log holds only one.
    event_types: renames the values of the mapped column `event_type`; others are quarantined.
    wide: event type -> flag column; a row becomes one event per flag that is set.
    seen: the event type that every wide row is besides (a zero flag means seen, not taken).
    time_format: iso, epoch_seconds, epoch_millis, position (an order, no times), or a Spark pattern.
    place_gazetteer: a CSV (place,latitude,longitude) for logs with names in place of coordinates.
    rating_scale: the worst and the best value of a review or a rating, as [1, 5]: from rated texts sentiment is learnt.
    columns.consent: the purposes that the user allows from this event on (`labels|training`; blank: none).
    """

    event_type: str | None = None
    event_types: dict[str, str] | None = None
    wide: dict[str, str] = {}
    seen: str | None = None
    time_format: str = "iso"
    time_zone: str = "UTC"
    place_gazetteer: str | None = None
    rating_scale: tuple[FiniteFloat, FiniteFloat] | None = None

    @model_validator(mode="after")
    def _one_way_to_a_type(self) -> Events:
        ways = [self.event_type is not None, "event_type" in self.columns, bool(self.wide)]
        if sum(ways) != 1:
            raise ValueError("give exactly one of event_type, columns.event_type, wide")
        unknown = sorted(set(self.columns) - set(EVENT_COLUMNS))
        if unknown:
            raise ValueError(f"columns: unknown {', '.join(unknown)}; known are {', '.join(EVENT_COLUMNS)}")
        missing = sorted({"user_id", "item_id", "event_time"} - set(self.columns))
        if missing:
            raise ValueError(f"columns: {', '.join(missing)} must be mapped")
        if self.rating_scale is not None:
            if self.rating_scale[0] >= self.rating_scale[1]:
                raise ValueError("rating_scale: the worst value comes first and is the lower one, as in [1, 5]")
            if "value" not in self.columns:
                raise ValueError("rating_scale: columns.value must be mapped")
        return self


class Consents(Feed):
    """What users allow, a row each time they say so: a column `purposes` (`labels|training`), or a yes/no column a purpose."""

    @model_validator(mode="after")
    def _says_who_allows_what(self) -> Consents:
        known = ("user_id", "purposes", *PURPOSES, "notice_version")
        if unknown := sorted(set(self.columns) - set(known)):
            raise ValueError(f"columns: unknown {', '.join(unknown)}; known are {', '.join(known)}")
        if "user_id" not in self.columns:
            raise ValueError("columns: user_id must be mapped")
        if ("purposes" in self.columns) == bool(set(PURPOSES) & set(self.columns)):
            raise ValueError(f"columns: map either purposes, or some of {', '.join(PURPOSES)}")
        return self


CONTEXT_COLUMNS = ("name", "value", "valid_from", "valid_until", "cell", "region")


class Surroundings(Feed):
    """What holds for everybody at some time and place: holidays, weather, events in town.

    columns.name says what it is, columns.value what it says (a blank one takes back what was said); a column may be
    an expression, as in {sql: "'holiday'"}. It holds from valid_from to before valid_until, without that for
    lasts_hours; in the H3 cell, or in the region and all below it, or everywhere where both are blank.
    """

    time_format: str = "iso"
    time_zone: str = "UTC"
    lasts_hours: float = Field(24.0, gt=0)

    @model_validator(mode="after")
    def _says_what_and_when(self) -> Surroundings:
        if unknown := sorted(set(self.columns) - set(CONTEXT_COLUMNS)):
            raise ValueError(f"columns: unknown {', '.join(unknown)}; known are {', '.join(CONTEXT_COLUMNS)}")
        if missing := sorted({"name", "valid_from"} - set(self.columns)):
            raise ValueError(f"columns: {', '.join(missing)} must be mapped")
        if self.time_format == "position":
            raise ValueError("time_format: context needs times, not an order")
        return self


FEEDS = ("items", "users", "consents", "context", "relations", "vectors", "feedback")
RELATION_COLUMNS = ("subject", "relation", "object", "weight")


class Relations(Feed):
    """What items, and tags, have to do with tags: rows of a knowledge graph, or of rules.

    columns.subject is an item's id, or a tag (category, brand, word) in whose stead all items that carry it are meant;
    columns.object is a tag in words; columns.relation says how they are related, for people to read (it may be an
    expression, as in {sql: "'is'"}). columns.weight is how much so, above 0 and up to 100, 1 where it is not mapped; a
    blank one takes the row back.
    """

    @model_validator(mode="after")
    def _says_what_belongs_to_what(self) -> Relations:
        if unknown := sorted(set(self.columns) - set(RELATION_COLUMNS)):
            raise ValueError(f"columns: unknown {', '.join(unknown)}; known are {', '.join(RELATION_COLUMNS)}")
        if missing := sorted({"subject", "relation", "object"} - set(self.columns)):
            raise ValueError(f"columns: {', '.join(missing)} must be mapped")
        return self


class Vectors(Feed):
    """Vectors of items that others computed: of images, sounds, what you have.

    columns.item_id is the item; attributes maps a kind (image, audio) to the column that holds its numbers, as a text or an
    array. A row replaces all vectors of its item; one whose columns are blank takes them back.
    """

    @model_validator(mode="after")
    def _says_whose_and_which(self) -> Vectors:
        if set(self.columns) != {"item_id"}:
            raise ValueError("columns: item_id must be mapped, and nothing else; the vectors go under attributes")
        if not self.attributes:
            raise ValueError("attributes: map at least one kind of vector, as in {image: embedding}")
        return self


FEEDBACK_COLUMNS = ("user_id", "event_type", "event_time", "list_day", "slot", "rank", "item_id", "model_version")


class Feedback(Feed):
    """How lists did: a row for each entry that was shown to somebody (impression), and for each thing done to one.

    columns.list_day is the day that the list was made on (`changed_on` of what sinks deliver),
    columns.slot the list (any, where it is not mapped), columns.rank the entry, from 1, columns.item_id what stood there.
    event_types renames the values of columns.event_type. columns.model_version, where it is mapped, must be the list's.
    """

    event_types: dict[str, str] = {}
    time_format: str = "iso"
    time_zone: str = "UTC"

    @model_validator(mode="after")
    def _says_which_entry_and_what_was_done(self) -> Feedback:
        if unknown := sorted(set(self.columns) - set(FEEDBACK_COLUMNS)):
            raise ValueError(f"columns: unknown {', '.join(unknown)}; known are {', '.join(FEEDBACK_COLUMNS)}")
        needed = set(FEEDBACK_COLUMNS) - {"slot", "model_version"}
        if missing := sorted(needed - set(self.columns)):
            raise ValueError(f"columns: {', '.join(missing)} must be mapped")
        if self.time_format == "position":
            raise ValueError("time_format: feedback needs times, not an order")
        return self


class Mapping(Strict):
    """One log. All but the events are sought beside them where they have no path of their own.

    target_events: what the model predicts and rankings count; other types are feedback only.
    repeats: whether an item that a user has taken may be recommended to that user again.
    """

    description: str
    target_events: tuple[str, ...] = Field(min_length=1)
    repeats: bool = True
    events: Events
    items: Feed | None = None
    users: Feed | None = None
    consents: Consents | None = None
    context: Surroundings | None = None
    relations: Relations | None = None
    vectors: Vectors | None = None
    feedback: Feedback | None = None

    @property
    def feeds(self) -> dict[str, Feed | None]:
        """All that a log may have beside its events, by name."""
        return {name: getattr(self, name) for name in FEEDS}

    @property
    def has_times(self) -> bool:
        return self.events.time_format != "position"

    @property
    def has_places(self) -> bool:
        columns = set(self.events.columns)
        return {"latitude", "longitude"} <= columns or "ip" in columns or self.events.place_gazetteer is not None


def load_mapping(path: Path) -> Mapping:
    """Read one mapping file.

    Raises:
        ValueError: unreadable, an unknown key or a bad value; names file and key.
    """
    try:
        return Mapping.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(str(part) for part in mistake['loc']) or 'mapping'}: {mistake['msg']}" for mistake in error.errors()
        )
        raise ValueError(f"{path}: {mistakes}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
