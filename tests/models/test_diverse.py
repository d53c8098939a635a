"""Lists that are filled one after the other, against a plain loop over one list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.diverse import diverse
from models.top_k import ABSENT, top_k


def one_by_one(positions, scores, k, kinds, caps, weight):
    """What `diverse` says it does, for one list."""
    free = [place for place, position in enumerate(positions) if position != ABSENT]
    low, high = min((scores[place] for place in free), default=0), max((scores[place] for place in free), default=0)
    worth = {place: (float(scores[place]) - float(low)) / (float(high) - float(low)) if high > low else 1.0 for place in free}
    taken = []
    while len(taken) < min(k, len(positions)):
        best = None
        for place in free:
            same = [sum(kind[positions[one]] == kind[positions[place]] != -1 for one in taken) for kind in kinds]
            if any(count >= cap for count, cap in zip(same, caps, strict=True)):
                continue
            value = (1.0 - weight) * worth[place] - weight * (same[0] > 0)
            if best is None or value > best[0]:
                best = (value, place)
        if best is None:
            break
        taken.append(best[1])
        free.remove(best[1])
    return [int(positions[place]) for place in taken]


@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 4), size=st.integers(1, 12), k=st.integers(1, 8),
    caps=st.tuples(st.integers(1, 4), st.integers(1, 4)), weight=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
)  # fmt: skip
def test_every_list_is_that_of_a_plain_loop(seed, rows, size, k, caps, weight):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, (rows, size)).astype(np.float32)
    scores[rng.random((rows, size)) < 0.1] = -np.inf
    kinds = rng.integers(-1, 3, (2, size))
    positions, best = top_k(scores, size)
    found, told = diverse(positions, best, k, kind_AV=kinds, cap_A=np.array(caps), weight=weight)
    for row in range(rows):
        wanted = one_by_one(positions[row], best[row], k, kinds, caps, weight)
        assert [position for position in found[row] if position != ABSENT] == wanted
        assert (found[row][: len(wanted)] != ABSENT).all(), "what is lacking comes last"
        assert told[row][: len(wanted)].tolist() == scores[row, wanted].tolist()
        assert np.isneginf(told[row][len(wanted) :]).all()


def test_without_caps_and_weight_lists_stay_as_they_are():
    positions, scores = top_k(np.random.default_rng(1).normal(size=(5, 40)).astype(np.float32), 20)
    found = diverse(positions, scores, 10, kind_AV=np.zeros((1, 40), int), cap_A=np.array([40]))
    np.testing.assert_array_equal(found[0], positions[:, :10])
    np.testing.assert_array_equal(found[1], scores[:, :10])
