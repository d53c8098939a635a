"""The coming week as the model expects it: against the model asked moment by moment."""

import numpy as np
import pytest
import torch

from conf.learning import Model
from models.bulk import BulkScorer
from models.evolution import DAYS, expected
from models.histories import EventColumns, Moments, histories_from_events, queries_before
from models.interest import InterestModel, new_network
from models.queries import Vocabulary

MONDAY = 1_704_067_200  # 2024-01-01 00:00 UTC
HOUR, DAY = 3600, 86_400
VOCABULARY = Vocabulary(
    items=tuple("abcdef"), item_categories=("x", "x", "y", "z", "", "z"), categories=("x", "y", "z"), event_types=("visit",)
)


def model(**settings):
    torch.manual_seed(3)
    network = new_network(Model(window=8, width=16, heads=2, layers=1, **settings), VOCABULARY)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return InterestModel(network, VOCABULARY)


def history(*rows):
    """item index, hours before Monday, hours by which the clock is ahead; -1 for an hour that is not known."""
    item, before, ahead = (np.array(column) for column in zip(*rows, strict=True))
    at = MONDAY - before * HOUR
    hour = np.where(ahead == -1, -1.0, (at / HOUR + 72 + ahead) % 168)
    return EventColumns(
        item_E=(item + 2).astype(np.int32), category_E=VOCABULARY.category_of_item_V[item],
        event_type_E=np.full(len(item), 2, np.int32),
        timestamp_E=at.astype(np.int64), hour_of_week_E=hour.astype(np.float32),
        latitude_E=np.full(len(item), 40.7, np.float32), longitude_E=np.full(len(item), -74.0, np.float32),
    )  # fmt: skip


EVENTS = history((0, 60, -5), (1, 40, -5), (0, 12, -5), (3, 90, 8), (2, 30, 8), (5, 50, -1))
FIRST_U, STOP_U = np.array([0, 3, 5]), np.array([3, 5, 6])


def asked(ranker, user, at, hour):
    """Shares of the categories x, y, z at one moment."""
    moments = Moments(
        first_B=FIRST_U[[user]], stop_B=STOP_U[[user]], timestamp_B=np.array([at]), hour_of_week_B=np.array([hour], np.float32)
    )
    past = histories_from_events(EVENTS, moments.first_B, moments.stop_B, 8)
    score_V = ranker.scores(past, queries_before(EVENTS, moments))[0].astype(np.float64)
    share_V = np.exp(score_V - score_V.max())
    share_V /= share_V.sum()
    return np.array([share_V[[0, 1]].sum(), share_V[2], share_V[[3, 5]].sum()])


@pytest.mark.parametrize(("user", "ahead"), [(0, -5), (1, 8)])
def test_a_day_is_its_parts_as_the_user_is_out_in_them(user, ahead):
    ranker = model()
    share_UDC, weight_UD = expected(BulkScorer(ranker), EVENTS, FIRST_U, STOP_U, MONDAY)
    hours = np.floor(EVENTS.hour_of_week_E[FIRST_U[user] : STOP_U[user]]).astype(int)
    weights = []
    for day in range(DAYS):
        found = []
        for part in (9, 15, 20, 26):
            at = MONDAY - ahead * HOUR + day * DAY + part * HOUR
            local = (at / HOUR + 72 + ahead) % 168
            apart = np.abs(hours - int(local))
            out = 8 * 7 / 168 + (np.minimum(apart, 168 - apart) <= 3).sum()
            found.append((out, asked(ranker, user, at, local)))
        weights.append(sum(out for out, _ in found))
        wanted = sum(out * shares for out, shares in found)
        np.testing.assert_allclose(share_UDC[user, day, 2:], wanted / wanted.sum(), rtol=1e-4)
    np.testing.assert_allclose(weight_UD[user], np.array(weights) / sum(weights), rtol=1e-6)


def test_shares_are_shares_and_what_has_no_category_has_none():
    share_UDC, weight_UD = expected(BulkScorer(model()), EVENTS, FIRST_U, STOP_U, MONDAY)
    np.testing.assert_allclose(share_UDC.sum(axis=2), 1.0)
    np.testing.assert_allclose(weight_UD.sum(axis=1), 1.0)
    assert (share_UDC[:, :, :2] == 0).all() and (share_UDC[:, :, 2:] > 0).all()


def test_what_is_not_taken_again_is_not_expected():
    scorer, seen = BulkScorer(model()), [np.array([0, 1]), np.zeros(0, np.int64), np.arange(6)]
    usual, _ = expected(scorer, EVENTS, FIRST_U, STOP_U, MONDAY)
    share_UDC, _ = expected(scorer, EVENTS, FIRST_U, STOP_U, MONDAY, seen)
    assert (share_UDC[0, :, 2] == 0).all() and (usual[0, :, 2] > 0).all(), "all of category x was taken"
    np.testing.assert_allclose(share_UDC[0].sum(axis=1), 1.0)
    np.testing.assert_allclose(share_UDC[1], usual[1])
    assert (share_UDC[2] == 0).all(), "there is nothing left"


def test_without_a_clock_all_days_are_asked_without_an_hour():
    ranker = model()
    share_UDC, _ = expected(BulkScorer(ranker), EVENTS, FIRST_U, STOP_U, MONDAY)
    wanted = asked(ranker, 2, MONDAY + DAY, -1.0)
    np.testing.assert_allclose(share_UDC[2, :, 2:], np.tile(wanted / wanted.sum(), (DAYS, 1)), rtol=1e-4)


def test_it_does_not_depend_on_who_else_is_asked_for():
    scorer = BulkScorer(model())
    whole, _ = expected(scorer, EVENTS, FIRST_U, STOP_U, MONDAY)
    for user in range(3):
        alone, _ = expected(scorer, EVENTS, FIRST_U[[user]], STOP_U[[user]], MONDAY)
        np.testing.assert_allclose(alone[0], whole[user], atol=1e-6)
    none, weights = expected(scorer, EVENTS, FIRST_U[:0], STOP_U[:0], MONDAY)
    assert none.shape == (0, DAYS, 5) and weights.shape == (0, DAYS)
