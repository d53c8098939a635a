"""Events as JSON lines, tables as CSV: the bytes of a world, the same wherever they are made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from jobs.simulate.atlas import Flags, Ints
from jobs.simulate.catalogue import Catalogue
from jobs.simulate.columns import DEVICES, EVENT_TYPES, REVIEW, SCENES, SEARCH, Events
from jobs.simulate.flaws import CODE, FLAWS
from jobs.simulate.people import People
from jobs.simulate.wording import review_texts, search_texts

_UNREADABLE = ("31/02/2024 25:61", "yesterday", "0000-00-00T00:00:00Z", "2024-13-45T99:99:99Z")
# Rows of these kinds are not listed: a bot's are all rows of that user, and broken ones cannot
# be told by their fields.
_UNLISTED = [CODE["good"], CODE["bot"], CODE["broken"]]


def as_written(events: Events, flaw: Ints) -> dict[str, pa.StringArray]:
    """The fields that name a row, as its line holds them; null where the line lacks them."""
    unreadable = pa.array(_UNREADABLE).take(pa.array(events.phrase % len(_UNREADABLE)))
    moment = pc.strftime(pa.array(events.at, type=pa.timestamp("ms")), format="%Y-%m-%dT%H:%M:%SZ")
    moment = pc.if_else(pa.array(flaw == CODE["time_unreadable"]), unreadable, moment)
    return {
        "user_id": _without(_ids("u", events.user, 6), flaw == CODE["missing_user_id"]),
        "item_id": _without(_ids("i", events.item, 5), (events.item < 0) | (flaw == CODE["missing_item_id"])),
        "event_type": _without(_named(EVENT_TYPES, events.kind), flaw == CODE["missing_event_type"]),
        "event_timestamp": _without(moment, flaw == CODE["missing_event_timestamp"]),
    }


def event_lines(
    events: Events,
    flaw: Ints,
    people: People,
    catalogue: Catalogue,
    names: dict[str, pa.StringArray],
) -> pa.StringArray:
    """One JSON object a row with a line feed; fields that a row lacks are left out of it."""
    no_position = flaw == CODE["missing_position"]
    fields = [_quoted(name, values) for name, values in names.items()]
    fields += [
        _number("latitude", events.latitude, no_position),
        _number("longitude", events.longitude, no_position),
        _quoted("device", _without(_named(DEVICES, events.device), flaw == CODE["missing_device"])),
        _quoted("scene", _named(SCENES, events.scene)),
        _quoted("session_id", _session_ids(events)),
        _number("rating", events.rating, events.rating == 0),
        _quoted("text", _texts(events, people, catalogue)),
    ]
    objects = pc.binary_join_element_wise(*fields, ",", null_handling="skip")
    lines = pc.binary_join_element_wise("{", objects, "}\n", "")
    return _garbled(lines, np.flatnonzero(flaw == CODE["broken"]))


def _garbled(lines: pa.StringArray, rows: Ints) -> pa.StringArray:
    """Cuts these lines short, or loses their quotes and colons: no reader of JSON accepts them."""
    if len(rows) == 0:
        return lines
    mask = np.zeros(len(lines), dtype=np.bool_)
    mask[rows] = True
    # One line in a thousand: cutting at varying lengths has no vectorised form.
    broken = []
    for number, line in enumerate(lines.take(pa.array(rows)).to_pylist()):
        cut = len(line) // 3 + number % (len(line) // 2)
        broken.append(line[:cut] + "\n" if number % 3 else line.replace('":', "\ufffd="))
    return pc.replace_with_mask(lines, pa.array(mask), pa.array(broken, type=pa.string()))


def _session_ids(events: Events) -> pa.StringArray:
    """Opaque and unique: a raw session id must not give away whose it is."""
    packed = (events.user << 32 | events.origin << 12 | events.session).astype(np.uint64)
    # The finisher of splitmix64 (Steele et al., 2014): each of its steps can be undone.
    mixed = (packed ^ (packed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    digits = pc.cast(pa.array(mixed ^ (mixed >> np.uint64(31))), pa.string())
    return pc.binary_join_element_wise("s", digits, "")


def _texts(events: Events, people: People, catalogue: Catalogue) -> pa.StringArray:
    """Reviews and searches; null for all other events."""
    reviews, searches = np.flatnonzero(events.kind == REVIEW), np.flatnonzero(events.kind == SEARCH)
    written = events.take(reviews)
    typed = events.take(searches)
    texts = pa.concat_arrays(
        [
            review_texts(
                written.rating,
                catalogue.brand[written.item],
                catalogue.category[written.item],
                written.phrase,
            ),
            search_texts(typed.topic, people.city[typed.user - people.first], typed.phrase),
        ]
    )
    position = np.full(len(events), -1)
    position[reviews] = np.arange(len(reviews))
    position[searches] = len(reviews) + np.arange(len(searches))
    return texts.take(pa.array(position, mask=position < 0))


def _ids(letter: str, numbers: Ints, width: int) -> pa.StringArray:
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width=width, padding="0")
    return pc.binary_join_element_wise(letter, digits, "")


def _named(names: tuple[str, ...], index: Ints) -> pa.StringArray:
    return pa.array(names).take(pa.array(index))


def _without(values: pa.StringArray, gone: Flags) -> pa.StringArray:
    return pc.if_else(pa.array(gone), pa.scalar(None, type=pa.string()), values)


def _quoted(name: str, values: pa.StringArray) -> pa.StringArray:
    escaped = values
    for mark in ("\\", '"'):
        escaped = pc.replace_substring(escaped, pattern=mark, replacement="\\" + mark)
    return pc.binary_join_element_wise(json.dumps(name) + ':"', escaped, '"', "")


def _number(name: str, values: np.ndarray, gone: Flags) -> pa.StringArray:
    digits = pc.cast(pa.array(values, mask=gone), pa.string())
    return pc.binary_join_element_wise(json.dumps(name) + ":", digits, "")


def defect_rows(names: dict[str, pa.StringArray], flaw: Ints, day: str) -> pd.DataFrame:
    """The readable rows with a defect: landing day, the naming fields as written, the kind."""
    listed = np.flatnonzero(~np.isin(flaw, _UNLISTED))
    rows = {name: values.take(pa.array(listed)).to_pandas() for name, values in names.items()}
    kinds = [FLAWS[code] for code in flaw[listed]]
    return pd.DataFrame({"day": [day] * len(listed), **rows, "kind": kinds})


def write_lines(path: Path, lines: pa.StringArray) -> None:
    """Writes the lines as they are; the file is there whole or not at all."""
    _, offsets, characters = lines.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[lines.offset : lines.offset + len(lines) + 1]
    content = memoryview(characters)[ends[0] : ends[-1]] if characters else b""
    _write(path, content)


def write_csv(path: Path, rows: pd.DataFrame) -> None:
    """A CSV with a header; quotes are doubled, as RFC 4180 has it."""
    _write(path, rows.to_csv(index=False, lineterminator="\n").encode())


def piece(path: Path, part: int) -> Path:
    """Where slice number `part` of the CSV `path` lies until `merge_pieces`."""
    return path.with_name(f"{path.name}.{part:06d}")


def merge_pieces(path: Path) -> None:
    """Makes the CSV `path` of its slices, in the order of their numbers; nothing if there are none."""
    pieces = sorted(path.parent.glob(f"{path.name}.*"))
    if not pieces:
        return
    with path.open("wb") as whole:
        for number, part in enumerate(pieces):
            with part.open("rb") as source:
                header = source.readline()
                whole.write(header if number == 0 else b"")
                shutil.copyfileobj(source, whole)
            part.unlink()


def _write(path: Path, content: bytes | memoryview) -> None:
    # A task that is killed while it writes is run again, and writes the same bytes to this name.
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
