"""The index of items: what it finds, what is made of it, and that its file is whole, the version's own, or made anew."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from usearch.index import Index

from models import nearest
from models.nearest import Nearest
from models.top_k import top_k

ROOT = Path(__file__).parents[2]
NOTHING = np.full((1, 0), -1)


def planted(items, users, size=16, seed=3):
    """Items in clusters, some longer and liked by more, and moments near a mixture of clusters."""
    rng = np.random.default_rng(seed)
    centre_CD = rng.normal(size=(40, size))
    item_VD = centre_CD[rng.integers(0, 40, items)] + 0.5 * rng.normal(size=(items, size))
    item_VD *= np.exp(0.3 * rng.normal(size=(items, 1)))
    bias_V = rng.normal(-5.0, 1.0, items)
    vector_BD = rng.dirichlet([1.0] * 40, users) @ centre_CD * 3 + 0.3 * rng.normal(size=(users, size))
    return item_VD.astype(np.float32), bias_V.astype(np.float32), vector_BD.astype(np.float32)


def built(folder, item_VD, bias_V):
    folder.mkdir(exist_ok=True)
    nearest.build(folder, np.ascontiguousarray(item_VD.T), bias_V, threads=1, tell=lambda done: None)
    return Index.restore(folder / "nearest.usearch", view=True)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    item_VD, bias_V, vector_BD = planted(3000, 50)
    return item_VD, bias_V, vector_BD, built(tmp_path_factory.mktemp("v1"), item_VD, bias_V)


def asked(known, many, **rules):
    return Nearest(known[3], known[0], known[1], many=many, **rules)


def alone(vector_BD):
    return np.full((len(vector_BD), 0), -1), np.zeros((len(vector_BD), 0), np.float32)


def share_found(found_BK, wanted_BK):
    return np.mean([len(np.intersect1d(one, other)) / len(other) for one, other in zip(found_BK, wanted_BK, strict=True)])


def test_nearly_all_of_the_best_are_found_and_scored_exactly(known):
    item_VD, bias_V, vector_BD, _ = known
    wanted, _ = top_k(vector_BD @ item_VD.T + bias_V, 20)
    found, scores = asked(known, 200).few(vector_BD, *alone(vector_BD)).top_k(20)
    assert share_found(found, wanted) > 0.95
    exact = np.take_along_axis(vector_BD.astype(np.float64) @ item_VD.T + bias_V, found, axis=1)
    np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-5)
    # The index tells apart by what items have for everyone too.
    _, without = top_k(vector_BD @ item_VD.T, 20)
    assert np.abs(scores - without).max() > 1


def test_looking_at_all_items_is_exact(known):
    item_VD, _, vector_BD, _ = known
    rng = np.random.default_rng(1)
    # Small whole numbers: sums of any order are the same, and many scores tie.
    item_VD = rng.integers(-2, 3, item_VD.shape).astype(np.float32)
    vector_BD, bias_V = (
        rng.integers(-2, 3, vector_BD.shape).astype(np.float32),
        rng.integers(-3, 0, len(item_VD)).astype(np.float32),
    )
    banned_V, boost_V = rng.random(len(item_VD)) < 0.2, np.where(rng.random(len(item_VD)) < 0.3, 4, -1).astype(np.float32)
    own_BL = np.stack([rng.choice(len(item_VD), 6, replace=False) for _ in vector_BD])
    own_BL[rng.random(own_BL.shape) < 0.3] = -1
    pull_BL = rng.integers(1, 30, own_BL.shape).astype(np.float32)
    seen = [rng.choice(len(item_VD), rng.integers(0, 500), replace=False) for _ in vector_BD]
    scores_BV = vector_BD @ item_VD.T + bias_V + boost_V
    row_P, place_P = np.nonzero(own_BL >= 0)
    scores_BV[row_P, own_BL[row_P, place_P]] += pull_BL[row_P, place_P]
    every = Index(ndim=18, metric="ip", dtype="f32")
    every.add(np.arange(len(item_VD)), np.column_stack([item_VD, bias_V, 0 * bias_V]))
    every.search = lambda vectors, many, threads, search=every.search: search(vectors, many, exact=True)
    looking = Nearest(every, item_VD, bias_V, many=10**6, banned_V=banned_V, boost_V=boost_V)
    few = looking.few(vector_BD, own_BL, pull_BL, seen)
    for found, wanted in zip(few.top_k(50), top_k(scores_BV, 50, banned_V=banned_V, seen=seen), strict=True):
        np.testing.assert_array_equal(found, wanted)
    masked = [len(item_VD) - len(np.union1d(np.flatnonzero(banned_V), taken)) for taken in seen]
    assert few.left_B.tolist() == masked
    # Of many raised items only the best are looked at, and these are listed as when all are.
    some = Nearest(
        known[3], item_VD, bias_V, many=60, banned_V=banned_V, boost_V=np.where(boost_V > 0, 90.0, 0).astype(np.float32)
    )
    raised_V = np.where(boost_V > 0, 90.0, -np.inf)
    wanted, _ = top_k((vector_BD @ item_VD.T + bias_V + raised_V).astype(np.float32), 60, banned_V=banned_V)
    np.testing.assert_array_equal(some.few(vector_BD, *alone(vector_BD)).top_k(60)[0], wanted)


def test_own_items_come_from_anywhere_and_what_may_not_be_listed_is_not(known):
    item_VD, bias_V, vector_BD, _ = known
    wanted, _ = top_k(vector_BD @ item_VD.T + bias_V, 3000)
    own_BL = np.stack([wanted[:, 2500], np.full(50, -1), wanted[:, 0]], axis=1)
    pull_BL = np.tile(np.array([500.0, 0.0, 400.0], np.float32), (50, 1))
    best, _ = asked(known, 100).few(vector_BD, own_BL, pull_BL).top_k(2)
    np.testing.assert_array_equal(best, own_BL[:, [0, 2]])
    banned_V = np.zeros(3000, bool)
    banned_V[own_BL[:25, 2]] = True
    seen = [own_BL[row, :1] if row % 2 else np.zeros(0, np.int64) for row in range(50)]
    few = asked(known, 100, banned_V=banned_V).few(vector_BD, own_BL, pull_BL, seen)
    for row, listed in enumerate(few.top_k(100)[0]):
        assert (own_BL[row, 0] in listed) == (row % 2 == 0) and not banned_V[listed[listed >= 0]].any()
        assert len(set(listed[listed >= 0])) == (listed >= 0).sum() == min(few.left_B[row], 100)


def test_a_moment_is_answered_alike_whatever_is_beside_it(known):
    vector_BD = known[2]
    looking = asked(known, 100)
    together = looking.few(vector_BD, *alone(vector_BD)).top_k(10)
    for row in range(0, 50, 7):
        one = vector_BD[row : row + 1]
        wider = looking.few(one, np.full((1, 3), -1), np.zeros((1, 3), np.float32)).top_k(10)
        for found, wanted in zip(wider, together, strict=True):
            np.testing.assert_array_equal(found[0], wanted[row])


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_is_refused(known, tmp_path, broken):
    item_VD, bias_V, vector_BD = (values.copy() for values in known[:3])
    looking = asked(known, 100)
    own_BL, pull_BL = np.full((50, 1), 7), np.zeros((50, 1), np.float32)
    pull_BL[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        looking.few(vector_BD, own_BL, pull_BL)
    vector_BD[4, 2] = broken
    with pytest.raises(ValueError, match="NaN"):
        looking.few(vector_BD, *alone(vector_BD))
    item_VD[5, 1] = broken
    with pytest.raises(ValueError, match="NaN"):
        built(tmp_path / "v1", item_VD, bias_V)
    item_VD[5, 1], bias_V[9] = 0, broken
    with pytest.raises(ValueError, match="NaN"):
        built(tmp_path / "v1", item_VD, bias_V)
    assert not list((tmp_path / "v1").iterdir())


def test_a_file_that_is_not_whole_or_of_another_version_does_not_count(tmp_path):
    folder, other = tmp_path / "v1", tmp_path / "v2"
    assert nearest.described(folder) is None
    item_VD, bias_V, _ = planted(200, 1)
    built(folder, item_VD, bias_V)
    nearest.describe(folder, (nearest.described(folder) or {}) | {"recall": 0.9})
    assert (nearest.described(folder) or {})["recall"] == 0.9
    folder.rename(other)
    assert nearest.described(other) is None, "another version's"
    other.rename(folder)
    index, details = folder / "nearest.usearch", folder / "nearest.json"
    whole, said = index.read_bytes(), details.read_text()
    for content in (whole[:-100], whole[:-1] + b"x", b""):
        index.write_bytes(content)
        assert nearest.described(folder) is None
    index.write_bytes(whole)
    for text in (said[:20], "[]", "{}", json.dumps({**json.loads(said), "layout": 0})):
        details.write_text(text)
        assert nearest.described(folder) is None
    built(folder, item_VD, bias_V)
    assert nearest.described(folder) is not None and sorted(one.name for one in folder.iterdir()) == [details.name, index.name]


def test_a_killed_build_leaves_no_index(tmp_path):
    item_VD, bias_V, _ = planted(200, 1)
    program = (
        "import os, signal, numpy as np; from pathlib import Path; from models import nearest\n"
        "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"nearest.build(Path({str(tmp_path)!r}), np.ones((4, 9), np.float32), np.ones(9, np.float32), threads=1, tell=print)"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [one.name for one in tmp_path.iterdir()] == [".nearest.usearch.part"] and nearest.described(tmp_path) is None
    built(tmp_path, item_VD, bias_V)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["nearest.json", "nearest.usearch"]
