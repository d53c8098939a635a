"""Tags that mean the same go under one: by spelling and by likeness.

The step does not ask it yet. Shape suffixes: T tags, D dimensions of a vector.

Likeness of vectors alone is no synonymy: for the packaged encoder Monday and Tuesday (cosine 0.87), husband and wife (0.87),
Mexican and Spanish restaurants (0.87) are nearer than film and movie (0.84). So it counts from `LIKENESS` on
(0.88: sofa and couch just miss it, kids and children do not), and only between tags without a word in common, whose
difference would be the other word, and without digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LIKENESS = 0.88
_NO_LETTER = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")
# Shorter ones are often another word: c++ and c#, news and new.
_SHORTEST_SPELLING = 4


def merged(tags: Sequence[str], vectors_TD: npt.NDArray[np.float32], likeness: float) -> list[tuple[int, int, float]]:
    """(tag, what it means, how alike) of each tag that goes under another, by number; the first of `tags` are the commonest.

    A tag goes under the likest of the commoner ones that stand for themselves: no chain leads from one to the next.

    Args:
        vectors_TD: of unit length; rows of NaN, of words that the encoder does not know, are like none.
        likeness: the least cosine.
    """
    cosines_TT = np.nan_to_num(vectors_TD @ vectors_TD.T)
    spelt = [spelling(tag) for tag in tags]
    words = [_words(tag) for tag in tags]
    spellings: dict[str, int] = {}
    # Those that stand for themselves, and may be likened to.
    stands_T = np.zeros(len(tags), dtype=bool)
    found = []
    for tag, name in enumerate(tags):
        if spelt[tag] in spellings:
            found.append((tag, spellings[spelt[tag]], 1.0))
            continue
        may_be_like = not _DIGIT.search(name)
        near = np.flatnonzero(stands_T & (cosines_TT[tag] >= likeness)).tolist() if may_be_like else []
        apart = [other for other in near if not words[tag] & words[other]]
        other = max(apart, key=lambda one: cosines_TT[tag, one], default=None)
        if other is None:
            stands_T[tag] = may_be_like
        else:
            found.append((tag, other, float(min(1.0, cosines_TT[tag, other]))))
        if spelt[tag]:
            spellings[spelt[tag]] = tag if other is None else other
    return found


def spelling(tag: str) -> str:
    """The letters of a tag, so that `wi-fi` and `Wifi`, `T shirts` and `t-shirt` are one; empty where too little is left.

    Digits stay apart: 1.5 and 15 are not the same.
    """
    letters = _NO_LETTER.sub("", _bare(tag))
    if len(letters) > _SHORTEST_SPELLING:
        letters = _singular(letters)
    return "" if len(letters) < _SHORTEST_SPELLING or _DIGIT.search(letters) else letters


def _words(tag: str) -> set[str]:
    return {_singular(word) for word in _NO_LETTER.split(_bare(tag)) if word}


def _bare(text: str) -> str:
    """Without case and accents."""
    return "".join(one for one in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(one))


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
