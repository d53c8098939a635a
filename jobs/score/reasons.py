"""Why an item is on a list, in words that can be checked against `user_sequences` and `items`.

Every sentence states one fact about the past of the user it is for, or a public count: the user's
own events with this very item; with its category in the slot and near the place of the query; with
its category in the slot; with its category at all; how many users chose it. The first that holds
is told. Only target events count, and of each user only those kept in `user_sequences`.

Shape suffixes: U users, S the slots with `any` last, E events, C list entries, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conf.contracts import SLOTS

ANY = len(SLOTS)  # slot code of `any`; the others are their position in SLOTS
NEAR_M = 500.0
MIXED = -1  # events of more than one type
NO_DATE = np.iinfo(np.int32).min
_EARTH_M = 6_371_008.8
_NAME_LENGTH = 80


@dataclass(frozen=True, kw_only=True)
class Past:
    """Target events of U users. Codes: user 0..U-1, item and category -1 = none, slot -1 = no time."""

    user_E: np.ndarray
    item_E: np.ndarray
    category_E: np.ndarray
    slot_E: np.ndarray
    type_E: np.ndarray  # position in the mapping's target events
    date_E: np.ndarray  # local date, days since 1970; NO_DATE where unknown
    latitude_E: np.ndarray
    longitude_E: np.ndarray
    kept_U: np.ndarray  # events kept of the user, where older ones were cut off; 0 where none were


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where each user was taken to be, per slot; NaN where unknown."""

    latitude_US: np.ndarray
    longitude_US: np.ndarray
    is_main_US: np.ndarray  # the user's main place of the slot, else the last known


@dataclass(frozen=True, kw_only=True)
class Entries:
    """List entries; item and category are codes as in `Past`."""

    user_C: np.ndarray
    slot_C: np.ndarray
    item_C: np.ndarray
    category_C: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Names:
    """What codes are called, and the public counts. `kept` as in `Past.kept_U`, of those who chose."""

    titles: list[str | None]  # by item code
    items: list[str]  # by item code
    categories: list[str]  # by category code
    types: tuple[str, ...]
    chosen_by: np.ndarray  # users by item code
    kept: int


@dataclass(frozen=True, kw_only=True)
class Words:
    """How one speaks of events of a type: you VERB it; NOUN(S) PREPOSITION its category."""

    verb: str
    noun: str
    nouns: str
    preposition: str = "in"


_CHOSE = Words(verb="chose", noun="choice", nouns="choices")
_WORDS = {
    "check_in": Words(verb="visited", noun="visit", nouns="visits", preposition="to"),
    "purchase": Words(verb="bought", noun="purchase", nouns="purchases"),
    "transaction": Words(verb="paid for", noun="transaction", nouns="transactions"),
    "rating": Words(verb="rated", noun="rating", nouns="ratings"),
    "review": Words(verb="reviewed", noun="review", nouns="reviews"),
    "view": Words(verb="viewed", noun="view", nouns="views"),
    "click": Words(verb="clicked", noun="click", nouns="clicks", preposition="on"),
    "play": Words(verb="played", noun="play", nouns="plays"),
    "like": Words(verb="liked", noun="like", nouns="likes"),
    "share": Words(verb="shared", noun="share", nouns="shares"),
    "follow": Words(verb="followed", noun="follow", nouns="follows"),
    "comment": Words(verb="commented on", noun="comment", nouns="comments"),
    "search": Words(verb="searched for", noun="search", nouns="searches"),
}


def words_for(types: tuple[str, ...], code: int) -> Words:
    """The words for events of one type; those for any choice where the types are mixed or unknown."""
    return _CHOSE if code == MIXED else _WORDS.get(types[code], _CHOSE)


class Groups:
    """Events grouped by a key: how many, of which one type (else MIXED), and the newest date."""

    def __init__(self, key_E: np.ndarray, type_E: np.ndarray, date_E: np.ndarray) -> None:
        order = np.argsort(key_E, kind="stable")
        sorted_E = key_E[order]
        start_G = np.flatnonzero(np.concatenate(([True], sorted_E[1:] != sorted_E[:-1]))) if len(order) else order
        self.key_G = sorted_E[start_G]
        self.count_G = np.diff(np.append(start_G, len(order)))
        if len(order):
            lowest_G = np.minimum.reduceat(type_E[order], start_G)
            self.type_G = np.where(lowest_G == np.maximum.reduceat(type_E[order], start_G), lowest_G, MIXED)
            self.date_G = np.maximum.reduceat(date_E[order], start_G)

    def of(self, key_C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, type and newest date of each key; count 0 where no event has it."""
        if len(self.key_G) == 0:
            return tuple(np.full(len(key_C), absent) for absent in (0, MIXED, NO_DATE))  # type: ignore[return-value]
        place_C = np.minimum(np.searchsorted(self.key_G, key_C), len(self.key_G) - 1)
        has_C = self.key_G[place_C] == key_C
        return (
            np.where(has_C, self.count_G[place_C], 0),
            np.where(has_C, self.type_G[place_C], MIXED),
            np.where(has_C, self.date_G[place_C], NO_DATE),
        )


def reasons(past: Past, places: Places, entries: Entries, names: Names) -> list[str]:
    """The reason of each list entry."""
    facts = _facts(past, places, entries)
    said: dict[tuple[int, ...], str] = {}
    sentences = []
    for fact in zip(*(values.tolist() for values in facts), strict=True):
        if fact not in said:
            said[fact] = _sentence(fact, names)
        sentences.append(said[fact])
    return sentences


# A fact: what kind, about which code, in which slot, from where, and its numbers.
_OWN, _NEAR_MAIN, _NEAR_LAST, _CATEGORY, _PUBLIC = range(5)


def _facts(past: Past, places: Places, entries: Entries) -> tuple[np.ndarray, ...]:
    """Of each entry the best fact: kind, item or category code, slot, count, count in the slot, type, date, kept events."""
    # Every event counts for its own slot and for `any`.
    timed = np.flatnonzero(past.slot_E >= 0)
    event = np.concatenate((np.arange(len(past.user_E)), timed))
    slot = np.concatenate((np.full(len(past.user_E), ANY), past.slot_E[timed]))
    user, date, kind_of = past.user_E[event], past.date_E[event], past.type_E[event]

    def key(user_of: np.ndarray, code: np.ndarray, slot_of: np.ndarray) -> np.ndarray:
        return (code.astype(np.int64) * (ANY + 1) + slot_of) * len(past.kept_U) + user_of

    def groups(code: np.ndarray, of: np.ndarray) -> Groups:
        return Groups(key(user[of], code[event][of], slot[of]), kind_of[of], date[of])

    metres = distance_m(
        past.latitude_E[event], past.longitude_E[event], places.latitude_US[user, slot], places.longitude_US[user, slot]
    )
    has_item, has_category = (past.item_E >= 0)[event], (past.category_E >= 0)[event]
    by_item, by_category = groups(past.item_E, has_item), groups(past.category_E, has_category)
    by_place = groups(past.category_E, has_category & (metres <= NEAR_M))

    any_C = np.full(len(entries.slot_C), ANY)
    item_key_C = key(entries.user_C, entries.item_C, entries.slot_C)
    category_key_C = key(entries.user_C, entries.category_C, entries.slot_C)
    own_C, own_type_C, own_date_C = by_item.of(key(entries.user_C, entries.item_C, any_C))
    own_in_slot_C = np.where(entries.slot_C == ANY, 0, by_item.of(item_key_C)[0])
    near_C, near_type_C, _ = by_place.of(category_key_C)
    in_slot_C, in_slot_type_C, _ = by_category.of(category_key_C)
    overall_C, overall_type_C, _ = by_category.of(key(entries.user_C, entries.category_C, any_C))

    known_C = entries.category_C >= 0
    is_main_C = places.is_main_US[entries.user_C, entries.slot_C]
    holds = [own_C > 0, known_C & (near_C > 1), known_C & (in_slot_C > 1), known_C & (overall_C > 0)]
    near_kind_C = np.where(is_main_C, _NEAR_MAIN, _NEAR_LAST)
    zero_C = np.zeros_like(any_C)

    def pick(*values: np.ndarray | int, otherwise: np.ndarray | int) -> np.ndarray:
        spread = [np.broadcast_to(np.asarray(value), any_C.shape) for value in values]
        return np.select(holds, spread, otherwise)

    return (
        pick(_OWN, near_kind_C, _CATEGORY, _CATEGORY, otherwise=_PUBLIC),
        pick(entries.item_C, entries.category_C, entries.category_C, entries.category_C, otherwise=entries.item_C),
        # Where no sentence names the slot, equal facts of several slots are one sentence.
        pick(np.where(own_in_slot_C > 0, entries.slot_C, ANY), entries.slot_C, entries.slot_C, ANY, otherwise=ANY),
        pick(own_C, near_C, in_slot_C, overall_C, otherwise=zero_C),
        pick(own_in_slot_C, 0, 0, 0, otherwise=zero_C),
        pick(own_type_C, near_type_C, in_slot_type_C, overall_type_C, otherwise=MIXED),
        pick(own_date_C, NO_DATE, NO_DATE, NO_DATE, otherwise=NO_DATE),
        pick(*[past.kept_U[entries.user_C]] * 4, otherwise=zero_C),
        # An item's own category, for items without a title.
        np.where(own_C > 0, entries.category_C, -1),
    )


def distance_m(latitude: np.ndarray, longitude: np.ndarray, to_latitude: np.ndarray, to_longitude: np.ndarray) -> np.ndarray:
    """Great-circle distance in metres (haversine); NaN where a position is unknown."""
    phi, to_phi = np.radians(latitude), np.radians(to_latitude)
    half = np.sin((to_phi - phi) / 2) ** 2
    half = half + np.cos(phi) * np.cos(to_phi) * np.sin(np.radians(to_longitude - longitude) / 2) ** 2
    return 2 * _EARTH_M * np.arcsin(np.sqrt(np.minimum(half, 1.0)))


def _sentence(fact: tuple[int, ...], names: Names) -> str:
    kind, code, slot, count, in_slot, type_code, date, kept, category = fact
    words = words_for(names.types, type_code)
    if kind == _PUBLIC:
        return _public(names, code)
    tail = f", among your last {kept} events" if kept else ""
    if kind == _OWN:
        return _own(words, _name(names, code, category), slot, (count, in_slot, date)) + tail
    adjective = "" if slot == ANY else SLOTS[slot].replace("_", "-") + " "
    noun = words.noun if count == 1 else words.nouns
    said = f"{count} {adjective}{noun} {words.preposition} {_clean(names.categories[code])}"
    if kind == _NEAR_MAIN:
        said += f" within {NEAR_M:.0f} m of your main place then"
    elif kind == _NEAR_LAST:
        said += f" within {NEAR_M:.0f} m of where you were last"
    return said + tail


def _own(words: Words, name: str, slot: int, numbers: tuple[int, int, int]) -> str:
    count, in_slot, date = numbers
    part = "" if slot == ANY else SLOTS[slot].replace("_", " ")
    on = "" if date == NO_DATE else f"on {np.datetime64(date, 'D')}"
    if count == 1:
        when = ", ".join(filter(None, [on, f"a {part}" if part else ""]))
        return f"you {words.verb} {name} once" + (f", {when}" if when else "")
    times = "twice" if count == 2 else f"{count} times"
    share = ("all" if in_slot == count else f"{in_slot} of them") + f" on {part}s" if part else ""
    return ", ".join(filter(None, [f"you {words.verb} {name} {times}", share, f"last {on}" if on else ""]))


def _public(names: Names, item: int) -> str:
    users = int(names.chosen_by[item])
    if users == 0:
        return (
            f"new: not among the last {names.kept} events of any user" if names.kept else "new: not chosen by any user so far"
        )
    words = words_for(names.types, 0 if len(names.types) == 1 else MIXED)
    verb = "chosen" if words is _CHOSE else words.verb
    counted = f" (last {names.kept} events of each)" if names.kept else ""
    return f"{verb} by {_counted(users)}{counted}"


def rounded(users_N: np.ndarray) -> np.ndarray:
    """Counts as they are told, exact up to 99, then two digits: one more user in a thousand changes nobody's list.

    >>> rounded(np.array([0, 7, 99, 100, 1299])).tolist()
    [0, 7, 99, 100, 1200]
    """
    unit_N = 10 ** np.maximum(np.floor(np.log10(np.maximum(users_N, 1))).astype(np.int64) - 1, 0)
    return np.asarray(users_N // unit_N * unit_N)


def _counted(users: int) -> str:
    if users < 100:
        return f"{users} user{'' if users == 1 else 's'}"
    return f"at least {int(rounded(np.array([users]))[0])} users"


def _name(names: Names, item: int, category: int) -> str:
    if title := _clean(names.titles[item] or ""):
        return title
    return f"this {_clean(names.categories[category])}" if category >= 0 else f"item {names.items[item]}"


def _clean(text: str) -> str:
    """On one line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _NAME_LENGTH else line[: _NAME_LENGTH - 1] + "…"
