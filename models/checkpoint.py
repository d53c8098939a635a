"""What a training that was ended from outside goes on from: one file, whole or not there, that says if it is damaged."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

_DIGEST_BYTES = 32


class Damaged(Exception):
    """The file does not hold what was saved."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, and dicts and lists of these) in place of what is at `path`.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    held = io.BytesIO()
    torch.save(state, held)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(hashlib.sha256(held.getbuffer()).digest())
            file.write(held.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any] | None:
    """What was saved last; None where nothing was.

    Raises:
        Damaged: the bytes are not those that were written.
    """
    if not path.exists():
        return None
    held = path.read_bytes()
    digest, content = held[:_DIGEST_BYTES], held[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise Damaged(f"{path} is damaged")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state
