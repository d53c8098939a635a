"""The names by which texts name brands and items: those of the catalogue, collected monthly."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.text.words import WORD, word_list

# So many names are known, those of the most items first.
MOST_NAMES = 50_000
BRAND, PRODUCT = "brand", "product"
# Nobody writes a longer title word by word.
LONGEST, _LONGEST_CHARACTERS = 8, 300
_NAMED = "kind string, words string, name string, item_id string, day date"
_NAMED_SCHEMA = pa.schema(
    [("kind", pa.string()), ("words", pa.string()), ("name", pa.string()), ("item_id", pa.string()), ("day", pa.date32())]
)
_IN_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_ACCENTS = re.compile("[\u0300-\u036f]")
_ENDS_SENTENCE = frozenset('.!?;:"\u201c\u201d\u3002\uff01\uff1f')
# Of words that are no name by themselves, such as those of grammar, this share of the uses is said to mean something else.
_ORDINARY = 0.9


@dataclass(frozen=True, kw_only=True)
class Token:
    """A word of a text: `word` folded, `written` as it stands there, `begins` a sentence."""

    word: str
    written: str
    begins: bool


def tokens_of(text: str) -> list[Token]:
    """The words of a text in one form: without case, accents and possessive endings; each Han character is one."""
    plain = unicodedata.normalize("NFKC", _ACCENTS.sub("", unicodedata.normalize("NFD", text))).replace("\u2019", "'")
    found: list[Token] = []
    end = 0
    for match in WORD.finditer(plain):
        written, between = match.group().removesuffix("'s"), plain[end : match.start()]
        begins = not found or not _ENDS_SENTENCE.isdisjoint(between)
        found.append(Token(word=written.casefold(), written=written, begins=begins))
        end = match.end()
    return found


def words_of(name: str) -> tuple[str, ...]:
    """A name's words as texts are searched for them; () where it is too long, or nothing but numbers or one sign."""
    name = name[:_LONGEST_CHARACTERS]
    words = tuple(token.word for token in tokens_of(_IN_BRACKETS.sub(" ", name)) or tokens_of(name))
    is_name = len("".join(words)) > 1 and not all(word.isdigit() for word in words)
    return words if is_name and len(words) <= LONGEST else ()


def item_names(items: DataFrame) -> DataFrame:
    """Per day the catalogue's names, at most `MOST_NAMES`.

    items: day, item_id, title, description, brand: all items as they stand at the end of each day.
    """
    named = items.select("item_id", "title", "brand", "day").mapInArrow(_named, _NAMED)
    by_form = named.groupBy("day", "kind", "words", "name").agg(
        F.count("*").alias("uses"), F.min("item_id").alias("first"), F.max("item_id").alias("last")
    )
    names = by_form.groupBy("day", "kind", "words").agg(
        # Of equally frequent forms the first.
        F.min_by("name", F.struct(-F.col("uses"), F.col("name"))).alias("name"),
        F.sum("uses").alias("items"),
        F.when((F.col("kind") == PRODUCT) & (F.min("first") == F.max("last")), F.min("first")).alias("item_id"),
    )
    place = F.row_number().over(Window.partitionBy("day").orderBy(F.desc("items"), "kind", F.xxhash64("words"), "words"))
    kept = names.withColumn("_place", place).where(F.col("_place") <= MOST_NAMES).drop("_place")
    lower = _lower_case_uses(items)
    return kept.join(lower, on=["day", "words"], how="left").select(
        "kind", "words", "name", "item_id", F.col("items").cast("bigint"), _ordinary().alias("ordinary"), "day"
    )


def _named(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows = [
            (kind, " ".join(words), " ".join(name.split()), row["item_id"], row["day"])
            for row in batch.to_pylist()
            for kind, name in ((PRODUCT, row["title"]), (BRAND, row["brand"]))
            if name and (words := words_of(name))
        ]
        columns = list(zip(*rows, strict=True)) or [()] * len(_NAMED_SCHEMA)
        yield pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, _NAMED_SCHEMA, strict=True)], schema=_NAMED_SCHEMA
        )


def _lower_case_uses(items: DataFrame) -> DataFrame:
    """How often each word stands in lower case in items' titles and descriptions: there it names nothing."""
    said = F.regexp_extract_all(F.concat_ws(" ", "title", "description"), F.lit(r"(?U)(?<![\w'-])\p{Ll}+(?![\w'-])"), F.lit(0))
    return items.select("day", F.explode(said).alias("words")).groupBy("day", "words").agg(F.count("*").alias("lower"))


def _ordinary() -> Column:
    silent = sorted(word_list("english", "little") | word_list("english", "feeling"))
    is_written_lower = F.col("name") == F.lower("name")
    of_case = F.coalesce("lower", F.lit(0)) / (F.coalesce("lower", F.lit(0)) + F.col("items"))
    by_case = F.when(is_written_lower, F.lit(0.0)).otherwise(of_case)
    is_silent = F.forall(F.split("words", " "), lambda word: word.isin(silent))
    return F.greatest(by_case, F.when(is_silent, F.lit(_ORDINARY)).otherwise(F.lit(0.0)))
