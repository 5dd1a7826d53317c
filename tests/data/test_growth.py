"""New files added to the tables of a log: the same as all files at once, up to the numbers, and old numbers stay."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_prepare import Row
from test_sharded_prepare import SURE, config_for, found_histories, logs, write_files

from sracl_dist.data import growth, prepare, recent
from sracl_dist.data.known_ids import KnownIds
from sracl_dist.data.sequences import load_sequences
from sracl_dist.data.strings import HashCollisionError, collision
from sracl_dist.errors import StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status

TEXTS = "item_id,title\n" + "".join(f"{item},Title {item}\n" for item in "abcdex") + "a,again\nnobody,x\n"
COLUMNS = {"brand": None, "categories": None, "description": None}


@pytest.fixture(autouse=True)
def _any_share(monkeypatch):
    monkeypatch.setattr(growth, "MAX_NEW_SHARE", 1e9)


def run_prepare(config):
    run = RunFolder(config.run.dir)
    return run, run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)


def described(run):
    """All tables in the users' own ids, and what does not depend on numbers of the manifest."""
    folder = run.stage("prepare")
    sequences = load_sequences(run)
    items = folder.read_table("items.parquet").to_pylist()
    users = folder.read_shards("users/").to_pylist()
    names = [None, *(item.pop("item_id") for item in items)]
    assert [item.pop("item") for item in items] == list(range(1, len(names)))
    assert [user["user"] for user in users] == list(range(sequences.num_users))
    histories = {}
    for user in users:
        number = user.pop("user")
        histories[user.pop("user_id")] = (
            [names[item] for item in sequences.whole(number)],
            int(sequences.num_train[number]),
            int(sequences.num_validation[number]),
            user,
        )
    rejects = sorted(tuple(row.values()) for row in folder.read_table("rejects.parquet").to_pylist())
    return histories, dict(zip(names[1:], items, strict=True)), rejects


def same_facts(one, other):
    for result in (one, other):
        result.details["k_core_rounds"] = [result.details["k_core_rounds"][0], result.details["k_core_rounds"][-1]]
    assert one.rows == other.rows
    assert one.details == other.details


def old_numbers(run):
    folder = run.stage("prepare")
    items = {row["item_id"]: row["item"] for row in folder.read_table("items.parquet").to_pylist()}
    return items, {row["user_id"]: row["user"] for row in folder.read_shards("users/").to_pylist()}


def grows(monkeypatch):
    """Notes whether tables were added to."""
    added = []
    add = growth.add_arrivals
    monkeypatch.setattr(growth, "add_arrivals", lambda *words: added.append(1) or add(*words))
    return added


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(logs.map(lambda files: files[0]), min_size=2, max_size=4),
    least=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shard_rows=st.integers(10, 80),
    has_times=st.booleans(),
    texts=st.booleans(),
    most=st.integers(0, 3),
    recent_share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_added_files_equal_all_files_at_once(
    tmp_path_factory, monkeypatch, files, least, shard_rows, has_times, texts, most, recent_share
):
    folder = tmp_path_factory.mktemp("growing")
    names = write_files(folder, [SURE + files[0], *files[1:]])
    data = {
        "min_user_interactions": least[0],
        "min_item_interactions": least[1],
        "shard_rows": shard_rows,
        "columns": {"time": "timestamp" if has_times else None},
        "item_columns": COLUMNS,
    }
    if texts:
        (folder / "items.csv").write_text(TEXTS)
        data["item_texts"] = [str(folder / "items.csv")]
    before: tuple[dict[str, int], dict[str, int]] = ({}, {})
    with monkeypatch.context() as patch:
        added = grows(patch)
        patch.setattr(growth, "MAX_GENERATIONS", most)
        patch.setattr(recent, "RECENT_SHARE", recent_share)
        for number in range(1, len(names) + 1):
            run, grown = run_prepare(config_for(folder / "grown", names[:number], **data))
            now = old_numbers(run)
            assert all(new.items() >= old.items() for new, old in zip(now, before, strict=True))
            before = now
        num_anew = (len(names) - 1) // (most + 1)
        assert len(added) == len(names) - 1 - num_anew
    whole_run, whole = run_prepare(config_for(folder / "whole", names, **data))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


def test_an_item_comes_back_with_its_old_events_in_their_places(tmp_path, prepared, monkeypatch):
    first: list[Row] = [*SURE, ("sure", "rare", "3"), ("sure0", "rare", "5"), ("lost", "a", "7")]
    names = write_files(tmp_path, [first, [("sure1", "rare", "5"), ("lost", "b", "7"), ("sure", "a", "0")]])
    added = grows(monkeypatch)
    data = {"min_user_interactions": 2, "min_item_interactions": 3}
    prepared(interactions=names[:1], **data)
    done = prepared(interactions=names, **data)
    assert added
    found = {user: [item for item, _ in history] for user, history in ((u, h) for u, h in histories_of(done).items())}
    assert found["sure"] == ["a", "b", "c", "d", "rare", "e", "f", "g", "h"]
    assert found["sure0"] == [*"abcdefgh", "rare"]
    assert found["sure1"] == [*"abcdefgh", "rare"]
    assert found["lost"] == ["a", "b"]
    assert done.rejects() == [("log-1.parquet", 3, "duplicate of an earlier row", "a")]


def histories_of(done):
    sequences, items = load_sequences(done.run), done.table("items")["item_id"].to_pylist()
    users = done.table("users")["user_id"].to_pylist()
    return {
        user_id: [(items[item - 1], None) for item in sequences.whole(user).tolist()]
        for user, user_id in enumerate(users)
    }


@pytest.mark.parametrize(
    "change",
    [
        {"min_user_interactions": 1},
        {"split": "global_time", "validation_share": 0.3, "test_share": 0.03},
        {"max_user_interactions": 100},
        {"interactions": "other order"},
        {"interactions": "old file touched"},
    ],
)
def test_what_cannot_be_added_is_made_anew(tmp_path, monkeypatch, change):
    names = write_files(tmp_path, [SURE, SURE[:5], SURE[8:12]])
    run_prepare(config_for(tmp_path / "run", names[:2]))
    added = grows(monkeypatch)
    if change.get("interactions") == "old file touched":
        (tmp_path / "log-0.csv").write_text((tmp_path / "log-0.csv").read_text() + "sure,a,77\n")
    data = {key: value for key, value in change.items() if key != "interactions"}
    names = names if change.get("interactions") != "other order" else [names[2], *names[:2]]
    run, grown = run_prepare(config_for(tmp_path / "run", names, **data))
    assert not added
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names, **data))
    assert described(run) == described(whole_run)
    assert grown.details == whole.details


def random_files(folder, *nums, seed=7):
    """Files of so many random events each; rare users and items are among them, and the last events come first."""
    rng = np.random.default_rng(seed)
    total = sum(nums)
    users, items = ((rng.random(total) ** 3 * 200).astype(int) for _ in range(2))
    rows = [(f"u{user}", f"i{item}", str(n)) for n, (user, item) in enumerate(zip(users, items, strict=True))][::-1]
    ends = np.cumsum(nums).tolist()
    return write_files(folder, [rows[end - num : end] for end, num in zip(ends, nums, strict=True)])


def ids_by_number(numbers):
    return [list(dict(sorted(own.items(), key=lambda entry: entry[1]))) for own in numbers]


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        ({"MAX_GENERATIONS": 0}, {}),
        ({"MAX_NEW_SHARE": 0.25}, {}),
        ({}, {"interactions": "in front"}),
        ({}, {"split": "global_time", "validation_share": 0.3, "test_share": 0.1}),
    ],
)
def test_dense_ids_outlast_a_log_that_is_read_as_a_whole(tmp_path, monkeypatch, limits, data):
    for name, value in limits.items():
        monkeypatch.setattr(growth, name, value)
    names = random_files(tmp_path, 400, 300, 700)
    in_front = data.pop("interactions", None)
    least = {"min_user_interactions": 5, "min_item_interactions": 5, "shard_rows": 50}
    added = grows(monkeypatch)
    run, _ = run_prepare(config_for(tmp_path / "run", names[:2], **least, **data))
    before = old_numbers(run)
    names = [names[2], *names[:2]] if in_front else names
    run, grown = run_prepare(config_for(tmp_path / "run", names, **least, **data))
    assert not added
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names, **least, **data))
    assert described(run) == described(whole_run)
    assert grown.details == whole.details
    own, others = ids_by_number(old_numbers(run)), ids_by_number(old_numbers(whole_run))
    for ids, whole_ids, old in zip(own, others, ids_by_number(before), strict=True):
        assert ids == old + [each for each in whole_ids if each not in old]
        assert ids != whole_ids
        assert len(old) < len(ids)
    assert not [name for name in run.stage("prepare").files("state") if "lasting" in name]


@pytest.mark.parametrize(
    "change", [{"min_item_interactions": 1}, {"max_user_interactions": 40}, {"interactions": "old"}]
)
def test_where_those_who_stayed_may_go_all_ids_are_given_anew(tmp_path, monkeypatch, change):
    names = random_files(tmp_path, 400, 300, 700)
    run_prepare(config_for(tmp_path / "run", names[:2]))
    wanted = names[1:] if change.pop("interactions", None) else names
    run, _ = run_prepare(config_for(tmp_path / "run", wanted, **change))
    whole_run, _ = run_prepare(config_for(tmp_path / "whole", wanted, **change))
    assert old_numbers(run) == old_numbers(whole_run)


@pytest.mark.parametrize("at", ["plan_splits", "keep_core", "save_ids", "save_memory", "save_state"])
@pytest.mark.parametrize("again", [{}, {"shard_rows": 41}, {"interactions": "withdrawn"}])
def test_dense_ids_outlast_a_log_whose_reading_was_interrupted(tmp_path, monkeypatch, at, again):
    monkeypatch.setattr(growth, "MAX_GENERATIONS", 0)
    names = random_files(tmp_path, 400, 300, 700)
    run_prepare(config_for(tmp_path / "run", names[1:2]))
    run, _ = run_prepare(config_for(tmp_path / "run", names[:2]))
    before = old_numbers(run)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, at, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_prepare(config_for(tmp_path / "run", names))
    wanted = names[:2] if again.get("interactions") else names
    data = {"shard_rows": again.get("shard_rows", 50)}
    run, _ = run_prepare(config_for(tmp_path / "run", wanted, **data))
    whole_run, _ = run_prepare(config_for(tmp_path / "whole", wanted))
    assert described(run) == described(whole_run)
    assert all(new.items() >= old.items() for new, old in zip(old_numbers(run), before, strict=True))
    assert all(new != old for new, old in zip(old_numbers(run), old_numbers(whole_run), strict=True))


def test_a_damaged_state_costs_the_dense_ids_and_no_more(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(growth, "MAX_GENERATIONS", 0)
    names = random_files(tmp_path, 400, 300)
    run, _ = run_prepare(config_for(tmp_path / "run", names[:1]))
    folder = run.stage("prepare")
    for name in folder.files("state/ids/"):
        folder.write_bytes(name, b"damaged")
    run, _ = run_prepare(config_for(tmp_path / "run", names))
    assert "prepare: dense ids are given anew, because those there were cannot be read" in capsys.readouterr().err
    whole_run, _ = run_prepare(config_for(tmp_path / "whole", names))
    assert old_numbers(run) == old_numbers(whole_run)


def test_the_last_addition_that_may_be_is_not_done_again_when_its_manifest_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "MAX_GENERATIONS", 1)
    names = random_files(tmp_path, 300, 50)
    run_prepare(config_for(tmp_path / "run", names[:1]))
    with monkeypatch.context() as patch:
        patch.setattr(growth, "make_result", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_prepare(config_for(tmp_path / "run", names))
    monkeypatch.setattr(prepare, "_prepare_all", lambda *_: 1 / 0)
    run, grown = run_prepare(config_for(tmp_path / "run", names))
    monkeypatch.undo()
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


def test_more_new_rows_than_a_quarter_are_read_with_all_others(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "MAX_NEW_SHARE", 0.25)
    names = write_files(tmp_path, [SURE, SURE[:20]])
    added = grows(monkeypatch)
    run_prepare(config_for(tmp_path / "run", names[:1]))
    run_prepare(config_for(tmp_path / "run", names))
    assert not added


@pytest.mark.parametrize("at", ["save_memory", "items_table", "write_rejects", "save_state"])
def test_an_interrupted_addition_is_done_again(tmp_path, monkeypatch, at):
    rng = np.random.default_rng(5)
    rows = [(f"u{user}", f"i{item}", str(n)) for n, (user, item) in enumerate(rng.integers(0, 30, (700, 2)).tolist())]
    names = write_files(tmp_path, [rows[:600], rows[500:]])
    run_prepare(config_for(tmp_path / "run", names[:1]))
    with monkeypatch.context() as patch:
        patch.setattr(growth, at, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_prepare(config_for(tmp_path / "run", names))
    run, grown = run_prepare(config_for(tmp_path / "run", names))
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


KILLED = """
import contextlib, os, signal, sys
from sracl_dist.run_folder import StageFolder
sys.path.insert(0, {tests!r})
from test_sharded_prepare import config_for, run_prepare
commit, left = StageFolder.open_output, {left}

@contextlib.contextmanager
def open_output(self, name):
    global left
    with commit(self, name) as stream:
        yield stream
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

StageFolder.open_output = open_output
run_prepare(config_for({folder!r}, {names!r}))
"""


@pytest.mark.parametrize("num_files", [3, 5, 7, 9, 11])
def test_a_killed_addition_is_done_again(tmp_path, num_files):
    rng = np.random.default_rng(6)
    rows = [(f"u{user}", f"i{item}", str(n)) for n, (user, item) in enumerate(rng.integers(0, 30, (700, 2)).tolist())]
    # A quarter as many new rows at most, or all are read again.
    names = write_files(tmp_path, [rows[:600], rows[580:]])
    folder = tmp_path / "run"
    run_prepare(config_for(folder, names[:1]))
    code = KILLED.format(tests=str(Path(__file__).parent), left=num_files, folder=str(folder), names=names)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run, grown = run_prepare(config_for(folder, names))
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


@pytest.mark.parametrize("others", [[], [("u1", "i2", "900"), ("u2", "i3", "901"), ("late", "i1", "902")] * 2])
@pytest.mark.parametrize("at", ["write_rejects", "save_state"])
def test_files_of_an_interrupted_addition_that_are_withdrawn_leave_nothing(tmp_path, monkeypatch, at, others):
    rng = np.random.default_rng(6)
    rows = [(f"u{user}", f"i{item}", str(n)) for n, (user, item) in enumerate(rng.integers(0, 30, (700, 2)).tolist())]
    withdrawn = [(f"new{n % 3}", f"fresh{n % 4}", str(n)) for n in range(40)] + rows[:60]
    names = write_files(tmp_path, [rows, withdrawn, others or rows[:1]])
    wanted = [names[0], *names[2:]] if others else names[:1]
    texts = tmp_path / "items.csv"
    texts.write_text("item_id,title\n" + "".join(f"i{item},Title {item}\n" for item in range(30)))
    data = {"item_texts": [str(texts)], "item_columns": COLUMNS}
    run_prepare(config_for(tmp_path / "run", names[:1], **data))
    with monkeypatch.context() as patch:
        patch.setattr(growth, at, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_prepare(config_for(tmp_path / "run", names[:2], **data))
    added = grows(monkeypatch)
    run, grown = run_prepare(config_for(tmp_path / "run", wanted, **data))
    assert len(added) == bool(others)
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", wanted, **data))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


def test_a_file_with_the_name_of_an_old_one_is_added_and_both_are_told_apart(tmp_path, monkeypatch):
    names = []
    for day, rows in enumerate([[*SURE, ("u", "", "1")], [*SURE[:3], ("", "a", "2")], [("v", "a", "never")]]):
        (tmp_path / f"day={day}").mkdir()
        (written,) = write_files(tmp_path / f"day={day}", [rows])
        names.append(written)
    added = grows(monkeypatch)
    for number in (1, 2, 3):
        run, _ = run_prepare(config_for(tmp_path / "run", names[:number]))
    assert len(added) == 2
    rejects = run.stage("prepare").read_table("rejects.parquet").to_pylist()
    assert {(row["source"], row["reason"]) for row in rejects} == {
        (names[0], "empty item id"),
        (names[1], "empty user id"),
        (names[1], "duplicate of an earlier row"),
        (names[2], "time is neither a number nor an ISO date-time"),
    }
    whole_run, _ = run_prepare(config_for(tmp_path / "whole", names))
    assert described(run) == described(whole_run)


def test_no_folder_of_earlier_work_is_left(tmp_path):
    names = write_files(tmp_path, [SURE, SURE[:5]])
    for number in (1, 2):
        run_prepare(config_for(tmp_path / "run", names[:number]))
        folders = [path for path in (tmp_path / "run" / "prepare").rglob("*") if path.is_dir()]
        assert all(any(path.iterdir()) for path in folders)
        assert not (tmp_path / "run" / "prepare" / "work").exists()


def test_a_state_of_another_form_is_one_sentence(tmp_path):
    names = write_files(tmp_path, [SURE])
    run, _ = run_prepare(config_for(tmp_path / "run", names))
    run.stage("prepare").write_json("state/log.json", {"generation": 0})
    with pytest.raises(StorageError, match=r"state/log.json is damaged; run jobs/prepare.py again, which repairs it\."):
        run_prepare(config_for(tmp_path / "run", names))


def test_nothing_new_after_an_addition_whose_manifest_is_lost(tmp_path, monkeypatch):
    names = write_files(tmp_path, [SURE, SURE[:5]])
    run_prepare(config_for(tmp_path / "run", names[:1]))
    run, first = run_prepare(config_for(tmp_path / "run", names))
    run.stage("prepare").delete(["manifest.json"])
    tables = described_tables(run)
    _, second = run_prepare(config_for(tmp_path / "run", names))
    assert described_tables(run) == tables
    assert first == second


def test_what_does_not_change_is_not_written_again(tmp_path):
    rng = np.random.default_rng(4)
    rows = [(f"u{user}", f"i{item}", str(n)) for n, (user, item) in enumerate(rng.integers(0, 30, (700, 2)).tolist())]
    names = write_files(tmp_path, [rows, [("u1", "i2", "900"), *((f"new{n % 2}", f"i{n}", "901") for n in range(20))]])
    run, _ = run_prepare(config_for(tmp_path / "run", names[:1], shard_rows=100))
    folder = run.stage("prepare")
    old = {name: os.stat(folder.path(name)).st_mtime_ns for name in folder.files()}
    run_prepare(config_for(tmp_path / "run", names, shard_rows=100))
    kept = {name for name in folder.files() if os.stat(folder.path(name)).st_mtime_ns == old.get(name)}
    assert kept == {name for name in old if name.startswith(("users/", "sequences/", "state/ids/"))}
    assert len(kept) > 15
    assert folder.files("users")[-1] == "users/000000000030-000000000032.parquet"


def test_after_a_collision_of_hashes_the_whole_log_is_read_with_another_key(tmp_path, monkeypatch):
    names = write_files(tmp_path, [SURE[::-1], SURE[:5]])
    run, _ = run_prepare(config_for(tmp_path / "run", names[:1]))
    before = old_numbers(run)
    key = run.stage("prepare").read_json("state/log.json")["hash_key"]
    with monkeypatch.context() as patch:
        patch.setattr(KnownIds, "find", lambda *_: (_ for _ in ()).throw(collision()))
        with pytest.raises(HashCollisionError, match="run the job again"):
            run_prepare(config_for(tmp_path / "run", names))
    added = grows(monkeypatch)
    run, grown = run_prepare(config_for(tmp_path / "run", names))
    assert not added
    assert run.stage("prepare").read_json("state/log.json")["hash_key"] != key
    assert old_numbers(run) == before
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


def described_tables(run):
    folder = run.stage("prepare")
    return {name: folder.read_table(name).to_pylist() for name in folder.files() if name.endswith(".parquet")}


def test_the_helper_agrees_with_the_other_one(tmp_path, prepared):
    done = prepared(interactions=write_files(tmp_path, [SURE]))
    assert {user: [item for item, _ in own] for user, own in found_histories(done).items()} == {
        user: [item for item, _ in own] for user, own in histories_of(done).items()
    }


@pytest.mark.parametrize("content", ["user_id,item_id,timestamp\n", "user_id,item_id,timestamp\nu,,1\n", None])
def test_files_without_a_usable_or_different_row_are_added_too(tmp_path, monkeypatch, content):
    names = write_files(tmp_path, [SURE, SURE[:3]])
    if content is not None:
        (tmp_path / "day-2.csv").write_text(content)
        names[1] = str(tmp_path / "day-2.csv")
    added = grows(monkeypatch)
    run_prepare(config_for(tmp_path / "run", names[:1]))
    run, grown = run_prepare(config_for(tmp_path / "run", names))
    assert added
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)
    assert load_sequences(run).items.tolist() == load_sequences(whole_run).items.tolist()
