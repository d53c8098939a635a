"""Which tags go under which: by spelling, by likeness, and what must stay apart."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from conf.settings import Label
from jobs.tags.synonyms import merged, spelling
from models import encoder


def means(*tags):
    """{tag: what it means} by the packaged encoder; the first are the commonest."""
    model = encoder.load(None, precision="fp32", max_tokens=32, batch_size=64, threads=1)
    return {tags[tag]: tags[other] for tag, other, _ in merged(tags, model.encode(list(tags)), Label().synonym_likeness)}


def test_words_that_mean_the_same_go_under_the_commoner():
    assert means("kids", "children", "headphones", "tv", "earphones", "television", "lawyer", "attorney") == {
        "children": "kids", "earphones": "headphones", "television": "tv", "attorney": "lawyer",
    }  # fmt: skip


def test_spellings_are_one():
    assert means("wi-fi", "wifi", "t-shirt", "t shirts", "café", "CAFE", "gluten free", "gluten-free") == {
        "wifi": "wi-fi", "t shirts": "t-shirt", "CAFE": "café", "gluten-free": "gluten free",
    }  # fmt: skip
    assert (spelling("T-Shirts"), spelling("c++"), spelling("news"), spelling("size 15"), spelling("日本")) == (
        "tshirt", "", "news", "", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    "apart",
    [
        ("monday", "tuesday", "friday", "saturday"), ("husband", "wife", "men", "women", "boys", "girls"),
        ("mexican restaurant", "spanish restaurant", "asian restaurant", "chinese restaurant", "restaurant"),
        ("beijing", "shanghai", "tokyo"), ("cheap", "expensive"), ("football", "football shoes", "football boots"),
        ("size 1.5", "size 15", "2019", "2020", "mp3", "mp4"), ("c", "c++", "c#", "new", "news"), ("art museum", "museum"),
        ("咖啡", "茶", "电影"), ("black", "white", "blue", "purple"), ("nike", "adidas", "bmw", "mercedes"),
    ],
)  # fmt: skip
def test_what_is_near_and_not_the_same_stays_apart(apart):
    assert means(*apart) == {}


def test_hostile_tags_end_in_no_error():
    assert means("\0", "🍕", "🍔", "''; drop", " - ", "a" * 100, "\u202e") == {}


@settings(max_examples=50)
@given(st.lists(st.text("abs -é1", min_size=1, max_size=7), unique=True, max_size=20), st.integers(0, 99))
def test_no_tag_goes_under_one_that_goes_under_another(tags, seed):
    vectors_TD = np.random.default_rng(seed).normal(size=(len(tags), 3)).astype(np.float32)
    vectors_TD /= np.linalg.norm(vectors_TD, axis=1, keepdims=True)
    if tags:
        vectors_TD[0] = np.nan  # words that the encoder does not know
    found = merged(tags, vectors_TD, 0.9)
    under = {tag for tag, _, _ in found}
    assert len(under) == len(found) and not under & {other for _, other, _ in found}
    assert all(other < tag and 0.9 <= how <= 1.0 for tag, other, how in found)
