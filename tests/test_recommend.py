from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from synthetic import NUM_ITEMS, make_config, make_sequences, write_best, write_run

from sracl_dist.artifacts import RunFolder
from sracl_dist.data.sequences import Sequences
from sracl_dist.errors import StorageError
from sracl_dist.model.rows import latest_rows
from sracl_dist.recommend import make_recommender, top_items
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
    items, scores = top_items(encoder, histories, num_items, remove_seen=remove_seen, device=CPU)
    for history, own_items, own_scores in zip(histories, items, scores, strict=True):
        table = encoder.catalogue()
        state = encoder(latest_rows([history], encoder.max_length), table)[-1]
        all_scores = (state @ table[1:].T).detach().numpy()
        if encoder.repeat_bias is not None:
            all_scores[np.unique(history) - 1] += float(encoder.repeat_bias.detach())
        candidates = sorted(set(range(1, NUM_ITEMS + 1)) - (set(history.tolist()) if remove_seen else set()))
        assert len(own_items) == min(num_items, len(candidates))
        assert set(own_items.tolist()) <= set(candidates)
        best = sorted(-all_scores[item - 1] for item in candidates)[: len(own_items)]
        assert -own_scores == pytest.approx(np.array(best), abs=1e-5)
        assert all_scores[own_items - 1] == pytest.approx(own_scores, abs=1e-5)


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
    items, scores = top_items(encoder, [everything, everything[:-1]], 3, remove_seen=True, device=CPU)
    assert [own.tolist() for own in items] == [[], [NUM_ITEMS]]
    assert [len(own) for own in scores] == [0, 1]


def test_an_incomplete_id_map_is_refused(tmp_path: Path) -> None:
    sequences = make_sequences(8)
    run = write_run(tmp_path / "run", sequences)
    write_best(run, make_config(), sequences, tmp_path)
    folder = run.stage("prepare")
    folder.write_table("users.parquet", folder.read_table("users.parquet").slice(1))
    with pytest.raises(StorageError, match=r"users\.parquet lists 7 of 8 users"):
        make_recommender(run, 3, True)
