"""Novelty, diversity and calibration of lists, against the definitions written out."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import log, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import lists

CATEGORY_V = np.array([2, 2, 3, 1, 4, 3], dtype=np.int32)
SHARE_V = np.array([0.4, 0.25, 0.15, 0.1, 0.05, 0.05])
PLACES = st.lists(st.integers(0, 5), max_size=4, unique=True)
RECENT = st.lists(st.integers(1, 4), max_size=6)


@given(st.lists(st.tuples(PLACES, RECENT), min_size=1, max_size=5))
def test_measures_equal_their_definitions(rows):
    best = np.array([places + [-1] * (4 - len(places)) for places, _ in rows])
    recent = np.array([[0] * (6 - len(own)) + own for _, own in rows], dtype=np.int32)
    found = lists.measures(best, recent, CATEGORY_V, SHARE_V)
    for (places, own), row in zip(rows, found, strict=True):
        kinds = [int(CATEGORY_V[place]) for place in places]
        pairs = list(combinations(kinds, 2))
        novelty = sum(-log2(SHARE_V[place]) for place in places) / len(places) if places else 0.0
        diversity = sum(one != other for one, other in pairs) / len(pairs) if pairs else 0.0
        mine, theirs = Counter(own), Counter(kinds)
        divergence = 0.0
        for kind, times in mine.items() if places else ():
            share = times / len(own)
            divergence += share * log(share / (0.99 * theirs[kind] / len(kinds) + 0.01 * share))
        assert row.tolist() == pytest.approx([novelty, diversity, divergence], abs=1e-9)


def test_no_lists_and_an_empty_catalogue():
    nothing = np.zeros((2, 0), dtype=np.int64)
    assert lists.measures(nothing, np.zeros((2, 3), np.int32), np.zeros(0, np.int32), np.zeros(0)).tolist() == [[0.0] * 3] * 2
