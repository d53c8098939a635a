"""Numbers that look drawn and are not: the same for the same keys, in whatever order, batch or process they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)


def mixed(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): consecutive numbers become independent bits, uint64."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


def numbered(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Bits of pairs of whole numbers, uint64; both of one shape, or of shapes that go together."""
    return mixed(first.astype(np.uint64) * _STEP + second.astype(np.uint64))


def uniform(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """From 0 up to, but not, 1, one per pair of whole numbers.

    >>> uniform(np.array([1, 2]), np.array(7)).round(3).tolist()
    [0.39, 0.017]
    """
    return np.asarray((numbered(first, second) >> np.uint64(11)) / float(1 << 53))


def of_names(names: Sequence[str], salt: int = 0) -> np.ndarray:
    """Bits of names, uint64."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8, salt=salt.to_bytes(8, "little")) for name in names)
    return np.fromiter((int.from_bytes(digest.digest(), "little") for digest in digests), dtype=np.uint64, count=len(names))
