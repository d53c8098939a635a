"""The words that people write: reviews whose mood agrees with the rating, and searches.

Texts are put together from small lists by number, column by column, never row by row.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from jobs.simulate import taxonomy
from jobs.simulate.atlas import CITIES, Ints

BRANDS = (
    "Nordvik",
    "Halcyon",
    "Brightleaf",
    "Café Lumière",
    "Juniper & Sons",
    "Marlowe",
    "Kestrel",
    "Oakline",
    "Solvang",
    "Tidewater",
    "Verano",
    "Wrenfield",
    "Ashgrove",
    "Bellweather",
    "Corvid",
    "Dunmore",
    "Everly",
    "Foxglove",
    "Grünwald",
    "Harrow",
    "Ironbark",
    "Larkspur",
    "Maplehurst",
    "Northgate",
    "Old Mill",
    "Pemberton",
    "Quillon",
    "Rosewood",
    "Stellan",
    "Thornbury",
)

# Each mood: words before the brand, between brand and noun, after the noun.
_PRAISE = (
    ("Absolutely loved ", "So happy with ", "I can warmly recommend ", "Another great day with "),
    (": the ", ". The ", " - their ", ", because the "),
    (" was perfect.", " made my day, I will be back.", " was excellent.", " is the best in town."),
)
_SHRUG = (
    ("Tried ", "Second time with ", "An average day with ", "Not sure what to think of "),
    (": the ", ". The ", " - their ", ", since the "),
    (" was okay.", " was neither good nor bad.", " was fine, nothing special.", " did the job."),
)
_BLAME = (
    ("Very disappointed by ", "I regret choosing ", "I will never go back to ", "A terrible time with "),
    (": the ", ". Sadly the ", " - their ", ", because the "),
    (
        " was awful.",
        ' was bad, and nobody said "sorry".',
        " was a waste of money.",
        " was the worst I have seen.",
    ),
)
_MOODS = (_BLAME, _SHRUG, _PRAISE)

_WISHES = ("best ", "cheap ", "", "good ")
_NEAR = ("", " near me", " open now", " in {city}")


def review_texts(rating: Ints, brand: Ints, category: Ints, phrase: Ints) -> pa.StringArray:
    """One English review a row: good from rating 4, bad up to 2; brand and a noun are in it."""
    mood = (rating >= 3).astype(int) + (rating >= 4)
    options = len(_PRAISE[0])
    before, between, after = (pa.array([words for part in _MOODS for words in part[position]]) for position in range(3))
    return pc.binary_join_element_wise(
        _taken(before, mood * options + phrase % options),
        _taken(pa.array(BRANDS), brand),
        _taken(between, mood * options + phrase // 7 % options),
        _noun(category, phrase),
        _taken(after, mood * options + phrase // 53 % options),
        "",
    )


def search_texts(category: Ints, city: Ints, phrase: Ints) -> pa.StringArray:
    """What is typed to find something of a category; places are sought near or in a city."""
    endings = pa.array([ending.format(city=place.name) for place in CITIES for ending in _NEAR])
    near = taxonomy.IS_PLACE[category] * (phrase // 7 % len(_NEAR))
    return pc.binary_join_element_wise(
        _taken(pa.array(_WISHES), phrase // 53 % len(_WISHES)),
        _noun(category, phrase),
        _taken(endings, city * len(_NEAR) + near),
        "",
    )


def _noun(category: Ints, phrase: Ints) -> pa.StringArray:
    nouns = [noun for entry in taxonomy.CATEGORIES for noun in entry.nouns]
    per_category = len(taxonomy.CATEGORIES[0].nouns)
    return _taken(pa.array(nouns), category * per_category + phrase // 311 % per_category)


def _taken(words: pa.StringArray, index: Ints) -> pa.StringArray:
    return words.take(pa.array(index, type=pa.int64()))
