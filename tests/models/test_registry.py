import json

import numpy as np
import pytest

from conf.learning import Model
from models import registry
from models.baselines import BASELINES, baseline
from models.counts import count
from models.interest import InterestModel, new_network
from models.queries import Histories, Queries, Vocabulary

VOCABULARY = Vocabulary(items=("a", "b", "c"), item_categories=("x", "", "x"), categories=("x",), event_types=("buy",))


def rankers():
    counts = count(VOCABULARY, ("buy",), (["a", "b"], [3, 1], [1, 1]), (["a"], ["b"], [2]))
    network = new_network(Model(width=8, window=4), VOCABULARY)
    arrays = {"neighbour_VK": np.array([[1], [0], [-1]]), "likeness_VK": np.full((3, 1), 0.5), "factors_VR": np.eye(3)}
    return [InterestModel(network, VOCABULARY), *[baseline(name, counts, arrays=arrays) for name in BASELINES]]


def moment():
    histories = Histories(
        item_BL=np.array([[0, 2, 3]], np.int32), category_BL=np.array([[0, 2, 1]], np.int32),
        event_type_BL=np.array([[0, 2, 2]], np.int32),
        timestamp_BL=np.array([[0, 10, 20]]), hour_of_week_BL=np.array([[-1, 1, 2]], np.float32),
        latitude_BL=np.full((1, 3), np.nan, np.float32), longitude_BL=np.full((1, 3), np.nan, np.float32),
    )  # fmt: skip
    place = np.full(1, np.nan, np.float32)
    return histories, Queries(timestamp_B=np.array([30]), hour_of_week_B=np.array([3.0]), latitude_B=place, longitude_B=place)


@pytest.mark.parametrize("ranker", rankers(), ids=lambda ranker: ranker.method)
def test_whatever_ranks_comes_back_as_it_was(ranker, tmp_path):
    folder = registry.version_folder(str(tmp_path), "v1")
    registry.save(ranker, folder)
    assert folder == tmp_path / "models" / "v1" and registry.is_whole(folder)
    again = registry.load_ranker(folder)
    assert again.method == ranker.method == registry.details(folder)["method"]
    assert again.vocabulary == VOCABULARY
    np.testing.assert_array_equal(again.scores(*moment()), ranker.scores(*moment()))


def test_a_version_never_changes(tmp_path):
    first, second = rankers()[:2]
    registry.save(first, tmp_path / "models" / "v1")
    registry.save(second, tmp_path / "models" / "v1")
    assert registry.load_ranker(tmp_path / "models" / "v1").method == first.method


def test_a_folder_is_whole_or_not_there(tmp_path):
    class Broken:
        def save(self, folder):
            (folder / "weights").write_text("half of them")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        registry.save(Broken(), tmp_path / "models" / "v1")
    assert not (tmp_path / "models" / "v1").exists()
    assert not list(tmp_path.glob("models/.*")), "nothing is left of the attempt"


def test_what_is_no_version_is_refused_with_its_name(tmp_path):
    with pytest.raises(ValueError, match=r"v9 holds no model version \(FileNotFoundError\)"):
        registry.load_ranker(tmp_path / "v9")
    (tmp_path / "version.json").write_text(json.dumps({"method": "tea leaves"}))
    with pytest.raises(ValueError, match="unknown method tea leaves; known are transformer, lstm, gru, rnn, popularity"):
        registry.load_ranker(tmp_path)
