"""Encodes texts by the peer, or in a precision by ours, into a file of vectors; one JSON line. Called by text.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import get_args

import numpy as np

from models import encoder
from models.flat_bert import Precision

MAX_TOKENS, SHORTEST, LONGEST = 128, 3, 200
WORDS = """the a of and in to it was is for with not this our very coffee harbour bicycle museum garden repaired delicious
noisy waiters yesterday breakfast, bookshop. underground jazz evenings expensive hairdresser's re-opened 1987 seafood queue"""


def texts(size: int) -> list[str]:
    """As many short ones as long ones on a logarithmic scale, in no order."""
    rng = np.random.default_rng(8)
    lengths = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), size)).astype(int)
    return [" ".join(rng.choice(WORDS.split(), length)) for length in lengths]


def encoding(said: str) -> Callable[[list[str]], np.ndarray]:
    threads = int(os.environ["OMP_NUM_THREADS"])
    if said in get_args(Precision):
        return encoder.load(precision=said, max_tokens=MAX_TOKENS, threads=threads).encode
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    peer = SentenceTransformer(str(encoder.find().folder), device="cpu")
    peer.max_seq_length = MAX_TOKENS
    return lambda given: peer.encode(given, normalize_embeddings=True, show_progress_bar=False)


def main(said: str, size: int, to: str) -> dict[str, object]:
    began = time.monotonic()
    encode, given = encoding(said), texts(size)
    encode(given[:64])
    started = time.monotonic()
    np.save(to, encode(given))
    seconds = time.monotonic() - started
    return {"seconds": seconds, "startup_s": started - began, "texts_a_second": round(size / seconds, 1)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], int(sys.argv[2]), sys.argv[3])) + "\n")
