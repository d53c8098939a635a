import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score, roc_auc_score

from models import registry
from models.labeller import EXAM_DAYS, Labeller, Past, best_cut, exam, learn
from models.lasting import MATURES_DAYS, STATE, Clock, Moments, lasting
from models.trees import Trees

UNTIL = 20_300
USERS, DAYS = 60, 300


def planted(seed=1, habit=0.6, fancy=0.0, cut=UNTIL):
    """Of each user two categories: one of habit, visited weekly by chance, and fancies that change every three weeks.

    What is known of each visit is what the visits before it say.
    """
    rng = np.random.default_rng(seed)
    rows, first = [], UNTIL - DAYS
    for user in range(USERS):
        visits = [(0, day) for day in range(first, UNTIL) if rng.random() < habit / 3]
        for start in range(first, UNTIL, 21):
            days = start + np.flatnonzero(rng.random(6) < 0.7)
            visits += [(int(rng.integers(1, 12)), int(day)) for day in days if day < UNTIL]
        if fancy:
            visits += [(11, day) for day in range(first, UNTIL) if rng.random() < fancy]
        visits = sorted({visit for visit in visits if visit[1] < cut}, key=lambda visit: visit[1])
        rows += [(user, category, day, _known(visits, category, day)) for category, day in visits]
    user, category, day, state = zip(*rows, strict=True)
    state_MS = np.array(state)
    decayed = state_MS[:, STATE.index("long_weight")]
    return Past(
        moments=Moments(
            user_M=np.array(user), category_M=np.array(category), day_M=np.array(day), passed_M=np.zeros(len(user)),
            state_MS=state_MS, ruled_M=(state_MS[:, STATE.index("active_weeks")] >= 4) & (decayed >= 1),
        ),
        categories=[f"c{number}" for number in range(12)],
        clock=Clock.of(dict.fromkeys(range(first, UNTIL), 1)),
        until=cut,
    )  # fmt: skip


def _known(visits, category, day):
    every = np.array([other for _, other in visits if other < day], float)
    own = np.array([other for of, other in visits if of == category and other < day], float)
    age, all_age = day - own, day - every

    def total(ages, half_life):
        return float(np.sum(0.5 ** (ages / half_life))) if len(ages) else np.nan

    known = {
        "long_weight": total(age, 60), "short_weight": total(age, 7), "events": len(own) or np.nan,
        "active_weeks": len(set(own // 7)) or np.nan, "active_days": len(own) or np.nan,
        "span_days": np.ptp(own) if len(own) else np.nan, "idle_days": age.min() - 1 if len(own) else np.nan,
        "user_long_weight": total(all_age, 60), "user_short_weight": total(all_age, 7), "returned_days": np.nan,
        "user_categories": len({of for of, other in visits if other < day}) or np.nan,
        "user_known_days": all_age.max() - 1 if len(every) else np.nan,
        "long_half_life_days": 60 if len(every) else np.nan, "short_half_life_days": 7 if len(every) else np.nan,
    }  # fmt: skip
    return [known[name] for name in STATE]


@pytest.fixture(scope="module")
def past():
    return planted()


def test_what_is_planted_is_learnt_and_passes_the_exam(past):
    taken = exam(past, seed=1)
    asked, day = taken.moments, past.moments.day_M
    assert len(asked) == ((day >= UNTIL - MATURES_DAYS - EXAM_DAYS) & (day + MATURES_DAYS < UNTIL)).sum()
    assert roc_auc_score(taken.lasted_M, taken.learned_M) > 0.9
    assert taken.losses(taken.learned_M).mean() < 0.7 * taken.losses(taken.ruled_M).mean()
    assert abs(taken.learned_M.mean() - taken.lasted_M.mean()) < 0.1, "calibrated in the mean"


def test_an_exam_is_told_by_what_was_known_before_it(past):
    """What happens later changes what became of it, not what was said of it."""
    taken, day_M = exam(past, seed=1), past.moments.day_M
    is_later = day_M + MATURES_DAYS >= UNTIL
    other = replace(past, moments=past.moments.take(~is_later))
    nobody_came = exam(other, seed=1)
    np.testing.assert_array_equal(nobody_came.learned_M, taken.learned_M)
    np.testing.assert_array_equal(nobody_came.ruled_M, taken.ruled_M)
    assert nobody_came.lasted_M.mean() < taken.lasted_M.mean() - 0.2
    begins = UNTIL - MATURES_DAYS - EXAM_DAYS
    cut = replace(past, moments=past.moments.take(day_M < begins), until=begins)
    asked = (day_M >= begins) & ~is_later
    np.testing.assert_array_equal(past.told(learn(cut, seed=1), asked), taken.learned_M)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_cut_is_the_best_by_macro_f1(share):
    rng = np.random.default_rng(int(share * 10))
    lasted = rng.random(800) < share
    told = np.clip(rng.normal(0.5 * share + 0.3 * lasted, 0.2), 0.0, 1.0)
    by_cut = {cut / 100: f1_score(lasted, told >= cut / 100, average="macro") for cut in range(1, 100)}
    assert by_cut[best_cut(told, lasted)] == pytest.approx(max(by_cut.values()))
    assert best_cut(np.full(10, 0.5), np.arange(10) < 5) == 0.5, "nothing tells them apart"


def test_equal_pasts_give_equal_labellers(past):
    made, again = learn(past, seed=1), learn(past, seed=1)
    every = np.ones(len(past.moments), bool)
    np.testing.assert_array_equal(past.told(made, every), past.told(again, every))
    assert made.lasts == again.lasts and made.cut == again.cut and made.lasts["c0"] > 0.9 > made.lasts["c5"]


@pytest.mark.parametrize("cut", [UNTIL - DAYS + MATURES_DAYS + 5])
def test_of_too_little_nothing_is_learnt(cut):
    short = planted(cut=cut)
    assert learn(short, seed=1) is None and exam(short, seed=1) is None


def test_interests_that_all_came_to_one_end_teach_nothing(past):
    once = past.moments.take(np.unique(past.moments.user_M * 100 + past.moments.category_M, return_index=True)[1])
    rows = np.tile(np.arange(len(once)), 3)
    many = replace(once.take(rows), user_M=np.arange(len(rows)))
    assert len(many) > 1000 and not lasting(many).any()
    assert learn(replace(past, moments=many, until=UNTIL + 999), seed=1) is None


def test_a_labeller_comes_back_as_it_was(past, tmp_path):
    made = learn(past, seed=1)
    registry.save(made, tmp_path / "models" / "labeller-1")
    assert registry.is_whole(tmp_path / "models" / "labeller-1")
    again = Labeller.load(tmp_path / "models" / "labeller-1")
    every = np.ones(len(past.moments), bool)
    np.testing.assert_array_equal(past.told(made, every), past.told(again, every))
    assert again.cut == made.cut == best_cut(past.told(made, past.mature()), lasting(past.moments)[past.mature()])
    new = again.probability(past.moments.take(past.moments.category_M == 0), ["never seen"], past.clock)
    assert 0 < new[0] < 1
    with pytest.raises(ValueError, match="unknown method boosting"):
        registry.load_ranker(tmp_path / "models" / "labeller-1")


@pytest.mark.parametrize("file", ["version.json", "trees.npz"])
@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_damaged_labeller_is_refused(past, tmp_path, file, damage):
    learn(past, seed=1).save(tmp_path)
    if damage == "gone":
        (tmp_path / file).unlink()
    elif damage == "cut":
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:100])
    else:
        said = json.loads((tmp_path / "version.json").read_text())
        (tmp_path / "version.json").write_text(json.dumps({**said, "inputs": said["inputs"][1:]}))
    with pytest.raises(ValueError, match=r"holds no labeller .*wherewhen publish rule") as wrong:
        Labeller.load(tmp_path)
    assert "\n" not in str(wrong.value)


def test_trees_say_what_their_library_says(tmp_path):
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(2000, 5))
    inputs[rng.random(inputs.shape) < 0.2] = np.nan
    wanted = np.nan_to_num(inputs[:, 0]) + (np.isnan(inputs[:, 1])) > 0.4
    fitted = HistGradientBoostingClassifier(max_iter=30, early_stopping=False, random_state=1).fit(inputs, wanted)
    trees = Trees.of(fitted)
    asked = np.concatenate([inputs, np.full((1, 5), np.nan), np.full((1, 5), np.inf), np.full((1, 5), -np.inf)])
    np.testing.assert_allclose(trees.log_odds(asked), fitted.decision_function(asked), rtol=1e-12)
    trees.save(tmp_path / "trees.npz")
    np.testing.assert_array_equal(Trees.load(tmp_path / "trees.npz").log_odds(asked), trees.log_odds(asked))
    assert len(trees.log_odds(asked[:0])) == 0
