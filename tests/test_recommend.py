from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from dense_scores import dense_scores
from synthetic import NUM_ITEMS, make_config, make_sequences, write_best, write_run

from sracl_dist.errors import StorageError
from sracl_dist.evaluate.best import best_items
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.recommend import make_recommender
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.shards import Shard
from sracl_dist.train.state import load_best_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return make_sequences(30, lengths=(3, 40))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sequences: Sequences) -> RunFolder:
    location: Path = tmp_path_factory.mktemp("recommend")
    run = write_run(location / "run", sequences)
    write_best(run, make_config(), sequences, location, num_epochs=1)
    return run


@pytest.mark.parametrize("remove_seen", [True, False])
@pytest.mark.parametrize("num_items", [5, 40, 1000])
@pytest.mark.parametrize("repeat_units", [None, 0.3])
def test_lists_equal_a_full_sort(
    run: RunFolder, sequences: Sequences, remove_seen: bool, num_items: int, repeat_units: float | None
) -> None:
    encoder = load_best_encoder(run, NUM_ITEMS, CPU)
    encoder.repeat_units = None if repeat_units is None else torch.nn.Parameter(torch.tensor(repeat_units))
    histories = [sequences.whole(user) for user in range(sequences.num_users)]
    best = best_items(CatalogueScores(encoder, CPU), histories, num_items, remove_seen=remove_seen)
    all_scores = dense_scores(encoder, histories).numpy()
    ends = np.cumsum(best.lengths)[:-1]
    for user, (own_items, own_scores) in enumerate(
        zip(np.split(best.items, ends), np.split(best.scores, ends), strict=True)
    ):
        removed = set(histories[user].tolist()) if remove_seen else set()
        expected = sorted(set(range(1, NUM_ITEMS + 1)) - removed, key=lambda item: -all_scores[user, item - 1])
        assert own_items.tolist() == expected[:num_items]
        assert own_scores == pytest.approx(all_scores[user, own_items - 1], abs=1e-5)


def test_shards_hold_the_users_own_ids(run: RunFolder, sequences: Sequences) -> None:
    serve = make_recommender(run, 4, True)
    shard = Shard("recommendations", 10, 25)
    assert serve(shard) == 15
    table = run.stage("recommend").read_table(shard.name)
    assert table.schema.field("item_ids").type == pa.list_(pa.string())
    assert table.schema.field("scores").type == pa.list_(pa.float32())
    for user, row in enumerate(table.to_pylist(), start=10):
        assert row["user_id"] == f"user-{user}"
        assert len(row["item_ids"]) == len(row["scores"]) == 4
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert not set(row["item_ids"]) & {f"item-{item}" for item in sequences.whole(user)}
        assert all(1 <= int(item_id.removeprefix("item-")) <= NUM_ITEMS for item_id in row["item_ids"])


def test_a_user_who_has_everything_gets_nothing(run: RunFolder) -> None:
    encoder = load_best_encoder(run, NUM_ITEMS, CPU)
    everything = np.arange(1, NUM_ITEMS + 1, dtype=np.int32)
    best = best_items(CatalogueScores(encoder, CPU), [everything, everything[:-1]], 3, remove_seen=True)
    assert (best.lengths.tolist(), best.items.tolist(), len(best.scores)) == ([0, 1], [NUM_ITEMS], 1)


def test_an_incomplete_id_map_is_refused(tmp_path: Path) -> None:
    sequences = make_sequences(8)
    run = write_run(tmp_path / "run", sequences)
    write_best(run, make_config(), sequences, tmp_path)
    folder = run.stage("prepare")
    name = Shard("users", 0, 8).name
    folder.write_table(name, folder.read_table(name).slice(1))
    recommend_to = make_recommender(run, 3, True)
    with pytest.raises(StorageError, match="users lists 3 of the 4 users from 4 on"):
        recommend_to(Shard("recommendations", 4, 8))
