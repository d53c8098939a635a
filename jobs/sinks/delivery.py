"""What a sink is given, and the manifest that it keeps beside the rows: by it the next delivery sends only what changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a target holds: a table or segment as of the end of `day`.

    `state` tells apart what the rows were made of before that day, `last` what on it (of a state; else all is in `state`).
    `versions` are those of the Delta tables that were read, `contract` is the number of the columns' version.
    """

    source: str
    day: date
    state: str
    last: str = ""
    versions: Mapping[str, int] = field(default_factory=dict, compare=False)
    columns: Mapping[str, str]  # name -> Spark's name of its type
    contract: int

    def text(self) -> str:
        return json.dumps(asdict(self), default=str, separators=(",", ":"))

    @staticmethod
    def read(text: str | None) -> Manifest | None:
        """None: nothing is known of what the target holds."""
        try:
            known = json.loads(text or "null")
            return known and Manifest(**{**known, "day": date.fromisoformat(known["day"])})
        except (ValueError, TypeError, KeyError):  # not one of ours, or of another release
            return None


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was changed since a manifest. `owners`: whose rows these are, one row each, those left with none included."""

    rows: DataFrame
    owners: DataFrame


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One table or segment for one sink.

    `by` are the columns of what is replaced together; () where single rows alone can be told apart.
    `known` is the manifest of the last delivery as `export_log` has it, for sinks that cannot be asked.
    """

    rows: DataFrame
    manifest: Manifest
    key: tuple[str, ...]
    by: tuple[str, ...]
    run_id: str
    since: Callable[[Manifest], Changes | None]
    known: Manifest | None = None
    whole: bool = False
    comment: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)

    def is_there(self, before: Manifest | None) -> bool:
        """Whether a target with that manifest holds it all."""
        return not self.whole and before == self.manifest

    def changes(self, before: Manifest | None) -> Changes | None:
        """What is to be sent to a target with that manifest; None: everything.

        Raises:
            ValueError: readers of the target know other columns, and nobody announced the change.
        """
        self.check_announced(before)
        if before is None or self.whole or before.columns != self.manifest.columns:
            return None
        return self.since(before)

    def check_announced(self, before: Manifest | None) -> None:
        """
        Raises:
            ValueError: as `changes`.
        """
        now = self.manifest
        if before is None or before.columns == now.columns or now.contract > before.contract:
            return
        lost = [f"without {name}" for name in before.columns if name not in now.columns]
        new = [f"with {name} {kind}" for name, kind in now.columns.items() if name not in before.columns]
        other = [
            f"{name} {kind} in place of {before.columns[name]}"
            for name, kind in now.columns.items()
            if before.columns.get(name, kind) != kind
        ]
        differs = ", ".join(new + lost + other) or "in another order"
        raise ValueError(
            f"{now.source} is to have other columns than its readers know: {differs}; "
            f"tell them, then set the sink's contract: {before.contract + 1}"
        )


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What was sent. `checksum`: of the rows, as both sides have it, where the target can be asked for it."""

    rows: int
    how: str  # EVERYTHING, CHANGES or NOTHING
    checksum: str | None = None


EVERYTHING, CHANGES, NOTHING = "everything", "changes", "nothing"
