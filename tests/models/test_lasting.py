from dataclasses import replace

import numpy as np
import pytest

from models.lasting import MATURES_DAYS, NAMES, STATE, Clock, Moments, features, lasting

DAY = 20_000

KNOWN = {
    "long_weight": 4.0, "short_weight": 0.5, "events": 9, "active_weeks": 4, "active_days": 5, "span_days": 40, "idle_days": 6,
    "returned_days": np.nan, "user_long_weight": 16.0, "user_short_weight": 2.0, "user_categories": 7, "user_known_days": 50,
    "long_half_life_days": 60, "short_half_life_days": 7,
}  # fmt: skip


def moments(rows):
    """From (user, category, day); of nothing known."""
    user, category, day = np.array(sorted(set(rows)), dtype=np.int64).reshape(-1, 3).T
    size = len(user)
    state = np.full((size, len(STATE)), np.nan)
    return Moments(
        user_M=user, category_M=category, day_M=day, passed_M=np.zeros(size), state_MS=state, ruled_M=np.zeros(size, bool)
    )


STEADY = Clock.of(dict.fromkeys(range(DAY - 400, DAY), 20))


def one(passed=0, clock=STEADY, **more):
    """Features of a moment on `DAY`, by name; what was known is of `passed` days before its eve."""
    made = moments([(1, 0, DAY)])
    known = np.array([[float((KNOWN | more)[name]) for name in STATE]])
    made = replace(made, state_MS=known, passed_M=np.array([float(passed)]))
    return dict(zip(NAMES, features(made, clock)[0], strict=True))


def test_what_lasts_is_counted_in_weeks_from_the_day_on():
    rng = np.random.default_rng(3)
    rows = {(int(u), int(c), int(d)) for u, c, d in rng.integers((-2, 0, 100), (3, 4, 420), (400, 3))}
    made = moments(rows)
    found = lasting(made)
    for user, category, day, lasts in zip(made.user_M, made.category_M, made.day_M, found, strict=True):
        weeks = {(other - day - 1) // 7 for u, c, other in rows if (u, c) == (user, category) and other > day}
        assert lasts == (len({week for week in weeks if week < 8}) >= 2)
    assert 0 < found.mean() < 1


@pytest.mark.parametrize(
    ("later", "lasts"),
    [((1, 8), True), ((1, 7), False), ((7, 8), True), ((1, 56), True), ((1, 57), False), ((), False)],
)
def test_the_weeks_end_where_they_should(later, lasts):
    assert lasting(moments([(1, 0, 100), *((1, 0, 100 + days) for days in later)]))[0] == lasts


def test_known_before_is_the_same_as_known_and_aged():
    rng = np.random.default_rng(5)
    for passed in rng.integers(1, 60, 20):
        aged = {f"{of}long_weight": KNOWN[f"{of}long_weight"] * 0.5 ** (passed / 60) for of in ("", "user_")}
        aged |= {f"{of}short_weight": KNOWN[f"{of}short_weight"] * 0.5 ** (passed / 7) for of in ("", "user_")}
        aged |= {name: KNOWN[name] + passed for name in ("idle_days", "user_known_days")}
        assert one(passed) == pytest.approx(one(**aged), nan_ok=True)


def test_features_of_a_known_interest():
    found = one(2)
    assert found["idle"] == 8 and found["mean_gap"] == 10 and found["idle_gaps"] == 0.8
    assert found["long_share"] == 0.25 and found["week_share"] == 4 / 8 and found["user_watched"] == 53
    watched = sum(0.5 ** (days / 60) for days in range(53))
    assert found["long_rate"] == pytest.approx(np.log((4 * 0.5 ** (2 / 60) + 0.05) / watched))
    assert np.isnan(found["returned"]) and one(2, returned_days=3)["returned"] == 5


def test_of_a_new_interest_the_user_is_known():
    new = dict.fromkeys(STATE[: STATE.index("user_long_weight")], np.nan)
    found, known = one(1, **new), one(1)
    assert found["events"] == found["active_weeks"] == found["long_share"] == 0 and np.isnan(found["idle"])
    assert found["user_long_rate"] == known["user_long_rate"] and found["long_rate"] < known["long_rate"]
    nobody = features(replace(moments([(1, 0, DAY)]), passed_M=np.array([np.nan])), STEADY)
    assert not np.isinf(nobody).any()


def test_weights_that_speak_against_are_none():
    assert one(long_weight=-3.0)["long_rate"] == one(long_weight=0.0)["long_rate"] == one(long_weight=np.nan)["long_rate"]
    assert not np.isinf(list(one(user_long_weight=0.0).values())).any()


def test_nobody_s_interest_fades_while_the_log_pauses():
    """A pause of thirty days right before the moment: all is as if it had come thirty days earlier, but for the weights."""
    events = {day: count for day, count in dict.fromkeys(range(DAY - 430, DAY), 20).items() if day < DAY - 30}
    paused, aged = one(30, Clock.of({**events, DAY - 1: 0})), {"long_weight": 4 * 2**-0.5, "short_weight": 0.5 * 2 ** (-30 / 7)}
    for name in ("idle", "mean_gap", "idle_gaps", "user_watched", "week_share"):
        assert paused[name] == pytest.approx(one(0)[name])
    assert paused["long_rate"] == pytest.approx(one(0)["long_rate"], abs=0.03), "the weight fell, and so did what it is held to"
    assert paused["long_rate"] > one(30, **aged)["long_rate"] + 0.2


def test_the_clock_is_the_calendar_of_a_steady_log_and_stands_still_in_a_pause():
    days = dict.fromkeys(range(1000, 1400), 5)
    moment = np.array([1000, 1200, 1400 - MATURES_DAYS - 1])
    assert Clock.of(days).ahead(moment) == pytest.approx(1.0)
    assert Clock.of(days).passed(moment - 7.0, moment + 0.0) == pytest.approx([1, 7, 7])
    pausing = Clock.of({day: 5 for day in days if not 1300 <= day < 1300 + MATURES_DAYS})
    assert pausing.ahead(np.array([1299, 1299 - MATURES_DAYS // 2])) == pytest.approx([0.0, 0.5])
    assert pausing.ahead(np.array([1100])) == pytest.approx(1.0), "what comes later is not asked"
    busy = Clock.of(days | dict.fromkeys(range(1200, 1200 + MATURES_DAYS), 10))
    assert 1.3 < busy.ahead(np.array([1199]))[0] < 2
    assert Clock.of({7: 0, 9: 3}).pace_D.tolist() == [0, 0, 3], "a day counts for three at most"


def test_the_clock_knows_nothing_of_later_days():
    rng = np.random.default_rng(4)
    events = {day: int(count) for day, count in enumerate(rng.poisson(20, 300))}
    early = Clock.of({day: count for day, count in events.items() if day < 200})
    np.testing.assert_array_equal(early.pace_D, Clock.of(events).pace_D[:200])
