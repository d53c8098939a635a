"""One person in the lake: which rows of a table are theirs. What `erase` removes is what `subject` hands out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from conf.contracts import Table
from jobs.lake.identities import KEY_VARIABLE, load_key, pseudonym, unseal

if TYPE_CHECKING:
    import pyarrow as pa

PIECES = re.compile(r"\w+|\W")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SHORTEST_DISTINCT, _DISTINCT_ANYWAY = 6, 16
# Columns that say whose a row is.
IDENTIFYING = ("user_id", "entity_type", "entity_id", "broken", "row", "text_hash")

# Tables in which no row names anybody, and why nothing of them is removed with a person.
WITHOUT_PERSONS = {
    "items": "describes items; one that the person alone named stays, with no word of who named it",
    "context": "what holds at a time and place for everybody there",
    "item_relations": "what items and tags have to do with tags, as a feed or rules have it",
    "item_vectors": "vectors of items, as a feed has them",
    "item_texts": "texts of items by hash",
    "item_tags": "words under which items go",
    "tag_synonyms": "which of the commonest of these mean the same",
    "item_names": "brands and titles of items",
    "text_topics": "clusters of items' texts, under keywords of items' texts",
    "sentiment_models": "weights learnt from the rated texts of many, the person's among them; a rebuild learns without",
    "item_positions": "means over the events of an item, the person's among them; they name nobody",
    "cell_daily": "counts of events and users per cell and slot, the person counted among them; they name nobody",
    "hotspots": "counts per cell, as above",
    "hotspot_trends": "weeks and z values per cell, of several users each",
    "forecasts": "counts to be expected per category, region and item",
    "forecast_quality": "errors of forecasts, as above",
    "forecast_networks": "weights learnt from such counts",
    "hotspot_areas": "counts and centres of areas, of ten users or more by default",
    "region_flows": "counts and medians per pair of regions, of ten users or more by default",
    "region_stays": "counts and medians per region, as above",
    "region_interests": "counts per region and category, as above",
    "region_slot_lift": "counts per region, as above",
    "transitions": "counts per pair of categories, regions or items and slot, the person counted among them; they name nobody",
    "value_ranges": "medians and spreads of values per event type; they name nobody",
    "model_versions": "the registry; versions trained on the person are listed in the certificate",
    "training_runs": "counts per training",
    "model_quality": "means over events",
    "publications": "decisions about versions",
    "served_items": "titles and counts of items, the person counted among them; they name nobody",
    "drift": "measures over all users",
    "export_log": "counts per delivery; an error that names the person is blotted out",
    "runs": "counts per step; an error that names the person is blotted out",
    "erasures": "tombstones under a key of their own, which keep the person's rows out",
}


@dataclass(frozen=True, kw_only=True)
class Person:
    """A caller's id and its pseudonym; neither shows in a representation."""

    raw_id: str = field(repr=False)
    pseudonym: str = field(repr=False)

    @staticmethod
    def of(raw_id: str) -> Person:
        """
        Raises:
            ValueError: the id can stand in no row, or there is no key.
        """
        if not raw_id.strip(" "):
            raise ValueError("--user is empty: rows without an id belong to nobody")
        try:
            raw_id.encode()
        except UnicodeEncodeError:
            raise ValueError("--user is no valid UTF-8, so it can be nobody's id") from None
        return Person(raw_id=raw_id, pseudonym=pseudonym(raw_id, load_key(create=False)))

    @property
    def is_distinct(self) -> bool:
        """Whether the id can be told from ordinary words and numbers wherever it stands: "u000012" can, "12" cannot."""
        is_mixed = re.search(r"\d", self.raw_id) is not None and re.search(r"\D", self.raw_id) is not None
        return len(self.raw_id) >= _DISTINCT_ANYWAY or (len(self.raw_id) >= _SHORTEST_DISTINCT and is_mixed)

    @cached_property
    def _as_words(self) -> re.Pattern[str]:
        before = r"(?<!\w)" if re.match(r"\w", self.raw_id[0]) else ""
        after = r"(?!\w)" if re.match(r"\w", self.raw_id[-1]) else ""
        return re.compile(before + re.escape(self.raw_id) + after)

    def is_named_in(self, text: str) -> bool:
        """Whether the id stands in a text as words of its own, or the pseudonym anywhere."""
        return self.pseudonym in text or any(self._as_words.search(reading) for reading in readings(text))

    def blotted(self, text: str) -> str:
        """The text without the pseudonym and, where it is distinct, the id."""
        text = text.replace(self.pseudonym, "(erased)")
        return self._as_words.sub("(erased)", text) if self.is_distinct else text


def check_key(root: str) -> None:
    """
    Raises:
        ValueError: the lake was made under another key: nobody's rows would be found.
    """
    from cryptography.exceptions import InvalidTag

    from jobs.lake import logs

    for row in logs.read(root, "vault", "true LIMIT 1"):
        try:
            unseal(bytes(row["sealed"]), load_key(create=False))
        except InvalidTag:
            raise ValueError(f"{KEY_VARIABLE} is not the key that {root} was made with: nobody's rows would be found") from None


def readings(text: str) -> list[str]:
    """A text as it is, and as a CSV or JSON reader would understand what is quoted in it."""
    found = [text]
    if '""' in text:
        found.append(text.replace('""', '"'))
    if "\\" in text:
        plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[2], text)
        # Characters beyond the first plane are escaped as two halves.
        found.append(plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return found


def identifying(contract: Table) -> tuple[str, ...]:
    """The columns that say whose a row is; none where a table holds nobody's rows."""
    if contract.name in WITHOUT_PERSONS:
        return ()
    return tuple(name for name in IDENTIFYING if name in contract.names)


def owned(
    person: Person, rows: pa.RecordBatch | pa.Table, text_hashes: frozenset[str] = frozenset(), *, outside: bool = False
) -> pa.Array:
    """For each row whether it is the person's: booleans, without nulls.

    `rows` holds the `identifying` columns; `outside` the lake (in a sink) these hold the caller's ids.
    A text is the person's where its hash is in `text_hashes`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    own_id = person.raw_id if outside else person.pseudonym
    found = pa.array([False] * rows.num_rows, pa.bool_())
    names = rows.schema.names
    if "user_id" in names:
        found = pc.or_(found, _is(rows.column("user_id"), own_id))
    if {"entity_type", "entity_id"} <= set(names):
        is_user = _is(rows.column("entity_type"), "user")
        found = pc.or_(found, pc.and_(is_user, _is(rows.column("entity_id"), own_id)))
    if "broken" in names:
        found = pc.or_(found, _each(rows.column("broken"), person.is_named_in))
    if "row" in names:
        row = rows.column("row")
        may_be = pc.fill_null(pc.match_substring(row, '"broken"'), False)
        found = pc.or_(found, _each(pc.if_else(may_be, row, None), lambda text: _is_broken_and_names(person, text)))
    if "text_hash" in names:
        found = pc.or_(found, pc.is_in(rows.column("text_hash"), value_set=pa.array(sorted(text_hashes), pa.string())))
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def owns(person: Person, record: Mapping[str, str | None], text_hashes: frozenset[str] = frozenset()) -> bool:
    """`owned` for one record of a sink, all its values as text."""
    if record.get("user_id") == person.raw_id or record.get("text_hash") in text_hashes:
        return True
    if record.get("entity_type") == "user" and record.get("entity_id") == person.raw_id:
        return True
    broken, row = record.get("broken"), record.get("row")
    return person.is_named_in(broken or "") or (bool(row) and _is_broken_and_names(person, row or ""))


def _is(column: Any, value: str) -> Any:
    import pyarrow.compute as pc

    return pc.fill_null(pc.equal(column, value), False)


def _each(column: Any, judge: Callable[[str], bool]) -> Any:
    """Broken lines are few: one by one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    is_there = np.asarray(pc.is_valid(column))
    found = np.zeros(len(column), dtype=bool)
    found[is_there] = [judge(text) for text in pc.drop_null(column).to_pylist()]
    return pa.array(found)


def _is_broken_and_names(person: Person, row: str) -> bool:
    """Of a quarantined row that could be read the user is known; words of others that name somebody stay."""
    try:
        broken = json.loads(row).get("broken")
    except ValueError:  # no JSON that we wrote
        broken = row
    return broken is not None and person.is_named_in(broken)
