from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.histories import EventColumns, first_of_owner
from models.windows import (
    ARRAYS,
    CONTEXT,
    FOLDS,
    TRAIN,
    VALIDATION,
    Batches,
    Source,
    Windows,
    cut,
    histories_as_windows,
    read_arrow,
    read_petastorm,
)

UNTIL = datetime(2024, 2, 1, tzinfo=UTC)


def events(count, seed=0):
    """Events whose item index is their row + 2, so that a window tells which rows it shows."""
    generator = np.random.default_rng(seed)
    return EventColumns(
        item_E=np.arange(count, dtype=np.int32) + 2,
        category_E=generator.integers(1, 5, count).astype(np.int32),
        event_type_E=np.full(count, 2, np.int32),
        timestamp_E=1_700_000_000 + np.arange(count, dtype=np.int64) * 60,
        hour_of_week_E=generator.uniform(0, 168, count).astype(np.float32),
        latitude_E=np.where(generator.random(count) < 0.2, np.nan, 40.0).astype(np.float32),
        longitude_E=np.full(count, -74.0, np.float32),
    )


def users(*counts):
    return first_of_owner(np.repeat(np.arange(len(counts)), counts))


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
    uris = []
    for number, part in enumerate(np.array_split(np.arange(len(windows)), files)):
        path = folder / f"part {number}.parquet"
        pq.write_table(table.take(pa.array(part)), path, row_group_size=3)
        uris.append(f"file://{path}")
    return Source(uris=tuple(uris), until=until, size=size)


@pytest.fixture
def source(tmp_path):
    fold_E = np.tile([TRAIN, CONTEXT, TRAIN, VALIDATION], 25).astype(np.int8)
    made = cut(users(40, 1, 0, 39, 20), fold_E, 7)
    windows = histories_as_windows(events(100), made.row_NW, made.is_target_NW)
    keys = np.random.default_rng(3).integers(-(2**62), 2**62, len(windows))
    windows = Windows(**{**vars(windows), "shuffle_N": keys})
    return stored(tmp_path, windows, made.fold_N)


@pytest.mark.parametrize("size", [4, 5, 7, 16])
@pytest.mark.parametrize("counts", [(1,), (3, 40, 2), (16, 17, 100, 5)])
def test_each_target_is_in_one_window_with_what_came_before_it(size, counts):
    generator = np.random.default_rng(size)
    first_E = users(*counts)
    fold_E = generator.choice([CONTEXT, TRAIN, VALIDATION], len(first_E)).astype(np.int8)
    made = cut(first_E, fold_E, size)
    marked = made.row_NW[made.is_target_NW == 1]
    assert sorted(marked) == np.flatnonzero(fold_E != CONTEXT).tolist()
    for row, target, fold in zip(made.row_NW, made.is_target_NW, made.fold_N, strict=True):
        shown = row[row >= 0]
        assert (np.diff(shown) == 1).all(), "events in order, none left out"
        assert len(set(first_E[shown])) == 1, "of one user"
        assert (fold_E[row[target == 1]] == fold).all(), "targets of one fold"
        assert target[-1] == 1, "a window ends with a target"
        for place in np.flatnonzero(target):
            before = place - (row < 0).sum()
            assert before >= min(row[place] - first_E[row[place]], size // 2), "enough context, or all there is"
    keys = list(zip(first_E[made.owner_row_N], made.number_N, made.fold_N, strict=True))
    assert len(set(keys)) == len(keys)


def test_padding_is_in_front_and_marked_absent():
    made = cut(users(2), np.array([CONTEXT, TRAIN], np.int8), 4)
    windows = histories_as_windows(events(2), made.row_NW, made.is_target_NW)
    assert windows.item_NW.tolist() == [[0, 0, 2, 3]]
    assert windows.is_target_NW.tolist() == [[0, 0, 0, 1]]
    assert windows.hour_of_week_NW[0, :2].tolist() == [-1.0, -1.0] and np.isnan(windows.latitude_NW[0, :2]).all()


def test_nothing_to_learn_gives_no_windows():
    assert len(cut(users(5), np.zeros(5, np.int8), 4).row_NW) == 0
    assert len(cut(users(), np.zeros(0, np.int8), 4).row_NW) == 0


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
    return [tuple(row) for batch in batches for row in batch.item_NW.tolist()]


def test_an_epoch_holds_every_window_once_in_an_order_of_seed_and_epoch(source):
    everything = sorted(names([Windows.together(list(read_arrow(source)))]))
    found = names(epoch(source))
    assert sorted(found) == everything
    assert found == names(epoch(source)), "the same seed and epoch"
    assert found != names(epoch(source, number=1)) and found != names(epoch(source, seed=2))
    kept = Batches(source, batch_size=4, seed=1)
    assert [names(kept.epoch(0)), names(kept.epoch(1))] == [found, names(epoch(source, number=1))]


def test_the_order_does_not_follow_from_how_files_were_cut(source, tmp_path):
    windows = Windows.together([*read_arrow(source), *read_arrow(source.of("validation"))])
    train = sum(len(block) for block in read_arrow(source))
    backwards = np.arange(len(windows))[::-1]
    fold_N = np.where(np.arange(len(windows)) < train, TRAIN, VALIDATION)
    (tmp_path / "again").mkdir()
    other = stored(tmp_path / "again", windows[backwards], fold_N[backwards], files=5)
    assert names(epoch(other)) == names(epoch(source))


def test_ranks_share_the_batches_of_one_process(source):
    whole = epoch(source, batch_size=5)
    parts = [epoch(source, batch_size=5, rank=rank, ranks=3) for rank in range(3)]
    for number, batch in enumerate(whole):
        shares = [part[number] for part in parts]
        assert len({len(share) for share in shares}) == 1, "as many windows for each, empty ones among them"
        rows = [tuple(row) for share in shares for row in share.item_NW.tolist() if any(row)]
        assert sorted(rows) == sorted(names([batch]))
        empty = [share.is_target_NW[~share.item_NW.any(axis=1)] for share in shares]
        assert not np.concatenate(empty).any(), "what pads has no target"


def test_windows_that_do_not_fit_into_memory_are_shuffled_in_parts(source, monkeypatch):
    everything = sorted(names(epoch(source)))
    monkeypatch.setattr("models.windows.BUFFER_BYTES", 5 * next(iter(read_arrow(source)))[:1].nbytes)
    batches = Batches(source, batch_size=4, seed=1)
    for number in range(2):
        found = list(batches.epoch(number))
        assert sorted(names(found)) == everything
        assert [len(batch) for batch in found[:-1]] == [4] * (len(found) - 1), "whole batches but for the last"
    assert names(Batches(source, batch_size=4, seed=1).epoch(1)) == names(found)
