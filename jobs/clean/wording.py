"""Words in one form: composed characters, single spaces, no control characters."""

import pandas as pd
from pyspark.sql import Column
from pyspark.sql import functions as F

# Zero width spaces and marks of direction are not seen, and make two words of one.
_UNSEEN = r"[\u200B-\u200F\u202A-\u202E\u2060\uFEFF]"
_SPACE = r"[\p{Cntrl}\p{Z}\s]+"


def single_spaced(text: Column) -> Column:
    """Without what is not seen, and with one space between words; null where nothing is left."""
    plain = F.trim(F.regexp_replace(F.regexp_replace(text, _UNSEEN, ""), _SPACE, " "))
    return F.when(plain != "", plain)


def normalised(text: Column) -> Column:
    """`single_spaced`, in the Unicode normalisation form NFKC: what looks alike is alike."""

    @F.pandas_udf("string")  # type: ignore[call-overload]
    def composed(texts: pd.Series) -> pd.Series:
        return texts.str.normalize("NFKC")

    return single_spaced(composed(text))
