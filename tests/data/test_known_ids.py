"""A log that is read again after it has grown: users and items that were there keep their dense ids."""

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import histories
from test_sharded_prepare import (
    SURE,
    config_for,
    found_histories,
    joined,
    kill_prepare,
    random_rows,
    run_prepare,
    write_files,
)

from sracl_dist.run_folder import RunFolder

events = st.lists(
    st.tuples(st.sampled_from([f"u{n}" for n in range(9)]), st.sampled_from("abcdefgh"), st.integers(0, 40).map(str)),
    max_size=30,
)


def ids(done):
    return done.table("users")["user_id"].to_pylist(), done.table("items")["item_id"].to_pylist()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days=st.lists(events, min_size=2, max_size=4), shard_rows=st.sampled_from([8, 20, 1000]), data=st.data())
def test_whoever_was_there_keeps_the_dense_id(prepared, tmp_path, days, shard_rows, data):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    rows, before = list(SURE), ([], [])
    for day in days:
        # A new day comes behind, or its file comes first by its name.
        rows = rows + day if data.draw(st.booleans()) else day + rows
        done = prepared(interactions=write_files(tmp_path, [rows]), shard_rows=shard_rows, min_user_interactions=2)
        assert found_histories(done) == histories(rows, 2, 1)
        for own, old in zip(ids(done), before, strict=True):
            assert own[: len(old)] == old
        before = ids(done)


def test_settings_that_remove_some_leave_no_gap(prepared, tmp_path):
    rows = [*random_rows(1500), ("rare", "i1", "1"), ("rare", "i2", "2"), ("rare", "i3", "3")]
    names = write_files(tmp_path, [[rows[-1], *rows]])
    users, _ = ids(prepared(interactions=names, min_user_interactions=2))
    assert users[0] == "rare"
    done = prepared(interactions=names, min_user_interactions=5)
    assert ids(done)[0] == users[1:]
    assert found_histories(done) == histories([rows[-1], *rows], 5, 1)


def test_another_log_in_the_same_folder_is_that_log(prepared, tmp_path):
    prepared(interactions=write_files(tmp_path, [random_rows(1500)]))
    done = prepared(interactions=write_files(tmp_path, [SURE]))
    assert found_histories(done) == histories(SURE, 1, 1)
    assert len(ids(done)[1]) == 8


@pytest.mark.parametrize("num_commits", [5, 30, 70, 100])
def test_a_killed_run_of_a_grown_log_keeps_them_too(tmp_path, num_commits):
    """Also when the log has grown again until it is run the next time."""
    days = [random_rows(700), [(f"n{user}", item, time) for user, item, time in random_rows(900)], random_rows(300)]
    folder = tmp_path / "run"
    run, _ = run_prepare(config_for(folder, write_files(tmp_path, days[:1]), shard_rows=150))
    users, _, items, _ = joined(run)
    names = write_files(tmp_path, days[:2])
    assert kill_prepare(folder, names, num_commits)
    for files in (names, write_files(tmp_path, days)):
        shutil.copytree(folder, tmp_path / f"run{len(files)}")
        run, _ = run_prepare(config_for(tmp_path / f"run{len(files)}", files, shard_rows=150))
        grown_users, _, grown_items, _ = joined(run)
        assert grown_users[: len(users)] == users
        assert [each["item_id"] for each in grown_items[: len(items)]] == [each["item_id"] for each in items]
        assert len(grown_users) > len(users)


def test_ids_that_are_damaged_are_given_again(tmp_path, capsys):
    names = write_files(tmp_path, [random_rows(700)])
    run, _ = run_prepare(config_for(tmp_path / "run", names))
    before = joined(run)
    path = tmp_path / "run" / "prepare" / "ids" / "users.parquet"
    path.write_bytes(path.read_bytes()[:-5])
    run, _ = run_prepare(config_for(RunFolder(str(tmp_path / "run")).location, names))
    assert "ids/users.parquet" in capsys.readouterr().err
    assert joined(run) == before
