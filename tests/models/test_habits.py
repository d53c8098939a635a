import math

import numpy as np
import pytest
import torch

from conf.learning import Model
from models.events import Events, Moments
from models.habits import ORDERS, PLACES, TIMES, Habits, measures

SETTINGS = Model(width=8, heads=2)
NOW, DAY = 1_700_000_000, 86_400
EARTH_KM = 6371.0


def rows(seed=1, users=6, length=9):
    """Events with padding in front, hours and places that are not always told."""
    drawn = np.random.default_rng(seed)
    shape = (users, length)
    padding = np.arange(length) < drawn.integers(0, length, users)[:, None]
    at = NOW + np.cumsum(drawn.integers(0, 3 * DAY, shape), axis=1)
    unknown = drawn.random(shape) < 0.3
    return Events(
        item_BL=torch.from_numpy(np.where(padding, 0, drawn.integers(1, 5, shape))),
        category_BL=torch.from_numpy(np.where(padding, 0, drawn.integers(1, 4, shape))),
        event_type_BL=torch.from_numpy(np.where(padding, 0, 2)),
        timestamp_BL=torch.from_numpy(np.where(padding, 0, at)),
        hour_of_week_BL=torch.from_numpy(np.where(padding | unknown, -1, drawn.uniform(0, 168, shape)).astype(np.float32)),
        latitude_BL=torch.from_numpy(np.where(padding | unknown, np.nan, drawn.uniform(40, 41, shape)).astype(np.float32)),
        longitude_BL=torch.from_numpy(np.where(padding | unknown, np.nan, drawn.uniform(-74, -73, shape)).astype(np.float32)),
    )


def moments_of(events, seed=2, asked=3):
    drawn = np.random.default_rng(seed)
    users, length = events.item_BL.shape
    last = np.sort(drawn.integers(-1, length, (users, asked)), axis=1)
    first = (events.item_BL.numpy() != 0).argmax(1)
    last = np.where(last < first[:, None], -1, last)
    newest = np.take_along_axis(events.timestamp_BL.numpy(), np.maximum(last, 0), 1)
    hidden = drawn.random((users, asked)) < 0.3
    return Moments(
        timestamp_BT=torch.from_numpy(newest + drawn.integers(60, DAY, newest.shape)),
        hour_of_week_BT=torch.from_numpy(np.where(hidden, -1, drawn.uniform(0, 168, newest.shape)).astype(np.float32)),
        latitude_BT=torch.from_numpy(np.where(hidden, np.nan, drawn.uniform(40, 41, newest.shape)).astype(np.float32)),
        longitude_BT=torch.from_numpy(drawn.uniform(-74, -73, newest.shape).astype(np.float32)),
        last_BT=torch.from_numpy(last),
    )


def kilometres(one, other):
    turn = abs(one[1] - other[1])
    east = math.radians(min(turn, 360 - turn)) * math.cos(math.radians(other[0]))
    return EARTH_KM * math.hypot(math.radians(one[0] - other[0]), east)


def told(events, moments, user, asked, place):
    """All measures of one pair, one by one."""

    def of(name, at):
        return getattr(events, name)[user, at].item()

    def asks(name):
        return getattr(moments, name)[user, asked].item()

    last = asks("last_BT")
    is_first = place == 0 or of("item_BL", place - 1) == 0
    has_time = asks("hour_of_week_BT") >= 0
    now = asks("timestamp_BT") if has_time else of("timestamp_BL", last)
    days = (now - of("timestamp_BL", place)) / DAY
    found = dict.fromkeys((*TIMES, *PLACES, *ORDERS), 0.0)
    found |= {"age": math.log(days + 1e-3) / 3, "fades": math.log(math.exp(-days / 20) + 0.1), "days": math.exp(-days / 2)}
    found["today"] = float(days < 0.75)
    hour, then = asks("hour_of_week_BT"), of("hour_of_week_BL", place)
    if has_time and then >= 0:
        apart = abs(hour - then) % 24
        apart = min(apart, 24 - apart)
        alike = float((hour >= 120) == (then >= 120))
        found |= {"apart": apart / 12, "hour": math.exp(-0.5 * apart**2), "part_of_day": math.exp(-0.5 * (apart / 2.5) ** 2)}
        found["near_hour"] = math.log(math.exp(-(apart**2) / 4.5) + 0.05) + math.log(2) * alike
        found |= {"same_day": float(hour // 24 == then // 24), "same_sort": alike}
    if has_time and not is_first:
        gap = of("timestamp_BL", place) - of("timestamp_BL", place - 1)
        pace = math.log(now - of("timestamp_BL", last) + 60) - math.log(gap + 60)
        pace = max(-6.0, min(6.0, pace))
        found |= {"pace": pace / 3, "same_pace": math.exp(-0.5 * (pace / 0.7) ** 2), "paced": 1.0}
    here = asks("latitude_BT"), asks("longitude_BT")
    places = [(of("latitude_BL", at), of("longitude_BL", at)) for at in range(place + 1)]
    before = [one for one in places[:-1] if not math.isnan(one[0])]
    for there, names in ((places[-1], PLACES[:3]), (before[-1] if before else (math.nan, math.nan), PLACES[3:])):
        km = kilometres(here, there)
        if not math.isnan(km):
            found |= dict(zip(names, (math.log(km + 0.03) / 3, math.exp(-km / 0.3), 1.0), strict=True))
    newest, second = of("item_BL", last), of("item_BL", last - 1) if last else 0
    item_before = of("item_BL", place - 1) if place else 0
    found["after_item"] = float(item_before == newest)
    found["after_category"] = float((of("category_BL", place - 1) if place else 0) == of("category_BL", last))
    found["after_both"] = float(
        item_before == newest and second != 0 and (of("item_BL", place - 2) if place > 1 else 0) == second
    )
    found |= {"itself": float(of("item_BL", place) == newest), "back": math.log1p(last - place) / 3}
    return found


def hidden_of(events, moments):
    place_L = torch.arange(events.item_BL.shape[1])
    return (place_L > moments.last_BT.unsqueeze(-1)) | (events.item_BL == 0).unsqueeze(1)


@pytest.mark.parametrize("seed", range(4))
def test_each_measure_is_by_definition(seed):
    events = rows(seed)
    moments = moments_of(events, seed + 10)
    hidden = hidden_of(events, moments)
    torch.manual_seed(1)
    habits = Habits(SETTINGS)
    event_BLD, query_BTD = torch.randn(*events.item_BL.shape, 8), torch.randn(*moments.last_BT.shape, 8)
    pairs = [tuple(pair) for pair in (~hidden).nonzero().tolist()]
    assert len(pairs) > 20
    with torch.no_grad():
        habits.joined[-1].weight.zero_()
        for place, name in enumerate(measures(SETTINGS)):
            habits.alone.zero_()[place] = 1.0
            found = habits(events, moments, hidden, event_BLD, query_BTD)
            assert torch.isinf(found[hidden]).all()
            wanted = [told(events, moments, *pair)[name] for pair in pairs]
            np.testing.assert_allclose([found[pair].item() for pair in pairs], wanted, rtol=2e-3, atol=2e-3, err_msg=name)


def test_measures_are_read_together_with_event_and_moment():
    events = rows()
    moments = moments_of(events)
    hidden = hidden_of(events, moments)
    torch.manual_seed(1)
    habits = Habits(SETTINGS)
    event_BLD = torch.randn(*events.item_BL.shape, 8, requires_grad=True)
    query_BTD = torch.randn(*moments.last_BT.shape, 8, requires_grad=True)
    weights = habits(events, moments, hidden, event_BLD, query_BTD)
    weights[~hidden].sum().backward()
    for one in (event_BLD, query_BTD, *habits.parameters()):
        assert torch.isfinite(one.grad).all() and one.grad.abs().sum() > 0
    where = tuple((~hidden).nonzero()[0])
    changed = habits(events, moments, hidden, event_BLD.detach() + torch.eye(8)[0], query_BTD)
    assert changed[where] != weights[where]


@pytest.mark.parametrize(
    "settings", [{"times": False}, {"places": False}, {"repeats": False}, {"times": False, "places": False}]
)
def test_what_a_log_does_not_say_is_not_measured(settings):
    settings = SETTINGS.model_copy(update=settings)
    events = rows()
    moments = moments_of(events)
    query = [torch.zeros(*moments.last_BT.shape, 8)] if settings.times or settings.places else []
    found = Habits(settings)(events, moments, hidden_of(events, moments), torch.zeros(*events.item_BL.shape, 8), *query)
    assert len(measures(settings)) < len(measures(SETTINGS)) and torch.isfinite(found[~hidden_of(events, moments)]).all()
