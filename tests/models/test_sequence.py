"""Whatever the encoder: an event is read after those before it, and after nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conf.learning import ENCODERS, Model
from models.events import Events
from models.interest import InterestModel, new_network
from models.queries import Histories, Queries, Vocabulary
from models.registry import load_ranker
from models.sequence import Recurrent, sequence_encoder

SETTINGS = Model(window=8, width=16, heads=2, layers=2)
VOCABULARY = Vocabulary(items=("a", "b", "c"), item_categories=("x", "x", "y"), categories=("x", "y"), event_types=("view",))


def rows(lengths, size=8):
    """Events of rows with so many events each, padding in front."""
    generator = np.random.default_rng(0)
    item_BL = generator.integers(2, 5, (len(lengths), size))
    item_BL[np.arange(size) < size - np.array(lengths)[:, None]] = 0
    times = 1_700_000_000 + np.cumsum(generator.integers(60, 90_000, item_BL.shape), axis=1)

    def there(values, absent):
        return torch.from_numpy(np.where(item_BL > 0, values, absent).astype(np.float32))

    return Events(
        item_BL=torch.from_numpy(item_BL),
        category_BL=torch.from_numpy(np.where(item_BL > 0, 2, 0)),
        event_type_BL=torch.from_numpy(np.where(item_BL > 0, 2, 0)),
        timestamp_BL=torch.from_numpy(np.where(item_BL > 0, times, 0)),
        hour_of_week_BL=there(generator.uniform(0, 168, item_BL.shape), -1),
        latitude_BL=there(generator.uniform(40, 41, item_BL.shape), np.nan),
        longitude_BL=there(generator.uniform(-74, -73, item_BL.shape), np.nan),
    )


def made(encoder):
    torch.manual_seed(1)
    return sequence_encoder(SETTINGS.model_copy(update={"encoder": encoder})).eval()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_state_follows_from_the_event_and_those_before_it(encoder):
    network, events = made(encoder), rows([8, 5, 1])
    x_BLD = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(2))
    before = network(x_BLD, events)
    assert before.shape == x_BLD.shape
    for place in range(8):
        changed_BLD = x_BLD.clone()
        changed_BLD[:, place] = torch.randn(3, 16, generator=torch.Generator().manual_seed(place + 3))
        # The states of padding say nothing.
        moved = ((network(changed_BLD, events) - before).abs().amax(dim=2) > 1e-6) & (events.item_BL > 0)
        known = events.item_BL[:, place] > 0
        assert not moved[:, :place].any(), "nothing of what comes later"
        assert moved[known, place:].all(), "all of what came before"
        assert not moved[~known].any(), "nothing of padding"


@pytest.mark.parametrize("encoder", ["rnn", "lstm", "gru"])
def test_a_recurrent_encoder_is_torchs_cell_on_the_events_alone(encoder):
    network, events = made(encoder), rows([8, 5, 1])
    assert isinstance(network, Recurrent)
    x_BLD = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(2))
    found = network(x_BLD, events)
    for row, length in enumerate([8, 5, 1]):
        alone = x_BLD[row, 8 - length :]
        for norm, cell in zip(network.norms, network.cells, strict=True):
            alone = alone + cell(norm(alone))[0]
        torch.testing.assert_close(found[row, 8 - length :], alone)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_model_of_any_encoder_ranks_is_stored_and_does_not_see_padding(encoder, tmp_path):
    torch.manual_seed(1)
    ranker = InterestModel(new_network(SETTINGS.model_copy(update={"encoder": encoder}), VOCABULARY), VOCABULARY)
    events = rows([8, 5, 0])
    past = Histories(**{name: value.numpy() for name, value in vars(events).items()})
    asked = Queries(
        timestamp_B=past.timestamp_BL[:, -1] + 3600, hour_of_week_B=np.full(3, 20, np.float32),
        latitude_B=np.full(3, 40.5, np.float32), longitude_B=np.full(3, -73.5, np.float32),
    )  # fmt: skip
    found = ranker.scores(past, asked)
    short = replace(past, **{n: v[1:2, 3:] for n, v in vars(past).items() if n != "seen"})
    alone = ranker.scores(short, Queries(**{name: value[1:2] for name, value in vars(asked).items()}))
    np.testing.assert_allclose(alone, found[1:2], atol=1e-5)
    ranker.save(tmp_path)
    again = load_ranker(tmp_path)
    assert again.method == encoder
    np.testing.assert_array_equal(again.scores(past, asked), found)
