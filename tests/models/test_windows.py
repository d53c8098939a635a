from datetime import UTC, datetime

import numpy as np
import pytest

from models.histories import EventColumns, first_of_owner
from models.windows import (
    CONTEXT,
    TRAIN,
    VALIDATION,
    cut,
    histories_as_windows,
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
