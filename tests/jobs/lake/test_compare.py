from datetime import date

import pytest

from conf.contracts import column, fact
from jobs.lake.compare import compare

CONTRACT = fact(
    "things",
    "for the test",
    column("name", "string", "key"),
    column("count", "int", "exact"),
    column("weight", "double", "to 1e-9"),
    column("vector", "array<float>", "to 1e-3", tolerance=1e-3),
    column("leaning", "double", "to 1e-3 however near to 0", margin=1e-3),
    column("labels", "map<string,string>", "in any order"),
    key=("name",),
)
ROW = {
    "name": "a",
    "count": 1,
    "weight": 2.0,
    "vector": [0.5, 1.0],
    "leaning": 1e-4,
    "labels": {"x": "1", "y": "2"},
    "day": date(2024, 1, 1),
}
SCHEMA = "name string, count int, weight double, vector array<float>, leaning double, labels map<string,string>, day date"


def things(spark, *changes):
    return spark.createDataFrame([tuple({**ROW, **change}.values()) for change in changes], SCHEMA)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ([{}], [{"weight": 2.0 * (1 + 1e-10)}], "equal, 1 rows"),
        ([{}], [{"labels": {"y": "2", "x": "1"}}], "equal, 1 rows"),
        ([{}], [{"vector": [0.5002, 1.0]}], "equal, 1 rows"),
        ([{"weight": None}], [{"weight": None}], "equal, 1 rows"),
        ([{}], [{"leaning": -5e-4}], "equal, 1 rows"),
        ([{}, {}, {"count": 2}], [{"count": 2}, {}, {}], "equal, 3 rows"),
        ([{}], [{"weight": 2.0 * (1 + 1e-8)}], "differing: weight in 1 rows"),
        ([{}], [{"weight": None}], "differing: weight in 1 rows"),
        ([{}], [{"vector": [0.51, 1.0]}], "differing: vector in 1 rows"),
        ([{}], [{"leaning": 2e-3}], "differing: leaning in 1 rows"),
        ([{}], [{"vector": [0.5]}], "differing: vector in 1 rows"),
        ([{}], [{"count": 2}], "differing: count in 1 rows"),
        ([{}], [{"labels": {"x": "1"}}], "differing: labels in 1 rows"),
        ([{}, {}], [{}], "1 rows missing, 0 added"),
        ([{}], [{}, {"name": "b"}], "0 rows missing, 1 added"),
        ([{}], [{"day": date(2024, 1, 2)}], "1 rows missing, 1 added"),
    ],
)
def test_compare(spark, one, other, said):
    assert said in str(compare(things(spark, *one), things(spark, *other), CONTRACT))
