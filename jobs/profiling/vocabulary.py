"""The words that logs use: for columns, for types of events, for what is personal."""

from __future__ import annotations

import re
from pathlib import Path

# Our name -> words in the names of columns that mean it, the surest first.
MEANINGS = {
    ours: tuple(words.split())
    for ours, words in {
        "user_id": """user uid userid member memberid customer cust custid client visitor visitorid account reviewer
            reviewerid buyer person subscriber player cookie consumer passenger guest""",
        "item_id": """item itemid iid product productid prod sku asin movie film venue poi place location song track video
            vid article news business listing book isbn goods app game restaurant hotel shop store artist photo show
            episode course recipe ad parent""",
        "event_type": "event action behavior behaviour activity verb type kind interaction",
        "event_time": "timestamp time datetime date ts at when created createdat occurred utc eventtime unix epoch",
        "latitude": "latitude lat",
        "longitude": "longitude lon lng long",
        "category": "category categories cat genre genres department class topic cuisine",
        "device": "device platform os browser",
        "scene": "scene page screen surface channel",
        "session_id": "session sessionid sid visit visitid",
        "value": "rating stars score value price amount quantity qty duration spend revenue total watchtime dwell",
        "text": "text review comment body message content description excerpt summary title query",
        "ip": "ip ipaddress",
    }.items()
}
ITEM_MEANINGS = {
    "title": ("title", "name"),
    "description": ("description", "summary", "about", "text", "overview"),
    "category": MEANINGS["category"],
    "brand": ("brand", "maker", "manufacturer", "vendor"),
    "price": ("price", "cost"),
    "latitude": MEANINGS["latitude"],
    "longitude": MEANINGS["longitude"],
    "tags": ("tags", "keywords", "genres", "categories"),
}
# A name with such a word means something about the thing, not the thing.
ABOUT = frozenset(
    """name title first last email phone gender age birth country zip count num number flag url image lang language
    year""".split()  # noqa: SIM905
)
ORDER = frozenset(("position", "pos", "order", "seq", "sequence", "index", "idx", "rank", "step"))
PERSONAL = frozenset(
    """email mail phone mobile address ip user uid member customer client visitor cookie firstname lastname surname birth
    birthday zip postcode ssn passport""".split()  # noqa: SIM905
)
_TYPES = {
    "view": "view pv pageview page_view detail seen visit visited product_view item_view viewed",
    "click": "click clicks clicked clk tap tapped",
    "cart": "cart add_to_cart addtocart basket add carted",
    "purchase": "purchase purchases buy bought order orders ordered purchased sale sales checkout paid conversion",
    "check_in": "check_in checkin checkins check_ins",
    "rating": "rating ratings rate rated",
    "review": "review reviews reviewed",
    "search": "search searches searched query",
    "like": "like liked likes fav favorite favourite upvote thumbs_up",
    "dislike": "dislike disliked downvote thumbs_down",
    "comment": "comment commented comments",
    "share": "share shared forward repost retweet",
    "follow": "follow followed subscribe",
    "play": "play played plays listen listened listens stream watch watched scrobble scrobbles",
    "transaction": "transaction transactions txn payment payments",
    "impression": "impression impressions exposure exposed show shown",
    "dismiss": "dismiss dismissed hide hidden skip skipped",
}
_KNOWN_AS = {theirs: ours for ours, words in _TYPES.items() for theirs in words.split()}


def words_of(name: str) -> list[str]:
    """The words of a column's name, lower case.

    >>> words_of("parentAsin"), words_of("user_id:token"), words_of("EventTimestamp")
    (['parent', 'asin'], ['user', 'id', 'token'], ['event', 'timestamp'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W_A-Za-z\d]+", name)]


def event_type_of(word: str) -> str | None:
    """Our name of an event type that a log calls so; None where it is none that we know.

    >>> event_type_of("AddToCart"), event_type_of("pv"), event_type_of("3")
    ('cart', 'view', None)
    """
    words = words_of(word) or [word.strip().lower()]
    return _KNOWN_AS.get("_".join(words)) or _KNOWN_AS.get("".join(words))


def event_type_of_file(path: Path) -> str | None:
    """The event type that a file's name tells (checkins.csv.gz, reviews.parquet)."""
    return next((found for word in words_of(path.name.split(".")[0]) if (found := event_type_of(word)) is not None), None)
