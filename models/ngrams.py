"""Vectors of texts in scripts that an encoder does not know: which characters stand side by side, hashed; nothing is fitted.

Signed feature hashing (Weinberger et al., 2009) of single characters and pairs, without the characters that every Chinese
sentence holds. On sentences of our own (tests/models/test_ngrams.py) it tells paraphrases from other sentences as well as
TF-IDF with SVD does that was fitted on those very sentences: so nothing is fitted that would have to be stored and renewed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

VERSION = "ngrams@1"
_LENGTHS = (1, 2)
# Of grammar, not of meaning: particles, pronouns, the commonest verbs and prepositions.
_FUNCTION = frozenset("的了是在有我你他她它们很一去和到这那个也要想都不就着吗呢吧啊与及或把被对从为以而之其")


def vectors(texts: Sequence[str], dimensions: int) -> np.ndarray:
    """(N, dimensions) float32 of unit length; rows of NaN where a text has no letters and no digits."""
    from sklearn.feature_extraction.text import HashingVectorizer

    words = [_kept(text) for text in texts]
    if not words:
        return np.empty((0, dimensions), np.float32)
    hashing = HashingVectorizer(analyzer="char", ngram_range=_LENGTHS, n_features=dimensions, lowercase=False, norm="l2")
    found_ND = hashing.transform(words).toarray().astype(np.float32)
    # Signs may cancel: a text of which nothing is left has no direction.
    found_ND[~found_ND.any(axis=1)] = np.nan
    return found_ND


def _kept(text: str) -> str:
    """Letters and digits, folded; characters of grammar are left out, all else is one space."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(sign if sign.isalnum() else " " for sign in folded if sign not in _FUNCTION).split())
