"""Lists for some users without Spark: as the night's own, at other moments, and what is said of bad input."""

import csv
import io
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conf.settings import load_settings
from jobs.cli import app, register
from jobs.lake.identities import load_key, pseudonym
from jobs.query import answer
from jobs.recommend import recommend
from jobs.recommend.reading import HISTORY, history, moment, place, users
from jobs.recommend.served import COLUMNS, Asked, Served
from jobs.seeing.reading import Reader, literal
from models.histories import Moments, event_columns, histories_from_events, queries_before
from models.registry import load_ranker

NIGHT = date(2024, 6, 30)
LATER = datetime(2024, 7, 2, 12, tzinfo=UTC)


def asked(settings, tmp_path, names, given=Asked(), more=None):  # noqa: B008
    """Rows by user, and what was said."""
    path = tmp_path / "users.csv"
    path.write_text("user_id\n" + "".join(f"{name}\n" for name in names))
    since = None
    if more is not None:
        since = tmp_path / "since.csv"
        with since.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY)
            writer.writeheader()
            writer.writerows(more)
    written = io.StringIO()
    said = recommend(settings, path, written, given, since)
    found = {name: [] for name in names}
    for row in csv.DictReader(io.StringIO(written.getvalue())):
        found[row["user_id"]].append(row)
    return found, said


@pytest.fixture(scope="module")
def settings(begun):
    return begun.before


@pytest.fixture(scope="module")
def people(begun):
    """The ids that the log has for its users."""
    every = {f"u{number:06}" for number in range(60)}
    rows = answer(begun.before, "SELECT user_id FROM user_sequences").column("user_id").to_pylist()
    names = {pseudonym(name, load_key()): name for name in every}
    found = sorted(names[one] for one in rows if one in names)
    assert len(found) > 10
    return found


def test_the_lists_are_those_of_the_night(settings, people, tmp_path):
    found, said = asked(settings, tmp_path, people)
    for name in people:
        stored = answer(
            settings,
            "SELECT item_id, reason, score FROM recommendations WHERE user_id = :user AND slot = 'any' ORDER BY rank",
            user=name,
        )
        rows = list(zip(*(stored.column(column).to_pylist() for column in ("item_id", "reason")), strict=True))
        assert [(row["item_id"], row["reason"]) for row in found[name]] == rows
        assert [int(row["rank"]) for row in found[name]] == list(range(1, len(rows) + 1))
        scores = [float(row["score"]) for row in found[name]]
        np.testing.assert_allclose(scores, stored.column("score").to_pylist(), rtol=1e-5)
    assert said.startswith(f"{sum(map(len, found.values())):,} rows for {len(people)} users, by ") and str(NIGHT) in said


def test_a_time_and_a_place_are_asked_as_a_moment_is(settings, people, tmp_path):
    """Held against the ranker itself, asked by the events as the lake has them."""
    name, here = people[0], (40.75, -73.98)
    served = Served.of(settings, Asked(at=LATER, near=here, k=5))
    ranker = load_ranker(Path(served.scorer.folder))
    columns = ", ".join(f"e['{field}'] AS {field}" for field in ("item_id", "category", "event_type", "event_timestamp"))
    rest = ", ".join(f"e['{field}'] AS {field}" for field in ("local_timestamp", "latitude", "longitude", "event_id"))
    rows = served.reader.rows(
        f"SELECT {columns}, {rest} FROM (SELECT unnest(events) AS e FROM user_sequences WHERE user_id = "
        f"'{pseudonym(name, load_key())}') AS one ORDER BY event_timestamp, event_id"
    )
    events = event_columns(ranker.vocabulary, {field: [row[field] for row in rows] for field in rows[0] if field != "event_id"})
    first, stop = np.array([0]), np.array([len(rows)])
    # New York in July is four hours behind: Tuesday at eight.
    at = Moments(first_B=first, stop_B=stop, timestamp_B=np.array([int(LATER.timestamp())]), hour_of_week_B=np.array([32.0]))
    query = queries_before(events, at)
    query.latitude_B[:], query.longitude_B[:] = here
    scores_V = ranker.scores(histories_from_events(events, first, stop, len(rows)), query)[0]
    best = [ranker.vocabulary.items[place] for place in np.argsort(-scores_V, kind="stable")[:5]]
    found, _ = asked(settings, tmp_path, [name], Asked(at=LATER, near=here, k=5))
    assert [row["item_id"] for row in found[name]] == best
    np.testing.assert_allclose([float(row["score"]) for row in found[name]], np.sort(scores_V)[::-1][:5], rtol=1e-5)


def test_what_was_done_since_the_night_counts(settings, people, tmp_path):
    name = people[0]
    before, _ = asked(settings, tmp_path, [name, "new"], Asked(at=LATER))
    last = before[name][-1]["item_id"]
    took = [
        {"user_id": user, "item_id": last, "event_time": f"2024-07-01T{hour}:00:00", "event_type": "purchase"}
        for user in (name, "new")
        for hour in (10, 11, 12, 13)
    ]
    after, said = asked(settings, tmp_path, [name, "new"], Asked(at=LATER), took)
    ranks = [next(int(row["rank"]) for row in rows[name] if row["item_id"] == last) for rows in (before, after)]
    assert ranks[1] < ranks[0] and "without a past" not in said
    [row] = [row for row in after["new"] if row["item_id"] == last]
    assert "4 times" in row["reason"], row


def test_who_is_not_known_gets_a_list_and_it_is_said(settings, people, tmp_path):
    found, said = asked(settings, tmp_path, [people[0], "nobody", "nobody else"], Asked(k=3))
    assert "2 of them without a past" in said
    assert [row["item_id"] for row in found["nobody"]] == [row["item_id"] for row in found["nobody else"]]
    assert len(found["nobody"]) == 3 and all("you " not in row["reason"] for row in found["nobody"])
    at_a_place, _ = asked(settings, tmp_path, ["nobody"], Asked(at=LATER, near=(40.7, -74.0), k=3))
    assert len(at_a_place["nobody"]) == 3


def test_the_command_writes_whole_files_only(settings, people, tmp_path, monkeypatch):
    register()
    (tmp_path / "users.csv").write_text(f"name,user_id\nx,{people[0]}\n")
    where = ["--set", f"lake={settings.lake}", "recommend", "--users", str(tmp_path / "users.csv"), "-k", "2"]
    done = CliRunner().invoke(app, [*where, "--output", str(tmp_path / "lists.csv")])
    assert done.exit_code == 0, done.output
    rows = list(csv.reader((tmp_path / "lists.csv").open()))
    assert rows[0] == list(COLUMNS) and len(rows) == 3
    assert CliRunner().invoke(app, where).stdout.count("\n") == 3, "without --output on stdout"
    monkeypatch.setattr(sys, "stdin", io.StringIO("user_id,item_id\nu,i\n"))
    wrong = CliRunner().invoke(app, [*where, "--history", "-", "--output", str(tmp_path / "other.csv")])
    assert wrong.exit_code != 0 and sorted(path.name for path in tmp_path.iterdir()) == ["lists.csv", "users.csv"]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "has no column user_id in its first line; the columns are none"),
        ("user\na\n", "has no column user_id in its first line; the columns are user"),
        ("user_id\n\n", "names nobody"),
    ],
)
def test_users_that_cannot_be_read(tmp_path, text, wrong):
    (tmp_path / "users.csv").write_text(text)
    with pytest.raises(ValueError, match=wrong):
        users(tmp_path / "users.csv")


def test_users_are_asked_once_in_their_order(tmp_path):
    (tmp_path / "users.csv").write_bytes("\ufeffuser_id,x\nb,1\na,2\nb,3\n".encode())
    assert users(tmp_path / "users.csv") == ["b", "a"]
    (tmp_path / "users.csv").write_bytes(b"user_id\n\xff\xfe\n")
    with pytest.raises(ValueError, match="cannot be read"):
        users(tmp_path / "users.csv")
    with pytest.raises(ValueError, match="No such file"):
        users(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("u,,2024-07-01,,,", "line 2: item_id is empty"),
        ("u,i,yesterday,,,", "line 2: 'yesterday' is no time: write 2024-06-16T18:30"),
        ("u,i,2024-07-01,,91,0", "line 2: latitude '91' is no number from -90 to 90"),
        ("u,i,2024-07-01,,0,east", "line 2: longitude 'east' is no number from -180 to 180"),
    ],
)
def test_a_history_that_cannot_be_read(tmp_path, line, wrong):
    (tmp_path / "since.csv").write_text(",".join(HISTORY) + f"\n{line}\n")
    with pytest.raises(ValueError, match=wrong):
        history(tmp_path / "since.csv", "click")


def test_times_and_places():
    assert moment("2024-07-01", "x") == datetime(2024, 7, 1, tzinfo=UTC)
    assert moment("2024-07-01T10:00:00Z", "x") == datetime(2024, 7, 1, 10, tzinfo=UTC)
    for text in ("40.7", "40.7,", ",", "95,0", "nan,0"):
        with pytest.raises(ValueError, match="--near"):
            place(text, "--near")


def test_nothing_to_answer_from(make_settings, settings):
    with pytest.raises(ValueError, match="nothing is finished in"):
        Served.of(make_settings(), Asked())
    with pytest.raises(ValueError, match="lies before 2024-06-30, the newest finished day"):
        Served.of(settings, Asked(at=datetime(2024, 6, 1, tzinfo=UTC)))


EVENT = {
    "event_id": "e", "event_timestamp": datetime(2024, 1, 30, 12, tzinfo=UTC), "item_id": "i", "event_type": "click",
    "category": None, "latitude": 40.0, "longitude": -74.0, "region": None, "local_timestamp": None, "slot": None,
    "value": None, "device": None, "scene": None,
}  # fmt: skip


def test_where_the_log_asks_for_consent_only_allowed_places_are_read(small_lake):
    day = date(2024, 1, 31)
    days = [day - timedelta(days=5), day]
    events = [{**EVENT, "event_id": str(number), "arrived_on": on} for number, on in enumerate(days)]
    versions = {
        "user_sequences": small_lake.write(
            "user_sequences",
            *[
                {"user_id": user, "events": events, "seen": ["x"], "events_total": 9, "day": day}
                for user in ("open", "late", "shut")
            ],
        ),
        "consents": small_lake.write(
            "consents",
            *[
                {"user_id": user, "purposes": list(since), "since": since, "notice_version": "v", "day": day}
                for user, since in (("open", {"location": days[0]}), ("late", {"location": day}), ("shut", {"labels": day}))
            ],
        ),
    }
    small_lake.finish(day, versions)
    small_lake.finish(day, versions, step="night")
    asking = load_settings(
        overrides=[f"lake={small_lake.root}", "sources.consents={mapping: conf/sources/simulated.yaml, path: consents}"]
    )
    among = f"user_id IN ({', '.join(map(literal, ('open', 'late', 'shut')))})"
    for settings, shown in (
        (small_lake.settings, {"open": 2, "late": 2, "shut": 2}),
        (asking, {"open": 2, "late": 1, "shut": 0}),
    ):
        served = Served(settings=settings, reader=Reader.of(settings), scorer=None, model_version="v", items={})
        events, seen, kept = served._stored(among)
        assert {user: sum(row["latitude"] is not None for row in rows) for user, rows in events.items()} == shown
        assert seen == {user: ["x"] for user in shown} and kept == dict.fromkeys(shown, 2), "older events were cut off"


def test_what_was_dismissed_of_late_is_known_without_spark(small_lake):
    day = date(2024, 1, 31)
    told = [
        ("open", "i1", "dismiss", None, 59), ("open", "i2", "dismiss", None, 60), ("open", "i3", "click", None, 1),
        ("late", "i4", "dislike", "too_old", 1), ("late", "i5", "dismiss", "unreadable", 1), ("else", "i6", "dismiss", None, 1),
    ]  # fmt: skip
    rows = [
        {
            "feedback_id": item,
            "user_id": user,
            "item_id": item,
            "event_type": kind,
            "unmatched": why,
            "day": day - timedelta(ago),
        }
        for user, item, kind, why, ago in told
    ]
    versions = {"feedback": small_lake.write("feedback", *rows)}
    small_lake.finish(day, versions)
    small_lake.finish(day, versions, step="night")
    settings = small_lake.settings
    served = Served(settings=settings, reader=Reader.of(settings), scorer=None, model_version="v", items={})
    assert served._dismissed("user_id IN ('open', 'late')") == {"open": ["i1"], "late": ["i4"]}
