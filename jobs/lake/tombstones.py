"""Rows of erased persons stay out: known again by a keyed hash of the caller's id, whatever feed they come in."""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

# No postponed annotations here: Spark reads those of the functions below as they are defined.
from jobs.lake import logs
from jobs.lake.identities import TOMBSTONE_KEY_VARIABLE, load_tombstone_key, pseudonym
from jobs.lake.person import PIECES, readings

if TYPE_CHECKING:
    from pyspark.sql import Column

TABLE, BEGUN, DONE = "erasures", "begun", "done"


@dataclass(frozen=True, kw_only=True)
class Tombstones:
    """`pieces`: of how many words and marks the ids consist, so that broken lines can be searched for them."""

    hashes: frozenset[str]
    pieces: frozenset[int]
    key: bytes = field(repr=False)

    def covers(self, user_id: str) -> bool:
        return pseudonym(user_id, self.key) in self.hashes

    def is_named_in(self, line: str) -> bool:
        """Whether an erased id stands in a line as words of its own. Agrees with `Person.is_named_in`."""
        for reading in readings(line):
            words = PIECES.findall(reading)
            for count in self.pieces:
                runs = {"".join(words[start : start + count]) for start in range(len(words) - count + 1)}
                if any(self.covers(run) for run in runs):
                    return True
        return False


def tombstone_of(user_id: str, key: bytes) -> logs.Row:
    """The columns of `erasures` by which a person is known again."""
    return {
        "tombstone": pseudonym(user_id, key),
        "key_check": key_check(key),
        "pieces": len(PIECES.findall(user_id)),
    }


def key_check(key: bytes) -> str:
    return hmac.new(key, b"wherewhen tombstone key", hashlib.sha256).hexdigest()[:16]


def tombstones(root: str) -> Tombstones | None:
    """All of a lake; None where nobody was erased.

    Raises:
        ValueError: the key is not the one that made them: erased persons would come back.
    """
    rows = logs.read(root, TABLE, f"status = '{BEGUN}'")
    if not rows:
        return None
    key = load_tombstone_key()
    refuse_other_key(rows, key)
    return Tombstones(
        hashes=frozenset(row["tombstone"] for row in rows), pieces=frozenset(row["pieces"] for row in rows), key=key
    )


def erased_since(root: str, moment: datetime) -> bool:
    """Whether anybody was, or was begun to be."""
    return any(row["recorded_at"] > moment for row in logs.read(root, TABLE))


def refuse_other_key(rows: list[logs.Row], key: bytes) -> None:
    if any(row["key_check"] != key_check(key) for row in rows):
        raise ValueError(
            "persons were erased from this lake under another tombstone key, so their rows could not be told: "
            f"set {TOMBSTONE_KEY_VARIABLE} to that key, or put its file back"
        )


def is_erased(user_id: "Column", broken: "Column", known: Tombstones) -> "Column":
    """Whether a source row is an erased person's. The key and hashes travel in the function, never in a plan or a log."""
    import pandas as pd
    from pyspark.sql import functions as F

    @F.pandas_udf("boolean")  # type: ignore[call-overload]
    def judged(ids: pd.Series, lines: pd.Series) -> pd.Series:
        codes, distinct = pd.factorize(ids)
        covered = pd.Series([*(known.covers(one) for one in distinct), False], dtype=bool)
        named = lines.map(lambda line: line is not None and known.is_named_in(line)).astype(bool)
        return covered.iloc[codes].reset_index(drop=True) | named.reset_index(drop=True)

    return judged(user_id, broken)
