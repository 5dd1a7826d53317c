"""Late events among the latest ones of a log: the tables are those of all files at once, and histories are not read."""

import numpy as np
import pytest
from test_growth import described, run_prepare, same_facts
from test_sharded_prepare import SURE, config_for, write_files

from sracl_dist.data import growth, recent, user_events
from sracl_dist.data.recent import ALWAYS, Recent, load_recent, time_of_recent
from sracl_dist.errors import InputError, StorageError

LATE = [("sure", "b", "3"), ("sure", "b", "3"), ("sure", "h", "7"), ("new", "a", "1"), ("sure0", "a", "90")]
"""New events of the log SURE; the first one is out of turn, the second repeats it, the third an old one."""


@pytest.fixture(autouse=True)
def _any_share_of_new_rows(monkeypatch):
    monkeypatch.setattr(growth, "MAX_NEW_SHARE", 1e9)


def events(times, users=None, items=None, since=ALWAYS):
    users = np.zeros(len(times), np.int32) if users is None else np.array(users, np.int32)
    items = np.arange(len(times), dtype=np.int32) if items is None else np.array(items, np.int32)
    return Recent(users=users, items=items, times=np.array(times, np.int64), since=since)


def test_events_after_a_time_are_later_than_it():
    chosen = events([3, 5, 4, 5]).after(4)
    assert (chosen.times.tolist(), chosen.items.tolist(), chosen.since) == ([5, 5], [1, 3], 4)
    assert chosen.after(4) is chosen


@pytest.mark.parametrize(
    ("times", "num_events", "left", "since"),
    [
        ([1, 2, 3, 4, 5], 4, [4, 5], 3),
        ([5, 1, 4, 4, 2], 4, [5], 4),  # one of two events at the same time would be a gap
        ([1, 2, 3], 6, [1, 2, 3], ALWAYS),
        ([], 0, [], ALWAYS),
    ],
)
def test_the_latest_events_are_the_share_of_the_log_and_fewer_at_ties(monkeypatch, times, num_events, left, since):
    monkeypatch.setattr(recent, "RECENT_SHARE", 0.5)
    latest = events(times).latest(num_events)
    assert (latest.times.tolist(), latest.since) == (left, since)


def test_joined_parts_reach_back_as_far_as_all_of_them():
    joined = Recent.joined([events([4, 6, 5], since=3), events([5, 6, 8], items=[7, 8, 9], since=4)])
    assert joined.since == 4
    assert joined.times.tolist() == [6, 5, 5, 6, 8]
    assert joined.items.tolist() == [1, 2, 7, 8, 9]


def test_the_time_of_the_latest_events_weighs_parts_by_their_events(monkeypatch):
    monkeypatch.setattr(recent, "RECENT_SHARE", 0.25)
    some_times = [np.array([1, 2, 3]), np.array([10, 20, 30, 40]), np.zeros(0, np.int64)]
    # Three events and four times 25: the last 25 of 103 and a little more are at 40.
    assert time_of_recent(some_times, [3, 100, 0]) == 30
    assert time_of_recent(some_times, [3, 4, 0]) == 30
    monkeypatch.setattr(recent, "RECENT_SHARE", 0.0)
    assert time_of_recent(some_times, [3, 100, 0]) == 40


def test_users_who_come_and_go_leave_the_share_of_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(recent, "RECENT_SHARE", 0.1)
    rows = [(f"u{n // 10}", f"i{n % 7}", str(n)) for n in range(1000)]
    run, _ = run_prepare(config_for(tmp_path / "run", write_files(tmp_path, [rows]), shard_rows=100))
    assert len(run.stage("prepare").files("sequences")) > 5
    latest = load_recent(run.stage("prepare"), 0)
    assert latest.since == 899
    assert sorted(latest.times.tolist()) == list(range(900, 1000))


@pytest.mark.parametrize(("share", "num_reads"), [(1.0, 0), (0.0, 1)])
def test_histories_are_read_only_for_events_older_than_the_latest_of_the_log(tmp_path, monkeypatch, share, num_reads):
    monkeypatch.setattr(recent, "RECENT_SHARE", share)
    reads = counted_reads(monkeypatch)
    names = write_files(tmp_path, [SURE, LATE])
    run_prepare(config_for(tmp_path / "run", names[:1]))
    run, grown = run_prepare(config_for(tmp_path / "run", names))
    assert len(reads) == num_reads
    assert described(run)[0]["sure"][0] == [*"abcd", "b", *"efgh"]
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


def counted_reads(monkeypatch):
    """Notes every read of old histories."""
    reads = []
    read = user_events.read_sequence_rows
    monkeypatch.setattr(
        user_events, "read_sequence_rows", lambda *words, **more: reads.append(1) or read(*words, **more)
    )
    return reads


def test_a_repeat_at_the_very_time_since_when_events_are_remembered_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(recent, "RECENT_SHARE", 0.1)
    # The user's only events are at that time, so what is remembered holds none of them.
    rows = [(f"u{n % 5}", f"i{n % 7}", str(n)) for n in range(90)] + [("once", f"i{n}", "90") for n in range(4)]
    rows += [(f"u{n % 5}", f"i{n % 7}", str(n)) for n in range(91, 99)]
    names = write_files(tmp_path, [rows, [("once", "i2", "90"), ("once", "i6", "90"), ("u1", "i1", "200")]])
    run, _ = run_prepare(config_for(tmp_path / "run", names[:1]))
    assert load_recent(run.stage("prepare"), 0).since == 90
    run, _ = run_prepare(config_for(tmp_path / "run", names))
    assert described(run)[0]["once"][0] == ["i0", "i1", "i2", "i3", "i6"]


def test_events_at_one_time_keep_the_order_of_their_arrival_over_additions(tmp_path, monkeypatch):
    monkeypatch.setattr(recent, "RECENT_SHARE", 1.0)
    data = {"min_user_interactions": 1, "min_item_interactions": 2}
    base = [(f"u{user}", item, str(time)) for user in range(3) for time, item in enumerate("abcdefg")]
    files = [
        [*base, ("u0", "c", "50")],
        [("u0", "rare", "50"), ("u0", "a", "50"), ("u1", "b", "60")],  # rare is removed
        [("u0", "b", "50"), ("u2", "rare", "55"), ("u0", "g", "49")],  # and comes back
        [("u0", "d", "50"), ("u0", "rare", "50")],
    ]
    names = write_files(tmp_path, files)
    for number in range(1, len(names) + 1):
        run, grown = run_prepare(config_for(tmp_path / "run", names[:number], **data))
    assert described(run)[0]["u0"][0] == [*"abcdefg", "g", "c", "rare", "a", "b", "d"]
    whole_run, whole = run_prepare(config_for(tmp_path / "whole", names, **data))
    assert described(run) == described(whole_run)
    same_facts(grown, whole)


def test_days_that_overlap_give_the_tables_of_all_files_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(recent, "RECENT_SHARE", 0.4)
    ways = []
    old = user_events.OldEvents
    for name in ("all_of", "latest_of"):
        find = getattr(old, name)
        monkeypatch.setattr(
            old,
            name,
            lambda self, users, *more, find=find: ways.append((find, users.any())) or find(self, users, *more),
        )
    rng = np.random.default_rng(0)
    for trial in range(12):
        files = [
            [
                (
                    f"u{rng.integers(5)}",
                    f"i{rng.integers(5 + day)}",
                    str(max(0, rng.integers(5 * day - 4, 5 * day + 8))),
                )
                for _ in range(int(rng.integers(20, 50)))
            ]
            for day in range(4)
        ]
        files[0] += [(f"s{user}", item, str(time)) for user in range(3) for time, item in enumerate("abcdefgh")]
        folder = tmp_path / str(trial)
        folder.mkdir()
        names = write_files(folder, files)
        data = {
            "min_user_interactions": int(rng.integers(1, 9)),
            "min_item_interactions": int(rng.integers(1, 9)),
            "shard_rows": int(rng.choice([60, 100_000])),
        }
        try:
            for number in range(1, len(names) + 1):
                run, grown = run_prepare(config_for(folder / "grown", names[:number], **data))
        except InputError:  # the k-core leaves nothing
            continue
        whole_run, whole = run_prepare(config_for(folder / "whole", names, **data))
        assert described(run) == described(whole_run)
        same_facts(grown, whole)
    assert {find.__name__ for find, any_user in ways if any_user} == {"all_of", "latest_of"}


def test_a_state_that_does_not_fit_together_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(recent, "RECENT_SHARE", 1.0)
    names = write_files(tmp_path, [[*SURE, ("sure", "rare", "6")], [("sure", "b", "3")]])
    data = {"min_user_interactions": 1, "min_item_interactions": 2}
    run, _ = run_prepare(config_for(tmp_path / "run", names[:1], **data))
    folder = run.stage("prepare")
    latest = load_recent(folder, 0)
    recent.save_recent(folder, 0, events([], since=latest.since))
    with pytest.raises(StorageError, match=r"does not fit together; delete .*log.json and run the stage prepare again"):
        run_prepare(config_for(tmp_path / "run", names, **data))
