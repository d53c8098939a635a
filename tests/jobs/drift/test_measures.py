"""The measures against a reference by plain loops, against what the literature says of chance, and at their edges."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.drift.measures import NAMES, Pair, chance, named, numbers

counts = st.fixed_dictionaries({name: st.integers(0, 500) for name in "abcdef"})
steps = st.dictionaries(st.integers(-80_000, 80_000).map(str), st.integers(1, 50), min_size=1, max_size=60)


def directly(now, before):
    """Both measures over names, by the book: half an observation more in each bin."""
    names = sorted(set(now) | set(before))
    total = [sum(side.values()) + len(names) / 2 for side in (now, before)]
    psi = kl = 0.0
    for name in names:
        p, q = ((side.get(name, 0) + 0.5) / all_ for side, all_ in zip((now, before), total, strict=True))
        psi += (p - q) * math.log(p / q)
        kl += p * math.log(p / q)
    return psi, kl


@given(counts, counts)
def test_measures_are_those_of_the_book_and_never_infinite(now, before):
    pair = named(now, before)
    psi, kl = directly(now, before)
    assert pair.psi() == pytest.approx(psi, abs=1e-12) and pair.kl() == pytest.approx(kl, abs=1e-12)
    back = Pair(now_B=pair.before_B, before_B=pair.now_B)
    assert pair.psi() == pytest.approx(pair.kl() + back.kl(), abs=1e-9), "the index is the divergence both ways"
    assert 0 <= pair.kl() <= pair.psi() + 1e-12 < math.inf


def test_a_known_shift_has_its_known_value():
    """Large counts, so that smoothing hides nothing: 0.7 ln(7/5) - 0.2 ... of two names."""
    pair = named({"a": 700_000, "b": 300_000}, {"a": 500_000, "b": 500_000})
    assert pair.psi() == pytest.approx(0.2 * math.log(0.7 / 0.5) - 0.2 * math.log(0.3 / 0.5), rel=1e-4)
    assert pair.kl() == pytest.approx(0.7 * math.log(0.7 / 0.5) + 0.3 * math.log(0.3 / 0.5), rel=1e-4)
    assert named({"a": 10}, {"a": 20}).psi() == 0.0


def test_rare_names_and_new_ones_share_a_bin():
    before = {f"n{number:03}": 1000 - number for number in range(100)}
    pair = named({"n000": 5, "n099": 7, "new": 11}, before)
    assert pair.bins == NAMES + 1 and pair.now_B[0] == 5 and pair.now_B[-1] == 18
    assert pair.before_B.sum() == sum(before.values())


@given(steps, steps)
def test_no_number_is_lost_or_counted_twice_and_bins_are_in_order(now, before):
    pair = numbers(now, before)
    assert pair.now_B.sum() == sum(now.values()) and pair.before_B.sum() == sum(before.values())
    assert 1 <= pair.bins <= NAMES


def test_numbers_are_cut_into_tenths_of_before():
    before = {str(step): 3 for step in range(1000)}
    assert numbers(before, before).before_B.tolist() == [300] * 10
    moved = {str(step + 500): 3 for step in range(1000)}
    assert numbers(moved, before).psi() > 2 and numbers(before, before).psi() == 0.0
    few = {"1": 5, "2": 9, "": 3}
    assert numbers(few, few).before_B.tolist() == [5, 9, 3], "few values stand alone, and so does none"


def test_values_on_either_side_of_the_only_one_before_are_told_from_it():
    before = {"100": 1000}
    for steps_ in (range(50), range(150, 200)):
        assert numbers({str(step): 20 for step in steps_}, before).psi() > 5


@pytest.mark.parametrize(("now", "before", "bins"), [(60, 240, 8), (400, 1600, 21), (5000, 500, 3)])
def test_chance_alone_stays_below_in_all_but_about_one_of_a_thousand(now, before, bins):
    random = np.random.default_rng(5)
    share_B = random.dirichlet(np.full(bins, 5.0))
    names = [f"n{number}" for number in range(bins)]
    bound, trials = chance(bins, now, before), 4000
    drawn = [random.multinomial(total, share_B, trials) for total in (now, before)]
    pairs = [named(*(dict(zip(names, row.tolist(), strict=True)) for row in rows)) for rows in zip(*drawn, strict=True)]
    above = sum(pair.psi() > bound for pair in pairs)
    assert above <= 16, "an alarm in a thousand, and half of chance's own spread"
    assert sum(pair.psi() > bound / 3 for pair in pairs) > 0, "nor is it so high that it says nothing"
    assert chance(1, now, before) == 0.0
