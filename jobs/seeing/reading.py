"""What the pictures ask of the lake, by SQL and without a JVM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from conf.settings import Settings
from jobs.query import answer_from
from jobs.query.versions import Seen, seen

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The tables at one moment: those that readers see, or those that a run has just written."""

    root: str
    visible: Mapping[str, Seen]

    @classmethod
    def of(cls, settings: Settings) -> Reader:
        """
        Raises:
            ValueError: nothing is finished in the lake.
        """
        visible = seen(settings.lake, {}, None)
        if not any(at.version is not None for at in visible.values()):
            raise ValueError(
                f"nothing is finished in {settings.lake} yet: run a day first, or set another with --set lake=FOLDER"
            )
        return cls(root=settings.lake, visible=visible)

    @classmethod
    def at(cls, root: str, versions: Mapping[str, int], day: date, first_day: date) -> Reader:
        """Tables at the versions given, as of the end of a day."""
        return cls(
            root=root,
            visible={name: Seen(version=version, day=day, first_day=first_day) for name, version in versions.items()},
        )

    def has(self, name: str) -> bool:
        return name in self.visible

    @property
    def day(self) -> date:
        """The newest day that is finished."""
        return max(at.day for at in self.visible.values() if at.version is not None)

    def rows(self, sql: str) -> list[Row]:
        """
        Raises:
            ValueError: a table has no rows yet.
        """
        found = answer_from(self.root, self.visible, sql)
        columns = [column.to_pylist() for column in found.columns]
        return [dict(zip(found.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def literal(text: str) -> str:
    """A string as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
