import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from models.sentiment import FOLDS, STRENGTHS, Texts, best_cut, folds_of, learn, measures

DIMENSIONS = 16


def told(texts=1000, users=60, *, in_vector=0.0, in_lexicon=0.0, bad=0.2, seed=1):
    """Texts whose side shows in one dimension of the vector and in the lexicon, as strongly as is said."""
    rng = np.random.default_rng(seed)
    is_good_N = rng.random(texts) >= bad
    side_N = np.where(is_good_N, 1.0, -1.0)
    vectors_ND = rng.normal(size=(texts, DIMENSIONS))
    vectors_ND[:, 3] += in_vector * side_N
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    value_N = np.tanh(in_lexicon * side_N + rng.normal(size=texts))
    has_value_N = rng.random(texts) < 0.8
    lexicon_NL = np.column_stack([np.where(has_value_N, value_N, 0.0), has_value_N])
    return Texts(vectors_ND=vectors_ND, lexicon_NL=lexicon_NL), is_good_N, rng.integers(0, users, texts)


def accuracy(sentiment, texts, is_good_N):
    value_N, _ = sentiment.score(texts)
    return metrics.balanced_accuracy_score(is_good_N, value_N > 0)


@pytest.mark.parametrize("shows", [{"in_vector": 2.0}, {"in_lexicon": 2.0}, {"in_vector": 2.0, "in_lexicon": 1.0}])
def test_it_learns_what_shows_the_side_and_beats_the_lexicon_where_the_vector_does(shows):
    learnt = learn(*told(**shows))
    assert learnt.strength in STRENGTHS
    later, is_good_N, _ = told(**shows, seed=2, texts=4000)
    found = accuracy(learnt.sentiment, later, is_good_N)
    assert found > 0.85
    assert abs(found - learnt.measured.balanced_accuracy) < 0.05, "as the folds said"
    if "in_vector" in shows:
        assert learnt.serves
        assert learnt.measured.macro_f1 > learnt.peer.macro_f1 + 0.05


def test_nothing_to_be_learnt_does_not_serve_or_is_not_sure():
    learnt = learn(*told())
    assert learnt.measured.balanced_accuracy < 0.56
    _, confidence_N = learnt.sentiment.score(told(seed=2)[0])
    assert np.median(confidence_N) < 0.56


@pytest.mark.parametrize("bad", [0.1, 0.5])
def test_confidence_is_how_often_the_side_is_right_were_bad_texts_as_many_as_good(bad):
    shows = {"in_vector": 1.0, "in_lexicon": 0.5, "bad": bad}
    learnt = learn(*told(**shows, texts=6000, users=300))
    later, is_good_N, _ = told(**shows, texts=40_000, seed=2)
    value_N, confidence_N = learnt.sentiment.score(later)
    assert (np.abs(value_N) <= 1).all() and (confidence_N >= 0.5).all() and (confidence_N <= 1).all()
    weight_N = np.where(is_good_N, 1 / is_good_N.mean(), 1 / (~is_good_N).mean())
    for low, high in ((0.5, 0.65), (0.65, 0.8), (0.8, 0.9), (0.9, 1.0)):
        rows = (confidence_N >= low) & (confidence_N < high)
        right = np.average((value_N > 0)[rows] == is_good_N[rows], weights=weight_N[rows])
        assert abs(right - np.average(confidence_N[rows], weights=weight_N[rows])) < 0.04, (low, rows.sum())


def test_equal_texts_give_equal_weights_and_slightly_other_vectors_nearly_the_same():
    texts, is_good_N, user_N = told(in_vector=1.0, in_lexicon=1.0)
    one, again = (learn(texts, is_good_N, user_N) for _ in range(2))
    assert np.array_equal(one.sentiment.weights_F, again.sentiment.weights_F) and one.sentiment.bias == again.sentiment.bias
    moved = Texts(vectors_ND=texts.vectors_ND + 1e-6 * np.sin(np.arange(DIMENSIONS)), lexicon_NL=texts.lexicon_NL)
    near = learn(moved, is_good_N, user_N)
    for ours, theirs in zip(one.sentiment.score(texts), near.sentiment.score(moved), strict=True):
        assert np.abs(ours - theirs).max() < 1e-4


def test_one_sided_ratings_and_too_few_users_teach_nothing():
    texts, is_good_N, user_N = told(in_vector=2.0)
    assert learn(texts, np.ones_like(is_good_N), user_N) is None
    assert learn(texts, is_good_N, user_N % (FOLDS - 1)) is None
    # All bad texts are one user's: when that is asked, only good ones are left to learn from.
    assert learn(texts, is_good_N, np.where(is_good_N, user_N + 1, 0)) is None


def test_no_user_is_both_learnt_from_and_asked():
    _, _, user_N = told()
    folds = list(folds_of(user_N))
    assert sorted(np.concatenate([asked for _, asked in folds])) == list(range(len(user_N)))
    for learnt, asked in folds:
        assert not set(user_N[learnt]) & set(user_N[asked])


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: len({good for _, good in rows}) == 2
    )
)
def test_the_cut_is_that_with_the_best_macro_f1_of_all(rows):
    value_N, is_good_N = np.array([float(value) for value, _ in rows]), np.array([good for _, good in rows])

    def macro_f1(cut):
        return metrics.f1_score(is_good_N, value_N >= cut, average="macro", zero_division=0)

    assert macro_f1(best_cut(value_N, is_good_N)) == pytest.approx(max(map(macro_f1, [*value_N, np.inf])))


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30).filter(
        lambda rows: len({good for _, good in rows}) == 2
    )
)
def test_measures_are_those_of_scikit_learn(rows):
    called_N, is_good_N = np.array(rows).T
    found = measures(called_N, is_good_N)
    assert found.macro_f1 == pytest.approx(metrics.f1_score(is_good_N, called_N, average="macro", zero_division=0))
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(is_good_N, called_N))
