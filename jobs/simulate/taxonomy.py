"""The categories: when people want them, how that changes over weeks and years, and their words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from jobs.simulate.atlas import Floats


@dataclass(frozen=True, kw_only=True)
class Category:
    """One category of items.

    slots: relative demand in the order of `conf.contracts.SLOTS` (weekday night, morning,
    afternoon, evening, then the weekend's).
    trend_per_day: change of the logarithm of demand per day.
    weekly, annual: (relative amplitude, weekday or day of the year of the peak); Monday is 0.
    price: median, in the city's currency.
    is_place: one goes there; other items are sought from where one is.
    leads_to: the category that a visit here is often followed by, within the hour.
    """

    name: str
    nouns: tuple[str, str, str]
    slots: tuple[float, ...]
    price: float
    popularity: float = 1.0
    trend_per_day: float = 0.0
    weekly: tuple[float, int] = (0.0, 0)
    annual: tuple[float, int] = (0.0, 1)
    is_place: bool = True
    leads_to: str | None = None


_HOME = (2.6, 0.5, 0.6, 1.3, 2.6, 0.7, 0.8, 1.2)


def _goods(
    name: str,
    nouns: tuple[str, str, str],
    price: float,
    *,
    trend_per_day: float = 0.0,
    weekly: tuple[float, int] = (0.0, 0),
    annual: tuple[float, int] = (0.0, 1),
) -> Category:
    return Category(
        name=name,
        nouns=nouns,
        slots=_HOME,
        price=price,
        trend_per_day=trend_per_day,
        weekly=weekly,
        annual=annual,
        is_place=False,
    )


CATEGORIES = (
    # Goods come first: the smallest of worlds, with one item, then has it in every city.
    _goods("Books", ("novel", "paperback", "cookbook"), 15, annual=(0.3, 350)),
    Category(
        name="Coffee Shop",
        nouns=("espresso", "flat white", "barista"),
        slots=(0.0, 7.0, 1.2, 0.1, 0.0, 2.0, 1.5, 0.1),
        price=4,
        popularity=1.2,
        leads_to="Office",
    ),
    Category(
        name="Office",
        nouns=("meeting room", "desk", "reception"),
        slots=(0.0, 2.2, 1.2, 0.1, 0.0, 0.1, 0.1, 0.0),
        price=25,
        popularity=0.8,
    ),
    Category(
        name="Restaurant",
        nouns=("pasta", "tasting menu", "service"),
        slots=(0.05, 0.1, 1.8, 2.6, 0.1, 0.5, 1.8, 3.0),
        price=35,
        weekly=(0.25, 5),
        leads_to="Bar",
    ),
    _goods("Electronics", ("headphones", "charger", "keyboard"), 90, annual=(0.4, 335)),
    Category(
        name="Bar",
        nouns=("cocktail", "craft beer", "bartender"),
        slots=(0.1, 0.0, 0.05, 1.2, 0.5, 0.0, 0.2, 6.0),
        price=11,
        popularity=1.1,
        weekly=(0.3, 5),
    ),
    Category(
        name="Gym",
        nouns=("weights", "yoga class", "trainer"),
        slots=(0.02, 1.5, 0.4, 2.2, 0.02, 1.5, 0.8, 0.4),
        price=30,
        trend_per_day=0.004,
        weekly=(0.2, 0),
        annual=(0.4, 15),
        leads_to="Supermarket",
    ),
    _goods("Running Shoes", ("running shoes", "trail shoes", "insoles"), 110, trend_per_day=0.003),
    Category(
        name="Bakery",
        nouns=("sourdough", "croissant", "cinnamon roll"),
        slots=(0.0, 2.0, 0.8, 0.1, 0.0, 2.8, 0.8, 0.1),
        price=5,
    ),
    Category(
        name="Park",
        nouns=("lawn", "playground", "running path"),
        slots=(0.0, 0.6, 0.8, 0.7, 0.0, 1.6, 2.6, 0.8),
        price=0,
        weekly=(0.3, 6),
        annual=(0.6, 196),
    ),
    _goods("Clothing", ("jacket", "jeans", "sweater"), 60, weekly=(0.2, 6)),
    Category(
        name="Supermarket",
        nouns=("vegetables", "checkout", "cheese counter"),
        slots=(0.02, 0.6, 1.0, 1.8, 0.02, 1.2, 1.6, 0.6),
        price=40,
        popularity=1.2,
    ),
    Category(
        name="Fast Food",
        nouns=("burger", "fries", "chicken wrap"),
        slots=(0.1, 0.2, 1.8, 1.0, 0.15, 0.2, 1.4, 1.0),
        price=12,
        trend_per_day=-0.003,
    ),
    _goods("Home Decor", ("table lamp", "rug", "armchair"), 80, weekly=(0.3, 6)),
    Category(
        name="Cinema",
        nouns=("screen", "popcorn", "late show"),
        slots=(0.05, 0.0, 0.3, 1.2, 0.1, 0.1, 1.0, 2.2),
        price=14,
        annual=(0.3, 15),
        leads_to="Fast Food",
    ),
    Category(
        name="Museum",
        nouns=("exhibition", "guided tour", "gallery"),
        slots=(0.0, 0.3, 0.7, 0.1, 0.0, 1.4, 2.2, 0.1),
        price=18,
        leads_to="Coffee Shop",
    ),
    _goods("Video Games", ("console", "puzzle game", "controller"), 50, trend_per_day=0.004),
    Category(
        name="Music Venue",
        nouns=("sound", "live band", "stage"),
        slots=(0.1, 0.0, 0.0, 0.9, 0.5, 0.0, 0.2, 2.4),
        price=28,
        trend_per_day=-0.004,
        weekly=(0.3, 4),
    ),
    Category(
        name="Library",
        nouns=("reading room", "study desk", "archive"),
        slots=(0.0, 0.7, 1.2, 0.4, 0.0, 0.5, 0.8, 0.1),
        price=0,
        popularity=0.7,
    ),
    _goods("Toys", ("building blocks", "puzzle", "plush bear"), 25, annual=(0.6, 345)),
    Category(
        name="Train Station",
        nouns=("platform", "ticket desk", "departure board"),
        slots=(0.05, 1.8, 0.6, 0.9, 0.05, 0.5, 0.6, 0.5),
        price=6,
        popularity=0.9,
    ),
    Category(
        name="Farmers Market",
        nouns=("cheese stall", "honey", "apples"),
        slots=(0.0, 0.2, 0.2, 0.0, 0.0, 3.2, 1.6, 0.0),
        price=20,
        popularity=0.8,
        annual=(0.5, 225),
    ),
    Category(
        name="Beauty Salon",
        nouns=("haircut", "manicure", "stylist"),
        slots=(0.0, 0.3, 0.9, 0.6, 0.0, 0.8, 1.2, 0.1),
        price=55,
        popularity=0.8,
    ),
    _goods("Cosmetics", ("moisturiser", "lipstick", "sunscreen"), 22, trend_per_day=-0.003),
)

NAMES = tuple(category.name for category in CATEGORIES)
IS_PLACE = np.array([category.is_place for category in CATEGORIES])
LEADS_TO = np.array([NAMES.index(category.leads_to) if category.leads_to else -1 for category in CATEGORIES])
FOLLOW_PROBABILITY = 0.45


def season(day: int, on: date) -> Floats:
    """Demand per category on day number `day`, relative to the first day's mean level.

    Trend x weekly wave x annual wave, each as the truth table `categories` states it.
    """
    trend = np.exp(day * np.array([category.trend_per_day for category in CATEGORIES]))
    return (
        trend
        * _wave([category.weekly for category in CATEGORIES], on.weekday(), 7.0)
        * _wave([category.annual for category in CATEGORIES], on.timetuple().tm_yday, 365.25)
    )


def _wave(waves: list[tuple[float, int]], position: int, period: float) -> Floats:
    amplitude = np.array([wave[0] for wave in waves])
    peak = np.array([wave[1] for wave in waves], dtype=np.float64)
    wave: Floats = 1 + amplitude * np.cos(2 * np.pi * (position - peak) / period)
    return wave


def demand(day: int, on: date) -> Floats:
    """Demand per slot (rows, as in SLOTS) and category (columns) on one day."""
    slots = np.array([category.slots for category in CATEGORIES]).T
    popularity = np.array([category.popularity for category in CATEGORIES])
    wanted: Floats = slots * popularity * season(day, on)
    return wanted
