"""How often the cleaning rules would fire, as a night would have them fire."""

import re

from conf.settings import load_settings
from jobs.profiling import profile
from jobs.profiling.firing import firing
from jobs.profiling.showing import rules_table

REAL = ("foursquare_nyc/checkins.csv.gz", "movielens_1m/sequences.csv.gz", "amazon_reviews/reviews.parquet")


def test_rules_fire_on_what_is_planted(spark, tmp_path):
    lines = [f"u{n % 7},i{n % 5},2024-01-{1 + n % 28:02}T10:00:00Z" for n in range(60)]
    lines += [lines[0], "u1,,2024-01-05", "u2,i1,yesterday", "u3,i1,2024-03-01", ",i1,2024-01-05", "u1"]
    path = tmp_path / "landing" / "2024-01-31" / "events.csv"
    path.parent.mkdir(parents=True)
    path.write_text("user,item,at\n" + "\n".join(lines) + "\n")
    fired = firing(spark, path, profile(path, 1000).proposal.mapping(), load_settings(), 1000)
    assert (fired.rows, fired.duplicates, fired.good) == (66, 1, 60)
    fires = {name: count for name, count in fired.rules.items() if count}
    assert fires == {"broken": 1, "no_user": 1, "no_item": 1, "bad_time": 1, "future": 1}
    assert re.search(r"no_item +1 ", rules_table(fired)) and "too_late" in rules_table(fired).splitlines()[-1]


def test_rules_hardly_fire_on_real_logs_under_the_proposed_mappings(spark, shared_data):
    for called in REAL:
        mapping = profile(shared_data / called, 5000).proposal.mapping()
        fired = firing(spark, shared_data / called, mapping, load_settings(), 2000)
        assert fired.rows == 2000 and fired.good + fired.duplicates >= 1990, (called, fired)
