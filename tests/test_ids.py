"""External and dense ids, both ways, strict and reporting."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.columns import PAD
from sracl_dist.errors import InputError, StorageError
from sracl_dist.ids import IdMap, load_item_ids, load_user_ids
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import Shard


def test_look_up_by_hand():
    ids = IdMap(["a", "b", "c"], first=1, noun="item")
    assert len(ids) == 3
    assert ids.dense(["c", "a", "c"]).tolist() == [3, 1, 3]
    dense, unknown = ids.known(["x", "b", "y", "x"])
    assert dense.tolist() == [2]
    assert unknown == ["x", "y"]
    assert ids.external(np.array([3, 1, 3])).equals(pa.array(["c", "a", "c"], pa.string()))
    assert ids.external(np.array([2], np.int32)).equals(pa.array(["b"], pa.string()))
    assert ids.external(range(1, 3)).equals(pa.array(["a", "b"], pa.string()))


def test_unknown_ids_are_named():
    ids = IdMap(["a"], first=1, noun="item")
    with pytest.raises(InputError, match="The item ids 'x0', 'x1', 'x2', 'x3', 'x4' and 3 more are not among the 1"):
        ids.dense([f"x{number}" for number in range(8)])


@pytest.mark.parametrize("dense", [PAD, 2, -1])
def test_dense_ids_out_of_range_are_named(dense):
    with pytest.raises(InputError, match=f"The dense item id {dense} is outside of 1..1"):
        IdMap(["a"], first=1, noun="item").external(np.array([1, dense]))


def test_empty_requests():
    ids = IdMap(["a"], first=0, noun="user")
    assert ids.dense([]).tolist() == []
    assert ids.external(np.zeros(0, np.int64)).equals(pa.array([], pa.string()))


@given(names=st.lists(st.text(st.characters(codec="utf-8")), unique=True, max_size=20), first=st.integers(0, 1))
def test_there_and_back(names, first):
    ids = IdMap(names, first=first, noun="item")
    dense = ids.dense(names)
    assert dense.tolist() == list(range(first, first + len(names)))
    assert ids.external(dense).to_pylist() == names


def test_maps_of_a_run(tmp_path):
    run = RunFolder(str(tmp_path))
    folder = run.stage("prepare")
    folder.write_table("items.parquet", pa.table({"item": pa.array([1, 2], pa.int32()), "item_id": ["a", "b"]}))
    folder.write_table(Shard("users", 0, 1).name, pa.table({"user": pa.array([0], pa.int64()), "user_id": ["u"]}))
    assert load_item_ids(run).dense(["b"]).tolist() == [2]
    assert load_user_ids(run).external([0]).to_pylist() == ["u"]


def test_ids_are_joined_by_id_and_not_by_row(tmp_path):
    run = RunFolder(str(tmp_path))
    shuffled = pa.table({"item": pa.array([3, 1, 2], pa.int32()), "item_id": ["c", "a", "b"]})
    run.stage("prepare").write_table("items.parquet", shuffled)
    ids = load_item_ids(run)
    assert ids.external(np.array([1, 2, 3])).to_pylist() == ["a", "b", "c"]
    assert ids.dense(["c"]).tolist() == [3]


def test_a_table_with_a_gap_or_missing(tmp_path):
    run = RunFolder(str(tmp_path))
    with pytest.raises(StorageError, match="holds no table; delete"):
        load_user_ids(run)
    run.stage("prepare").write_table("items.parquet", pa.table({"item": [1, 3], "item_id": ["a", "b"]}))
    with pytest.raises(StorageError, match="every item once;"):
        load_item_ids(run)


def test_the_ids_of_some_users_come_out_of_the_shards_that_hold_them(tmp_path):
    folder = RunFolder(str(tmp_path)).stage("prepare")
    for start, stop in ((0, 4), (4, 8), (8, 10)):
        users = list(range(stop - 1, start - 1, -1))  # in whatever order
        table = pa.table({"user": pa.array(users, pa.int64()), "user_id": [f"u{user}" for user in users]})
        folder.write_table(Shard("users", start, stop).name, table)
    folder.write_bytes(Shard("users", 10, 12).name, b"no table")
    run = RunFolder(str(tmp_path))
    assert load_user_ids(run, Shard("x", 3, 9)).external(range(3, 9)).to_pylist() == [
        f"u{user}" for user in range(3, 9)
    ]
    assert len(load_user_ids(run, Shard("x", 4, 5))) == 1
    with pytest.raises(StorageError, match=r"lists 0 of the 2 users from 20 on"):
        load_user_ids(run, Shard("x", 20, 22))
