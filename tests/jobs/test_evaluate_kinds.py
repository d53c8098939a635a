"""Attributes and regions by which moments are told apart, and the judgement by them."""

from collections import Counter

from pyspark.sql import functions as F

from conf.tables import TABLES
from jobs import evaluate
from jobs.evaluate import moments
from jobs.evaluate.kinds import MOST, OTHER, told_apart
from jobs.lake.schema import spark_schema
from tests.jobs.test_evaluate import DAYS, LAST, bootstrap, circle, event, frame, knowing, register, write_events

ASKED = ("sequences.length=8", "evaluate.bootstrap_samples=50", "evaluate.attributes=[band,language]")


def write_users(make_context, spark, settings, attributes):
    context = make_context(DAYS[0], LAST, bootstrap=True, first_day=DAYS[0], settings=settings)
    schema = spark_schema(TABLES["users"])
    rows = [
        {"user_id": user, "attributes": some, "gone": False, "changed_on": DAYS[0], "day": DAYS[0]}
        for user, some in attributes.items()
    ]
    context.write("users", spark.createDataFrame([tuple(row[name] for name in schema.names) for row in rows], schema))


def test_the_most_frequent_names_are_kept_and_the_others_are_one(make_context, make_settings, spark):
    settings = make_settings("conf/local.yaml", *ASKED)
    users = {f"user{number:02}": {"band": f"b{number % 24:02}", "hair": "grey"} for number in range(45)}
    write_users(make_context, spark, settings, {**users, "none": None, "other": {"language": "pt"}})
    rows = [
        event(user, LAST, 9, "i01", region=None if user == "user00" else f"R{number % 30:02}")
        for number, user in enumerate([*users, "none", "other", "unknown"])
    ]
    context = bootstrap(make_context, settings)
    told = moments.new_rows(frame(spark, rows), F.lit(0))
    found = {row["user_id"]: row for row in told_apart(context, told).collect()}
    assert len(found) == len(rows)

    groups = {user: row["groups"] for user, row in found.items()}
    bands = Counter(groups[user]["band"] for user in users)
    # 21 bands have two users, three have one; of equal ones the first by name are kept.
    assert bands == {**{f"b{number:02}": 2 for number in range(MOST)}, OTHER: 5}
    assert groups["none"] == {} and groups["other"] == {"language": "pt"} and groups["unknown"] is None
    regions = Counter(row["region"] for row in found.values())
    assert (
        len(regions) == MOST + 2
        and regions[None] == 1
        and regions[OTHER] == 48 - 1 - sum(count for region, count in regions.items() if region not in (None, OTHER))
    )


def test_users_of_an_attribute_are_judged_by_themselves(make_context, make_settings, spark):
    settings = make_settings("conf/local.yaml", *ASKED)
    rows = circle(users=6)
    write_events(make_context, spark, rows, settings)
    write_users(make_context, spark, settings, {f"user{n:02}": {"band": "old" if n % 2 else "young"} for n in range(5)})
    register(settings, "knows", knowing())
    context = bootstrap(make_context, settings)
    evaluate.run(context)
    table = context.lake.read("model_quality", context.lake.version("model_quality"))
    found = {
        row["segment"]: row
        for row in table.where("model_version = 'knows' AND metric = 'hit' AND evaluation = 'day'").collect()
    }
    assert (found["band=old"]["events"], found["band=young"]["events"]) == (8, 12)
    assert found["band=old"]["value"] == 1.0 and found["band=old"]["users"] == 2
    assert not [segment for segment in found if segment.startswith(("hair=", "language="))]
