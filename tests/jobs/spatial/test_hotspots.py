"""Gi* equals esda's, and what passes it are the cells that were planted."""

from __future__ import annotations

import warnings

import h3.api.basic_str as h3
import numpy as np
import pytest
from scipy.special import ndtr

from jobs.spatial.hotspots import discoveries, getis_ord, neighbours

CITY = h3.latlng_to_cell(40.73, -73.99, 9)
RATE = 0.05


def city(rings: int) -> list[str]:
    return sorted(h3.grid_disk(CITY, rings))


@pytest.mark.parametrize("seed", range(3))
def test_gi_star_is_esdas(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import esda
        from libpysal.weights import W
    rng = np.random.default_rng(seed)
    # With holes, so that cells differ in their number of neighbours.
    cells = [cell for cell in city(7) if rng.random() < 0.8]
    near = neighbours(cells)
    counts = rng.negative_binomial(1, 0.2, (len(cells), 2)).astype(float)
    around = {place: [int(other) for other in near[place].indices if other != place] for place in range(len(cells))}
    for column, z in zip(counts.T, getis_ord(counts, near).T, strict=True):
        theirs = esda.G_Local(column, W(around, silence_warnings=True), transform="B", permutations=0, star=True)
        assert z == pytest.approx(theirs.Zs, rel=1e-9, abs=1e-12)


def test_planted_hotspots_are_found_by_cell(record_property):
    """Three crowds of seven cells, each with four to eight times what their cells would have, in cities of 547 cells."""
    hits = wrong = missed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        cells = city(13)
        usual = rng.gamma(4.0, 0.75, len(cells))  # three events a cell in the mean, unequal
        middles = rng.choice([cell for cell in city(11)], 3, replace=False)
        planted = set()
        for middle in middles:
            crowd = h3.grid_disk(str(middle), 1)
            planted |= set(crowd)
            usual[[cells.index(cell) for cell in crowd]] *= rng.uniform(4, 8)
        z = getis_ord(rng.poisson(usual)[:, None].astype(float), neighbours(cells))
        is_hot = discoveries(ndtr(-z), RATE)[:, 0] & (z[:, 0] > 0)
        found = {cell for cell, hot in zip(cells, is_hot, strict=True) if hot}
        hits, wrong, missed = hits + len(found & planted), wrong + len(found - planted), missed + len(planted - found)
    precision, recall = hits / (hits + wrong), hits / (hits + missed)
    f1 = 2 * precision * recall / (precision + recall)
    record_property("hotspots by cell: precision, recall, F1", (precision, recall, f1))
    # Cells beside a crowd are hot by their neighbours: it is what Gi* says, and most of what is wrong by cell.
    assert recall > 0.8 and f1 > 0.75


@pytest.mark.parametrize(("mean", "most"), [(30.0, 0.1), (3.0, 0.2)])
def test_where_nothing_is_planted_hardly_any_city_has_a_hotspot(mean, most):
    """Some 5% of cities would by chance, were z normal; few events a cell are skewed, and then it is not quite."""
    cells = city(13)
    counts = np.random.default_rng(1).poisson(mean, (len(cells), 400)).astype(float)
    z = getis_ord(counts, neighbours(cells))
    is_hot = discoveries(ndtr(-z), RATE) & (z > 0)
    assert 0 < is_hot.any(axis=0).mean() <= most
