"""Folders of model versions: whatever was learnt is saved in the same way, and whatever ranks is loaded in one.

A folder holds `version.json` with at least {"method": ...} and what the method's class needs besides.
It appears whole (by a rename) and never changes; an index of its items (`models.nearest`) is put beside the rest later.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, Protocol

from conf.learning import ENCODERS, HYBRID
from models.baselines import BASELINES, Baseline
from models.queries import Ranker

FOLDER = "models"
CHECKPOINTS = ".training"
VOCABULARY = "vocabulary.json"
_DETAILS = "version.json"


class Stored(Protocol):
    """What can write itself into a folder: a ranker, a labeller."""

    def save(self, folder: Path) -> None: ...


def version_folder(root: str, version: str) -> Path:
    """Where a version lies in the lake at `root`."""
    return Path(root) / FOLDER / version


def checkpoint_file(root: str, version: str) -> Path:
    """What the training of a version goes on from; beside the versions, so that another process finds it."""
    return Path(root) / FOLDER / CHECKPOINTS / f"{version}.pt"


def save(made: Stored, folder: Path) -> None:
    """Write a version's folder; one that is there already is left as it is, for versions are immutable."""
    with tempfile.TemporaryDirectory(prefix="wherewhen-version-") as scratch:
        made.save(Path(scratch))
        adopt(Path(scratch), folder)


def adopt(made: Path, folder: Path) -> None:
    """Let a folder that a model wrote appear as a version's, whole or not at all."""
    if folder.exists():
        return
    # Beside it, as a rename within one file system is at once.
    beside = folder.parent / f".{folder.name}-{uuid.uuid4().hex[:8]}"
    try:
        shutil.copytree(made, beside)
        beside.rename(folder)
    except OSError:
        # Another run may have been first with the same version; anything else is an error.
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def is_whole(folder: Path) -> bool:
    return (folder / _DETAILS).is_file()


def details(folder: Path) -> dict[str, Any]:
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
    if method in ENCODERS:
        from models.interest import InterestModel  # loads torch, which no other kind needs

        return InterestModel.load(folder)
    if method in BASELINES:
        return Baseline.load(folder)
    if method == HYBRID:
        from models.hybrid import Hybrid  # LightGBM needs a library of the system's, which the others do without

        return Hybrid.load(folder)
    raise ValueError(f"{folder}: unknown method {method}; known are {', '.join((*ENCODERS, *BASELINES, HYBRID))}")
