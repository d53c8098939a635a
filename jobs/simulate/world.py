"""What a simulated world is made from: its size, its seed and the rates of its defects."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import date, timedelta
from enum import IntEnum

import numpy as np

ROWS_PER_FILE = 200_000


class Purpose(IntEnum):
    """Each kind of draw has a stream of its own: a change to one leaves the others alone."""

    ITEMS = 1
    PEOPLE = 2
    LIVES = 3
    DELAYS = 4
    DELAYED_LIVES = 5
    FLAWS = 6
    BOTS = 7
    BOT_DAYS = 8


@dataclass(frozen=True, kw_only=True)
class World:
    """Size and seed of a world; the same values give the same bytes.

    users, items, days: how many; all three at least 1.
    end_day: the last landing day; the first is `days - 1` days earlier.
    events_per_user_day: mean events of a person on a day after they joined; bots come on top. The
    sessions of one person lie 20 minutes apart at least, so of 10 there come 9, of 20 only 16.
    *_rate: shares in [0, 1], of rows; `bot_rate` of users, `late_rate` of people's days (a phone
    that was off line all day sends that day's rows 1..5 days later). Where `bot_rate` is above
    zero there is at least one bot.
    """

    users: int
    items: int
    days: int
    end_day: date
    seed: int
    events_per_user_day: float = 2.5
    duplicate_rate: float = 0.005
    bot_rate: float = 0.005
    position_rate: float = 0.002
    time_rate: float = 0.002
    missing_rate: float = 0.02
    late_rate: float = 0.01
    broken_rate: float = 0.001
    near_duplicate_rate: float = 0.003

    def __post_init__(self) -> None:
        for name in ("users", "items", "days"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: a world needs at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give a whole number from 0")
        if not 0 < self.events_per_user_day <= 100:
            raise ValueError(f"events_per_user_day is {self.events_per_user_day}: give a number above 0, at most 100")
        rates = [field.name for field in fields(self) if field.name.endswith("_rate")]
        for name in rates:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a share from 0 to 1")
        # These six are cut from one draw per row, so that no row has two defects.
        exclusive = self.duplicate_rate + self.position_rate + self.time_rate + self.missing_rate + self.broken_rate
        exclusive += self.near_duplicate_rate
        if exclusive > 1:
            raise ValueError(
                f"duplicate, position, time, missing, broken and near_duplicate rates sum to {exclusive:g}: "
                "a row has one defect at most, so lower them to a sum of 1"
            )
        try:
            self.date_of(0)
        except OverflowError:
            raise ValueError(f"{self.days} days before {self.end_day} is before the calendar begins: lower days") from None

    def date_of(self, day: int) -> date:
        """The calendar date of day number `day`, 0 being the first."""
        return self.end_day - timedelta(days=self.days - 1 - day)

    def epoch_day(self, day: int) -> int:
        """Days from 1970-01-01 to day number `day`."""
        return (self.date_of(day) - date(1970, 1, 1)).days

    @property
    def parts(self) -> int:
        """Event files per landing day. Follows from the world alone, never from the cluster."""
        return max(1, math.ceil(self.users * self.events_per_user_day / ROWS_PER_FILE))

    def users_of(self, part: int) -> tuple[int, int]:
        """First user and the one after the last of the slice whose rows make file `part`."""
        return self.users * part // self.parts, self.users * (part + 1) // self.parts

    def stream(self, purpose: Purpose, *keys: int) -> np.random.Generator:
        """Random numbers that depend on the seed, the purpose and the keys, and on nothing else."""
        return np.random.default_rng([self.seed, int(purpose), *keys])
