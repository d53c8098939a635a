"""Texts, labels and interests."""

from __future__ import annotations

from conf.contracts import column, fact, snapshot, state
from conf.tables.columns import UNIT_INTERVAL, item, user

TEXT = (
    state(
        "text_semantics",
        "One row per distinct text: its sentence vector, what it is about, how its writer feels.",
        column("text_hash", "string", "hash of the normalised text", nullable=False),
        column("text", "string", "the text, white space as single spaces, cut to 2,000 characters", personal=True),
        column(
            "vector",
            "array<float>",
            "sentence vector of unit length, to 1e-5 (rounding moves with the batch); null: no letters or digits",
            tolerance=1e-5,
        ),
        column(
            "encoder",
            "string",
            "encoder NAME@HASH of its weights/tokens read at most, and /bf16 where products were; ngrams@1/... where it knows "
            "too few of the words and the vector is of characters. Vectors of two encoders do not compare",
            nullable=False,
        ),
        column("language", "string", "en, zh or other; none: no letters. Up to three words in Latin letters count as English"),
        column(
            "keywords",
            "array<string>",
            "what it is about: at most 8 words or phrases, the best first; null: its words do not stand apart (as in Thai)",
            personal=True,
        ),
        column(
            "sentiment",
            "double",
            "-1 (bad) to 1 (good); null: no word of feeling, or language other, and no fit that knows better",
            margin=2e-3,
        ),
        column("sentiment_confidence", "double", "how likely that side is right, were bad texts as many as good", margin=1e-3),
        column(
            "sentiment_by",
            "string",
            "vader; lexicon (a small one of Chinese); learned@DAY: the fit of that day in sentiment_models",
        ),
        column("topic", "string", "name of the nearest of text_topics, as of changed_on; null: no vector, or no topics yet"),
        column(
            "topic_confidence",
            "double",
            "the nearest topic's share of the likelihood of all: softmax of cosines over 0.05",
            tolerance=1e-3,
        ),
        owner="text_hash",
        key=("text_hash",),
        personal=True,
    ),
    snapshot(
        "text_topics",
        "What items' texts are about, in few names: made monthly, and when the encoder changes.",
        column("encoder", "string", "whose vectors: as in text_semantics", nullable=False),
        column("topic", "int", "number, 1 has the most texts", nullable=False),
        column(
            "name",
            "string",
            "its most telling keywords, from items' texts alone; no two of a day are equal",
            nullable=False,
        ),
        column("centroid", "array<float>", "mean of its texts' vectors, of unit length", nullable=False, tolerance=1e-4),
        column("texts", "bigint", "texts of items that it was made of", nullable=False),
        key=("encoder", "topic"),
    ),
    snapshot(
        "item_names",
        "Names by which texts name brands and items: those of the catalogue, at most 50,000, collected monthly.",
        column("kind", "string", "brand or product", nullable=False),
        column(
            "words",
            "string",
            "the name as texts are searched for it: without case, accents and what is in brackets",
            nullable=False,
        ),
        column("name", "string", "the name as the catalogue writes it most often", nullable=False),
        column("item_id", "string", "the item of that title; null for a brand, or where several items share the title"),
        column("items", "bigint", "items of that brand or title", nullable=False),
        column(
            "ordinary", "double", "share of the word's uses in the catalogue that name nothing: in lower case", nullable=False
        ),
        key=("kind", "words"),
        checks={"kind_known": "kind IN ('brand', 'product')"},
    ),
    state(
        "text_mentions",
        "Which brands and products a text names: reviews, searches, and items' texts beside their own title and brand.",
        column("text_hash", "string", "the text, as in text_semantics", nullable=False),
        column("kind", "string", "brand or product", nullable=False),
        column("name", "string", "what is named, as the catalogue writes it", nullable=False, personal=True),
        column(
            "item_id",
            "string",
            "the item of that title; null for a brand, or where several items share the title",
            personal=True,
        ),
        column("confidence", "double", "how likely the words mean it: from how they are used in the catalogue, and their case"),
        owner="text_hash",
        key=("text_hash", "kind", "name"),
        personal=True,
    ),
    snapshot(
        "sentiment_models",
        "Sentiment as learnt from the log's rated texts: made when a month begins, of all that had arrived; for later days.",
        column("encoder", "string", "whose vectors it reads, as in text_semantics", nullable=False),
        column("languages", "array<string>", "languages of 100 rated texts or more: of others it says nothing", nullable=False),
        column("texts", "bigint", "rated texts that had arrived", nullable=False),
        column("bad", "bigint", "of these with one of the lowest ratings", nullable=False),
        column("learnt_from", "bigint", "of these the ones that it was learnt from: at most 10,000", nullable=False),
        column("users", "bigint", "users who wrote them", nullable=False),
        column(
            "strength", "double", "inverse of the penalty on weights, as chosen on folds of users; null: nothing was learnt"
        ),
        column("weights", "array<double>", "one per dimension of a vector, then those of the lexicon", tolerance=1e-2),
        column("bias", "double", "added to the weighted inputs; the sum is the log odds of a good text", margin=1e-2),
        column(
            "cut",
            "double",
            "sentiment from which on a text called good gives the best macro F1, bad ones being as few as here",
            margin=1e-2,
        ),
        column("macro_f1", "double", "by such a cut, on texts of users that were not learnt from (folds)", margin=2e-3),
        column("balanced_accuracy", "double", "on the same", margin=2e-3),
        column("lexicon_macro_f1", "double", "of the lexicon alone, on the same"),
        column("lexicon_balanced_accuracy", "double", "of the lexicon alone, on the same"),
        column("serves", "boolean", "its macro F1 is above the lexicon's: later texts get its sentiment", nullable=False),
        key=("encoder",),
    ),
    state(
        "item_texts",
        "Which texts describe an item.",
        item(),
        column("text_hash", "string", "hash of the item's title, category and description"),
        owner="item_id",
        key=("item_id",),
    ),
)

# What interests become `age_days` after `changed_on`; jobs/label.py labels with the very same expressions.
_LONG_NOW = "long_weight * power(0.5, age_days / long_half_life_days)"
_SHORT_NOW = "short_weight * power(0.5, age_days / short_half_life_days)"
# A weight that sits on a threshold but for rounding reaches it.
_INTEREST_LABEL = (
    f"CASE WHEN active_weeks >= long_min_weeks AND {_LONG_NOW} >= long_min_weight - 1e-9 THEN 'long' "
    f"WHEN {_SHORT_NOW} >= short_min_weight - 1e-9 THEN 'short' ELSE 'none' END"
)


# A label goes on the first day at whose end the weight that holds it is below its threshold: the logarithm of how far it is
# above counts the half-lives until then. A threshold of 0 is never passed. (Cut, so that the date stays one.)
def _passed_on(span: str) -> str:
    above = f"greatest({span}_weight / greatest({span}_min_weight - 1e-9, 1e-9), 1.0)"
    days = f"CAST(least(floor({span}_half_life_days * log2({above})), 1000000.0) AS int) + 1"
    return f"CASE WHEN {span}_min_weight > 1e-9 THEN changed_on + ({days}) END"


_LABEL_UNTIL = (
    f"CASE WHEN active_weeks >= long_min_weeks AND {_LONG_NOW} >= long_min_weight - 1e-9 THEN {_passed_on('long')} "
    f"WHEN {_SHORT_NOW} >= short_min_weight - 1e-9 THEN {_passed_on('short')} END"
)
# A weight that is halved every h days and has watched a user for a days has seen h / ln 2 * (1 - 2^(-a / h)) days' worth.
# The short weight to be expected, were the rate of events what the long weight says (of what a user is against: none):
_WANTED = f"({_LONG_NOW} + abs({_LONG_NOW})) / 2"
# Of a user of whom only events of weight 0 came before, nothing was known yet.
_WATCHED = "(greatest(known_days + age_days, 0) + 1)"
_EXPECTED = (
    f"{_WANTED} * short_half_life_days * (1 - power(0.5, {_WATCHED} / short_half_life_days))"
    f" / (long_half_life_days * (1 - power(0.5, {_WATCHED} / long_half_life_days)))"
)
_INTEREST_TREND = (
    "CASE WHEN returned_days + age_days < 14 THEN 'returning' "
    "WHEN idle_days + age_days >= 28 THEN 'fading' "
    f"WHEN {_SHORT_NOW} >= 2 * {_EXPECTED} AND {_SHORT_NOW} - {_EXPECTED} >= 1 THEN 'emerging' "
    f"WHEN {_SHORT_NOW} <= 0.5 * {_EXPECTED} AND {_EXPECTED} - {_SHORT_NOW} >= 1 THEN 'fading' "
    "ELSE 'stable' END"
)

# Columns of what a user turns to, a category or a tag: how much so, and what is made of it.
WEIGHTS = (
    column(
        "long_weight",
        "double",
        "sum of event weights, halved every long half-life",
        nullable=False,
        aged=_LONG_NOW,
    ),
    column(
        "short_weight",
        "double",
        "sum of event weights, halved every short half-life",
        nullable=False,
        aged=_SHORT_NOW,
    ),
    column("long_half_life_days", "double", "half-life of the long weight", unit="day", nullable=False),
    column("short_half_life_days", "double", "half-life of the short weight", unit="day", nullable=False),
)
JUDGED = (
    column(
        "idle_days", "int", "days since the newest event's arrival", unit="day", nullable=False, aged="idle_days + age_days"
    ),
    column(
        "returned_days",
        "int",
        "days since an event ended 28 days or more without one; null where none did",
        unit="day",
        aged="returned_days + age_days",
    ),
    column(
        "known_days",
        "int",
        "days since the first event of the user that counted",
        unit="day",
        nullable=False,
        aged="known_days + age_days",
    ),
    column("long_min_weeks", "int", "label long: from so many active weeks on", nullable=False),
    column("long_min_weight", "double", "label long: from this long weight on", nullable=False),
    column("short_min_weight", "double", "label short: from this short weight on", nullable=False),
    column("label", "string", "long, else short, else none, by the three thresholds", nullable=False, aged=_INTEREST_LABEL),
    column(
        "label_until",
        "date",
        "the first day whose end has another label, if nothing happens; null: none does",
        aged=_LABEL_UNTIL,
    ),
    column(
        "trend",
        "string",
        "returning: within 14 days after 28 or more without an event; fading: 28 days without one, or the short weight "
        "is half of what the long weight lets expect, or less, and an event's worth below it; emerging: twice that, "
        "or more, and an event's worth above it; else stable",
        nullable=False,
        aged=_INTEREST_TREND,
    ),
)
JUDGED_CHECKS = {
    "label_known": "label IN ('long', 'short', 'none')",
    "trend_known": "trend IN ('emerging', 'stable', 'fading', 'returning')",
}
JUDGED_NOTHING = {"label": "'none'", "trend": "'stable'", "long_half_life_days": "1D", "short_half_life_days": "1D"}

LABEL = (
    fact(
        "event_labels",
        "Per event the label that its category held for the user before the event's arrival day.",
        column("event_id", "string", "the event", nullable=False),
        user(),
        column("category", "string", "its category", nullable=False),
        column("label", "string", "long, short or none", nullable=False),
        column("trend", "string", "emerging, stable, fading, returning; null where nothing was known"),
        column("long_weight", "double", "the user's long-term weight on the category before that day", nullable=False),
        column("short_weight", "double", "the short-term weight before that day", nullable=False),
        key=("event_id",),
        checks={"label_known": "label IN ('long', 'short', 'none')"},
        personal=True,
    ),
    fact(
        "learned_labels",
        "Of the day's events, per user and category, what a learned labeller says of the interest; no rows while none serves.",
        user(),
        column("category", "string", "category of which the user had events (but those of weight 0)", nullable=False),
        column(
            "lasting_probability",
            "double",
            "how likely the user has events of it in two or more distinct weeks of the eight after the day",
            nullable=False,
        ),
        column(
            "label",
            "string",
            "long: that is likely enough (the version's cut); else short, or none if the rule says so",
            nullable=False,
        ),
        column("rule_label", "string", "the label that the rule gave it, as in event_labels", nullable=False),
        column("model_version", "string", "the labeller", nullable=False),
        key=("user_id", "category"),
        checks={
            "label_known": "label IN ('long', 'short', 'none')",
            "rule_label_known": "rule_label IN ('long', 'short', 'none')",
            "probability": UNIT_INTERVAL.format("lasting_probability"),
        },
        newest_only=True,
        personal=True,
    ),
    state(
        "user_interests",
        "A user's weight on each category, long- and short-term, with label and trend.",
        user(),
        column("category", "string", "category", nullable=False),
        *WEIGHTS,
        column("events", "bigint", "events of the user in the category so far, but those of weight 0", nullable=False),
        column("active_weeks", "int", "arrival weeks (Monday to Sunday) with an event", nullable=False),
        column("active_days", "int", "arrival days with an event", nullable=False),
        column("first_on", "date", "arrival day of the first event", nullable=False),
        column("last_on", "date", "arrival day of the newest event", nullable=False),
        column("span_days", "int", "days from `first_on` to `last_on`", unit="day", nullable=False),
        column("squared_gaps", "bigint", "sum of the squared days from one active day to the next", nullable=False),
        column("burstiness", "double", "of these gaps: -1 an even pace, 0 random, 1 bursts; null with fewer than two"),
        *JUDGED,
        owner="user_id",
        key=("user_id", "category"),
        checks=JUDGED_CHECKS,
        personal=True,
        purpose="labels",
        nothing=JUDGED_NOTHING,
    ),
)
