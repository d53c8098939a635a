"""Tables on disk: created, checked, read and replaced under their contracts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow.fs import FileSystem, FileType
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.contracts import Table
from conf.tables import TABLES
from jobs.lake import commits, files
from jobs.lake.disk import named_when_full
from jobs.lake.logs import table_path
from jobs.lake.plans import LITTLE, suit
from jobs.lake.schema import create, differences, gained, migrate, spark_schema


@dataclass(frozen=True, kw_only=True)
class Days:
    """A closed range of run dates."""

    first: date
    last: date

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1))

    def where(self, column: str = "day") -> str:
        return f"{column} >= '{self.first}' AND {column} <= '{self.last}'"


@dataclass(frozen=True, kw_only=True)
class Written:
    version: int
    rows: int


def keyframe_before(day: date, first_day: date) -> date:
    """The newest keyframe up to `day`: the first of its month, or the lake's first day."""
    return max(day.replace(day=1), first_day)


def keyframes(days: Days, first_day: date) -> list[date]:
    """The keyframe days within `days`, without the lake's first day (all owners change on it anyway)."""
    return [day for day in days if day.day == 1 and day > first_day]


class Lake:
    """All tables under one root. Knows contracts and versions, nothing of steps."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self.root = root.rstrip("/") or "/"
        self._bytes = 0

    def path(self, name: str) -> str:
        return table_path(self.root, name)

    def delta(self, name: str) -> deltalake.DeltaTable | None:
        """The table without Spark; None where it was never written."""
        try:
            return deltalake.DeltaTable(self.path(name))
        except TableNotFoundError:
            return None

    def version(self, name: str) -> int | None:
        table = self.delta(name)
        return None if table is None else table.version()

    def ensure(self, name: str) -> deltalake.DeltaTable:
        """The table without Spark: created under its contract, or with the nullable columns that it has gained since.

        Raises:
            ValueError: the stored table was written under another contract; lists every difference.
        """
        contract, stored = TABLES[name], self.delta(name)
        if stored is None:
            with commits.commit(self.root, f"the empty table {name}"):
                create(self.path(name), contract)
            return deltalake.DeltaTable(self.path(name))
        self._check(contract, stored)
        return migrate(stored, contract)

    def _check(self, contract: Table, stored: deltalake.DeltaTable) -> None:
        if found := differences(contract, stored):
            way = (
                f"run `wherewhen rebuild {contract.name}`"
                if contract.partitioned
                else "its rows cannot be made again: use the release that wrote it, or another lake"
            )
            raise ValueError(f"{self.path(contract.name)} was written under another contract: {'; '.join(found)}; {way}")

    def read(self, name: str, version: int | None, where: str | None = None) -> DataFrame:
        """The rows of a version, in the partitions of `where` (SQL over `day`); none where the table was never written.

        A version is a list of files that never change, so Spark reads these files, and no log.
        """
        if version is None:
            return self._nothing(name)
        table = deltalake.DeltaTable(self.path(name), version=version)
        self._check(TABLES[name], table)
        paths = files.paths(table, where)
        if not paths:
            return self._nothing(name)
        listed = files.listed(table)
        self.reads(sum(listed[path].size for path in paths))
        root = self.path(name)
        reader = self.spark.read.schema(spark_schema(TABLES[name])).options(basePath=root, __globPaths__="false")
        rows = reader.parquet(*[f"{root}/{path}" for path in paths]).select(*TABLES[name].names)
        return rows if where is None else rows.where(where)

    def reads(self, size: int) -> None:
        """So many bytes more are read: plans from here on suit all that was."""
        self._bytes += size
        if self._bytes >= LITTLE > self._bytes - size:
            suit(self.spark, self._bytes)

    def rows_by_day(self, name: str, version: int | None, days: Days) -> dict[date, int]:
        """Day -> rows of a version, of the days that have any; from its log, without Spark."""
        found: dict[date, int] = {}
        if version is not None:
            for file in files.listed(deltalake.DeltaTable(self.path(name), version=version)).values():
                assert file.day is not None, f"{name} has no days"
                day = date.fromisoformat(file.day)
                if days.first <= day <= days.last:
                    found[day] = found.get(day, 0) + file.rows
        return found

    def holds(self, name: str, version: int, where: str) -> bool:
        """Whether the files of a version's partitions are all there still."""
        try:
            paths = files.paths(deltalake.DeltaTable(self.path(name), version=version), where)
        except (TableNotFoundError, DeltaError):
            return False
        if not paths:
            return True
        system, root = FileSystem.from_uri(self.path(name))
        return all(found.type == FileType.File for found in system.get_file_info([f"{root}/{path}" for path in paths]))

    def is_empty(self, name: str, version: int, days: Days) -> bool:
        """Whether a version is the newest, as its contract has it, and without rows of the days: nothing is left to write."""
        table = self.delta(name)
        if table is None or table.version() != version or gained(TABLES[name], table):
            return False
        return not self.rows_by_day(name, version, days)

    def _nothing(self, name: str) -> DataFrame:
        """No rows, in a way that plans know: what is joined with them then costs nothing."""
        columns = ", ".join(f"CAST(NULL AS {column.type}) AS `{column.name}`" for column in TABLES[name].columns)
        return self.spark.sql(f"SELECT {columns} WHERE false")

    def replace(self, name: str, rows: DataFrame, where: str, *, whole: bool = False) -> Written:
        """Replace the partitions that fulfil `where` by `rows`, in one commit; the only way data is written.

        `whole`: what is replaced is all there is, so the same commit may bring the table under another contract.

        Raises:
            ValueError: the rows break the contract (names every difference), or another process wrote the table meanwhile.
        """
        assert TABLES[name].partitioned, f"{name} is a log: append to it"
        return self._write(name, rows, where, whole=whole)

    def append(self, name: str, rows: DataFrame) -> Written:
        """Add rows to a log that Spark writes."""
        assert not TABLES[name].partitioned, f"{name} is no log: replace its partitions"
        return self._write(name, rows, None)

    def _write(self, name: str, rows: DataFrame, where: str | None, *, whole: bool = False) -> Written:
        contract = TABLES[name]
        conformed = conform(rows, contract)
        try:
            with named_when_full(self.path(name), tempfile.gettempdir()):
                stored = self.delta(name) if whole else None
                outdated = stored if stored is not None and differences(contract, stored) else None
                table = outdated or self.ensure(name)
                added = files.write(files.assured(conformed, contract, where), self.path(name), contract)
                with commits.commit(self.root, name):
                    version = files.recreated(table, added, contract) if outdated else files.committed(table, added, where)
                return Written(version=version, rows=sum(file.rows for file in added))
        except Exception as error:
            if (said := files.broken_contract(error)) is not None:
                raise ValueError(f"{name}: {said}; a step wrote rows that its contract forbids") from error
            raise


def newest(rows: DataFrame, owner: Sequence[str]) -> DataFrame:
    """Per owner the rows of its newest `day`, without the gone; drops `gone` and `day`."""
    by_owner = Window.partitionBy(*owner)
    ranked = rows.withColumn("_newest", F.max("day").over(by_owner))
    return ranked.where((F.col("day") == F.col("_newest")) & ~F.col("gone")).drop("_newest", "gone", "day")


def keyframe_copies(rows: DataFrame, owner: Sequence[str], frames: Sequence[date]) -> DataFrame:
    """Copies of every owner's newest rows on each keyframe on which the owner itself did not change.

    `rows` are state rows with `day` = the day of the change. One pass: each change is copied to
    the keyframes between it and the owner's next change.
    """
    by_owner = Window.partitionBy(*owner).orderBy("day")
    changes = rows.select(*owner, "day").distinct().withColumn("_next", F.lead("day").over(by_owner))
    all_frames = F.array(*[F.lit(frame) for frame in frames])
    due = F.filter(
        all_frames,
        lambda frame: (frame > F.col("day")) & (F.col("_next").isNull() | (frame < F.col("_next"))),
    )
    copies = changes.select(*owner, "day", F.explode(due).alias("_frame"))
    return (
        rows.where(~F.col("gone"))
        .join(copies, on=[*owner, "day"], how="inner")
        .withColumn("day", F.col("_frame"))
        .drop("_frame")
    )


def conform(rows: DataFrame, contract: Table) -> DataFrame:
    """`rows` in the contract's column order.

    Raises:
        ValueError: missing, unknown or mistyped columns; all in one message.
    """
    wanted = {field.name: field.dataType.simpleString() for field in spark_schema(contract)}
    given = {field.name: field.dataType.simpleString() for field in rows.schema}
    found = [f"{name} is missing" for name in wanted if name not in given]
    found += [f"{name} is not in the contract" for name in given if name not in wanted]
    found += [
        f"{name} is {given[name]}, not {wanted[name]}" for name in wanted if given.get(name, wanted[name]) != wanted[name]
    ]
    if found:
        raise ValueError(f"{contract.name}: {'; '.join(found)}")
    return rows.select(*contract.names)
