"""The table as all processes of a machine have it, against the arrays that it was written from."""

import gc
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import differences, from_histories, make_manifest, make_sequences, write_run

from sracl_dist.errors import StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences, load_sequences
from sracl_dist.shards import Shard
from sracl_dist.train.batches import TrainingBatches

HISTORIES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=14), min_size=1, max_size=20)
ARRAYS = ("offsets", "items", "num_train", "num_validation")


def write_shards(location: str, sequences: Sequences, stops: list[int]) -> RunFolder:
    """Cut at these users."""
    run = RunFolder(location)
    folder = run.stage("prepare")
    for start, stop in zip([0, *stops], [*stops, sequences.num_users], strict=True):
        if start < stop:
            own = sequences.histories(np.arange(start, stop))
            part = Sequences(
                offsets=own.offsets,
                items=own.items_T,
                num_train=sequences.num_train[start:stop],
                num_validation=sequences.num_validation[start:stop],
                num_items=sequences.num_items,
            )
            folder.write_table(Shard("sequences", start, stop).name, part.to_table(None, np.arange(start, stop)))
    folder.commit(make_manifest("prepare", {"users": sequences.num_users, "items": sequences.num_items}))
    return run


@settings(max_examples=40, deadline=None)
@given(HISTORIES, st.lists(st.integers(0, 20), max_size=4), st.integers(1, 3), st.integers(1, 6))
def test_batches_are_those_of_the_arrays_in_memory(
    histories: list[list[int]], cuts: list[int], world_size: int, batch_rows: int
) -> None:
    expected = from_histories(histories, num_items=9)
    stops = sorted(min(cut, len(histories)) for cut in cuts)
    with tempfile.TemporaryDirectory() as location:
        found = load_sequences(write_shards(location, expected, stops))
        for name in ARRAYS:
            own, other = getattr(found, name), getattr(expected, name)
            assert own.dtype == other.dtype
            assert own.tolist() == other.tolist()
            assert not own.flags.writeable
        for rank in range(world_size):
            one, two = (
                TrainingBatches(own, 4, batch_rows, 1, rank=rank, world_size=world_size) for own in (found, expected)
            )
            for rows, same in zip(one.order(2), two.order(2), strict=True):
                assert differences(one.batch(rows), two.batch(same)) == []


@settings(deadline=None)
@given(HISTORIES, st.integers(1, 5))
def test_counts_are_the_same_in_pieces(histories: list[list[int]], piece: int) -> None:
    sequences = from_histories(histories, num_items=9)
    trained = [sequences.training(user).tolist() for user in range(len(histories))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sracl_dist.sequences.USERS_PER_PIECE", piece)
        counts, firsts = sequences.training_counts(), sequences.first_counts()
    assert counts.tolist() == [sum(own.count(item) for own in trained) for item in range(10)]
    assert firsts.tolist() == [sum(own[:1] == [item] for own in trained) for item in range(10)]


def test_it_is_read_once_and_again_when_the_table_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"sracl-{os.getuid()}"
    run = write_run(tmp_path / "run", make_sequences(9))
    one, two = load_sequences(run), load_sequences(run)
    assert len(list(folder.iterdir())) == 1
    other = make_sequences(9, seed=4)
    write_run(tmp_path / "run", other)
    three = load_sequences(run)
    assert three.items.tolist() == other.items.tolist()
    assert one.items.tolist() == make_sequences(9).items.tolist(), "who reads goes on with what it has"
    assert two.num_users == 9
    del one, two, three
    gc.collect()
    assert not list(folder.iterdir())


def test_tables_of_other_runs_are_other_tables(tmp_path: Path) -> None:
    one, other = (make_sequences(9, seed=seed) for seed in (1, 2))
    found = [load_sequences(write_run(tmp_path / str(number), own)) for number, own in enumerate((one, other))]
    assert [own.items.tolist() for own in found] == [one.items.tolist(), other.items.tolist()]


@pytest.mark.parametrize("missing", [0, 3, 6])
def test_a_missing_shard_is_refused(tmp_path: Path, missing: int) -> None:
    run = write_shards(str(tmp_path), make_sequences(9), [3, 6])
    run.stage("prepare").delete([Shard("sequences", missing, missing + 3).name])
    with pytest.raises(StorageError, match=r"does not list every user once in order; delete .+ and run jobs/prepare"):
        load_sequences(run)


def test_overlapping_shards_are_refused(tmp_path: Path) -> None:
    run = write_shards(str(tmp_path), make_sequences(9), [3, 6])
    folder = run.stage("prepare")
    folder.write_table(Shard("sequences", 5, 6).name, folder.read_table(Shard("sequences", 3, 6).name).slice(2))
    with pytest.raises(StorageError, match="does not list every user once in order"):
        load_sequences(run)
