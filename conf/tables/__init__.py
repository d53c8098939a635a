"""Every table's contract: columns, types, units, comments, key, personal data, checks; a file for each part of the lake."""

from __future__ import annotations

from conf.contracts import Table
from conf.tables.arrived import ARRIVED
from conf.tables.events import CLEAN, SEQUENCES
from conf.tables.interaction import INTERACTION
from conf.tables.interests import LABEL, TEXT
from conf.tables.learning import LEARNING
from conf.tables.series import TIME_SERIES
from conf.tables.served import PRIVACY, SERVED
from conf.tables.space import SPATIAL
from conf.tables.tags import TAGS

TABLES: dict[str, Table] = {
    table.name: table
    for group in (
        ARRIVED, CLEAN, SEQUENCES, TEXT, TAGS, LABEL, TIME_SERIES, SPATIAL, INTERACTION, LEARNING, SERVED, PRIVACY,
    )
    for table in group
}  # fmt: skip
