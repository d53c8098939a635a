"""A text's words in one form, and the language that decides how it is read: English, Chinese, or another."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jieba import Tokenizer

ENGLISH, CHINESE, OTHER = "en", "zh", "other"

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_IS_HAN = re.compile(f"[{_HAN}]")
IS_KANA = re.compile(r"[\u3041-\u30ff]")
_LETTER = re.compile(r"[^\W\d_]")
_IS_LATIN = re.compile(r"[a-z\u00df-\u024f\u1e00-\u1eff]")
# Words of letters and digits, with inner apostrophes and hyphens; each Han character by itself.
WORD = re.compile(rf"[{_HAN}]|(?:(?![{_HAN}])[^\W_])+(?:['\u2019-](?:(?![{_HAN}])[^\W_])+)*")
# From so many words on a text in Latin letters can be told from its little words.
_TELLING = 4
# One Han character says as much as some Latin letters.
_LETTERS_A_HAN = 3
_LISTS = Path(__file__).parent / "lists"


@cache
def word_list(name: str, section: str) -> frozenset[str]:
    """The words of a section of a file in `lists`: lines of words below `[section]`."""
    found: dict[str, list[str]] = {}
    for line in (_LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            words = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            words += line.split()
    return frozenset(found[section])


def folded(text: str) -> str:
    """NFKC, which makes full-width forms plain, and letters without case."""
    return unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")


def tokens(text: str) -> list[str]:
    """The words of a folded text in order; each Han character is one."""
    return WORD.findall(text)


def language(text: str) -> str | None:
    """`en`, `zh` or `other` of a folded text; None: it has no letters.

    Few words in Latin letters count as English: a search says too little to tell.
    """
    letters = len(_LETTER.findall(text))
    if not letters:
        return None
    han, latin = len(_IS_HAN.findall(text)), len(_IS_LATIN.findall(text))
    if IS_KANA.search(text):
        return OTHER
    if _LETTERS_A_HAN * han > max(latin, letters - latin - han):
        return CHINESE
    if 2 * latin <= letters:
        return OTHER
    said = [word for word in tokens(text) if not word.isdigit()]
    if len(said) < _TELLING:
        return ENGLISH
    english, foreign = (sum(word in word_list(name, "telling") for word in said) for name in ("english", "other"))
    return OTHER if foreign > english else ENGLISH


@cache
def chinese() -> Tokenizer:
    """jieba's tokenizer with its packaged dictionary, 0.7 s and 150 MB once per process.

    Filled by hand: jieba itself would trust, and leave, a cache file in the folder that all programs share.
    """
    import jieba

    tokenizer = jieba.Tokenizer()
    with tokenizer.get_dict_file() as dictionary:
        tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(dictionary)
    tokenizer.initialized = True
    return tokenizer
