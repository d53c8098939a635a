"""What the words of a text say, once per distinct text: its language, what it is about, how its writer feels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from jobs.text import chinese_sentiment
from jobs.text.describing import KEPT_CHARACTERS
from jobs.text.keywords import keywords
from jobs.text.words import CHINESE, ENGLISH, folded, language
from models import vader

# What `language` holds of a text without letters, such as an empty one, a number or an emoji.
WORDLESS = "none"
READ = "language string, keywords array<string>, sentiment double, sentiment_confidence double, sentiment_by string"
_TYPES = (pa.string(), pa.list_(pa.string()), pa.float64(), pa.float64(), pa.string())
VADER, LEXICON = "vader", "lexicon"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """As the columns of text_semantics that have these names."""

    language: str
    keywords: list[str] | None
    sentiment: float | None
    sentiment_confidence: float | None
    sentiment_by: str | None


def read(text: str) -> Reading:
    """The reading of a text's first `KEPT_CHARACTERS`; any string has one."""
    kept = text[:KEPT_CHARACTERS]
    spoken = language(folded(kept)) or WORDLESS
    value, confidence = feeling(kept, spoken)
    by = None if value is None else LEXICON if spoken == CHINESE else VADER
    return Reading(language=spoken, keywords=keywords(kept), sentiment=value, sentiment_confidence=confidence, sentiment_by=by)


def feeling(text: str, spoken: str) -> tuple[float, float] | tuple[None, None]:
    """Sentiment from -1 (bad) to 1 (good), and how likely its side is right; None: no word of feeling, or no lexicon.

    VADER reads English, and emoji in texts without letters.
    """
    if spoken == CHINESE:
        value, found = chinese_sentiment.score(text)
        return (value, chinese_sentiment.CONFIDENCE) if found and value else (None, None)
    if spoken not in (ENGLISH, WORDLESS):
        return None, None
    compound = vader.compound(text)
    return (None, None) if compound is None else (compound, vader.confidence(compound))


def readings(texts: Sequence[str]) -> list[pa.Array]:
    """The columns of `READ`, a row per text."""
    rows = [read(text) for text in texts]
    columns = (
        [row.language for row in rows],
        [row.keywords for row in rows],
        [row.sentiment for row in rows],
        [row.sentiment_confidence for row in rows],
        [row.sentiment_by for row in rows],
    )
    return [pa.array(column, kind) for column, kind in zip(columns, _TYPES, strict=True)]
