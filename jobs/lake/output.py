"""A file of the caller's that is there whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """A file beside `output` to write to, which takes its place when all went well.

    Raises:
        ValueError: `output` cannot be written; said before the work, not after it.
    """
    if output.is_dir():
        raise ValueError(f"--output {output} is a folder: name a file in it")
    scratch = output.absolute().parent / f".{output.name}-{uuid.uuid4().hex[:8]}.part"
    try:
        scratch.touch()
    except OSError as error:
        raise ValueError(f"--output {output} cannot be written: {error.strerror or error}") from None
    try:
        yield scratch
        scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)
