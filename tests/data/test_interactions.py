"""From files to the one log: reasons to reject, times of every kind, and the order."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sracl_dist.config.sections import DataConfig, LogColumns
from sracl_dist.data.file_splits import plan_splits
from sracl_dist.data.groups import open_groups
from sracl_dist.data.log_steps import LogSteps
from sracl_dist.data.reject_table import all_repeats, unusable, write_rejects
from sracl_dist.data.sources import Source
from sracl_dist.data.tasks import Tasks
from sracl_dist.data.times import TimeParser
from sracl_dist.errors import InputError
from sracl_dist.run_folder import RunFolder

HEADER = "user_id,item_id,timestamp,rating\n"


@dataclass
class Log:
    """What the steps before the k-core make of a file."""

    num_read: int
    num_below_rating: int


@pytest.fixture
def load(tmp_path):
    """The sorted log as (user, item, time) rows, the rejects as (row, reason), and the counts."""

    def load(path, columns=None, min_rating=None, shard_rows=100_000):
        folder = RunFolder(tempfile.mkdtemp(dir=tmp_path)).stage("prepare")
        columns = columns or LogColumns()
        data = DataConfig(
            interactions=[str(path)],
            columns=columns,
            min_rating=min_rating,
            max_reject_share=1.0,
            shard_rows=shard_rows,
        )
        source = Source(
            log_files=[Path(path)], text_files=[], columns=columns, item_columns=None, separator="|", has_clock=True
        )
        splits = plan_splits(source.log_files, [Path(path).name], shard_rows)
        steps = LogSteps(folder=folder, source=source, data=data, splits=splits, tasks=Tasks(num_workers=0))
        numbering = steps.read()
        parts = [*unusable(folder, splits), *all_repeats(folder, splits, numbering.num_partitions)]
        write_rejects(folder, parts)
        found = [(row["row"], row["reason"]) for row in folder.read_table("rejects.parquet").to_pylist()]
        log = Log(num_read=steps.tally.num_read, num_below_rating=steps.tally.num_below_rating)
        return list(rows_of(folder, numbering, has_times=columns.time is not None)), found, log

    return load


def rows_of(folder, numbering, *, has_times):
    with open_groups(folder, "work/items.arrow", ["item_ids"]) as reader:
        item_ids = reader.arrow(0, "item_ids").to_pylist()
    for partition in range(numbering.num_partitions):
        with open_groups(folder, "work/users.arrow", ["user_ids"]) as reader:
            user_ids = reader.arrow(partition, "user_ids").to_pylist()
        names = ["items", "lengths", *(["times"] if has_times else [])]
        with open_groups(folder, f"work/ordered/{partition:06d}.arrow", names) as reader:
            lengths, items = reader.numpy(0, "lengths"), reader.numpy(0, "items").tolist()
            times = reader.numpy(0, "times").tolist() if has_times else [None] * len(items)
        users = np.repeat(np.arange(len(user_ids)), lengths).tolist()
        for user, item, time in zip(users, items, times, strict=True):
            yield user_ids[user], item_ids[item], time


def test_every_reason_to_reject_a_row(load, write):
    rows = [
        b"u,i,1,5",
        b",i,2,5",
        b"u,,3,5",
        b"  ,i,4,5",
        b"u,i,,5",
        b"u,i,soon,5",
        b"u,i,-3,5",
        b"u\xff,i,8,5",
        b"u,i,1,5",
        b"u,i",
        b'"u\n1",i,11,5',
        b"u,i,2024-01-01,5",
        b"u,j,1,5",
    ]
    found, rejected, log = load(write("log.csv", HEADER.encode() + b"\n".join(rows) + b"\n"))
    assert found == [("u", "i", 1), ("u", "j", 1)]
    assert sorted(rejected) == [
        (2, "empty user id"),
        (3, "empty item id"),
        (4, "empty user id"),
        (5, "missing time"),
        (6, "time is neither a number nor an ISO date-time"),
        (7, "negative time"),
        (8, "invalid UTF-8"),
        (9, "duplicate of an earlier row"),
        (10, "wrong number of fields"),
        (11, "line break in an id"),
        (12, "time is of another kind than the log's"),
    ]
    assert log.num_read == 13 == len(found) + len(rejected)


def test_rejects_hold_file_row_reason_and_a_short_excerpt(write, prepared):
    good = "u,i,1,5\nu,j,1,5\nu,k,1,5\nu,l,1,5\n"
    done = prepared(interactions=[write("log.csv", HEADER + good + "u,i," + "x" * 500 + ",5\n")])
    assert done.rejects() == [
        ("log.csv", 5, "time is neither a number nor an ISO date-time", "x" * 80),
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["5", "007", "+3"], [5, 7, 3]),
        (["1.5", "1e3", " 7 ", ".9"], [1, 1000, 7, 0]),
        (["1970-01-02", "1970-01-01T00:00:01"], [86_400_000, 1000]),
        (["1970-01-01 00:00:01.5", "1970-01-01T02:00:00+01:00"], [1500, 3_600_000]),
        (["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"], [1000, 2000]),
    ],
)
def test_times_of_every_kind(texts, expected):
    times, reasons = TimeParser().parse(pa.array(texts))
    assert times.tolist() == expected
    assert not any(mask.any() for _, mask in reasons)


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "1" * 30, "12:30", "2024-13-01", "yesterday", "--1", "1,5"])
def test_texts_that_are_no_time(text):
    _, reasons = TimeParser().parse(pa.array(["1", text]))
    assert [reason for reason, mask in reasons if mask[1]] == ["time is neither a number nor an ISO date-time"]


def test_the_first_batch_decides_the_kind_of_times():
    parser = TimeParser()
    parser.parse(pa.array(["2024-01-01", "2024-01-02", "5"]))
    _, reasons = parser.parse(pa.array(["7", "2024-01-01"]))
    assert dict(reasons)["time is of another kind than the log's"].tolist() == [True, False]


def test_parquet_timestamps_are_milliseconds(load, tmp_path):
    for unit, zone in (("s", None), ("us", "UTC"), ("ns", "Europe/Paris")):
        times = pa.array([1_000_000_000, None], pa.timestamp("s", tz=zone)).cast(pa.timestamp(unit, tz=zone))
        pq.write_table(
            pa.table({"user_id": ["u", "v"], "item_id": ["i", "i"], "timestamp": times}), tmp_path / "l.parquet"
        )
        found, rejected, _ = load(tmp_path / "l.parquet")
        assert found == [("u", "i", 1_000_000_000_000)]
        assert rejected == [(2, "missing time")]


def test_low_ratings_are_left_out_and_broken_ones_rejected(load, write):
    path = write("log.csv", HEADER + "u,a,1,5\nu,b,2,3.9\nu,c,3,\nu,d,4,good\nu,e,5,4\nu,f,6,nan\n")
    found, rejected, log = load(path, LogColumns(rating="rating"), 4.0)
    assert [row[1] for row in found] == ["a", "e"]
    assert rejected == [(3, "rating is not a number"), (4, "rating is not a number"), (6, "rating is not a number")]
    assert log.num_below_rating == 1


def test_without_times_the_order_of_the_file_stays_and_nothing_is_a_duplicate(load, write):
    path = write("log.csv", "user_id,item_id\nu,b\nv,a\nu,a\nu,b\n")
    found, rejected, _ = load(path, LogColumns(time=None))
    assert found == [("u", "b", None), ("u", "a", None), ("u", "b", None), ("v", "a", None)]
    assert rejected == []


def test_the_same_item_at_another_time_is_no_duplicate(load, write):
    found, rejected, _ = load(write("log.csv", HEADER + "u,a,1,5\nu,a,2,5\nu,b,1,5\nu,a,1,4\nv,a,1,5\n"))
    assert found == [("u", "a", 1), ("u", "b", 1), ("u", "a", 2), ("v", "a", 1)]
    assert rejected == [(4, "duplicate of an earlier row")]


@pytest.mark.parametrize("content", [HEADER, HEADER + "\n"])
def test_an_empty_log_is_an_error(load, write, content):
    with pytest.raises(InputError, match="holds no row"):
        load(write("log.csv", content))


rows = st.tuples(st.sampled_from("uvw"), st.sampled_from("abc"), st.integers(0, 4))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(rows, min_size=1, max_size=40), shard_rows=st.integers(1, 20))
def test_order_and_duplicates_equal_a_plain_loop(load, tmp_path, rows, shard_rows):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "".join(f"{user},{item},{time},5\n" for user, item, time in rows))
    found, rejected, _ = load(path, shard_rows=shard_rows)
    seen: set[tuple[str, str, int]] = set()
    kept, repeats = [], []
    for number, row in enumerate(rows, 1):
        (repeats if row in seen else kept).append((number, row))
        seen.add(row)
    first = {user: number for number, (user, _, _) in reversed(list(enumerate(rows)))}
    kept.sort(key=lambda entry: (first[entry[1][0]], entry[1][2], entry[0]))
    assert found == [row for _, row in kept]
    assert sorted(rejected) == [(number, "duplicate of an earlier row") for number, _ in repeats]


def test_a_user_far_down_the_file_keeps_ties_in_file_order(load, write):
    rows = "".join(f"u{n % 7},i{n},{1},5\n" for n in range(5000))
    found, _, _ = load(write("log.csv", HEADER + rows))
    assert [row[1] for row in found if row[0] == "u3"] == [f"i{n}" for n in range(3, 5000, 7)]
    assert np.all(np.diff([int(row[0][1:]) for row in found]) >= 0)


def test_a_long_text_file_tells_how_far_it_is(load, write, monkeypatch, capsys):
    monkeypatch.setattr("sracl_dist.data.encode.LONG_TEXT_BYTES", 1000)
    load(write("log.csv", HEADER + "".join(f"u{n % 7},i{n},1,5\n" for n in range(500))))
    assert "prepare: reading log.csv: 5 kB in" in capsys.readouterr().err


@pytest.mark.parametrize("beside", ["1", "1.5", "never"])
def test_nanoseconds_keep_their_digits_whatever_stands_beside_them(beside):
    texts = ["1700000000000000001", "+1700000000000000003", "9223372036854775807", beside]
    times, reasons = TimeParser().parse(pa.array(texts))
    assert times[:3].tolist() == [1_700_000_000_000_000_001, 1_700_000_000_000_000_003, 2**63 - 1]
    assert not any(mask[:3].any() for _, mask in reasons)


@pytest.mark.parametrize("text", ["9223372036854775808", "99999999999999999999", "1e300", "1e999"])
def test_a_time_that_fits_no_integer_is_rejected(text):
    _, reasons = TimeParser().parse(pa.array(["1", text]))
    assert [mask.tolist() for _, mask in reasons if mask.any()] == [[False, True]]
