"""How files are dealt to tasks."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sracl_dist.data.file_splits import places_of_rows, plan_splits, sources_of
from sracl_dist.errors import InputError


@pytest.fixture
def parquet(tmp_path):
    def parquet(name, num_rows, row_group_size):
        pq.write_table(pa.table({"a": np.arange(num_rows)}), tmp_path / name, row_group_size=row_group_size)
        return tmp_path / name

    return parquet


def shown(splits):
    return [
        [(piece.source, piece.row_groups, piece.first_row, piece.num_rows) for piece in each.pieces] for each in splits
    ]


def test_large_files_are_cut_at_row_groups_and_small_ones_are_read_together(parquet, tmp_path):
    text = tmp_path / "c.csv"
    text.write_text("x" * 400)
    paths = [parquet("a", 25, 10), text, parquet("b.parquet", 25, 10), parquet("c.parquet", 3, 10)]
    paths[0] = paths[0].rename(tmp_path / "a.parquet")
    splits = plan_splits(paths, ["a", "c", "b", "d"], 20)
    assert shown(splits) == [
        [("a", range(2), 0, 20)],
        [("a", range(2, 3), 20, 5), ("c", None, 0, 10)],
        [("b", range(2), 0, 20)],
        [("b", range(2, 3), 20, 5), ("d", range(1), 0, 3)],
    ]
    assert [split.index for split in splits] == [0, 1, 2, 3]
    assert [piece.index for split in splits for piece in split.pieces] == list(range(6))
    assert sources_of(splits) == ["a", "a", "c", "b", "b", "d"]
    assert [split.num_rows for split in splits] == [20, 15, 20, 8]


def test_a_row_group_that_is_too_large_is_a_split_of_its_own(parquet):
    splits = plan_splits([parquet("a.parquet", 50, 25)], ["a"], 10)
    assert shown(splits) == [[("a", range(1), 0, 25)], [("a", range(1, 2), 25, 25)]]


def test_an_empty_file_is_a_piece_without_rows(parquet):
    assert shown(plan_splits([parquet("a.parquet", 0, 5)], ["a"], 10))[0][0][3] == 0


def test_rows_are_known_by_piece_and_number(parquet):
    (split,) = plan_splits([parquet("a.parquet", 3, 5), parquet("b.parquet", 3, 5)], ["a", "b"], 10)
    rows = np.concatenate([piece.row_ids(np.array([1, 10**9])) for piece in split.pieces])
    pieces, numbers = places_of_rows(rows)
    assert pieces.tolist() == [0, 0, 1, 1]
    assert numbers.tolist() == [1, 10**9, 1, 10**9]
    assert np.all(np.diff(rows) > 0)


def test_a_damaged_file_is_one_sentence(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        plan_splits([tmp_path / "a.parquet"], ["a"], 10)
