"""Windows as processes read them: each once an epoch, in an order of seed and epoch alone."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies

from models.batches import SHARDS, Batches, Ranges, Source, files_of, in_pieces, part_of, read_arrow, read_petastorm, shard_of
from models.queries import PADDING
from models.windows import ARRAYS, FOLDS, TRAIN, VALIDATION, Windows

UNTIL = datetime(2024, 2, 1, tzinfo=UTC)


def windows(count, size=7):
    """Windows of which each holds items that no other has, padded in front to different lengths."""
    generator = np.random.default_rng(3)
    shape, absent_NW = (count, size), np.arange(size) < generator.integers(0, size, count)[:, None]
    item_NW = np.where(absent_NW, 0, np.arange(count * size).reshape(shape) + 2)
    return Windows(
        item_NW=item_NW.astype(np.int32),
        category_NW=np.where(absent_NW, 0, generator.integers(1, 5, shape)).astype(np.int32),
        event_type_NW=np.where(absent_NW, 0, 2).astype(np.int32),
        timestamp_NW=np.where(absent_NW, 0, 1_700_000_000 + item_NW * 60).astype(np.int64),
        hour_of_week_NW=np.where(absent_NW, -1, generator.uniform(0, 168, shape)).astype(np.float32),
        latitude_NW=np.where(absent_NW, np.nan, 40.0).astype(np.float32),
        longitude_NW=np.where(absent_NW, np.nan, -74.0).astype(np.float32),
        is_target_NW=(~absent_NW).astype(np.int32),
        shuffle_N=generator.integers(-(2**63), 2**63 - 1, count),
    )


def stored(folder, windows, fold_N, files=2, until=UNTIL):
    """The windows as Parquet files, as Spark writes them."""
    size = windows.item_NW.shape[1]
    columns = {
        "user_id": pa.array([f"u{n}" for n in range(len(windows))]),
        "until": pa.array([until] * len(windows), pa.timestamp("us", tz="UTC")),
        "fold": pa.array([FOLDS[fold] for fold in fold_N], pa.string()),
        "shuffle": pa.array(windows.shuffle_N),
    }
    for name in ARRAYS:
        values = getattr(windows, f"{name}_NW")
        offsets = pa.array(np.arange(len(windows) + 1) * size, pa.int32())
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), from_pandas=False))
    table = pa.table(columns)
    uris, counts = [], {name: int((fold_N == fold).sum()) for fold, name in FOLDS.items()}
    for number, part in enumerate(np.array_split(np.arange(len(windows)), files)):
        path = folder / f"part {number}.parquet"
        pq.write_table(table.take(pa.array(part)), path, row_group_size=3)
        uris.append(f"file://{path}")
    return Source(uris=tuple(uris), until=until, size=size, counts=counts)


@pytest.fixture
def source(tmp_path):
    return stored(tmp_path, windows(54), np.where(np.arange(54) % 9 < 5, TRAIN, VALIDATION))


@pytest.mark.parametrize("fold", ["train", "validation"])
def test_petastorm_reads_what_a_plain_arrow_scan_reads(source, fold):
    ours, reference = list(read_petastorm(source.of(fold))), list(read_arrow(source.of(fold)))
    assert len(ours) > 1 and all(len(block) for block in ours)
    ours, reference = Windows.together(ours), Windows.together(reference)
    for name in (*[f"{array}_NW" for array in ARRAYS], "shuffle_N"):
        found, wanted = getattr(ours, name), getattr(reference, name)
        assert found.dtype == wanted.dtype, name
        np.testing.assert_array_equal(found, wanted, err_msg=name)


def test_windows_of_another_training_are_left_out(source):
    other = Source(uris=source.uris, until=datetime(2024, 3, 1, tzinfo=UTC), size=source.size)
    assert list(read_petastorm(other)) == [] == list(read_arrow(other))
    assert list(read_petastorm(Source(uris=(), until=UNTIL, size=7))) == []


def epoch(source, number=0, seed=1, **more):
    batches = Batches(source, batch_size=more.pop("batch_size", 4), seed=seed, **more)
    return list(batches.epoch(number))


def names(batches):
    return [tuple(row) for batch in batches for row in batch.item_NW.tolist() if any(row)]


def test_an_epoch_holds_every_window_once_in_an_order_of_seed_and_epoch(source):
    everything = sorted(names([Windows.together(list(read_arrow(source)))]))
    found = names(epoch(source))
    assert sorted(found) == everything
    assert found == names(epoch(source)), "the same seed and epoch"
    assert found != names(epoch(source, number=1)) and found != names(epoch(source, seed=2))
    kept = Batches(source, batch_size=4, seed=1)
    assert [names(kept.epoch(0)), names(kept.epoch(1))] == [found, names(epoch(source, number=1))]


def test_the_order_does_not_follow_from_how_files_were_cut(source, tmp_path):
    every = Windows.together([*read_arrow(source), *read_arrow(source.of("validation"))])
    backwards = np.arange(len(every))[::-1]
    fold_N = np.where(np.arange(len(every)) < source.count, TRAIN, VALIDATION)
    (tmp_path / "again").mkdir()
    other = stored(tmp_path / "again", every[backwards], fold_N[backwards], files=5)
    assert names(epoch(other)) == names(epoch(source))


@pytest.mark.parametrize("ranks", [2, 3, SHARDS + 1])
def test_ranks_share_the_batches_of_one_process(source, ranks):
    """With more ranks than shards, and so few windows that most shards are empty, some have nothing in a step."""
    whole = epoch(source, batch_size=5)
    parts = [epoch(source, batch_size=5, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(whole)}, "equal steps for each"
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(names(shares)) == sorted(names([batch]))
        assert all(len(share) for share in shares), "who has nothing learns from an empty window"
        empty = [share.is_target_NW[~share.item_NW.any(axis=1)] for share in shares]
        assert not np.concatenate(empty).any(), "what pads has no target"


@given(
    counts=strategies.lists(strategies.integers(0, 40), min_size=SHARDS, max_size=SHARDS),
    batch_size=strategies.integers(1, 200),
    parts=strategies.integers(1, 4),
)
@settings(max_examples=60, derandomize=True)
def test_uneven_and_empty_shards_are_spread_over_all_steps(counts, batch_size, parts):
    shard_N = np.repeat(np.arange(SHARDS), counts)
    within_N = np.random.default_rng(0).integers(0, 2**58, len(shard_N), dtype=np.uint64)
    keys_N = ((shard_N.astype(np.uint64) << np.uint64(58)) + within_N) ^ np.uint64(1 << 63)
    every = replace(Windows.none(3).padded(len(shard_N)), shuffle_N=keys_N.view(np.int64))
    assert shard_of(every.shuffle_N).tolist() == shard_N.tolist()
    source = Source(uris=(), until=UNTIL, size=3, counts={"train": len(every)})
    batches = Batches(source, batch_size=batch_size, seed=1)
    batches.parts = parts
    taken = []
    for part in range(parts):
        rows = np.flatnonzero(part_of(every.shuffle_N, parts) == part)
        steps = batches._steps(every[rows], 0, part)
        even = len(rows) / len(steps)
        assert all(abs(len(step) - even) <= SHARDS * min(1, even) for step in steps)
        taken += [rows[step] for step in steps]
    assert sorted(np.concatenate([*taken, np.zeros(0, int)]).tolist()) == list(range(len(every)))
    assert batches.steps_per_part == max(1, -(-len(every) // batch_size))


def test_windows_that_do_not_fit_into_memory_are_shuffled_in_parts(source, monkeypatch):
    everything, steps = sorted(names(epoch(source))), [names([batch]) for batch in epoch(source, number=2)]
    monkeypatch.setattr("models.batches.BUFFER_BYTES", 5 * next(iter(read_arrow(source)))[:1].nbytes)
    batches = Batches(source, batch_size=4, seed=1)
    assert batches.parts > 2 and batches.steps >= len(steps)
    for number in range(2):
        found = list(batches.epoch(number))
        assert sorted(names(found)) == everything and len(found) == batches.steps
        ranks = [epoch(source, number, rank=rank, ranks=2) for rank in range(2)]
        assert [sorted(names(pair)) for pair in zip(*ranks, strict=True)] == [sorted(names([batch])) for batch in found]
        for skip in (1, batches.steps_per_part, batches.steps - 1):
            assert [names([b]) for b in batches.epoch(number, skip=skip)] == [names([b]) for b in found[skip:]]
    assert names(Batches(source, batch_size=4, seed=1).epoch(1)) == names(found)


def test_a_rank_opens_only_the_files_that_may_hold_its_shards(source, tmp_path):
    every = Windows.together(list(read_arrow(source)))
    every = every[np.argsort(every.shuffle_N)]
    (tmp_path / "sorted").mkdir()
    by_key = stored(tmp_path / "sorted", every, np.full(len(every), TRAIN), files=4)
    for ranks in (1, 2, 4):
        opened = [files_of(by_key, Ranges.of(rank, ranks)) for rank in range(ranks)]
        assert set().union(*opened) == set(by_key.uris)
        assert sum(map(len, opened)) <= len(by_key.uris) + ranks - 1
        found = [Windows.together([Windows.none(7), *read_petastorm(by_key, Ranges.of(rank, ranks))]) for rank in range(ranks)]
        assert sorted(names(found)) == sorted(names([every]))


@given(
    lengths=strategies.lists(strategies.integers(1, 7), max_size=40),
    places=strategies.integers(1, 60),
    at_once=strategies.none() | strategies.integers(1, 9),
)
def test_pieces_hold_each_window_once_and_no_more_than_may_be(lengths, places, at_once):
    given_ = windows(len(lengths))
    for row, length in enumerate(lengths):
        given_.item_NW[row] = [PADDING] * (7 - length) + [9] * length
    pieces = in_pieces(given_, places, at_once)
    together = Windows.together(pieces)
    assert sorted(together.shuffle_N) == sorted(given_.shuffle_N) and list(together.lengths) == sorted(lengths)
    for piece in pieces:
        assert len(piece) <= 1 or (len(piece) * piece.lengths.max() <= places and len(piece) <= (at_once or len(piece)))
    for one, other in pairwise(pieces):
        joined = (len(one) + 1) * other.lengths.min()
        assert joined > places or len(one) == at_once, "none is begun before the one before is full"
    assert len(pieces) == 1 or all(len(piece) for piece in pieces)
