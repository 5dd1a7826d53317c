from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from synthetic import fixed_lists, make_sequences, tables_of, write_run

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import MISSING
from sracl_dist.data.sequences import Sequences
from sracl_dist.errors import StorageError
from sracl_dist.model.tables import SemanticTables


def test_rows_are_joined_by_key(run: RunFolder, tables: SemanticTables, sequences: Sequences) -> None:
    written = run.stage("neighbours").read_table("users.parquet").to_pylist()
    assert [row["key"] for row in written] != sorted(row["key"] for row in written)
    for row in written:
        assert tables.user_neighbours[row["key"]].tolist() == row["neighbours"]
    for row in run.stage("neighbours").read_table("items.parquet").to_pylist():
        assert tables.item_neighbours[row["key"]].tolist() == row["neighbours"]
    for row in run.stage("embed").read_shards("users").to_pylist():
        assert tables.user_vectors[row["key"]].tolist() == row["vector"]
    assert (tables.item_neighbours[0] == MISSING).all()
    assert tables.user_vectors.shape == (sequences.num_users, 8)


def rewrite(run: RunFolder, keys: list[int], neighbours: list[list[int]]) -> None:
    columns = {"key": pa.array(keys, pa.int64()), "neighbours": fixed_lists(np.array(neighbours), pa.int32())}
    run.stage("neighbours").write_table("users.parquet", pa.table(columns))


@pytest.mark.parametrize(
    ("keys", "neighbours", "message"),
    [
        ([0, 1], [[1], [0]], "2 different keys in 2 rows where the run has 3 ids from 0"),
        ([0, 1, 1], [[1], [0], [0]], "2 different keys in 3 rows"),
        ([0, 1, 2], [[1], [0], [3]], "names the neighbour 3 where ids run from 0 to 2"),
        ([0, 1, 2], [[1], [0], [-2]], "names the neighbour -2"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, keys: list[int], neighbours: list[list[int]], message: str) -> None:
    sequences = make_sequences(3)
    run = write_run(tmp_path, sequences, num_neighbours=2)
    rewrite(run, keys, neighbours)
    with pytest.raises(StorageError, match=message):
        _ = tables_of(run, sequences).user_neighbours


def test_a_missing_vector_is_refused(tmp_path: Path) -> None:
    sequences = make_sequences(6)
    run = write_run(tmp_path, sequences)
    run.stage("embed").delete(["users/part-1.parquet"])
    with pytest.raises(StorageError, match=r"run jobs/embed\.py again"):
        _ = tables_of(run, sequences).user_vectors
