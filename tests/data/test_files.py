"""Which files a pattern stands for, and how they are dealt to tasks."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import BUCKET, CREDENTIALS, s3_server

from sracl_dist.data.files import find_files, places_of_rows, plan_splits, sources_of
from sracl_dist.errors import InputError
from sracl_dist.run_folder.locations import open_location


@pytest.fixture
def parquet(tmp_path):
    def parquet(name, num_rows, row_group_size):
        pq.write_table(pa.table({"a": np.arange(num_rows)}), tmp_path / name, row_group_size=row_group_size)
        return tmp_path / name

    return parquet


def found(*patterns):
    return find_files([str(pattern) for pattern in patterns], "data.interactions")


def shown(splits):
    return [
        [(piece.file.source, piece.row_groups, piece.first_row, piece.num_rows) for piece in each.pieces]
        for each in splits
    ]


def test_large_files_are_cut_at_row_groups_and_small_ones_are_read_together(parquet, tmp_path):
    text = tmp_path / "c.csv"
    text.write_text("x" * 400)
    paths = [parquet("a", 25, 10), text, parquet("b.parquet", 25, 10), parquet("c.parquet", 3, 10)]
    splits = plan_splits(found(*paths), 20)
    assert shown(splits) == [
        [("a", range(2), 0, 20)],
        [("a", range(2, 3), 20, 5), ("c.csv", None, 0, 10)],
        [("b.parquet", range(2), 0, 20)],
        [("b.parquet", range(2, 3), 20, 5), ("c.parquet", range(1), 0, 3)],
    ]
    assert [split.index for split in splits] == [0, 1, 2, 3]
    assert [piece.index for split in splits for piece in split.pieces] == list(range(6))
    assert sources_of(splits) == ["a", "a", "c.csv", "b.parquet", "b.parquet", "c.parquet"]
    assert [split.num_rows for split in splits] == [20, 15, 20, 8]


def test_a_row_group_that_is_too_large_is_a_split_of_its_own_and_an_empty_file_is_a_piece_without_rows(parquet):
    splits = plan_splits(found(parquet("a.parquet", 50, 25)), 10)
    assert shown(splits) == [[("a.parquet", range(1), 0, 25)], [("a.parquet", range(1, 2), 25, 25)]]
    assert shown(plan_splits(found(parquet("a.parquet", 0, 5)), 10))[0][0][3] == 0


def test_rows_are_known_by_piece_and_number(parquet):
    (split,) = plan_splits(found(parquet("a.parquet", 3, 5), parquet("b.parquet", 3, 5)), 10)
    rows = np.concatenate([piece.row_ids(np.array([1, 10**9])) for piece in split.pieces])
    pieces, numbers = places_of_rows(rows)
    assert pieces.tolist() == [0, 0, 1, 1]
    assert numbers.tolist() == [1, 10**9, 1, 10**9]
    assert np.all(np.diff(rows) > 0)


def test_patterns_are_taken_in_order_and_every_file_once(tmp_path, monkeypatch):
    for name in ("b2.csv", "b1.csv", "a.csv", "x/a.csv", "x/y/c[1].csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    files = found(tmp_path / "b*.csv", tmp_path / "x/**/*.csv", tmp_path / "b1.csv", tmp_path / "x/y/c[1].csv")
    assert [file.source for file in files] == ["b1.csv", "b2.csv", "a.csv", "c[1].csv"]
    both = found(tmp_path / "a.csv", tmp_path / "x/a.csv")
    assert [file.source for file in both] == [file.location for file in both]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "x")
    (home,), (here,) = found("~/a.csv"), found("a.csv")
    assert (home.location, here.location) == (str(tmp_path / "a.csv"), "a.csv")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(here)).open().read() == b"x"
    (tmp_path / "x/a.csv").write_text("xy")
    assert found(tmp_path / "x/a.csv")[0].fact != here.fact


def test_patterns_that_stand_for_nothing_to_read(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    for name, error in (
        ("none*.csv", r"none\*\.csv matches no file; check data\.interactions"),
        ("", "is a folder"),
        ("a\udcff.csv", "not UTF-8"),
        ("a.parquet", r"a\.parquet cannot be read"),
    ):
        with pytest.raises(InputError, match=error):
            plan_splits(found(f"{tmp_path}/{name}"), 10)
    (tmp_path / "a.csv").write_text("x")
    (gone,) = found(tmp_path / "a.csv")
    (tmp_path / "a.csv").unlink()
    with pytest.raises(InputError, match=r"a\.csv does not exist"):
        plan_splits([gone], 10)


def test_files_of_an_object_store(tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        filesystem, root = open_location(f"s3://{BUCKET}", "run.dir")
        for name in ("logs/day=1/b.csv", "logs/day=1/a.csv", "logs/day=2/x/c.csv", "logs/d.txt"):
            with filesystem.open_output_stream(f"{root}/{name}") as stream:
                stream.write(name.encode())
        assert [file.source for file in found(f"s3://{BUCKET}/logs/day=*/*.csv")] == ["a.csv", "b.csv"]
        assert [file.source for file in found(f"s3://{BUCKET}/logs/**/[bc].csv")] == ["b.csv", "c.csv"]
        (one,) = found(f"s3://{BUCKET}/logs/d.txt")
        assert (one.location, one.size) == (f"s3://{BUCKET}/logs/d.txt", 10)
        assert pickle.loads(pickle.dumps(one)).open().read() == b"logs/d.txt"
        assert not one.is_parquet()
        for pattern, error in (("logs", "is a folder"), ("none/*", "matches no file"), ("none", "matches no file")):
            with pytest.raises(InputError, match=error):
                found(f"s3://{BUCKET}/{pattern}")
        with pytest.raises(InputError, match="there is no bucket nowhere"):
            found("s3://nowhere/*.csv")
