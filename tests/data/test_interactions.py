"""From files to the one log: reasons to reject, times of every kind, and the order."""

import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sracl_dist.config.sections import Config, DataConfig, FileFormat, LogColumns
from sracl_dist.data import prepare
from sracl_dist.data.files import plan_splits
from sracl_dist.data.sources import resolve
from sracl_dist.errors import InputError
from sracl_dist.run_folder import RunFolder
from sracl_dist.tasks import Tasks

HEADER = "user_id,item_id,timestamp,rating\n"


@pytest.fixture
def load(tmp_path):
    """The log in order as (user, item, time) rows, the rejects as (row, reason), and what became of all rows."""

    def load(path, columns=None, min_rating=None, events=(), shard_rows=100_000):
        data = DataConfig(
            format=FileFormat(encoding="utf-8"),
            interactions=[str(path)],
            columns=columns or LogColumns(),
            min_rating=min_rating,
            events=list(events),
            max_reject_share=1.0,
            shard_rows=shard_rows,
        )
        folder = RunFolder(tempfile.mkdtemp(dir=tmp_path)).stage("prepare")
        source = resolve(Config(data=data))
        splits = plan_splits(source.log_files, data.shard_rows)
        log = prepare.order_log(Tasks(num_workers=0), folder, source, splits, data)
        found = [(row["row"], row["reason"]) for own in prepare.rejects(folder) for row in own.to_pylist()]
        return list(rows_of(folder, log)), found, log.tally

    return load


def rows_of(folder, log):
    for partition in range(log.layout.num_partitions):
        item_ids, events, users = (
            folder.read_table(f"work/{kind}/{partition:06d}.parquet") for kind in ("items", "events", "users")
        )
        user_ids = np.repeat(users["user_id"].to_numpy(), users["length"].to_numpy()).tolist()
        times = events["time"].to_pylist() if log.times else [None] * len(events)
        yield from zip(user_ids, item_ids["item_id"].take(events["item"]).to_pylist(), times, strict=True)


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


def test_parquet_timestamps_are_seconds(load, tmp_path):
    for unit, zone in (("s", None), ("us", "UTC"), ("ns", "Europe/Paris")):
        times = pa.array([1_000_000_000, None], pa.timestamp("s", tz=zone)).cast(pa.timestamp(unit, tz=zone))
        pq.write_table(
            pa.table({"user_id": ["u", "v"], "item_id": ["i", "i"], "timestamp": times}), tmp_path / "l.parquet"
        )
        found, rejected, _ = load(tmp_path / "l.parquet")
        assert found == [("u", "i", 1_000_000_000)]
        assert rejected == [(2, "missing time")]


def test_low_ratings_are_left_out_and_broken_ones_rejected(load, write):
    path = write("log.csv", HEADER + "u,a,1,5\nu,b,2,3.9\nu,c,3,\nu,d,4,good\nu,e,5,4\nu,f,6,nan\n")
    found, rejected, log = load(path, LogColumns(rating="rating"), 4.0)
    assert [row[1] for row in found] == ["a", "e"]
    assert rejected == [(3, "rating is not a number"), (4, "rating is not a number"), (6, "rating is not a number")]
    assert log.num_below_rating == 1


def test_kinds_of_event_that_are_not_wanted_are_left_out_whatever_they_hold(load, write):
    rows = "u,a,1,view\nu,b,2,cart\n,,,search\nu,c,4,\nu,d,never,purchase\nu,e,6,purchase\n"
    path = write("log.csv", "user_id,item_id,timestamp,kind\n" + rows)
    found, rejected, log = load(path, LogColumns(event="kind"), events=["cart", "purchase"])
    assert [row[1] for row in found] == ["b", "e"]
    assert rejected == [(5, "time is neither a number nor an ISO date-time")]
    assert log.num_other_events == 3


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
    with pytest.raises(InputError, match="has no row"):
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
    kept.sort(key=lambda entry: (entry[1][0], entry[1][2], entry[0]))
    assert sorted(found, key=lambda row: row[0]) == [row for _, row in kept]
    assert sorted(rejected) == [(number, "duplicate of an earlier row") for number, _ in repeats]


def test_a_user_far_down_the_file_keeps_ties_in_file_order(load, write):
    rows = "".join(f"u{n % 7},i{n},{1},5\n" for n in range(5000))
    found, _, _ = load(write("log.csv", HEADER + rows))
    assert [row[1] for row in found if row[0] == "u3"] == [f"i{n}" for n in range(3, 5000, 7)]
    assert np.all(np.diff([int(row[0][1:]) for row in found]) >= 0)


def test_a_long_text_file_tells_how_far_it_is(load, write, monkeypatch, capsys):
    monkeypatch.setattr("sracl_dist.data.read.LONG_TEXT_BYTES", 1000)
    load(write("log.csv", HEADER + "".join(f"u{n % 7},i{n},1,5\n" for n in range(500))))
    assert "prepare: reading log.csv: 5 kB in" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "nan", "NULL", "None", "<NA>", r"\N"])
def test_what_programs_write_for_a_missing_id_is_none(load, write, text):
    found, rejected, _ = load(write("log.csv", HEADER + f"{text},a,1,5\nu,{text},2,5\nu,none,3,5\n"))
    assert found == [("u", "none", 3)]
    assert rejected == [(1, "empty user id"), (2, "empty item id")]
