"""External and dense ids, both ways, strict and reporting."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.artifacts import RunFolder
from sracl_dist.errors import InputError, StorageError
from sracl_dist.ids import IdMap, load_item_ids, load_user_ids


def test_look_up_by_hand():
    ids = IdMap(["a", "b", "c"], first=1, noun="item")
    assert len(ids) == 3
    assert ids.dense(["c", "a", "c"]).tolist() == [3, 1, 3]
    dense, unknown = ids.known(["x", "b", "y", "x"])
    assert dense.tolist() == [2]
    assert unknown == ["x", "y"]
    assert ids.external(np.array([3, 1])) == ["c", "a"]


def test_unknown_ids_are_named():
    ids = IdMap(["a"], first=1, noun="item")
    with pytest.raises(InputError, match="The item ids 'x0', 'x1', 'x2', 'x3', 'x4' and 3 more are not among the 1"):
        ids.dense([f"x{number}" for number in range(8)])


@pytest.mark.parametrize("dense", [0, 2, -1])
def test_dense_ids_out_of_range_are_named(dense):
    with pytest.raises(InputError, match=f"The dense item id {dense} is outside of 1..1"):
        IdMap(["a"], first=1, noun="item").external([dense])


def test_empty_requests():
    ids = IdMap(["a"], first=0, noun="user")
    assert ids.dense([]).tolist() == []
    assert ids.external([]) == []


@given(names=st.lists(st.text(st.characters(codec="utf-8")), unique=True, max_size=20), first=st.integers(0, 1))
def test_there_and_back(names, first):
    ids = IdMap(names, first=first, noun="item")
    dense = ids.dense(names)
    assert dense.tolist() == list(range(first, first + len(names)))
    assert ids.external(dense) == names


def test_maps_of_a_run(tmp_path):
    run = RunFolder(str(tmp_path))
    folder = run.stage("prepare")
    folder.write_table("items.parquet", pa.table({"item": pa.array([1, 2], pa.int32()), "item_id": ["a", "b"]}))
    folder.write_table("users.parquet", pa.table({"user": pa.array([0], pa.int64()), "user_id": ["u"]}))
    assert load_item_ids(run).dense(["b"]).tolist() == [2]
    assert load_user_ids(run).external([0]) == ["u"]


def test_a_table_out_of_order_or_missing(tmp_path):
    run = RunFolder(str(tmp_path))
    with pytest.raises(StorageError, match="does not exist"):
        load_user_ids(run)
    run.stage("prepare").write_table("items.parquet", pa.table({"item": [2, 1], "item_id": ["a", "b"]}))
    with pytest.raises(StorageError, match="every item once in order"):
        load_item_ids(run)
