"""Does an encoder fine-tuned on what lasted tell more than trees on when and how often? The test part of `labeller`.

Read is a pair of texts: the category, and the names of the user's eight check-ins before the day, newest first. Of the
packaged encoder the last two layers are trained (what the others say of each text is kept), with a head that sees the mean
of the tokens and the numbers that the trees see. `numbers`: the same head without text; `frozen`: with the vector of the
encoder as it comes. A tenth of what is learnt from, by users, says when to stop. `learned` is what `models.labeller` tells;
`both` the mean of its log odds and the fine-tuned one's.

Example: .venv/bin/python tests/benchmarks/labeller_text.py --learnt 20000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import harness
import labeller_moments
import numpy as np
import pandas as pd
import torch
from labeller import SEED, lines, part_days
from torch import Tensor, nn

from models import encoder
from models.labeller import Past, learn
from models.lasting import MATURES_DAYS, features, lasting

RECENT, TOKENS, TRAINED, WIDTH = 8, 40, 2, 64
BATCH, EPOCHS, RATE, SLOW_RATE = 64, 3, 1e-3, 5e-5


def known(events: pd.DataFrame) -> tuple[Past, list[str], list[str]]:
    """All moments, and of each its category and the names of the user's check-ins before the day."""
    with tempfile.TemporaryDirectory() as scratch:
        _, interests = labeller_moments.labelled(events, Path(scratch))
        rows = labeller_moments.known(interests)
    past = labeller_moments.past_from(rows)
    at = events.sort_values(["user_id", "event_timestamp"], kind="stable")
    number = (at.event_timestamp.dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(int)).tolist()
    of_user: dict[str, tuple[list[int], list[str]]] = {}
    for user, day, name in zip(at.user_id, number, at.category, strict=True):
        days, names = of_user.setdefault(user, ([], []))
        days.append(day)
        names.append(name)
    recent = []
    for user, day in zip(rows["user_id"].to_pylist(), rows["n"].to_pylist(), strict=True):
        days, names = of_user[user]
        end = int(np.searchsorted(days, day))
        recent.append(", ".join(names[max(0, end - RECENT) : end][::-1]))
    return past, rows["category"].to_pylist(), recent


class Head(nn.Module):
    def __init__(self, text: int, numbers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(text + numbers, WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(WIDTH, 1))

    def forward(self, text_BD: Tensor, numbers_BF: Tensor) -> Tensor:
        return self.layers(torch.cat([text_BD, numbers_BF], dim=1)).squeeze(1)


class Reader(nn.Module):
    """The last layers of the encoder, over what the others made of a text."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.top = nn.ModuleList(bert.encoder.layer[-TRAINED:])

    def forward(self, hidden_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        reach = (1.0 - mask_BL[:, None, None, :]) * torch.finfo(torch.float32).min
        for layer in self.top:
            out = layer(hidden_BLD, attention_mask=reach)
            hidden_BLD = out[0] if isinstance(out, tuple) else out
        shown_BL1 = mask_BL[..., None]
        return nn.functional.normalize((hidden_BLD * shown_BL1).sum(1) / shown_BL1.sum(1), dim=1)


@torch.inference_mode()
def lower(bert: nn.Module, tokens: dict[str, Tensor]) -> Tensor:
    """(M, L, D) half precision: what the layers that are not trained make of each pair."""
    found = []
    for start in range(0, len(tokens["input_ids"]), 256):
        part = {name: one[start : start + 256] for name, one in tokens.items()}
        mask_BL = part["attention_mask"].float()
        hidden_BLD = bert.embeddings(input_ids=part["input_ids"], token_type_ids=part["token_type_ids"])
        for layer in bert.encoder.layer[:-TRAINED]:
            out = layer(hidden_BLD, attention_mask=(1.0 - mask_BL[:, None, None, :]) * torch.finfo(torch.float32).min)
            hidden_BLD = out[0] if isinstance(out, tuple) else out
        found.append(hidden_BLD.half())
    return torch.cat(found)


def learnt(
    texts: tuple[Tensor, Tensor] | None, frozen_MD: Tensor, numbers_MF: Tensor, lasted_M: Tensor, train: np.ndarray,
    stop: np.ndarray, reader: Reader | None,
) -> np.ndarray:  # fmt: skip
    """(M,) log odds, as they were at the best epoch on `stop`."""
    torch.manual_seed(SEED)
    head = Head(frozen_MD.shape[1], numbers_MF.shape[1])
    groups = [{"params": head.parameters(), "lr": RATE}]
    if reader is not None:
        groups.append({"params": reader.parameters(), "lr": SLOW_RATE})
    descent = torch.optim.AdamW(groups, weight_decay=0.01)

    def said(rows: np.ndarray) -> Tensor:
        if reader is None or texts is None:
            return head(frozen_MD[rows], numbers_MF[rows])
        length = int(texts[1][rows].sum(1).max())
        return head(reader(texts[0][rows, :length].float(), texts[1][rows, :length]), numbers_MF[rows])

    def all_of(rows: np.ndarray) -> Tensor:
        with torch.inference_mode():
            return torch.cat([said(rows[start : start + 256]) for start in range(0, len(rows), 256)])

    best, told_M = np.inf, np.zeros(len(lasted_M))
    rng = np.random.default_rng(SEED)
    for epoch in range(EPOCHS if reader is not None else 3 * EPOCHS):
        began = time.monotonic()
        _ = head.train(), reader.train() if reader is not None else None
        for part in np.array_split(rng.permutation(train), -(-len(train) // BATCH)):
            descent.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(said(part), lasted_M[part]).backward()
            descent.step()
        _ = head.eval(), reader.eval() if reader is not None else None
        loss = nn.functional.binary_cross_entropy_with_logits(all_of(stop), lasted_M[stop]).item()
        harness.progress(f"epoch {epoch + 1}: loss {loss:.4f} of those that say when to stop, {time.monotonic() - began:.0f} s")
        if loss < best:
            best, told_M = loss, all_of(np.arange(len(lasted_M))).double().numpy()
    return told_M


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--learnt", type=int, default=20_000, help="moments to learn from")
    wanted = given.parse_args().learnt
    past, names, recent = known(labeller_moments.foursquare())
    first, end = part_days(past)["test"]
    day_M, before = past.moments.day_M, past.before(first)
    made = learn(before, seed=SEED)
    assert made is not None, "too little to learn from"
    rng = np.random.default_rng(SEED)
    mature = np.flatnonzero(day_M + MATURES_DAYS < first)
    mature = np.sort(rng.permutation(mature)[:wanted])
    test = np.flatnonzero((day_M >= first) & (day_M < end))
    rows = np.concatenate([mature, test])
    train, stop = (np.flatnonzero((past.moments.user_M[mature] % 10 == 0) == part) for part in (False, True))
    numbers_MF = features(past.moments.take(rows), past.clock)
    numbers_MF = np.column_stack([numbers_MF, [made.lasts.get(names[row], made.lasts_mean) for row in rows]])
    ahead_M = np.where(np.arange(len(rows)) < len(mature), past.clock.ahead(past.moments.day_M[rows]), 1.0)
    is_none = np.isnan(numbers_MF)
    scaled = (numbers_MF - np.nanmean(numbers_MF[train], axis=0)) / (np.nanstd(numbers_MF[train], axis=0) + 1e-9)
    scaled = np.nan_to_num(np.clip(scaled, -5, 5))
    numbers = torch.from_numpy(np.column_stack([scaled, is_none, ahead_M]).astype(np.float32))
    lasted_all = lasting(past.moments)
    lasted = torch.from_numpy(lasted_all[rows].astype(np.float32))

    from transformers import AutoModel, AutoTokenizer

    folder = encoder.find().folder
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    bert = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
    tokens = tokenizer(
        [names[row] for row in rows], [recent[row] for row in rows], truncation="only_second", max_length=TOKENS,
        padding="max_length", return_tensors="pt",
    )  # fmt: skip
    began = time.monotonic()
    hidden = lower(bert, dict(tokens))
    harness.progress(f"{len(rows):,} pairs read by the lower layers in {time.monotonic() - began:.0f} s")
    mask = tokens["attention_mask"].float()
    reader = Reader(bert)
    with torch.inference_mode():
        frozen = torch.cat([reader(hidden[at : at + 256].float(), mask[at : at + 256]) for at in range(0, len(rows), 256)])
    frozen = frozen.clone()
    none = torch.zeros(len(rows), 0)
    odds = {
        "numbers": learnt(None, none, numbers, lasted, train, stop, None),
        "frozen": learnt(None, frozen, numbers, lasted, train, stop, None),
        "fine_tuned": learnt((hidden, mask), frozen, numbers, lasted, train, stop, reader),
    }
    learned_M = past.told(made, np.isin(np.arange(len(day_M)), rows))[np.argsort(np.argsort(rows))]
    said = {"learned": learned_M} | {name: 1 / (1 + np.exp(-one)) for name, one in odds.items()}
    said["both"] = 1 / (1 + np.exp(-(odds["fine_tuned"] + np.log(learned_M / (1 - learned_M))) / 2))
    full = {name: np.zeros(len(day_M)) for name in said}
    for name, told_M in said.items():
        full[name][rows] = told_M
    full["rule"] = past.moments.ruled_M.astype(float)
    for line in lines(past, full, test):
        harness.say({"name": "labeller-text", "part": "test", **line})


if __name__ == "__main__":
    main()
