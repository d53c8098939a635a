"""Source files as rows of strings, whatever their format. Nothing is parsed or judged here."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, MapType, StringType, StructField, StructType, VariantType

from conf.mapping import Events, Expression, Feed
from jobs.ingest.columns import Types, add_types, check_names, check_types, fields_of, json_columns, named_by, untyped
from jobs.ingest.landing import File, Landing
from jobs.lake.session import jars

BROKEN, CONTENT, FILE = "broken", "_content", "_file"
_HELD_BROKEN, _HELD_CONTENT, _HELD_FILE = "_held_broken", "_held_content", "_held_file"
# Told apart from anything that stands in a field: ASCII's own separators.
_BETWEEN_NAME_AND_VALUE, _BETWEEN_FIELDS = "\x1f", "\x1e"
_MOST_HEADS = 32
_WITHOUT_FILES = ("jdbc", "delta", "iceberg")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One feed, where it is configured, and its files (None: a source without files, such as a database).

    `where` is what errors name besides the file: the key of the setting. `found` is filled by
    `read`: the columns there are, each with its type. `known` are the types of earlier runs; `accept`
    lets a type differ from them, or between files.
    """

    feed: Feed
    where: str
    path: str | None
    files: tuple[File, ...] | None
    accept: bool = False
    known: MappingType[str, str] = field(default_factory=dict)
    found: Types = field(default_factory=dict)

    def saw(self, types: MappingType[str, str], where: str) -> None:
        for before in (self.known, self.found):
            check_types(before, types, self.feed, where, accept=self.accept)
        add_types(self.found, types)


def has_files(feed: Feed) -> bool:
    return feed.format not in _WITHOUT_FILES


def read(spark: SparkSession, source: Source) -> DataFrame:
    """The rows of a source, one per row of the files.

    Columns, all strings: the mapped names; `attributes` and `flags` (maps) where the mapping has
    them; `broken`, the line where it could not be read (then all others are null); `_content`,
    every field of the source that is not null as name and value, but for those that the user id
    is made of; `_file`, the file's URL.

    Raises:
        ValueError: a mapped column is missing or of another type in another file, an empty or unreadable
            file, an unknown format.
    """
    if not has_files(source.feed):
        return _typed(_load(spark, source, []), source, source.path or source.where)
    files = [file for file in source.files or () if file.size != 0]
    if not files:
        return _no_rows(spark, source)
    if source.feed.format == "csv":
        return _read_csv(spark, source, files)
    if source.feed.format == "json" and not _is_true(source.feed.options, "multiLine"):
        return _read_json_lines(spark, source, files)
    if source.feed.format == "parquet":
        return _read_parquet(spark, source, files)
    where = files[0].path if len(files) == 1 else f"{files[0].path} ... {files[-1].path}"
    return _typed(_load(spark, source, [file.path for file in files]), source, where)


def _read_csv(spark: SparkSession, source: Source, files: Sequence[File]) -> DataFrame:
    """Files are grouped by their header, so that columns may come, go or move from file to file."""
    groups: dict[tuple[str, ...], list[File]] = {}
    landing = Landing(spark)
    for file in files:
        header = _header(landing.head(file), source, file)
        if header:
            groups.setdefault(header, []).append(file)
    frames = [_csv_group(spark, source, header, group) for header, group in groups.items()]
    return reduce(DataFrame.unionByName, frames) if frames else _no_rows(spark, source)


def empty(path: str) -> ValueError:
    """A log that is one file, and nothing in it."""
    return ValueError(f"{path} is empty: not even a header")


def _no_rows(spark: SparkSession, source: Source) -> DataFrame:
    """An empty file in a landing folder is a day without rows; a CSV that is the log itself must have a header."""
    if source.feed.format == "csv" and source.files and source.files[0].day is None:
        raise empty(source.files[0].path)
    return spark.createDataFrame([], _schema(source.feed))


def _csv_group(spark: SparkSession, source: Source, header: tuple[str, ...], files: Sequence[File]) -> DataFrame:
    # By position: header names may repeat, or hold anything.
    places = [f"_c{number}" for number in range(len(header))]
    schema = StructType([StructField(name, StringType()) for name in [*places, "_broken"]])
    # Quotes are doubled inside quotes (RFC 4180), where the mapping does not say otherwise.
    options = {"escape": '"', **_options(source.feed), "mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_broken"}
    # Without pruning a line is judged alike whichever columns a query needs.
    reader = spark.read.format("csv").schema(schema).options(**options, columnPruning="false", __globPaths__="false")
    frame = reader.load([file.path for file in files])
    named = {name: F.col(place) for name, place in zip(header, places, strict=True)}
    return _mapped(frame, source.feed, named, F.col("_broken"))


def _header(head: bytes, source: Source, file: File) -> tuple[str, ...]:
    """The column names of a CSV; none where the file holds nothing.

    Raises:
        ValueError: a mapped column is missing or named twice.
    """
    options = source.feed.options
    text = head.decode(options.get("encoding", options.get("charset", "utf-8")), errors="replace").lstrip("\ufeff")
    comment = options.get("comment")
    lines = [line for line in text.splitlines() if line.strip() and not (comment and line.startswith(comment))]
    if not lines:
        return ()
    separator = options.get("sep", options.get("delimiter", ","))
    if len(separator) == 1:
        names = next(csv.reader(io.StringIO(lines[0]), delimiter=separator, quotechar=options.get("quote", '"') or None))
    else:
        names = lines[0].split(separator)
    names = [name.strip() for name in names]
    if not _is_true(options, "header"):
        names = [f"_c{number}" for number in range(len(names))]
    check_names(names, source.feed, file.path, separator)
    source.saw(untyped(names), file.path)
    return tuple(names)


def _read_json_lines(spark: SparkSession, source: Source, files: Sequence[File]) -> DataFrame:
    """JSON lines, read as text: so no line can vanish, and every field is seen without a pass to find them."""
    landing = Landing(spark)
    # Of a long history some, from the first to the last: each takes milliseconds to open.
    for file in files[:: 1 + (len(files) - 1) // _MOST_HEADS]:
        source.saw(json_columns(landing.head(file), source.feed, file, is_first=file is files[0]), file.path)
    encoding = {key: value for key, value in source.feed.options.items() if key in ("encoding", "lineSep")}
    lines = spark.read.format("text").options(**encoding, __globPaths__="false").load([file.path for file in files])
    # Bytes that are no UTF-8 would be stored as they are, and then break every reader but Spark.
    line = F.make_valid_utf8(F.col("value"))
    frame = lines.select(line.alias("_line"), F.from_json(line, "map<string,string>").alias("_map"))
    frame = frame.where(F.trim("_line") != "")
    # The parser is content with a first value and looks at nothing behind it.
    whole = F.col("_map").isNotNull() & F.rtrim(F.col("_line")).endswith("}")
    names = sorted(named_by(source.feed))
    named = {name: F.try_element_at(F.col("_map"), F.lit(name)) for name in names}
    return _mapped(frame, source.feed, named, F.when(~whole, F.col("_line")), F.col("_map"))


def _read_parquet(spark: SparkSession, source: Source, files: Sequence[File]) -> DataFrame:
    """Files are grouped by their columns and types, which Spark could not merge where they differ."""
    groups: dict[tuple[tuple[str, str], ...], list[File]] = {}
    landing = Landing(spark)
    for file in files:
        types = landing.footer(file)
        check_names(list(types), source.feed, file.path)
        source.saw(types, file.path)
        groups.setdefault(tuple(sorted(types.items())), []).append(file)
    frames = [_load(spark, source, [file.path for file in group]) for group in groups.values()]
    return reduce(DataFrame.unionByName, [_mapped_by_name(frame, source.feed) for frame in frames])


def _typed(frame: DataFrame, source: Source, where: str) -> DataFrame:
    check_names(frame.columns, source.feed, where)
    source.saw({field.name: field.dataType.simpleString() for field in frame.schema}, where)
    return _mapped_by_name(frame, source.feed)


def _mapped_by_name(frame: DataFrame, feed: Feed) -> DataFrame:
    return _mapped(frame, feed, {name: F.col(_quoted(name)) for name in frame.columns}, F.lit(None).cast("string"))


def _load(spark: SparkSession, source: Source, paths: list[str]) -> DataFrame:
    reader = spark.read.format(source.feed.format).options(**_options(source.feed))
    if source.feed.format == "json":
        reader = reader.option("primitivesAsString", "true")
    if source.feed.format == "orc":
        reader = reader.option("mergeSchema", "true")
    try:
        if paths:
            return reader.option("__globPaths__", "false").load(paths)
        return reader.load(source.path) if source.path else reader.load()
    except Exception as error:
        place = ", ".join(paths[:1]) or source.path or source.where
        remedy = "; run `wherewhen doctor --fetch-jars` once" if source.feed.format == "delta" and not jars() else ""
        raise ValueError(f"{place}: cannot be read as {source.feed.format}: {_first_line(error)}{remedy}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


def _mapped(
    frame: DataFrame, feed: Feed, named: MappingType[str, Column], broken: Column, whole: Column | None = None
) -> DataFrame:
    """Our columns out of theirs. `whole`, where given, is a map of all fields of the row (else `named` is all)."""
    fields = fields_of(feed)
    types = {field.name: field.dataType for field in frame.schema}
    texts = {name: _text(value, types.get(name)) for name, value in named.items()}
    user = fields.get("user_id", set())
    content = _content(texts, user) if whole is None else _content_of_map(whole, user)
    path = F.col("_metadata.file_path") if has_files(feed) else F.lit(None).cast("string")
    # SQL in the mapping speaks of the source's own names, so its columns stand under them here.
    theirs = [texts[name].alias(name) for name in sorted(set().union(*fields.values()))]
    held = frame.select(*theirs, content.alias(_HELD_CONTENT), broken.alias(_HELD_BROKEN), path.alias(_HELD_FILE))
    return held.select(
        *[_readable(_blank_is_null(_value(column))).alias(name) for name, column in feed.columns.items()],
        *_maps(feed),
        F.col(_HELD_BROKEN).alias(BROKEN),
        _readable(F.col(_HELD_CONTENT)).alias(CONTENT),
        F.col(_HELD_FILE).alias(FILE),
    )


def _value(theirs: str | Expression) -> Column:
    return F.col(_quoted(theirs)) if isinstance(theirs, str) else F.expr(theirs.sql).cast("string")


def _maps(feed: Feed) -> list[Column]:
    """`attributes` as sorted pairs without nulls; `flags` as a map."""
    columns = []
    if feed.attributes:
        pairs = [
            F.struct(F.lit(name).alias("key"), _value(feed.attributes[name]).alias("value")) for name in sorted(feed.attributes)
        ]
        kept = F.filter(F.array(*pairs), lambda pair: _blank_is_null(pair["value"]).isNotNull())
        columns.append(_readable(kept).alias("attributes"))
    if isinstance(feed, Events) and feed.wide:
        flags = [part for name in sorted(feed.wide) for part in (F.lit(name), _value(feed.wide[name]))]
        columns.append(_readable(F.create_map(*flags)).alias("flags"))
    return columns


def _readable(value: Column) -> Column:
    """What stands in the columns of a broken line is guesswork."""
    return F.when(F.col(_HELD_BROKEN).isNull(), value)


def _blank_is_null(value: Column) -> Column:
    return F.when(F.trim(value) != "", value)


def _text(value: Column, kind: object) -> Column:
    if isinstance(kind, (ArrayType, MapType, StructType, VariantType)):
        return F.to_json(value)
    return value.cast("string")


def _content(texts: MappingType[str, Column], without: set[str]) -> Column:
    fields = [
        F.when(texts[name] != "", F.concat(F.lit(name + _BETWEEN_NAME_AND_VALUE), texts[name]))
        for name in sorted(texts)
        if name not in without
    ]
    return F.concat_ws(_BETWEEN_FIELDS, *fields)


def _content_of_map(whole: Column, without: set[str]) -> Column:
    kept = F.filter(
        F.map_entries(whole),
        lambda field: field["value"].isNotNull() & (field["value"] != "") & ~field["key"].isin(*sorted(without)),
    )
    fields = F.transform(
        F.array_sort(kept), lambda field: F.concat(field["key"], F.lit(_BETWEEN_NAME_AND_VALUE), field["value"])
    )
    return F.concat_ws(_BETWEEN_FIELDS, fields)


def _schema(feed: Feed) -> StructType:
    """What `read` gives, for no rows."""
    pair = StructType([StructField("key", StringType(), False), StructField("value", StringType())])
    fields = [StructField(name, StringType()) for name in feed.columns]
    fields += [StructField("attributes", ArrayType(pair))] if feed.attributes else []
    fields += [StructField("flags", MapType(StringType(), StringType()))] if isinstance(feed, Events) and feed.wide else []
    return StructType([*fields, *[StructField(name, StringType()) for name in (BROKEN, CONTENT, FILE)]])


def _options(feed: Feed) -> dict[str, str]:
    """The mapping's options; ${NAME} is taken from the environment, so that passwords stand in no file."""

    def known(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ValueError(f"the mapping's options name ${{{match[1]}}}, which is not in the environment")
        return os.environ[match[1]]

    return {key: re.sub(r"\$\{(\w+)\}", known, value) for key, value in feed.options.items()}


def _is_true(options: MappingType[str, str], key: str) -> bool:
    return next((value.lower() == "true" for name, value in options.items() if name.lower() == key.lower()), False)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
