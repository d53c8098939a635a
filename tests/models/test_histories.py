from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from models.histories import (
    Moments,
    event_columns,
    first_of_owner,
    histories_from_events,
    histories_of_rows,
    hours_of_week,
    queries_before,
    stop_before,
)
from models.queries import Vocabulary

VOCABULARY = Vocabulary(items=("a", "b"), item_categories=("x", ""), categories=("x", "y"), event_types=("view",))
EVENT = {
    "item_id": "a",
    "category": "x",
    "event_type": "view",
    "event_timestamp": datetime(2024, 1, 1, 9, 30, tzinfo=UTC),
    "local_timestamp": datetime(2024, 1, 1, 4, 30, tzinfo=UTC),
    "latitude": 40.0,
    "longitude": -74.0,
}


def events(*changes, empty_times=False):
    rows = [{**EVENT, **change} for change in changes]
    columns = {name: pa.array([row[name] for row in rows]) for name in EVENT}
    return event_columns(VOCABULARY, columns)


def minute(number):
    return datetime(2024, 1, 1, 9, number, tzinfo=UTC)


def test_names_become_indices_and_what_is_unknown_is_one():
    made = events({}, {"item_id": "new", "category": None, "event_type": "rare"}, {"item_id": "b", "category": "y"})
    assert made.item_E.tolist() == [2, 1, 3] and made.item_E.dtype == np.int32
    assert made.category_E.tolist() == [2, 1, 3]
    assert made.event_type_E.tolist() == [2, 1, 2]


def test_local_time_is_hours_since_monday_and_absent_times_and_places_are_marked():
    made = events({}, {"local_timestamp": None, "latitude": None, "longitude": None})
    assert made.hour_of_week_E.tolist() == [4.5, -1.0]
    assert made.timestamp_E.tolist() == [int(EVENT["event_timestamp"].timestamp())] * 2
    assert made.latitude_E[0] == 40.0 and np.isnan(made.latitude_E[1])
    none = events({"local_timestamp": None, "latitude": None, "longitude": None})
    assert none.hour_of_week_E.tolist() == [-1.0] and np.isnan(none.longitude_E).all()
    last = np.array([4 * 86_400_000_000 - 1])
    assert 0 <= hours_of_week(last)[0] < 168


def test_events_of_the_same_time_are_not_before_each_other():
    first = first_of_owner(np.array(["u", "u", "u", "w", "w"]))
    assert first.tolist() == [0, 0, 0, 3, 3]
    assert stop_before(first, np.array([5, 7, 7, 7, 7])).tolist() == [0, 1, 1, 3, 3]


def test_a_history_is_the_last_events_before_padded_in_front():
    made = events({"item_id": "a"}, {"item_id": "b"}, {"item_id": "a"}, {"item_id": "b"})
    found = histories_from_events(made, np.array([0, 1]), np.array([4, 2]), 3)
    assert found.item_BL.tolist() == [[3, 2, 3], [0, 0, 3]]
    assert found.timestamp_BL[1].tolist()[:2] == [0, 0] and np.isnan(found.latitude_BL[1, 0])
    assert found.hour_of_week_BL[1].tolist() == [-1.0, -1.0, 4.5]
    chosen = histories_of_rows(made, np.array([[-1, 0, 3]]))
    assert chosen.item_BL.tolist() == [[0, 2, 3]]


def test_the_place_of_a_query_is_the_last_known_before_it():
    made = events({"latitude": 1.0}, {"latitude": None}, {"latitude": 3.0}, {"latitude": 4.0})
    moments = Moments(
        first_B=np.array([0, 0, 1, 3]), stop_B=np.array([2, 3, 2, 3]), timestamp_B=np.arange(4), hour_of_week_B=np.full(4, 5.0)
    )
    found = queries_before(made, moments)
    assert found.latitude_B[:2].tolist() == [1.0, 3.0]
    assert np.isnan(found.latitude_B[2:]).all(), "another owner's place, or none, is unknown"


def test_the_clock_of_a_query_is_that_of_the_last_event_before_it():
    abroad = {"local_timestamp": datetime(2024, 1, 1, 15, 0, tzinfo=UTC)}
    made = events({}, {"local_timestamp": None}, abroad)
    later = np.array([int(datetime(2024, 1, 7, 23, 45, tzinfo=UTC).timestamp())] * 3)
    moments = Moments(first_B=np.array([0, 0, 2]), stop_B=np.array([2, 3, 2]), timestamp_B=later)
    found = queries_before(made, moments).hour_of_week_B
    assert found.tolist() == [162.75, 5.25, -1.0], "five hours behind UTC; 5.5 ahead, past Sunday midnight; no event before"


def test_no_events_give_empty_histories():
    made = events()
    found = histories_from_events(made, np.array([0]), np.array([0]), 3)
    assert found.item_BL.tolist() == [[0, 0, 0]]
    moments = Moments(first_B=np.array([0]), stop_B=np.array([0]), timestamp_B=np.array([9]), hour_of_week_B=np.array([1.0]))
    assert np.isnan(queries_before(made, moments).latitude_B).all()
