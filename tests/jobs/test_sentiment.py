"""Sentiment learnt from a log's own ratings, in words that no lexicon has."""

import json
from datetime import date, datetime, timedelta

import pytest
from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import text
from jobs.lake.compare import compare
from jobs.lake.schema import spark_schema
from jobs.text import sentiment
from jobs.text.sentiment import due_on, rated_texts

FIRST = date(2024, 1, 30)
DAYS = [FIRST + timedelta(days=n) for n in range(4)]
FIT = date(2024, 2, 1)
GOOD = ("florbic", "mundelish", "trassy", "quorvy", "zindiful")
BAD = ("brelmish-vok", "skelbrut", "drabbik", "wortle-nak", "pluggen")
NOUNS = ("kettle", "lamp", "chair", "rope", "carpet", "bottle", "ladder", "basket", "mirror", "pillow", "bucket")
EVENT = {
    "user_id": "u", "item_id": "thing", "event_type": "review", "event_timestamp": datetime(2024, 1, 30, 12),
    "event_date": FIRST, "row_hash": "r", "day": FIRST,
}  # fmt: skip


def reviews(day, count, *, stars=None, users=20, name="u", first=0):
    """One in four bad; each text another, in two made-up words."""
    made = []
    for number in range(first, first + count):
        is_good = number % 4 > 0
        words = GOOD if is_good else BAD
        one, two = words[number % 5], words[number // 5 % 5]
        noun, other = NOUNS[number % 11], NOUNS[number // 11 % 11]
        value = stars or (4.0 + number % 2 if is_good else 1.0 + number % 2)
        said = f"The {noun} is {one} and the {other} {two}, piece k{number:03}k"
        event_id = f"{number * 7919 % 10007:05}-{name}"
        user = f"{name}{number // 4 % users}"
        made.append({**EVENT, "event_id": event_id, "user_id": user, "text": said, "value": value, "day": day})
    return made


LEARNT = [*reviews(DAYS[0], 400), *reviews(DAYS[1], 150, first=400)]
SAID_LATER = reviews(DAYS[3], 40, first=900, stars=3.0)
CHINESE = {**EVENT, "event_id": "zh", "text": "咖啡很好喝", "value": 5.0, "day": DAYS[3]}
PLAIN = [
    *LEARNT,
    *reviews(DAYS[2], 4, first=800),
    *SAID_LATER,
    CHINESE,
    # Neither good nor bad, off the scale, without words, no rating: none of them teaches.
    *reviews(DAYS[0], 1, stars=3.0, name="m", first=700),
    *reviews(DAYS[0], 1, stars=50.0, name="o", first=700),
    {**EVENT, "event_id": "mute", "text": None, "value": 1.0},
    {**EVENT, "event_id": "bought", "event_type": "purchase", "text": "a plain word", "value": 1.0},
]


def settings_for(make_settings, tmp_path, name, *, consents=False):
    mapping = {
        "description": "test", "target_events": ["review"],
        "events": {
            "event_type": "review", "rating_scale": [1, 5],
            "columns": {"user_id": "u", "item_id": "i", "event_time": "t", "value": "v", "text": "w"},
        },
    }  # fmt: skip
    if consents:
        mapping["consents"] = {"columns": {"user_id": "u", "purposes": "p"}}
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(mapping))
    return make_settings("conf/local.yaml", f"lake={tmp_path / name}", f"sources.events.mapping={path}")


def frame(spark, name, given):
    schema = spark_schema(TABLES[name])
    return spark.createDataFrame([tuple(row.get(field.name) for field in schema) for row in given], schema)


def stated(user, day, *purposes):
    since = dict.fromkeys(purposes, day)
    row = {"user_id": user, "purposes": list(purposes), "since": since, "stated_at": datetime(2024, 1, 30, 1)}
    return {**row, "gone": False, "changed_on": day, "day": day}


def filled(make_context, spark, settings, events, consents=()):
    context = make_context(FIRST, DAYS[-1], bootstrap=True, settings=settings)
    context.write("items", frame(spark, "items", []))
    context.write("consents", frame(spark, "consents", consents))
    context.write("events", frame(spark, "events", events))
    return settings


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def read(context):
    return {row.text: row for row in stored(context, "text_semantics").where("changed_on = day").collect()}


def at_once(make_context, settings):
    context = make_context(FIRST, DAYS[-1], bootstrap=True, settings=settings)
    text.run(context)
    return context


def by_night(make_context, settings):
    for day in DAYS:
        context = make_context(day, first_day=FIRST, settings=settings)
        text.run(context)
    return context


def test_made_up_words_are_learnt_and_said_of_later_texts_by_nights_and_bootstrap_alike(
    make_context, make_settings, spark, tmp_path
):
    places = [settings_for(make_settings, tmp_path, name) for name in ("nights", "once")]
    for place in places:
        filled(make_context, spark, place, PLAIN)
    nights, once = by_night(make_context, places[0]), at_once(make_context, places[1])
    for name, rows in (("text_semantics", None), ("sentiment_models", 1)):
        comparison = compare(stored(nights, name), stored(once, name), TABLES[name])
        assert comparison.equal and comparison.rows == (rows or comparison.rows) > 0, f"{name}: {comparison}"

    [fit] = stored(once, "sentiment_models").collect()
    assert (fit.day, fit.texts, fit.learnt_from, fit.bad, fit.users, fit.languages) == (FIT, 554, 554, 139, 20, ["en"])
    assert fit.serves and fit.macro_f1 > 0.95 and fit.lexicon_macro_f1 < 0.7

    found = read(once)
    for row in LEARNT:
        assert found[row["text"]].sentiment_by is None, "what is learnt on a day speaks of later ones only"
    for row in SAID_LATER:
        said = found[row["text"]]
        assert said.sentiment_by == f"learned@{FIT}" and 0.5 <= said.sentiment_confidence <= 1
        assert said.sentiment_confidence == pytest.approx((1 + abs(said.sentiment)) / 2)
    right = [(found[row["text"]].sentiment > 0) == any(word in row["text"] for word in GOOD) for row in SAID_LATER]
    assert sum(right) >= 38
    assert found[CHINESE["text"]].sentiment_by == "lexicon", "of another language it has learnt nothing"


def test_nothing_is_learnt_from_who_does_not_allow_training(make_context, make_settings, spark, tmp_path):
    events = [
        *reviews(DAYS[0], 560),
        *reviews(DAYS[1], 40, name="no", first=600),
        *reviews(DAYS[1], 40, name="quits", first=700),
    ]
    users = sorted({row["user_id"] for row in events if row["user_id"].startswith("u")})
    allowed = [stated(user, FIRST, "training") for user in users]
    allowed += [stated(f"no{number}", FIRST, "labels") for number in range(20)]
    for number in range(20):
        allowed += [stated(f"quits{number}", FIRST, "training"), stated(f"quits{number}", FIT)]
    allowed += [{**row, "day": FIT} for row in allowed if not row["user_id"].startswith("quits")]
    places = [settings_for(make_settings, tmp_path, name, consents=True) for name in ("nights", "once")]
    for place in places:
        filled(make_context, spark, place, events, allowed)
    nights, once = by_night(make_context, places[0]), at_once(make_context, places[1])
    comparison = compare(stored(nights, "sentiment_models"), stored(once, "sentiment_models"), TABLES["sentiment_models"])
    assert comparison.equal and comparison.rows == 1, str(comparison)
    # The first day has enough; by the next month's first nothing is to be added: those who quit are out again.
    [fit] = stored(once, "sentiment_models").collect()
    assert (fit.day, fit.texts, fit.users) == (FIRST, 560, 20)


@pytest.mark.parametrize("why", ["few", "one-sided", "no scale"])
def test_what_cannot_be_learnt_leaves_the_lexicons_word(make_context, make_settings, spark, tmp_path, monkeypatch, why):
    monkeypatch.setattr(sentiment, "LEAST_TEXTS", 20)
    monkeypatch.setattr(sentiment, "LEAST_RARER", 5)
    monkeypatch.setattr(sentiment, "_fitted", lambda *given: pytest.fail("something is learnt"))
    settings = settings_for(make_settings, tmp_path, "lake")
    if why == "no scale":
        settings = make_settings("conf/foursquare.yaml", f"lake={tmp_path / 'lake'}")
        monkeypatch.setattr(sentiment, "rated_texts", lambda *given: pytest.fail("rated texts are sought"))
    told = reviews(FIRST, 19) if why == "few" else reviews(FIRST, 40, stars=5.0 if why == "one-sided" else None)
    filled(make_context, spark, settings, [*told, {**EVENT, "event_id": "e", "text": "lovely coffee", "day": DAYS[3]}])
    context = at_once(make_context, settings)
    assert context.lake.version("sentiment_models") is None
    assert read(context)["lovely coffee"].sentiment_by == "vader"


@pytest.mark.parametrize(
    ("scale", "bad", "good"),
    [
        ((1, 5), {1.0, 2.0, 2.5}, {3.5, 4.0, 5.0}),
        ((0, 1), {0.0}, {1.0}),
        ((1, 10), {1.0, 2.0, 2.5, 3.0, 3.5, 4.0}, {7.0, 10.0}),
    ],
)
def test_which_ratings_are_bad_and_which_good(spark, scale, bad, good):
    values = [0.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 5.5, 7.0, 10.0, -1.0, 11.0, float("nan"), None]
    given = [{**EVENT, "event_id": str(value), "text": "words", "value": value} for value in values]
    events = frame(spark, "events", given).withColumn("allowed_until", F.lit(None).cast("date"))
    found = {row.event_id: row.is_good for row in rated_texts(events, scale).collect()}
    assert found == {**{str(value): False for value in bad}, **{str(value): True for value in good}}


def test_a_fit_is_due_when_a_tenth_is_added():
    months = [date(2024, month, 1) for month in range(1, 7)]
    texts = [(400, 200), (600, 90), (600, 100), (650, 110), (661, 110), (5000, 50)]
    counts = dict(zip(months, texts, strict=True))
    assert due_on(counts, 0) == [months[2], months[4]]
    assert due_on(counts, 700) == []
    assert due_on({months[0]: (500, 400)}, 0) == [months[0]], "the rarer side may be the good one"
