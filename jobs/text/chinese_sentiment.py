"""Sentiment of Chinese texts by a lexicon with negation: words count, and what stands before them turns or strengthens them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

from jobs.text.words import chinese, word_list

_VALUES = {"good": 1.0, "very good": 2.0, "bad": -1.0, "very bad": -2.0}
_STRENGTHS = {"strengthening": 1.5, "weakening": 0.6}
_CLAUSE = re.compile(r"[,，.。!！?？;；、…~\s]+")
# "Not good" is less bad than "bad" is.
_TURNED = -0.8
# How many words before a word are looked at.
_REACH = 4
# Said of whole clauses: who comes back, who does not, and what did not last.
_SAYINGS = (
    (re.compile(r"(还会|会再|下次还|还想|一定再|必须再)(来|买|去|光顾|购买|回购|点)"), 1.0),
    (re.compile(r"(不会再|再也不|不想再|不再|没有?下次|没有?第二次)(来|买|去|光顾|购买|用|吃|点|选|$)"), -2.0),
    (re.compile(r"(用|穿|戴|开|吃|住|玩|骑|洗)了?(不到)?[一两二三四五六七几半]个?(天|次|月|星期|周|小时)(不到)?就"), -1.0),
)
# "Good" that says "quite" or "done" instead: good many times, got ready.
_GOOD = "好"
# What follows a "but" weighs more than what stood before it.
_BEFORE_BUT, _AFTER_BUT = 0.5, 1.5
# Of sentences that it was not written beside 15 of the 20 that it said something of were right; it is silent on most.
CONFIDENCE = 0.75
# A sum of 2 scores 0.7; in VADER's manner.
_SQUARED_SCALE = 4.0


def score(text: str) -> tuple[float, int]:
    """From -1 (bad) to 1 (good), and how many words of feeling it rests on (0: it has none)."""
    sums: list[float] = []
    found, weight = 0, 1.0
    for clause in _CLAUSE.split(text):
        words = _words(clause)
        if any(word in word_list("chinese", "contrasting") for word in words[:2]):
            sums, weight = [_BEFORE_BUT * earlier for earlier in sums], _AFTER_BUT
        said, count = _clause(words)
        sayings = [value for saying, value in _SAYINGS if saying.search(clause)]
        said, count = said + sum(sayings), count + len(sayings)
        sums.append(weight * said)
        found += count
    total = sum(sums)
    return total / math.sqrt(total * total + _SQUARED_SCALE), found


def _words(clause: str) -> list[str]:
    """jieba's words; one that it made of a strengthening or turning character and a word of feeling is taken apart,
    as is one of four characters that ends in such a word."""
    feeling, strength, turning = _weighed("feeling"), _weighed("strength"), word_list("chinese", "turning")
    words: list[str] = []
    for word in chinese().cut(clause):
        first, rest = word[:1], word[1:]
        if word not in feeling and rest in feeling and (first in turning or first in strength):
            words += [first, rest]
        elif word not in feeling and len(word) == 4 and word[2:] in feeling:
            words += [word[:2], word[2:]]
        else:
            words.append(word)
    return words


def _clause(words: Sequence[str]) -> tuple[float, int]:
    feeling, strength, turning = _weighed("feeling"), _weighed("strength"), word_list("chinese", "turning")
    total, found = 0.0, 0
    for place, word in enumerate(words):
        if word not in feeling or (word == _GOOD and not _is_praise(words, place)):
            continue
        before = words[max(0, place - _REACH) : place]
        value = feeling[word] * math.prod(strength.get(earlier, 1.0) for earlier in before)
        if sum(earlier in turning for earlier in before) % 2:
            value *= _TURNED
        total += value
        found += 1
    return total, found


def _is_praise(words: Sequence[str], place: int) -> bool:
    """Whether a lone "good" praises: at the end of a clause, or after a word that strengthens or turns it."""
    strength, turning = _weighed("strength"), word_list("chinese", "turning")
    return place == len(words) - 1 or (place > 0 and (words[place - 1] in strength or words[place - 1] in turning))


@cache
def _weighed(kind: str) -> dict[str, float]:
    """Words and what they weigh: of `feeling` their value, of `strength` the factor for what follows."""
    sections = _VALUES if kind == "feeling" else _STRENGTHS
    return {word: weight for section, weight in sections.items() for word in word_list("chinese", section)}
