"""One UTC day in the lives of some users: sessions, what they act on, and the events of it.

Everything is drawn for a whole day and slice of users at once, so that a landing day can be
written by itself: no row ever has to be moved to another task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jobs.simulate import taxonomy
from jobs.simulate.atlas import (
    CITIES,
    HOTSPOTS,
    SLOTS,
    Flags,
    Floats,
    Ints,
    LocalClock,
    local_clock,
    shifted,
)
from jobs.simulate.catalogue import Catalogue, city_key, district_key
from jobs.simulate.columns import (
    CART,
    CHECK_IN,
    CLICK,
    DAY_MILLIS,
    DEVICES,
    EVENT_TYPES,
    PURCHASE,
    REVIEW,
    SCENES,
    SEARCH,
    VIEW,
    Columns,
    Events,
    begins,
)
from jobs.simulate.people import BURST_STRENGTH, ROUTINE_STRENGTH, WINDOW_DAYS, People
from jobs.simulate.world import World

# Measured; a test holds the mean of events per day that follows from it.
_EVENTS_PER_SESSION = 2.42
# Sessions of one user lie this far apart at least, so that nobody crosses a city in seconds.
_APART_SECONDS = 20 * 60
_FOLLOW_SECONDS = (20 * 60, 45 * 60)
_GAP_MILLIS = (4_000, 75_000)
_JITTER_METRES = 35.0  # north and east each, so 50 m in all
_RECEIVER_METRES = 8.0

# Relative number of sessions per local hour, 0..23: a weekday and a day of the weekend.
_RHYTHM = np.array(
    [
        [1, 0.5, 0.3, 0.2, 0.2, 0.5, 2, 5, 6, 4, 3.5, 4, 6, 5, 3.5, 3.5, 4, 5, 7, 8, 8, 7, 5, 2.5],
        [2.5, 1.8, 1, 0.5, 0.3, 0.3, 0.6, 1, 2.5, 4, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 8, 7.5, 6, 4.5],
    ]
)
# Chances to be at home and at work (else on the way between them), per local hour.
_AT_HOME = np.array(
    [
        [0.98] * 6 + [0.9, 0.55, 0.2] + [0.05] * 8 + [0.3, 0.6, 0.85, 0.9, 0.92, 0.97, 0.98],
        [0.98] * 6 + [0.95] * 4 + [0.75] * 8 + [0.85] * 4 + [0.97] * 2,
    ]
)
_AT_WORK = np.array(
    [
        [0.0] * 7 + [0.05, 0.5] + [0.9] * 8 + [0.4, 0.1, 0.05, 0.0, 0.0, 0.0, 0.0],
        [0.0] * 24,
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sessions(Columns):
    """user: row of People. start: seconds after UTC midnight. item: -1 where still to choose."""

    user: Ints
    start: Floats
    category: Ints
    item: Ints


@dataclass(frozen=True, kw_only=True)
class Today:
    """What all users share on one day. `filled_*`: items there per shelf; `initial_*`: on day 0."""

    day: int
    clock: LocalClock
    demand: Floats
    filled_city: Ints
    initial_city: Ints
    initial_district: Ints

    def hour(self, city: Ints, start: Floats) -> tuple[Ints, Ints, Ints]:
        """Local hour, weekend and slot at `start` seconds after UTC midnight."""
        hour = (start // 3600).astype(np.int64)
        return (
            self.clock.hour[city, hour],
            self.clock.weekend[city, hour],
            self.clock.slot[city, hour],
        )


def today(world: World, catalogue: Catalogue, day: int) -> Today:
    """The clocks, the demand and the shelves of day number `day`."""
    on = world.date_of(day)
    return Today(
        day=day,
        clock=local_clock(on),
        demand=taxonomy.demand(day, on),
        filled_city=catalogue.in_city.filled(day),
        initial_city=catalogue.in_city.filled(0),
        initial_district=catalogue.in_district.filled(0),
    )


def live(
    world: World,
    people: People,
    catalogue: Catalogue,
    day: int,
    users: Ints,
    rng: np.random.Generator,
) -> Events:
    """The events of `users` (rows of People) on day number `day`, by user and time."""
    now = today(world, catalogue, day)
    sessions = _first_sessions(world, people, now, users, rng)
    sessions = _sent_to_hotspots(people, catalogue, now, sessions, rng)
    sessions = _apart(_with_follow_ups(people, now, sessions, rng))
    acts, session = _acts(sessions, rng)
    item = _items(people, catalogue, now, acts, rng)
    at_place = taxonomy.IS_PLACE[acts.category]
    act, kind = np.nonzero(_steps(at_place, begins(session), rng))
    spot = _places(people, now, sessions, rng)
    latitude = np.where(at_place, catalogue.latitude[item], spot[session, 0])[act]
    longitude = np.where(at_place, catalogue.longitude[item], spot[session, 1])[act]
    noise = rng.normal(0, _RECEIVER_METRES, (2, len(act)))
    latitude, longitude = shifted(latitude, longitude, noise[0], noise[1])
    user = acts.user[act]
    origin = world.epoch_day(day)
    is_search = kind == SEARCH
    return Events(
        user=people.first + user,
        item=np.where(is_search, -1, item[act]),
        kind=kind,
        at=origin * DAY_MILLIS + _moments(sessions, session[act], rng),
        latitude=np.round(latitude, 6),
        longitude=np.round(longitude, 6),
        device=_devices(people, sessions, rng)[session][act],
        scene=_scenes(at_place, rng)[act],
        origin=np.full(len(act), origin),
        session=_number_in_day(sessions.user)[session][act],
        rating=np.where(kind == REVIEW, _ratings(people, catalogue, user, item[act], rng), 0),
        topic=_topics(people, user, acts.category[act], rng),
        phrase=rng.integers(0, 1 << 30, len(act)),
    )


def _first_sessions(world: World, people: People, now: Today, users: Ints, rng: np.random.Generator) -> Sessions:
    pace = people.pace[users] * (world.events_per_user_day / _EVENTS_PER_SESSION)
    user = np.repeat(users, rng.poisson(pace))
    city = people.city[user]
    hours = _RHYTHM[now.clock.weekend, now.clock.hour]
    hour = _chosen(hours[city], rng)
    start = (hour + rng.random(len(user))) * 3600.0
    slot = now.hour(city, start)[2]
    category = _chosen(_taste_now(people, now, user, slot) * _wanted(now)[city, slot], rng)
    return Sessions(user=user, start=start, category=category, item=np.full(len(user), -1))


def _wanted(now: Today) -> Floats:
    """Demand per city, slot and category; 0 where the city has no such item from the start."""
    city, category = np.indices((len(CITIES), len(taxonomy.CATEGORIES)))
    there = now.initial_city[city_key(category, city)] > 0
    wanted: Floats = now.demand[None, :, :] * there[:, None, :]
    # So that a slot in which nobody wants what there is still has an answer.
    return wanted + 1e-9 * there[:, None, :]


def _taste_now(people: People, now: Today, user: Ints, slot: Ints) -> Floats:
    """Weights of the users' interests (rows) over categories: lasting, passing and of routine."""
    taste = people.taste[user].astype(np.float64)
    window = now.day // WINDOW_DAYS
    passing = people.burst_category[user, window]
    is_on = (passing >= 0) & (people.burst_start[user, window] <= now.day) & (people.burst_end[user, window] >= now.day)
    rows = np.flatnonzero(is_on)
    taste[rows, passing[rows]] += BURST_STRENGTH
    rows = np.flatnonzero(people.routine_slot[user] == slot)
    taste[rows, people.routine_category[user[rows]]] += ROUTINE_STRENGTH
    return taste


def _chosen(weights: Floats, rng: np.random.Generator) -> Ints:
    """One column per row, with probability in proportion to its weight."""
    upto = np.cumsum(weights, axis=1)
    at = rng.random(len(weights)) * upto[:, -1]
    return (upto <= at[:, None]).sum(axis=1)


def _sent_to_hotspots(
    people: People, catalogue: Catalogue, now: Today, sessions: Sessions, rng: np.random.Generator
) -> Sessions:
    city = people.city[sessions.user]
    slot = now.hour(city, sessions.start)[2]
    category, item = sessions.category.copy(), sessions.item.copy()
    for spot, items in zip(HOTSPOTS, catalogue.hot, strict=True):
        slots = [SLOTS.index(name) for name in spot.slots]
        here = city == [place.name for place in CITIES].index(spot.city)
        visits = here & np.isin(slot, slots) & taxonomy.IS_PLACE[sessions.category]
        goes = np.flatnonzero(visits & (rng.random(len(sessions)) < spot.weight))
        if len(items):
            item[goes] = items[rng.integers(0, len(items), len(goes))]
            category[goes] = catalogue.category[item[goes]]
    return replace(sessions, category=category, item=item)


def _with_follow_ups(people: People, now: Today, sessions: Sessions, rng: np.random.Generator) -> Sessions:
    """Adds the second halves of habits, such as the office after the coffee."""
    follows = taxonomy.LEADS_TO[sessions.category]
    start = sessions.start + rng.uniform(*_FOLLOW_SECONDS, len(sessions))
    city = people.city[sessions.user]
    there = now.initial_city[city_key(np.maximum(follows, 0), city)] > 0
    does = rng.random(len(sessions)) < taxonomy.FOLLOW_PROBABILITY
    rows = np.flatnonzero((follows >= 0) & there & does & (start < 86_400))
    more = Sessions(
        user=sessions.user[rows],
        start=start[rows],
        category=follows[rows],
        item=np.full(len(rows), -1),
    )
    return Sessions.stacked([sessions, more])


def _apart(sessions: Sessions) -> Sessions:
    """By user and time, without those that begin too soon after the one before."""
    ordered = sessions.take(np.lexsort((sessions.start, sessions.user)))
    same_user = ordered.user[1:] == ordered.user[:-1]
    too_soon = same_user & (np.diff(ordered.start) < _APART_SECONDS)
    return ordered.take(np.concatenate([[True], ~too_soon])[: len(ordered)])


def _acts(sessions: Sessions, rng: np.random.Generator) -> tuple[Sessions, Ints]:
    """One row per item acted on, with the row of its session: one visit, or 1..3 goods."""
    at_home = ~taxonomy.IS_PLACE[sessions.category]
    count = 1 + at_home * rng.binomial(2, 0.25, len(sessions))
    session = np.repeat(np.arange(len(sessions)), count)
    return sessions.take(session), session


def _items(people: People, catalogue: Catalogue, now: Today, acts: Sessions, rng: np.random.Generator) -> Ints:
    """Mostly a favourite near home or work; else something near, or anything in the city."""
    city = people.city[acts.user]
    hour, weekend, _ = now.hour(city, acts.start)
    by_work = (weekend == 0) & (hour >= 6) & (hour < 17)
    district = np.where(by_work, people.work_district[acts.user], people.home_district[acts.user])
    wide = city_key(acts.category, city)
    near = district_key(acts.category, city, district)
    is_near = now.initial_district[near] > 0
    choice = rng.random(len(acts))
    loyal = choice < np.where(taxonomy.IS_PLACE[acts.category], 0.65, 0.45)
    second = (rng.random(len(acts)) < 0.3).astype(np.int64)
    favourite = people.favourite[acts.user, acts.category, second].astype(np.float64)
    # Squared, so that items differ in popularity.
    share = np.where(loyal, favourite**1.5, rng.random(len(acts)) ** 2)
    from_near = is_near & (choice < 0.85)
    nearby = catalogue.in_district.item(np.where(from_near, near, 0), np.where(from_near, now.initial_district[near], 0), share)
    filled = np.where(loyal, now.initial_city[wide], now.filled_city[wide])
    anywhere = catalogue.in_city.item(wide, filled, share)
    chosen = np.where(from_near, nearby, anywhere)
    return np.where(acts.item >= 0, acts.item, chosen)


def _steps(at_place: Flags, first_act: Flags, rng: np.random.Generator) -> Flags:
    """Which event types (columns) an act (row) goes through, in their order in time."""
    draw = rng.random((len(at_place), len(EVENT_TYPES)))
    steps = np.zeros(draw.shape, dtype=np.bool_)
    steps[:, SEARCH] = ~at_place & first_act & (draw[:, SEARCH] < 0.18)
    steps[:, VIEW] = ~at_place | (draw[:, VIEW] < 0.4)
    steps[:, CHECK_IN] = at_place
    steps[:, CLICK] = ~at_place & (draw[:, CLICK] < 0.5)
    steps[:, CART] = steps[:, CLICK] & (draw[:, CART] < 0.4)
    steps[:, PURCHASE] = np.where(at_place, draw[:, PURCHASE] < 0.3, steps[:, CART] & (draw[:, PURCHASE] < 0.5))
    writes = np.where(at_place, 0.1, 0.4 * steps[:, PURCHASE])
    steps[:, REVIEW] = draw[:, REVIEW] < writes
    return steps


def _places(people: People, now: Today, sessions: Sessions, rng: np.random.Generator) -> Floats:
    """Where the users are who are not at an item's place: at home, at work or on the way."""
    hour, weekend, _ = now.hour(people.city[sessions.user], sessions.start)
    draw = rng.random(len(sessions))
    at_home = draw < _AT_HOME[weekend, hour]
    at_work = ~at_home & (draw < (_AT_HOME + _AT_WORK)[weekend, hour])
    on_way = rng.uniform(0.1, 0.9, len(sessions))
    share = np.where(at_home, 0.0, np.where(at_work, 1.0, on_way))[:, None]
    home, work = people.home[sessions.user], people.work[sessions.user]
    spot = home + share * (work - home)
    jitter = rng.normal(0, _JITTER_METRES, (2, len(sessions)))
    return np.stack(shifted(spot[:, 0], spot[:, 1], jitter[0], jitter[1]), axis=1)


def _moments(sessions: Sessions, session: Ints, rng: np.random.Generator) -> Ints:
    """Milliseconds after UTC midnight per event; `session` is its row, in order."""
    gap = rng.integers(*_GAP_MILLIS, len(session))
    first = begins(session)
    passed = np.cumsum(np.where(first, 0, gap))
    begin = np.flatnonzero(first)
    number = np.cumsum(first) - 1
    since = passed - passed[begin[number]]
    start = (sessions.start[session] * 1000).astype(np.int64)
    # A session that would run past midnight begins sooner: a landing day holds its own date.
    length = np.maximum.reduceat(since, begin)[number] if len(begin) else since
    return np.minimum(start, DAY_MILLIS - 1 - length) + since


def _number_in_day(user: Ints) -> Ints:
    """0, 1, 2.. within each run of the same user."""
    first = begins(user)
    begin = np.flatnonzero(first)
    return np.arange(len(user)) - begin[np.cumsum(first) - 1]


def _devices(people: People, sessions: Sessions, rng: np.random.Generator) -> Ints:
    other = (rng.random(len(sessions)) < 0.2) * rng.integers(1, len(DEVICES), len(sessions))
    return (people.device[sessions.user] + other) % len(DEVICES)


def _scenes(at_place: Flags, rng: np.random.Generator) -> Ints:
    cuts = np.where(at_place[:, None], [[0.25, 0.35, 0.9]], [[0.55, 0.85, 0.9]])
    drawn: Ints = (rng.random(len(at_place))[:, None] >= cuts).sum(axis=1)
    assert cuts.shape[1] == len(SCENES) - 1
    return drawn


def _ratings(people: People, catalogue: Catalogue, user: Ints, item: Ints, rng: np.random.Generator) -> Ints:
    felt = catalogue.quality[item] + people.leniency[user] + rng.normal(0, 0.6, len(item))
    return np.clip(np.round(felt), 1, 5).astype(np.int64)


def _topics(people: People, user: Ints, category: Ints, rng: np.random.Generator) -> Ints:
    """Searches are about what the session is about, or about a lasting interest."""
    lasting = people.interests[user, rng.integers(0, 2, len(user))]
    return np.where(rng.random(len(user)) < 0.4, lasting, category)


def bots_live(world: World, people: People, catalogue: Catalogue, day: int, rng: np.random.Generator) -> Events:
    """The events of bots on day number `day`: hundreds in a row at an even pace, from one spot."""
    users = np.flatnonzero(people.is_bot & (people.joined <= day))
    count = np.where(rng.random(len(users)) < 0.4, rng.integers(60, 161, len(users)), 0)
    user = np.repeat(users, count)
    number = _number_in_day(user)
    period = np.repeat(rng.integers(15_000, 30_000, len(users)), count)
    start = np.repeat(rng.integers(0, DAY_MILLIS - 161 * 30_000, len(users)), count)
    goods = np.flatnonzero((catalogue.city < 0) & (catalogue.first_day == 0))
    item = goods[(np.repeat(rng.integers(0, len(goods), len(users)), count) + number) % len(goods)]
    origin = world.epoch_day(day)
    zeros = np.zeros(len(user), dtype=np.int64)
    return Events(
        user=people.first + user,
        item=item,
        kind=np.where(number % 3 == 2, CLICK, VIEW),
        at=origin * DAY_MILLIS + start + number * period,
        latitude=people.home[user, 0],
        longitude=people.home[user, 1],
        device=zeros + DEVICES.index("web"),
        scene=zeros + SCENES.index("feed"),
        origin=zeros + origin,
        session=zeros,
        rating=zeros,
        topic=zeros,
        phrase=zeros,
    )
