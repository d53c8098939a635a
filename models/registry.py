"""Folders of model versions: whatever ranks is saved and loaded in the same way.

A folder holds `version.json` with at least {"method": ...} and what the method's class needs besides.
It appears whole (by a rename) and never changes.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Protocol

from models.baselines import BASELINES, Baseline
from models.interest import TRANSFORMER, InterestModel
from models.queries import Ranker

FOLDER = "models"
_DETAILS = "version.json"


class Stored(Ranker, Protocol):
    """A ranker that can write itself into a folder."""

    def save(self, folder: Path) -> None: ...


def version_folder(root: str, version: str) -> Path:
    """Where a version lies in the lake at `root`."""
    return Path(root) / FOLDER / version


def save(ranker: Stored, folder: Path) -> None:
    """Write a version's folder; one that is there already is left as it is, for versions are immutable."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / f".{folder.name}-{uuid.uuid4().hex[:8]}"
    scratch.mkdir()
    try:
        ranker.save(scratch)
        scratch.rename(folder)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        # Another run may have been first with the same version; anything else is an error.
        if not folder.exists():
            raise


def details(folder: Path) -> dict[str, object]:
    """What `version.json` says.

    Raises:
        ValueError: there is no such version, or its folder is not whole.
    """
    try:
        return json.loads((folder / _DETAILS).read_text())
    except (OSError, json.JSONDecodeError) as error:
        reason = type(error).__name__
        raise ValueError(f"{folder} holds no model version ({reason}); `wherewhen models` lists those there are") from None


def load_ranker(folder: Path) -> Ranker:
    """The ranker of a version, whatever its method.

    Raises:
        ValueError: there is no such version, or its method is not known here.
    """
    folder = Path(folder)
    method = details(folder).get("method")
    if method == TRANSFORMER:
        return InterestModel.load(folder)
    if method in BASELINES:
        return Baseline.load(folder)
    raise ValueError(f"{folder}: unknown method {method}; known are {', '.join((TRANSFORMER, *BASELINES))}")
