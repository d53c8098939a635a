"""Sentiment of English texts and emoji by VADER (Hutto and Gilbert, 2014): a lexicon with rules, nothing to fit."""

from __future__ import annotations

from functools import cache
from typing import Any

MOST_CHARACTERS, MOST_EMOJI = 2000, 100


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def compound(text: str) -> float | None:
    """The compound score, -1 (bad) to 1 (good); None: no word of feeling in it. Source: Hutto and Gilbert (2014).

    Reads the first `MOST_CHARACTERS`, up to the emoji after `MOST_EMOJI`: its time grows with the square of words of feeling.
    """
    read = text[:MOST_CHARACTERS]
    emoji = [place for place, character in enumerate(read) if character in _analyzer().emojis]
    said = _analyzer().polarity_scores(read[: emoji[MOST_EMOJI]] if len(emoji) > MOST_EMOJI else read)
    return float(said["compound"]) if said["pos"] or said["neg"] else None


def confidence(score: float) -> float:
    """How likely its sign is right, were bad texts as many as good: a line laid through the shares among Amazon reviews.

    tests/benchmarks/sentiment.py counts them again.
    """
    return 0.52 + 0.38 * abs(score)
