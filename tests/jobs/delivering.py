"""Deliveries of frames, without a lake."""

import uuid
from datetime import date

from jobs.sinks.delivery import Delivery, Manifest

DAY = date(2024, 1, 31)
NASTY = ['say "hi"', "two\nlines\r\nhere", "comma, semicolon;", "Zoë 東京 🍜", "back\\slash\\.", " spaces ", "", "tab\there"]
SCHEMA = "user_id string, rank int, item_id string, score double"


def manifest(frame, *, day=DAY, state=None, contract=1, source="recommendations"):
    columns = {field.name: field.dataType.simpleString() for field in frame.schema}
    return Manifest(source=source, day=day, state=state or uuid.uuid4().hex, columns=columns, contract=contract)


def delivery(frame, key=(), *, day=DAY, state=None, contract=1, **more):
    """`more`: as `Delivery` has it, `since` what it is to answer."""
    given = {"by": ("user_id",), "run_id": "r", "since": lambda before: None} | more
    return Delivery(rows=frame, manifest=manifest(frame, day=day, state=state, contract=contract), key=key, **given)


def lists(spark, night, users=40):
    """Lists of a night: every row of one night has one score, so that a mixture shows."""
    rows = [(f"u{user}", rank, f"i{night}", float(night)) for user in range(users) for rank in (1, 2, 3)]
    return spark.createDataFrame(rows, SCHEMA).repartition(2)
