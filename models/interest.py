"""The interest model: a network with its vocabulary, as a `Ranker` and in the parts that bulk scoring needs.

    scores = query_vectors(...) @ item_matrix() + item_bias(), plus history_term(...) at its places, exactly.

Shape suffixes: B moments, L events of history, D width, V items, P pulls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from conf.learning import Model
from models.events import Events, Moments
from models.knowledge import Knowledge
from models.network import Network
from models.queries import FIRST, PADDING, Histories, Queries, Vocabulary

if TYPE_CHECKING:
    from models.bulk import BulkScorer

_WEIGHTS, _VOCABULARY, _DETAILS = "weights.pt", "vocabulary.json", "version.json"
KNOWLEDGE = "knowledge.npz"
# Pairs of events that are alive together: bounds the memory of reading.
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Pulls:
    """What a user's own past adds to items: `values_P` at (`rows_P`, `places_P`), each pair once."""

    rows_P: np.ndarray  # int64, moment 0..B-1
    places_P: np.ndarray  # int64, place in the catalogue 0..V-1
    values_P: np.ndarray  # float32


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_network(settings: Model, vocabulary: Vocabulary, knowledge: Knowledge | None = None) -> Network:
    """A network of the vocabulary's size with fresh weights (from torch's random state)."""
    assert knowledge is None or all(len(values_VK) == len(vocabulary.items) for values_VK in knowledge.vectors.values())
    network = Network(
        settings,
        items=len(vocabulary.items),
        categories=len(vocabulary.categories),
        event_types=len(vocabulary.event_types),
        knowledge=knowledge,
    )
    network.category_of_item_V.copy_(torch.from_numpy(vocabulary.category_of_item_V.astype(np.int64)))
    return network


def parts(network: Network) -> str:
    """What tells apart networks whose weights do not fit each other, whatever their vocabularies."""
    grow = ("item.weight", "category.weight", "event_type.weight", "item_bias", "category_of_item_V")
    shapes = sorted((name, tuple(one.shape[name in grow :])) for name, one in network.state_dict().items())
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]


def grown(network: Network, vocabulary: Vocabulary, knowledge: Knowledge | None = None) -> Network:
    """The same weights for a vocabulary with names appended, and what is known of its items by now.

    New names start as the unknown of their kind was learnt; a new item's bias is that of the least
    liked: nothing of what was known before scores differently.
    """
    larger = new_network(network.settings, vocabulary, knowledge)
    state = larger.state_dict()
    for name, old in network.state_dict().items():
        if name in ("item.weight", "category.weight", "event_type.weight"):
            state[name][: len(old)] = old
            state[name][len(old) :] = old[1]
        elif name == "item_bias":
            state[name][: len(old)] = old
            state[name][len(old) :] = old.min() if len(old) else 0.0
        elif name != "category_of_item_V":
            state[name] = old
    larger.load_state_dict(state)
    return larger


class InterestModel:
    """A trained network that ranks the catalogue of its vocabulary."""

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        *,
        device: torch.device | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.metrics = dict(metrics or {})
        self.device = device or best_device()
        self.network = network.to(self.device).eval()

    @property
    def method(self) -> str:
        """The sequence encoder."""
        return self.network.settings.encoder

    def bulk(self) -> BulkScorer:
        """What scores many moments of each history at once."""
        from models.bulk import BulkScorer

        return BulkScorer(self)

    @property
    def window(self) -> int:
        """Events of history that are read; longer histories are cut to their newest."""
        return self.network.settings.window

    def scores(self, histories: Histories, queries: Queries) -> np.ndarray:
        """Scores of all items, (B, V) float32. Higher is better; `seen` is not applied."""
        vectors_BD, pulls = self._read(histories, queries)
        scores_BV = vectors_BD @ self.item_matrix() + self.item_bias()
        scores_BV[pulls.rows_P, pulls.places_P] += pulls.values_P
        return scores_BV

    def query_vectors(self, histories: Histories, queries: Queries) -> np.ndarray:
        """The moments as vectors, (B, D) float32."""
        return self._read(histories, queries)[0]

    def history_term(self, histories: Histories, queries: Queries) -> Pulls:
        """What is added to the items of each history."""
        return self._read(histories, queries)[1]

    def parts(self, histories: Histories, queries: Queries) -> tuple[np.ndarray, Pulls]:
        """`query_vectors` and `history_term` in one pass."""
        return self._read(histories, queries)

    @torch.inference_mode()
    def readings(self, histories: Histories, queries: Queries) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """What the moments' vectors are made of, and they, (B, D) float32 each: the state at the end of the history, the
        reading of the whole past (None: this network has none), and both joined (`model.fusion`)."""
        read = [self.network(one.to(self.device), asked.to(self.device)) for _, one, asked in self._batches(histories, queries)]

        def joined(vectors: list[torch.Tensor]) -> np.ndarray:
            return np.concatenate([vector_BTD[:, 0].float().cpu().numpy() for vector_BTD in vectors])

        long = [one.long_BTD for one in read if one.long_BTD is not None]
        short, vector = joined([one.short_BTD for one in read]), joined([one.vector_BTD for one in read])
        return short, joined(long) if long else None, vector

    @torch.inference_mode()
    def item_matrix(self) -> np.ndarray:
        """The items as columns, (D, V) float32."""
        return self.network.item_matrix().T.contiguous().cpu().numpy()

    def item_bias(self) -> np.ndarray:
        """What an item has for everyone, (V,) float32."""
        return self.network.item_bias.detach().cpu().numpy()

    @torch.inference_mode()
    def _read(self, histories: Histories, queries: Queries) -> tuple[np.ndarray, Pulls]:
        vectors = [np.zeros((0, self.network.settings.width), dtype=np.float32)]
        rows, places, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        for start, events, moments in self._batches(histories, queries):
            reading = self.network(events.to(self.device), moments.to(self.device))
            vectors.append(reading.vector_BTD[:, 0].float().cpu().numpy())
            pull_BL, item_BL = reading.pull_BTL[:, 0].float().cpu().numpy(), reading.item_BL.cpu().numpy()
            row_P, place_P = np.nonzero((pull_BL != 0) & (item_BL != PADDING))
            rows.append(row_P + start)
            places.append(item_BL[row_P, place_P] - FIRST)
            values.append(pull_BL[row_P, place_P])
        pulls = Pulls(rows_P=np.concatenate(rows), places_P=np.concatenate(places), values_P=np.concatenate(values))
        return np.concatenate(vectors), pulls

    def _batches(self, histories: Histories, queries: Queries) -> Iterator[tuple[int, Events, Moments]]:
        length = min(self.window, histories.item_BL.shape[1])
        step = max(1, _PAIRS_AT_ONCE // max(length, 1) ** 2)
        for start in range(0, len(queries.timestamp_B), step):
            part = slice(start, start + step)
            events = events_of(histories, part, length, self.vocabulary)
            last_B1 = torch.where(events.item_BL[:, -1:] != PADDING, length - 1, -1)
            yield (
                start,
                events,
                Moments(
                    timestamp_BT=torch.from_numpy(queries.timestamp_B[part, None].astype(np.int64)),
                    hour_of_week_BT=torch.from_numpy(queries.hour_of_week_B[part, None].astype(np.float32)),
                    latitude_BT=torch.from_numpy(queries.latitude_B[part, None].astype(np.float32)),
                    longitude_BT=torch.from_numpy(queries.longitude_B[part, None].astype(np.float32)),
                    last_BT=last_B1,
                ),
            )

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write weights, vocabulary and `version.json` into an existing folder; `half`: weights in half precision."""
        weights = self.network.state_dict()
        torch.save({name: (halved(value) if half else value).cpu() for name, value in weights.items()}, folder / _WEIGHTS)
        self.vocabulary.save(folder / _VOCABULARY)
        details = {
            "method": self.method,
            "model": self.network.settings.model_dump(mode="json"),
            "parts": parts(self.network),
            "weights": "half" if half else "single",
            "metrics": self.metrics,
        }
        if self.network.known is not None:
            self.network.known.knowledge.save(folder / KNOWLEDGE)
        (folder / _DETAILS).write_text(json.dumps(details))

    @staticmethod
    def load(folder: Path, device: torch.device | None = None) -> InterestModel:
        """
        Raises:
            ValueError: its weights are of another release's network.
        """
        details = json.loads((folder / _DETAILS).read_text())
        vocabulary = Vocabulary.load(folder / _VOCABULARY)
        network = new_network(Model.model_validate(details["model"]), vocabulary, knowledge_of(folder))
        if details.get("parts") != parts(network):
            raise ValueError(f"{folder} was learnt by another release's network: train anew, or publish another version")
        network.load_state_dict(torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True))
        return InterestModel(network, vocabulary, device=device, metrics=details["metrics"])


def halved(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def knowledge_of(folder: Path) -> Knowledge | None:
    """What a version was told of its items; None: nothing."""
    file = folder / KNOWLEDGE
    return Knowledge.load(file) if file.is_file() else None


def events_of(histories: Histories, rows: slice, length: int, vocabulary: Vocabulary) -> Events:
    """The newest `length` events of some histories as tensors; indices past the vocabulary become unknown."""
    newest = slice(histories.item_BL.shape[1] - length, None)

    def index(name: str, names: tuple[str, ...]) -> torch.Tensor:
        taken = getattr(histories, name)[rows, newest].astype(np.int64)
        return torch.from_numpy(np.where(taken < FIRST + len(names), taken, 1))

    def number(name: str, kind: type) -> torch.Tensor:
        return torch.from_numpy(getattr(histories, name)[rows, newest].astype(kind))

    return Events(
        item_BL=index("item_BL", vocabulary.items),
        category_BL=index("category_BL", vocabulary.categories),
        event_type_BL=index("event_type_BL", vocabulary.event_types),
        timestamp_BL=number("timestamp_BL", np.int64),
        hour_of_week_BL=number("hour_of_week_BL", np.float32),
        latitude_BL=number("latitude_BL", np.float32),
        longitude_BL=number("longitude_BL", np.float32),
    )
