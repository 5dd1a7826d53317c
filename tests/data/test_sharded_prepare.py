"""The stage in tiny shards, against plain loops; killed and resumed; on Ray's workers."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import histories, item_numbers, usable_events

from sracl_dist.config import parse_config
from sracl_dist.data import filter as filtering
from sracl_dist.errors import InputError
from sracl_dist.ids import load_user_ids
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.sequences import load_sequences
from sracl_dist.shards import committed_shards
from sracl_dist.stages import STAGES, run_stage, stage_status

HEADER = "user_id,item_id,timestamp\n"
rows = st.tuples(
    st.sampled_from(["u", "v", "w", "x", "bot", " ", ""]),
    st.sampled_from(["a", "b", "c", "d", "e", ""]),
    st.sampled_from(["1", "2", "3", "4", "9", "never"]),
)
logs = st.lists(st.lists(rows, min_size=1, max_size=25), min_size=1, max_size=3)
# Enough for every split to be possible, whatever else there is.
SURE = [("sure", item, str(time)) for time, item in enumerate("abcdefgh")] + [
    (f"sure{number}", item, "5") for number in range(3) for item in "abcdefgh"
]


def write_files(folder, files):
    """A CSV file, then a Parquet file with small row groups, then CSV again."""
    names = []
    for number, rows in enumerate(files):
        name = folder / f"log-{number}.{'parquet' if number % 2 else 'csv'}"
        if number % 2:
            columns = dict(zip(("user_id", "item_id", "timestamp"), map(list, zip(*rows, strict=True)), strict=True))
            pq.write_table(pa.table(columns), name, row_group_size=3)
        else:
            name.write_text(HEADER + "".join(f"{user},{item},{time}\n" for user, item, time in rows))
        names.append(str(name))
    return names


def found_histories(done):
    items = done.table("items")["item_id"].to_pylist()
    assert done.table("items")["item"].to_pylist() == list(range(1, len(items) + 1))
    users = done.table("users")
    assert users["user"].to_pylist() == done.table("sequences")["user"].to_pylist() == list(range(users.num_rows))
    return {
        user_id: [(items[item - 1], moment) for item, moment in zip(row["items"], row["times"], strict=True)]
        for user_id, row in zip(users["user_id"].to_pylist(), done.table("sequences").to_pylist(), strict=True)
    }


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=logs,
    shard_rows=st.one_of(st.integers(6, 60), st.just(1000)),
    least=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    limit=st.one_of(st.none(), st.integers(5, 12), st.integers(8, 9)),
)
def test_tables_equal_plain_loops(prepared, tmp_path, files, shard_rows, least, limit):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)  # ids of the last example would be numbered first
    files = [files[0] + SURE, *files[1:]]
    rows = [row for file in files for row in file]
    done = prepared(
        interactions=write_files(tmp_path, files),
        shard_rows=shard_rows,
        min_user_interactions=least[0],
        min_item_interactions=least[1],
        max_user_interactions=limit,
    )
    expected = histories(rows, *least, limit)
    assert found_histories(done) == expected
    assert sorted(done.table("items")["item_id"].to_pylist()) == sorted(item_numbers(rows, *least, limit))
    if shard_rows > len(rows):  # one partition, in which ids are numbered by first appearance
        assert list(found_histories(done)) == list(expected)
        assert done.table("items")["item_id"].to_pylist() == item_numbers(rows, *least, limit)
    reasons = usable_events(rows, limit)[1]
    log = done.manifest.details["log"]
    assert log["rows_over_max_user_interactions"] == reasons.pop("over the limit", 0)
    assert log["rows_rejected"] == reasons
    assert Counter(reason for _, _, reason, _ in done.rejects()) == reasons
    assert log["rows_read"] == len(rows)
    assert len({row[:2] for row in done.rejects()}) == len(done.rejects())
    for source, row, reason, value in done.rejects():
        user, item, moment = files[int(source[4])][row - 1]
        assert value == {"empty user id": user, "duplicate of an earlier row": item, "empty item id": item}.get(
            reason, moment
        )
    counts = Counter(item for history in expected.values() for item, _ in history)
    found = dict(zip(*(done.table("items")[name].to_pylist() for name in ("item_id", "num_interactions")), strict=True))
    assert found == counts
    assert not done.run.stage("prepare").files("work")


def test_shards_follow_each_other_and_are_loaded_as_one(prepared, tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{item}", str(n)) for n, (user, item) in enumerate(rng.integers(0, 40, (1500, 2)).tolist())]
    whole = prepared(interactions=write_files(tmp_path, [rows]))
    assert len(committed_shards(whole.run.stage("prepare"), "sequences")) == 1
    done = prepared(interactions=write_files(tmp_path, [rows]), shard_rows=100)
    shards = committed_shards(done.run.stage("prepare"), "sequences")
    assert len(shards) > 3
    assert [shard.start for shard in shards[1:]] == [shard.stop for shard in shards[:-1]]
    assert found_histories(done) == found_histories(whole)
    assert (
        load_sequences(done.run).items.tolist() == done.table("sequences")["items"].combine_chunks().flatten().tolist()
    )
    user_ids = load_user_ids(done.run).external(range(40)).to_pylist()
    assert sorted(user_ids) == sorted(dict.fromkeys(row[0] for row in rows))


def test_the_shards_of_a_global_time_split_are_cut_at_the_same_times(prepared, tmp_path):
    rng = np.random.default_rng(1)
    rows = [(f"u{user}", f"i{item}", str(n)) for n, (user, item) in enumerate(rng.integers(0, 30, (900, 2)).tolist())]
    names = write_files(tmp_path, [rows])
    whole, done = (prepared(interactions=names, split="global_time", shard_rows=size) for size in (10_000, 50))
    assert whole.manifest.details == done.manifest.details
    assert whole.manifest.rows == done.manifest.rows
    assert split_histories(whole) == split_histories(done)


def split_histories(done):
    """Each user's training items, validation items and all items."""
    sequences, items = load_sequences(done.run), done.table("items")["item_id"].to_pylist()
    named = [
        [[items[item - 1] for item in own] for own in (sequences.training(user), sequences.whole(user))]
        for user in range(sequences.num_users)
    ]
    return dict(zip(done.table("users")["user_id"].to_pylist(), named, strict=True))


BOT = [("bot", f"i{n % 50}", str(n // 2)) for n in range(3000)]


def test_a_bot_keeps_its_latest_events_and_the_others_are_counted(prepared, tmp_path, capsys):
    rows = SURE + BOT + BOT[-5:]
    done = prepared(interactions=write_files(tmp_path, [rows]), shard_rows=200, max_user_interactions=20)
    assert [moment for _, moment in found_histories(done)["bot"]] == sorted(n // 2 for n in range(2980, 3000))
    log = done.manifest.details["log"]
    assert log["rows_over_max_user_interactions"] == 2980
    assert log["rows_rejected"] == {"duplicate of an earlier row": 5}
    assert log["rows_kept"] == len(SURE) + 20


def test_a_limit_of_no_events(prepared, tmp_path):
    with pytest.raises(Exception, match=r"data\.max_user_interactions is 0; use 1 or more, or null"):
        prepared(interactions=write_files(tmp_path, [SURE]), max_user_interactions=0)


def config_for(folder, names, **data):
    values = {
        "interactions": names,
        "min_user_interactions": 2,
        "min_item_interactions": 2,
        "max_reject_share": 1.0,
        **data,
    }
    cluster = {"address": "local", "num_cpus": 2, "object_store_bytes": 80_000_000}
    return parse_config({"run": {"dir": str(folder)}, "data": values, "cluster": cluster})


def run_prepare(config):
    run = RunFolder(config.run.dir)
    return run, run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)


def tables(run):
    folder = run.stage("prepare")
    names = [name for name in folder.files() if name.endswith(".parquet")]
    return {name: folder.read_table(name) for name in names}


def random_rows(num):
    rng = np.random.default_rng(3)
    events = rng.integers(0, 60, (num, 2)).tolist()
    return [(f"u{user}", f"i{item}", str(n % 700)) for n, (user, item) in enumerate(events)]


KILLED = """
import os, signal, sys
from sracl_dist.run_folder.folder import Folder
sys.path.insert(0, {tests!r})
from test_sharded_prepare import config_for, run_prepare
commit, left = Folder._renamed, {left}

def _renamed(self, name):
    global left
    left -= not name.startswith("sums/")
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, name)

Folder._renamed = _renamed
run_prepare(config_for({folder!r}, {names!r}, shard_rows=150))
"""


def kill_prepare(folder, names, num_commits):
    """Run the stage, and kill it before it commits one more file than so many; returns whether it came so far."""
    code = KILLED.format(tests=str(Path(__file__).parent), left=num_commits, folder=str(folder), names=names)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
    return killed.returncode != 0


@pytest.mark.parametrize("num_commits", [3, 20, 50, 80, 100])
def test_a_killed_run_goes_on_with_what_is_finished(tmp_path, num_commits):
    names = write_files(tmp_path, [random_rows(1500), random_rows(900)])
    whole, _ = run_prepare(config_for(tmp_path / "whole", names, shard_rows=150))
    folder = tmp_path / "killed"
    assert kill_prepare(folder, names, num_commits)
    steps = [path for path in (folder / "prepare" / "work").rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in steps if path.suffix == ".json"}
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageFolder, "delete_folder", lambda self, name: seen.update(files_of(folder)))
        run, _ = run_prepare(config_for(folder, names, shard_rows=150))
    assert {path: seen.get(path) for path in before} == before, "a finished piece was worked on again"
    assert joined(run) == joined(whole)


@pytest.mark.parametrize(
    "kind", ["read", "rejected", "items", "users", "events", "kept_items", "kept_users", "counted"]
)
@pytest.mark.parametrize("way", ["other byte", "missing"])
def test_a_damaged_piece_of_an_interrupted_run_is_made_again(tmp_path, monkeypatch, kind, way):
    rows = [*random_rows(600), *random_rows(600)[:50], *[(f"u{n}", f"i{n}", "never") for n in range(40)]]
    names = write_files(tmp_path, [rows])
    whole, _ = run_prepare(config_for(tmp_path / "whole", names, shard_rows=100))
    folder = tmp_path / "damaged"
    with monkeypatch.context() as patch:
        patch.setattr("sracl_dist.data.write.counted", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_prepare(config_for(folder, names, shard_rows=100))
    for path in sorted((folder / "prepare" / "work" / kind).iterdir()):
        content = path.read_bytes()
        path.unlink()
        if way == "other byte":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    run, _ = run_prepare(config_for(folder, names, shard_rows=100))
    assert joined(run) == joined(whole)


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "prepare").rglob("*") if path.is_file()}


def joined(run):
    folder = run.stage("prepare")
    rejects = folder.read_table("rejects.parquet").sort_by([("source", "ascending"), ("row", "ascending")])
    return [
        folder.read_shards("users/").to_pylist(),
        folder.read_shards("sequences/").to_pylist(),
        folder.read_table("items.parquet").to_pylist(),
        rejects.to_pylist(),
    ]


def test_an_interrupted_run_of_other_shards_is_begun_again(tmp_path, monkeypatch):
    names = write_files(tmp_path, [random_rows(800)])
    whole, _ = run_prepare(config_for(tmp_path / "whole", names, shard_rows=77))
    with monkeypatch.context() as patch:
        patch.setattr(filtering, "keep_core", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_prepare(config_for(tmp_path / "run", names, shard_rows=100))
    run, _ = run_prepare(config_for(tmp_path / "run", names, shard_rows=77))
    assert joined(run) == joined(whole)


@pytest.mark.ray
def test_a_large_log_is_shared_by_ray_workers(tmp_path, ray_cluster):
    names = write_files(tmp_path, [random_rows(1500), random_rows(900)])
    whole, alone = run_prepare(config_for(tmp_path / "whole", names, shard_rows=150))
    run, shared = run_prepare(config_for(tmp_path / "run", names, shard_rows=150, local_rows=0))
    assert joined(run) == joined(whole)
    assert shared.details == alone.details


@pytest.mark.ray
def test_an_error_in_a_worker_is_the_same_sentence(tmp_path, ray_cluster):
    names = write_files(tmp_path, [random_rows(30)])
    with pytest.raises(InputError, match=r"has no column 'who' .* set data\.columns\.user_id to the right name"):
        run_prepare(config_for(tmp_path / "run", names, columns={"user_id": "who"}, local_rows=0))
