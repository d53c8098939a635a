"""What a text is about: its own words, weighed by statistics of this text alone, so that nothing has to be fitted."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

from jobs.text.words import CHINESE, IS_KANA, OTHER, chinese, folded, language, tokens, word_list

KEYWORDS = 8
_LONGEST_PHRASE = 3
_SENTENCE = re.compile(r"[.!?;\n\u3002\uff01\uff1f\uff1b]+")
_CLAUSE = re.compile(r"[^\w\s'\u2019&-]+")
_MARKUP = re.compile(r"<[^<>]{0,80}>|&#?\w{1,8};|\[\[[^\[\]]{0,80}\]\]|https?://\S+")
_IS_WORD = re.compile(r"[^\W\d_]")
_IS_HAN_WORD = re.compile(r"[\u4e00-\u9fff]{2,}$")
# Japanese writes what it names in Han or in katakana, little words in hiragana.
_NAMING_RUN = re.compile(r"[\u3005\u4e00-\u9fff]{2,}|[\u30a1-\u30fa\u30fc]{2,}")
_BETWEEN_WORDS = re.compile(
    r"[\s!-&(-,./:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf"
    r"\u060c\u061b\u061f\u0964\u2010-\u206f\u3000-\u303f\uff01-\uff0f]+"
)
_IS_HANGUL = re.compile(r"[\uac00-\ud7a3]")
# Thai, Lao, Tibetan, Burmese and Khmer put no spaces between words.
_IS_UNSPACED = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
_LONG, _LONG_IN_HANGUL = 5, 2


def keywords(text: str, most: int = KEYWORDS) -> list[str] | None:
    """At most `most` words and phrases, the best first; None in a script whose words do not stand apart.

    English: runs of words between little words and punctuation, as in RAKE (Rose et al., 2010); a word
    counts for how often it comes and how early, as in YAKE (Campos et al., 2020). Chinese: jieba's words by
    how often they come here and how rare they are in its packaged table (TF-IDF). Others have no list of
    little words here: their long words by how often they come; in Japanese, runs of Han or katakana.
    """
    plain = folded(_MARKUP.sub(" . ", text))
    spoken = language(plain)
    if spoken is None:
        return []
    if spoken == OTHER:
        found = _other(plain)
        return None if not found and _IS_UNSPACED.search(plain) else _best(found, most)
    return _best(_chinese(plain) if spoken == CHINESE else _english(plain), most)


def _best(scores: dict[str, float], most: int) -> list[str]:
    """The highest, equal ones in their order; none that is within another, or around it."""
    chosen: list[str] = []
    for phrase in sorted(scores, key=lambda phrase: -scores[phrase]):
        if len(chosen) == most:
            break
        if not any(f" {phrase} " in f" {better} " or f" {better} " in f" {phrase} " for better in chosen):
            chosen.append(phrase)
    return chosen


def _english(text: str) -> dict[str, float]:
    runs = [(number, run) for number, sentence in enumerate(_SENTENCE.split(text)) for run in _runs(sentence)]
    counts = Counter(word for _, run in runs for word in run)
    weights: dict[str, float] = {}
    for number, run in runs:
        for word in run:
            weights.setdefault(word, 1 / math.log(3 + number))
    phrases = Counter(phrase for _, run in runs for phrase in _phrases(run))
    whole = {phrase for _, run in runs for phrase in _pieces(run)}
    return {
        " ".join(phrase): count * sum(counts[word] * weights[word] for word in phrase)
        for phrase, count in phrases.items()
        if count > 1 or phrase in whole
    }


def _runs(sentence: str) -> Iterator[list[str]]:
    """Words that stand side by side, without little words, words of feeling and punctuation between them."""
    silent = _silent("english")
    for clause in _CLAUSE.split(sentence):
        run: list[str] = []
        for word in (token.removesuffix("'s") for token in tokens(clause)):
            if word in silent or len(word) < 2 or not _IS_WORD.search(word):
                if run:
                    yield run
                run = []
            else:
                run.append(word)
        if run:
            yield run


def _phrases(run: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All of one to three words."""
    for length in range(1, _LONGEST_PHRASE + 1):
        for start in range(len(run) - length + 1):
            yield tuple(run[start : start + length])


def _pieces(run: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A run's phrases that need not come twice: a short run is one, a long one is taken in pairs."""
    if len(run) <= _LONGEST_PHRASE:
        yield tuple(run)
    else:
        yield from pairwise(run)


def _chinese(text: str) -> dict[str, float]:
    rare, usual = _rarity()
    counts: Counter[str] = Counter()
    for word in chinese().cut(text):
        is_degree = len(word) == 2 and word[0] in word_list("chinese", "strengthening") | word_list("chinese", "turning")
        if is_degree or word in _silent("chinese") or word in _silent("english"):
            continue
        if _IS_HAN_WORD.match(word) or (word.isascii() and word.isalpha() and len(word) > 1):
            counts[word] += 1
    return {word: count * rare.get(word, usual) for word, count in counts.items()}


def _other(text: str) -> dict[str, float]:
    if IS_KANA.search(text):
        return dict(Counter(_NAMING_RUN.findall(text)))
    counts: Counter[str] = Counter()
    for word in map(_bare, _BETWEEN_WORDS.split(text)):
        long = _LONG_IN_HANGUL if _IS_HANGUL.search(word) else _LONG
        if len(word) >= long and _IS_WORD.search(word) and not _IS_UNSPACED.search(word):
            counts[word] += word not in word_list("other", "telling")
    return {word: count for word, count in counts.items() if count}


def _bare(word: str) -> str:
    """Without what is neither letter nor digit at its ends; marks above and below letters stay."""
    first, last = 0, len(word)
    while first < last and unicodedata.category(word[first])[0] not in "LN":
        first += 1
    while last > first and unicodedata.category(word[last - 1])[0] not in "LMN":
        last -= 1
    return word[first:last]


@cache
def _silent(name: str) -> frozenset[str]:
    """Words that name no subject."""
    return word_list(name, "little") | word_list(name, "feeling")


@cache
def _rarity() -> tuple[dict[str, float], float]:
    """Inverse document frequencies of Chinese words as jieba packages them, and their median for other words."""
    from jieba.analyse import TFIDF

    found: tuple[dict[str, float], float] = TFIDF().idf_loader.get_idf()
    return found
