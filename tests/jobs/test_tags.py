"""Tags of items and users: by definition on random days, planted changes, and nights as a bootstrap."""

import hashlib
import math
import random
import shutil
from datetime import date, datetime, timedelta

import pytest
from deltalake import QueryBuilder

from conf.settings import load_settings
from conf.tables import TABLES
from jobs import tags
from jobs.lake.compare import compare
from jobs.lake.store import Days
from tests.planting import plant

FIRST, LAST = date(2024, 1, 29), date(2024, 2, 4)  # over the first of a month, a keyframe
DAYS = list(Days(first=FIRST, last=LAST))
ITEM = {"item_id": "cup", "category": "Coffee Shop", "gone": False}
RELATION = {"subject": "cup", "relation": "is", "object": "Vegan", "weight": 1.0, "gone": False}
EVENT = {"user_id": "u", "item_id": "cup", "event_type": "view", "row_hash": "r"}
# Texts are of titles alone here, and keywords are what the title says behind a colon.
KEYWORDS = {"Cup": [], "Cup: vegan": ["vegan"], "Cup: Tea": ["tea", "vegan"], "Mill": ["old mill"], "Pot: iron": ["iron"]}
TOPICS = {"Mill": "Mills, grinders"}
MANY = [f"tag {number:02}" for number in range(70)]


def item(day, **more):
    return {**ITEM, "changed_on": day, "day": day, **more}


def relation(day, **more):
    row = {**RELATION, "changed_on": day, "day": day, **more}
    return {**row, "relation_id": f"{row['subject']} {row['relation']} {row['object']}"}


def event(day, **more):
    """Arrives on `day`; at noon of that day, if nothing else is said."""
    moment = more.get("event_timestamp", datetime(day.year, day.month, day.day, 12))
    return {**EVENT, "day": day, "event_timestamp": moment, "event_date": moment.date(), **more}


def semantics(items):
    """The rows of text_semantics of the items' texts."""
    found = {}
    for row in sorted(items, key=lambda row: row["day"]):
        said = [part for part in (row.get("title"), row.get("category")) if part]
        text = ". ".join(said)
        if text and not row["gone"]:
            found.setdefault(text, row["day"])
    return [
        {
            "text_hash": hashlib.sha256(text.encode()).hexdigest(), "text": text, "encoder": "none",
            "keywords": KEYWORDS.get(text.split(".")[0]), "topic": TOPICS.get(text.split(".")[0]),
            "gone": False, "changed_on": day, "day": day,
        }
        for text, day in found.items()
    ]  # fmt: skip


@pytest.fixture(scope="module")
def lake_of(tmp_path_factory):
    """lake_of(*overrides, items=, item_relations=, events=, like=): the settings of a lake with these rows, or another's."""

    def make(*overrides, like=None, items=(), item_relations=(), events=()):
        lake = tmp_path_factory.mktemp("tags") / "lake"
        if like is not None:
            shutil.copytree(like.lake, lake)
        events = [{"event_id": f"e{number}", **row} for number, row in enumerate(events)]
        given = {"items": items, "item_relations": item_relations, "events": events, "text_semantics": semantics(items)}
        for name, rows in given.items():
            if rows:
                plant(lake, name, rows, DAYS)
        return load_settings("conf/local.yaml", [f"lake={lake}", *overrides])

    return make


@pytest.fixture(scope="module")
def at_once(make_context_in):
    """at_once(settings): the context of a bootstrap over the lake."""

    def run(settings):
        context = make_context_in(settings, FIRST, LAST, bootstrap=True)
        tags.run(context)
        return context

    return run


def stored(context, name):
    return context.lake.read(name, context.lake.version(name))


def changed(context, name, *keys):
    """{keys: {tag: row}} of the days of true changes; of an owner that is gone there is none."""
    found = {}
    for row in stored(context, name).where("changed_on = day").collect():
        rows = found.setdefault(tuple(row[key] for key in keys), {})
        if not row.gone:
            rows[row.tag] = row
    return found


@pytest.fixture(scope="module")
def told(at_once, lake_of):
    """Of items of which each test below has its own; no tags mean the same but by spelling."""
    items = [
        item(DAYS[0], title="Cup: vegan", brand="Blue  Cup", tags=["Wi-Fi", "COFFEE shop"]),
        item(DAYS[0], item_id="bare", category=None, title=None),
        item(DAYS[0], item_id="coffee shop", category=None, title="Mill"),
        item(DAYS[3], title="Cup: vegan", brand="Blue Cup", tags=["coffee shop"]),
        item(DAYS[4], title="Cup: vegan", brand="blue cup", tags=["coffee shop"], price=2.0),
        item(DAYS[6], gone=True),
    ]
    items += [item(DAYS[0], item_id="full", title="Cup: vegan", tags=MANY), item(DAYS[0], item_id="some", tags=MANY[:60])]
    items += [item(DAYS[0], item_id=name, category=name) for name in ("tv", "television", "T-shirt", "t shirts")]
    relations = [
        relation(DAYS[1], object="Vegan", weight=0.9),
        relation(DAYS[2], subject="Coffee  Shop", object="Drinks", weight=0.8),
        relation(DAYS[2], subject="vegan", object="food", weight=0.8),
        relation(DAYS[2], subject="drinks", object="never: no relation follows on another"),
        relation(DAYS[2], subject="CUP", object="never: this is no item's id"),
        relation(DAYS[5], object="Vegan", weight=0.0, gone=True),
    ]
    relations += [
        relation(DAYS[0], subject=name, object=f"more {n:02}", weight=2.0 + n) for name in ("full", "some") for n in range(9)
    ]
    return at_once(lake_of("label.synonym_likeness=1", items=items, item_relations=relations))


def test_an_items_tags_follow_the_item_its_text_and_relations(told):
    found = changed(told, "item_tags", "item_id", "day")
    own = {"coffee shop": (1.0, ["category", "tag"]), "blue cup": (1.0, ["brand"])}
    begun = {**own, "wi-fi": (1.0, ["tag"]), "vegan": (0.5, ["keyword"])}
    related = {**begun, "vegan": (0.9, ["keyword", "relation"])}
    followed = {"drinks": (0.8, ["relation"]), "food": (pytest.approx(0.4), ["relation"])}
    without = {tag: one for tag, one in related.items() if tag != "wi-fi"}
    assert {
        key: {tag: (row.weight, row.sources) for tag, row in rows.items()}
        for key, rows in found.items()
        if key[0] in ("cup", "bare", "coffee shop")
    } == {
        ("cup", DAYS[0]): begun,
        ("coffee shop", DAYS[0]): {"old mill": (0.5, ["keyword"]), "mills, grinders": (0.5, ["topic"])},
        ("cup", DAYS[1]): related,
        ("cup", DAYS[2]): {**related, **followed},
        ("cup", DAYS[3]): {**without, **followed},
        ("cup", DAYS[5]): {**own, "vegan": (0.5, ["keyword"]), **followed},
        ("cup", DAYS[6]): {},
    }, "a day on which the same is said again, of prices or in other letters, changes nothing"


def test_own_tags_come_before_those_that_follow_and_there_are_64(told):
    found = changed(told, "item_tags", "item_id")
    assert {len(found[name,]) for name in ("full", "some")} == {64}
    assert set(found["full",]) == {"coffee shop", *MANY[:63]}, "the keyword is the lightest, the relations are not its own"
    assert {tag for tag in found["some",] if "more" in tag} == {"more 06", "more 07", "more 08"}


def test_no_likeness_is_enough_where_1_is_asked(told):
    found = changed(told, "item_tags", "item_id", "day")
    assert {name: set(found[name, DAYS[0]]) for name in ("tv", "television")} == {"tv": {"tv"}, "television": {"television"}}
    assert set(found["T-shirt", DAYS[0]]) == set(found["t shirts", DAYS[0]]) == {"t shirts"}


def random_world():
    rng = random.Random(45)
    items, relations = [], []
    for day in DAYS:
        for name in ("cup", "mill", "bare", "tea"):
            if rng.random() < 0.6:
                said = {"title": rng.choice([None, *KEYWORDS]), "category": rng.choice([None, "Coffee Shop", "tea"])}
                said["tags"] = rng.choice([None, ["vegan"], ["Vegan", "late"]])
                items.append(item(day, item_id=name, gone=rng.random() < 0.1, **said))
        # Where no relation moved, a night looks only at items that changed themselves.
        for subject in ("cup", "tea", "coffee shop", "vegan") if day in (DAYS[0], DAYS[1], DAYS[3], DAYS[5]) else ():
            for to in ("Vegan", "food"):
                if rng.random() < 0.4:
                    weight = rng.choice([0.25, 0.7, 2.0])
                    relations.append(relation(day, subject=subject, object=to, weight=weight, gone=rng.random() < 0.3))
    events = [
        event(
            day,
            user_id=user,
            item_id=rng.choice(["cup", "mill", "bare", "tea", None]),
            event_type=rng.choice(["view", "purchase", "dislike", "impression"]),
            event_timestamp=datetime(day.year, day.month, day.day, rng.randrange(24)) - timedelta(days=rng.choice([0, 0, 3])),
        )
        for day in DAYS
        for user in ("u", "v", "w")
        for _ in range(rng.choice([0, 1, 2, 3]))
    ]
    return {"items": items, "item_relations": relations, "events": events}


def as_of(rows, owner, day):
    newest = {}
    for row in sorted(rows, key=lambda row: row["day"]):
        if row["day"] <= day:
            newest[row[owner]] = row
    return [row for row in newest.values() if not row["gone"]]


def tags_by_definition(world, day):
    """{item: {tag: weight}}, of items that have any."""
    told, found = as_of(world["item_relations"], "relation_id", day), {}
    for row in as_of(world["items"], "item_id", day):
        own = {word.lower(): 0.5 for word in KEYWORDS.get(row.get("title") or "", [])}
        own |= {TOPICS[title].lower(): 0.5 for title in TOPICS if title == row.get("title")}
        own |= {word.lower(): 1.0 for word in (row.get("category"), *(row.get("tags") or ())) if word}
        said = dict(own)
        for one in told:
            for share in [1.0] * (one["subject"] == row["item_id"]) + [own.get(one["subject"], 0.0)]:
                said[one["object"].lower()] = max(said.get(one["object"].lower(), 0.0), share * one["weight"])
        found[row["item_id"]] = {tag: weight for tag, weight in said.items() if weight}
    return {name: said for name, said in found.items() if said}


def interests_by_definition(world, settings):
    """{(user, day): {tag: (long, short, events, weeks, last day)}}, a day at a time, forgetting what is too light."""
    found, known, half_lives = {}, {}, (settings.long_half_life_days, settings.short_half_life_days)
    for day in DAYS:
        end, carried = datetime(day.year, day.month, day.day) + timedelta(days=1), tags_by_definition(world, day)
        for user in {row["user_id"] for row in world["events"]}:
            aged = known.get(user, {})
            for state in aged.values():
                state["weight"] = [weight * 0.5 ** (1 / h) for weight, h in zip(state["weight"], half_lives, strict=True)]
            arrived = False
            for row in world["events"]:
                factor = settings.event_weights.get(row["event_type"], 1.0)
                if (row["user_id"], row["day"]) != (user, day) or not factor:
                    continue
                age = (end - row["event_timestamp"]) / timedelta(days=1)
                for tag, weight in carried.get(row["item_id"], {}).items():
                    arrived = True
                    state = aged.setdefault(tag, {"weight": [0.0, 0.0], "events": 0, "days": set()})
                    gained = [factor * weight * 0.5 ** (age / h) for h in half_lives]
                    state["weight"] = [one + other for one, other in zip(state["weight"], gained, strict=True)]
                    state["events"] += 1
                    state["days"].add(day)
            heavy = lambda tag: max(abs(w) / h for w, h in zip(aged[tag]["weight"], half_lives, strict=True))  # noqa: B023, E731
            known[user] = {
                tag: aged[tag] for tag in sorted(aged, key=lambda tag: (-round(heavy(tag), 9), tag))[: settings.tags]
            }
            if arrived:
                found[user, day] = {
                    tag: (*one["weight"], one["events"], len({d.isocalendar()[:2] for d in one["days"]}), max(one["days"]))
                    for tag, one in known[user].items()
                }
    return found


# Items, users and tags of which each test below has its own, in one lake: seven nights of it cost most here.
NAMED = {"big": ["TV"], "flat": ["tv", "Wi-Fi"], "old": ["television", "tv", "WiFi"], "nightly": ["television"]}
PLANTED = {
    "items": [
        # Of the first day `tv` is the commoner; of February 1st `television` is.
        *[item(DAYS[0], item_id=name, category=None, tags=tags) for name, tags in NAMED.items() if name != "nightly"],
        *[item(DAYS[2], item_id=name, category=None, tags=NAMED["nightly"]) for name in ("one", "two", "three")],
        *[item(DAYS[0], item_id=name.lower(), category=name) for name in ("Pub", "Zoo", "Opera", "Gym")],
        item(DAYS[0], item_id="pot", title="Pot: iron", category="Ironmonger"),
    ],
    "item_relations": [relation(DAYS[1], subject="television", object="screens")],
    "events": [
        *[event(day, user_id="watches", item_id="old") for day in (DAYS[1], DAYS[4])],
        *[
            event(DAYS[0], user_id="settled", item_id=name, event_timestamp=datetime(2024, 1, 1))
            for name in ("pub", "pub", "pub", "pub", "zoo", "zoo", "opera")
        ],
        event(DAYS[2], user_id="settled", item_id="gym"),
        event(DAYS[0], user_id="cooks", item_id="pot"), event(DAYS[0], user_id="buys", item_id="pot", event_type="purchase"),
        event(DAYS[0], user_id="cooks", item_id="pub", event_type="dislike"), event(DAYS[3], user_id="cooks", item_id="zoo"),
        # Of whom only what does not count arrived.
        event(DAYS[3], user_id="sees", item_id="pot", event_type="impression"),
        event(DAYS[3], user_id="strays", item_id="unheard of"),
    ],
}  # fmt: skip
WEIGHTS = "label.event_weights={purchase: 3.5, impression: 0, dislike: -1.25}"


@pytest.fixture(scope="module")
def world():
    return random_world()


@pytest.fixture(scope="module")
def inputs(lake_of, world):
    return lake_of(**{name: [*rows, *PLANTED[name]] for name, rows in world.items()})


@pytest.fixture(scope="module")
def of_three(at_once, lake_of, inputs):
    """A bootstrap that keeps three tags of a user."""
    return at_once(lake_of(WEIGHTS, "label.tags=3", like=inputs))


@pytest.fixture(scope="module")
def of_fifty(at_once, lake_of, inputs):
    return at_once(lake_of(WEIGHTS, "label.tags=50", like=inputs))


def test_nights_leave_what_the_bootstrap_leaves(make_context_in, lake_of, inputs, of_three):
    nights = lake_of(WEIGHTS, "label.tags=3", like=inputs)
    for day in DAYS:
        night = make_context_in(nights, day, first_day=FIRST)
        tags.run(night)
    for name in ("item_tags", "tag_synonyms", "user_tags"):
        found = compare(stored(night, name), stored(of_three, name), TABLES[name])
        assert found.equal and found.rows, f"{name}: {found}"


def test_an_items_tags_are_by_definition_on_every_day(of_three, world, make_context_in):
    owned = {row["item_id"] for row in world["items"]}
    for day in DAYS:
        state = make_context_in(of_three.settings, day, first_day=FIRST).state("item_tags")
        found = {}
        for row in state.collect():
            if row.item_id in owned:
                found.setdefault(row.item_id, {})[row.tag] = row.weight
        assert found == tags_by_definition(world, day), day


@pytest.mark.parametrize("kept", ["of_three", "of_fifty"])
def test_a_users_tags_are_by_definition_and_no_more_than_are_asked_for(request, world, kept):
    whole = request.getfixturevalue(kept)
    most = whole.settings.label.tags
    wanted = interests_by_definition(world, whole.settings.label)
    rows = changed(whole, "user_tags", "user_id", "day")
    found = {
        key: {
            tag: (row.long_weight, row.short_weight, row.events, row.active_weeks, row.day - timedelta(days=row.idle_days))
            for tag, row in of_key.items()
        }
        for key, of_key in rows.items()
        if key[0] in ("u", "v", "w")
    }
    assert set(found) == set(wanted) and max(map(len, found.values())) == min(most, max(map(len, wanted.values())))
    for key, of_tag in wanted.items():
        assert {tag: pytest.approx(one[:2], rel=1e-9, abs=1e-12) for tag, one in of_tag.items()} == {
            tag: one[:2] for tag, one in found[key].items()
        }, key
        assert {tag: one[2:] for tag, one in of_tag.items()} == {tag: one[2:] for tag, one in found[key].items()}, key


def test_what_is_taken_weighs_by_the_tag_and_the_event_and_a_dislike_against(of_fifty):
    rows = changed(of_fifty, "user_tags", "user_id", "day")
    assert {key for key in rows if key[0] in ("cooks", "buys", "sees", "strays")} == {
        ("cooks", DAYS[0]), ("buys", DAYS[0]), ("cooks", DAYS[3]),
    }  # fmt: skip
    day = rows["cooks", DAYS[0]]
    at_noon = 0.5 ** (0.5 / 60)
    assert {tag: row.long_weight for tag, row in day.items()} == {
        "ironmonger": pytest.approx(at_noon), "iron": pytest.approx(at_noon / 2), "pub": pytest.approx(-1.25 * at_noon),
    }  # fmt: skip
    assert rows["buys", DAYS[0]]["ironmonger"].long_weight == pytest.approx(3.5 * at_noon)
    assert (day["pub"].label, day["ironmonger"].label) == ("none", "short")
    later = rows["cooks", DAYS[3]]
    assert later["zoo"].known_days == later["ironmonger"].known_days == later["ironmonger"].idle_days == 3
    assert day["ironmonger"].label_until == FIRST + timedelta(days=1 + int(7 * math.log2(0.5 ** (0.5 / 7) / 0.5)))


def test_a_new_interest_is_not_kept_out_by_old_ones(of_three):
    """Three tags are kept of a user who has taken three for long: a fourth, taken once, is nearer than what was long ago."""
    rows = {
        day: of_day for (user, day), of_day in changed(of_three, "user_tags", "user_id", "day").items() if user == "settled"
    }
    assert set(rows[DAYS[0]]) == {"pub", "zoo", "opera"} and set(rows[DAYS[2]]) == {"pub", "zoo", "gym"}


ALONE = date(2024, 1, 30)  # two days before a keyframe, which copies who is idle


@pytest.fixture(scope="module")
def idle(make_context_in, lake_of):
    """Two nights, of a user each, and a keyframe's; nothing is told of tags. The second night."""
    then = ALONE + timedelta(days=1)
    settings = lake_of(items=[item(ALONE)], events=[event(ALONE, user_id="idle"), event(then)])
    made = [make_context_in(settings, ALONE, first_day=ALONE)]
    tags.run(made[0])
    for day in (then, then + timedelta(days=1)):
        made.append(make_context_in(settings, day, first_day=ALONE))
        tags.run(made[-1])
    return made[1]


def test_an_idle_users_tags_fade_without_being_rewritten(make_context_in, idle):
    """In Spark and without it alike."""
    context = make_context_in(idle.settings, ALONE + timedelta(days=6), first_day=ALONE)
    [row] = context.state("user_tags").where("user_id = 'idle'").collect()
    assert row.changed_on == ALONE and row.label == "short"
    [aged] = context.aged("user_tags").where("user_id = 'idle'").collect()
    assert aged.long_weight == pytest.approx(row.long_weight * 0.5 ** (6 / 60)) and aged.idle_days == 6
    columns = [one for one in TABLES["user_tags"].columns if one.aged]
    days = (row.label_until - ALONE).days
    query = ", ".join(f"{one.aged} AS {one.name}" for one in columns)
    query = f"SELECT {query} FROM (SELECT *, {days} AS age_days FROM stored WHERE user_id = 'idle' AND day = changed_on)"
    result = QueryBuilder().register("stored", context.lake.delta("user_tags")).execute(query).read_all()
    faded = {name: found.to_pylist()[0] for name, found in zip(result.schema.names, result.columns, strict=True)}
    assert (faded["label"], faded["trend"], faded["label_until"]) == ("none", "stable", None)
    assert faded["short_weight"] < idle.settings.label.short_min_weight and faded["known_days"] == days


def test_a_night_reads_a_users_own_tags_alone(idle):
    """Who did nothing on a day has no row of it."""
    found = {(row.user_id, row.day) for row in stored(idle, "user_tags").collect()}
    then, keyframe = (ALONE + timedelta(days=n) for n in (1, 2))
    assert found == {("idle", ALONE), ("u", then), ("idle", keyframe), ("u", keyframe)}
    assert idle.rows_out == {"item_tags": 0, "tag_synonyms": 0, "user_tags": 1}


def test_tags_that_mean_the_same_go_under_the_commonest_until_it_is_asked_again(of_three, of_fifty):
    found = stored(of_three, "tag_synonyms").collect()
    assert {(row.day, row.tag): row.means for row in found} == {
        (DAYS[0], "television"): "tv", (DAYS[0], "wifi"): "wi-fi", (DAYS[3], "tv"): "television", (DAYS[3], "wifi"): "wi-fi",
    }  # fmt: skip
    assert {row.likeness == 1.0 for row in found if row.tag == "wifi"} == {True}
    assert all(0.88 <= row.likeness < 1 for row in found if row.tag != "wifi")
    rows = changed(of_three, "item_tags", "item_id", "day")
    tags_of = {key: sorted(of_key) for key, of_key in rows.items() if key[0] in {*NAMED, "one", "two", "three"}}
    assert tags_of == {
        ("big", DAYS[0]): ["tv"], ("flat", DAYS[0]): ["tv", "wi-fi"], ("old", DAYS[0]): ["tv", "wi-fi"],
        ("old", DAYS[1]): ["screens", "tv", "wi-fi"],  # what is told of a tag is of the word
        **{(name, DAYS[2]): ["screens", "tv"] for name in ("one", "two", "three")},
        ("big", DAYS[3]): ["television"], ("flat", DAYS[3]): ["television", "wi-fi"],
        ("old", DAYS[3]): ["screens", "television", "wi-fi"],
        **{(name, DAYS[3]): ["screens", "television"] for name in ("one", "two", "three")},
    }  # fmt: skip
    assert rows["old", DAYS[0]]["tv"].weight == 1.0 and rows["old", DAYS[0]]["tv"].sources == ["tag"]
    of_user = changed(of_fifty, "user_tags", "user_id", "day")
    assert set(of_user["watches", DAYS[1]]) == {"tv", "screens", "wi-fi"}
    later = of_user["watches", DAYS[4]]
    assert later["television"].events == 1 and later["wi-fi"].events == 2, "what was, stays"
