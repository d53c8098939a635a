"""What texts are about, in few names: clusters of the vectors of items' texts, made monthly; a text belongs to the nearest.

Only items' texts make topics and name them: a name must not repeat what a person wrote.
Shape suffixes: N texts, K topics, D dimensions of a vector.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

SAMPLE = 20_000
LEAST_TEXTS = 30
MOST_TOPICS = 64
TOPICS = "encoder string, topic int, name string, centroid array<float>, texts bigint, day date"
TOLD = "topic string, topic_confidence double"
_SCHEMA = pa.schema(
    [
        ("encoder", pa.string()), ("topic", pa.int32()), ("name", pa.string()), ("centroid", pa.list_(pa.float32())),
        ("texts", pa.int64()), ("day", pa.date32()),
    ]
)  # fmt: skip
# A name is of two terms, and of a third that weighs this share of the first or more; of further ones to be another's no more.
_LEAST_TERMS, _NAME_TERMS, _LEAST_SHARE = 2, 3, 0.4
# Cosines as far apart as this make a topic e times as likely as the other.
_TEMPERATURE = 0.05


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The topics of one day's fit, for the vectors of one encoder: they hold from that day until the next fit."""

    day: date
    encoder: str
    names: tuple[str, ...]
    centroids_KD: np.ndarray


def text_topics(described: DataFrame, semantics: DataFrame) -> DataFrame:
    """Topics per fit day and encoder; none where an encoder has vectors of fewer than `LEAST_TEXTS` texts.

    described: day, text_hash: the texts that describe items on each fit day. semantics: text_hash, vector, encoder,
    keywords. Of more than `SAMPLE` texts those with the least hashes are used, so that any order gives the same.
    """
    of_fit = Window.partitionBy("day", "encoder").orderBy("text_hash")
    texts = described.distinct().join(semantics.where(F.col("vector").isNotNull()), on="text_hash", how="inner")
    sample = texts.withColumn("_place", F.row_number().over(of_fit)).where(F.col("_place") <= SAMPLE).drop("_place")
    return sample.groupBy("day", "encoder").applyInArrow(_fitted, TOPICS)


def _fitted(texts: pa.Table) -> pa.Table:
    """The topics of the texts of one day and encoder, those of the most texts first."""
    if texts.num_rows < LEAST_TEXTS:
        return _SCHEMA.empty_table()
    texts = texts.sort_by("text_hash")
    vectors_ND = _matrix(texts.column("vector"))
    label_N = clusters(vectors_ND)
    sizes = np.bincount(label_N)
    order = np.argsort(-sizes, kind="stable")
    words = texts.column("keywords").to_pylist()
    names = topic_names([[words[row] or [] for row in np.flatnonzero(label_N == label)] for label in order])
    centroids = [_unit(vectors_ND[label_N == label].mean(axis=0)) for label in order]
    rows = {
        "encoder": texts.column("encoder").slice(0, 1).to_pylist() * len(order),
        "topic": list(range(1, len(order) + 1)),
        "name": names,
        "centroid": centroids,
        "texts": sizes[order].tolist(),
        "day": texts.column("day").slice(0, 1).to_pylist() * len(order),
    }
    return pa.Table.from_pydict(rows, schema=_SCHEMA)


def clusters(vectors_ND: np.ndarray) -> np.ndarray:
    """The cluster of each text, from 0 without gaps: k-means of unit vectors, as many as `sqrt(2 N)`."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    wanted = min(MOST_TOPICS, max(2, round(math.sqrt(2 * len(vectors_ND)))))
    with warnings.catch_warnings():
        # Fewer different vectors than clusters: then some stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        label_N = KMeans(n_clusters=wanted, n_init=4, random_state=0).fit_predict(vectors_ND)
    return np.unique(label_N, return_inverse=True)[1]


def topic_names(topics: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """A name per topic, each another: its most telling keywords, of those that more than one text has where there are such.

    topics: per topic the keywords of each of its texts. Weighed by class-based TF-IDF (Grootendorst, 2022, BERTopic).
    """
    counts = [Counter(term for words in texts for term in _terms(words)) for texts in topics]
    everywhere = Counter[str]()
    for count in counts:
        everywhere.update(count)
    per_topic = everywhere.total() / max(1, len(topics))
    names: list[str] = []
    for number, count in enumerate(counts, start=1):
        weights = {term: times * math.log(1 + per_topic / everywhere[term]) for term, times in count.items()}
        shared = [term for term in weights if count[term] > 1]
        terms = _apart(sorted(shared or weights, key=lambda term: (-weights[term], -len(term), term)))
        telling = sum(weights[term] >= _LEAST_SHARE * weights[terms[0]] for term in terms[:_NAME_TERMS])
        shortest = min(len(terms), max(_LEAST_TERMS, telling))
        longer = (", ".join(terms[:length]) for length in range(shortest, len(terms) + 1))
        names.append(next((name for name in longer if name and name not in names), f"topic {number}"))
    return names


def _terms(keywords: Sequence[str]) -> set[str]:
    """Keywords and the words in them: a noun behind many brands comes seldom as the same phrase."""
    return {*keywords, *[word for phrase in keywords for word in phrase.split()]}


def _apart(terms: Iterable[str]) -> list[str]:
    """Those that share no word with a better one."""
    chosen: list[str] = []
    taken: set[str] = set()
    for term in terms:
        if not taken & set(term.split()):
            chosen.append(term)
            taken.update(term.split())
    return chosen


def newest_fits(rows: DataFrame) -> DataFrame:
    """Of rows of text_topics those of each encoder's newest day."""
    by_encoder = Window.partitionBy("encoder")
    return rows.withColumn("_newest", F.max("day").over(by_encoder)).where(F.col("day") == F.col("_newest")).drop("_newest")


def fits_of(rows: Sequence[Row]) -> list[Fit]:
    """Rows of text_topics as fits, oldest first."""
    found = []
    ordered = sorted(rows, key=lambda row: (row.day, row.encoder, row.topic))
    for (day, encoder), topics in groupby(ordered, key=lambda row: (row.day, row.encoder)):
        of_fit = list(topics)
        names = tuple(row["name"] for row in of_fit)
        centroids_KD = np.array([row.centroid for row in of_fit], np.float32)
        found.append(Fit(day=day, encoder=encoder, names=names, centroids_KD=centroids_KD))
    return found


def telling(fits: Sequence[Fit]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For mapInArrow: adds `TOLD`, by the encoder's newest fit up to the text's day; null where there is none."""

    def tell(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            days, by = batch.column("day").to_pylist(), batch.column("encoder").to_pylist()
            worded = batch.column("vector").is_valid().to_numpy(zero_copy_only=False)
            rows = {row: fit for row in np.flatnonzero(worded) if (fit := _newest(fits, by[row], days[row])) is not None}
            names = np.full(batch.num_rows, None, dtype=object)
            confidence = np.full(batch.num_rows, np.nan)
            for fit in {id(fit): fit for fit in rows.values()}.values():
                of_fit = [row for row, its in rows.items() if its is fit]
                best, confidence[of_fit] = nearest(_matrix(batch.column("vector").take(pa.array(of_fit))), fit.centroids_KD)
                names[of_fit] = [fit.names[topic] for topic in best]
            told = [pa.array(names, pa.string()), pa.array(confidence, pa.float64(), mask=np.isnan(confidence))]
            yield pa.RecordBatch.from_arrays([*batch.columns, *told], names=[*batch.schema.names, *_TOLD_NAMES])

    return tell


_TOLD_NAMES = [field.split()[0] for field in TOLD.split(", ")]


def _newest(fits: Sequence[Fit], encoder: str, day: date) -> Fit | None:
    return next((fit for fit in reversed(fits) if fit.encoder == encoder and fit.day <= day), None)


def nearest(vectors_ND: np.ndarray, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per text the topic of the greatest cosine, and its share of all topics' likelihoods (softmax of the cosines)."""
    cosines_NK = vectors_ND.astype(np.float64) @ centroids_KD.astype(np.float64).T
    best_N = cosines_NK.argmax(axis=1)
    others_NK = np.exp((cosines_NK - cosines_NK.max(axis=1, keepdims=True)) / _TEMPERATURE)
    return best_N, 1 / others_NK.sum(axis=1)


def _matrix(vectors: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Vectors of one length, none of them null, as rows."""
    plain = vectors.combine_chunks() if isinstance(vectors, pa.ChunkedArray) else vectors
    return plain.flatten().to_numpy(zero_copy_only=False).reshape(len(plain), -1).astype(np.float32)


def _unit(vector_D: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector_D)
    return vector_D / length if length > 0 else vector_D
