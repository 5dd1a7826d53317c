"""A generated log of a million events, with duplicates, late rows and bots: against plain loops, and what it holds."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracle import PlainRow, histories, item_numbers, usable_events
from test_sharded_prepare import found_histories

from sracl_dist.bench.synthetic_log import SyntheticLogSettings, write_log
from sracl_dist.bench.synthetic_log.population import Population
from sracl_dist.bench.synthetic_log.settings import BLOCK_ITEMS

pytestmark = pytest.mark.slow
LEAST = (5, 15)
"""Events of a user and of an item that stays."""
LOG = SyntheticLogSettings(
    num_events=1_000_000, num_users=50_000, num_items=10_000, events_per_shard=130_000, num_interests=20, seed=3
)
SHARD_ROWS = 90_000
"""Several partitions of users, and several pieces of each file."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("million") / "log"
    write_log(folder, LOG)
    return folder


def files_of(log: Path) -> list[str]:
    return [str(path) for path in sorted((log / "interactions").glob("*.parquet"))]


def rows_of(names: list[str]) -> list[PlainRow]:
    table = pa.concat_tables([pq.read_table(name) for name in names])
    return list(zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "timestamp")), strict=True))


def split_of(length: int) -> tuple[int, int]:
    """Training and validation events of a history."""
    return (length - 2, 1) if length >= 3 else (length, 0)


@pytest.mark.parametrize("limit", [None, 40])
def test_tables_equal_plain_loops(log, prepared, limit):
    names = files_of(log)
    rows = rows_of(names)
    done = prepared(
        interactions=names,
        shard_rows=SHARD_ROWS,
        min_user_interactions=LEAST[0],
        min_item_interactions=LEAST[1],
        max_user_interactions=limit,
    )
    expected = histories(rows, *LEAST, limit)
    found = found_histories(done)
    assert found == expected
    items = done.table("items")
    item_ids = items["item_id"].to_pylist()
    assert sorted(item_ids) == sorted(item_numbers(rows, *LEAST, limit))
    splits = list(
        zip(*(done.table("sequences")[name].to_pylist() for name in ("num_train", "num_validation")), strict=True)
    )
    assert splits == [split_of(len(history)) for history in found.values()]
    counts, train_counts = Counter(), Counter()
    for history in expected.values():
        counts.update(item for item, _ in history)
        train_counts.update(item for item, _ in history[: split_of(len(history))[0]])
    assert items["num_interactions"].to_pylist() == [counts[item] for item in item_ids]
    assert items["num_train_interactions"].to_pylist() == [train_counts[item] for item in item_ids]
    require_rejects(done, names, rows, limit)


def require_rejects(done, names: list[str], rows: list[PlainRow], limit: int | None) -> None:
    """Every row that is left out is counted, and each duplicate is named with its place."""
    reasons = usable_events(rows, limit)[1]
    details = done.manifest.details["log"]
    assert details["rows_read"] == len(rows)
    assert details["rows_over_max_user_interactions"] == reasons.pop("over the limit", 0)
    assert details["rows_rejected"] == reasons
    assert details["rows_kept"] == len(usable_events(rows, limit)[0])
    seen, duplicates = set(), set()
    for name in names:
        for number, row in enumerate(rows_of([name]), 1):
            if row in seen:
                duplicates.add((Path(name).name, number, "duplicate of an earlier row", row[1]))
            seen.add(row)
    rejects = done.rejects()
    assert len(rejects) == reasons["duplicate of an earlier row"] == len(set(rejects))
    assert set(rejects) == duplicates


def test_what_was_planted_is_in_the_tables(log, prepared):
    facts = json.loads((log / "facts.json").read_text())
    done = prepared(interactions=files_of(log), shard_rows=SHARD_ROWS)
    details = done.manifest.details
    assert facts["num_out_of_order"] > 2_000
    assert facts["num_duplicates"] == 5_000
    assert details["log"]["rows_read"] == facts["num_events"]
    assert details["log"]["rows_rejected"] == {"duplicate of an earlier row": facts["num_duplicates"]}
    statistics = details["statistics"]
    assert (statistics["users"], statistics["items"]) == (facts["num_users"], facts["num_items"])
    assert statistics["interactions"] == facts["num_events"] - facts["num_duplicates"]
    assert statistics["time_range"] == [facts["first_ms"], facts["last_ms"]]

    population, sequences = Population(LOG), done.table("sequences").combine_chunks()
    lists = sequences["items"].chunk(0)
    lengths = np.diff(lists.offsets.to_numpy())
    users = np.repeat(population.users_of(done.table("users")["user_id"].combine_chunks()), lengths)
    items = population.items_of(done.table("items")["item_id"].combine_chunks())[lists.flatten().to_numpy() - 1]
    times = sequences["times"].chunk(0).flatten().to_numpy()
    same_user = users[1:] == users[:-1]
    gaps_ms = np.diff(times)
    assert (gaps_ms[same_user] >= 0).all()

    is_human = users < LOG.num_humans
    num_bot_events = facts["num_bot_events"] - sum(
        user in facts["bot_ids"] for user in duplicate_users(rows_of(files_of(log)))
    )
    assert int((~is_human).sum()) == num_bot_events
    interests = population.user_interests(users[is_human])
    inside = np.mean((interests == (items[is_human] % LOG.num_interests)[:, None]).any(axis=1))
    assert inside == pytest.approx(facts["inside_share"], abs=1e-3)

    near = same_user & is_human[1:] & (gaps_ms > 0) & (gaps_ms < 120_000)
    before, after = items[:-1][near], items[1:][near]
    same_interest = before % LOG.num_interests == after % LOG.num_interests
    assert np.mean(same_interest) > 0.97
    ranks = [each // LOG.num_interests for each in (before, after)]
    same_block = same_interest & (ranks[0] // BLOCK_ITEMS == ranks[1] // BLOCK_ITEMS)
    step = (ranks[1] - ranks[0]) % BLOCK_ITEMS
    shares = [np.mean(same_block & (step == each)) for each in (1, 2, 3, 4, 5)]
    assert np.allclose(shares[:3], np.array([0.7, 0.2, 0.1]) * LOG.follow_share, atol=0.025)
    assert max(shares[3:]) < 0.02

    activity = np.bincount(users[is_human], minlength=LOG.num_humans) - 1.0
    edges = np.geomspace(10, LOG.num_humans, 12).astype(int)
    means = [activity[start:stop].mean() for start, stop in itertools.pairwise(edges)]
    slope = np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0]
    assert abs(-slope - LOG.user_exponent) < 0.04


def duplicate_users(rows: list[PlainRow]) -> list[str]:
    """The user of each row that repeats an earlier one."""
    seen: set[PlainRow] = set()
    found = []
    for row in rows:
        if row in seen:
            found.append(row[0])
        seen.add(row)
    return found


def test_a_day_more_leaves_dense_ids_as_they_are(log, prepared, tmp_path):
    names = files_of(log)
    settings = {"shard_rows": SHARD_ROWS, "min_user_interactions": LEAST[0], "min_item_interactions": LEAST[1]}
    done = prepared(interactions=names[:-1], **settings)
    before = [done.table(table)[column] for table, column in (("users", "user_id"), ("items", "item_id"))]
    done = prepared(interactions=names, **settings)
    assert found_histories(done) == histories(rows_of(names), *LEAST)
    for table, column, old in (("users", "user_id", before[0]), ("items", "item_id", before[1])):
        assert done.table(table)[column].slice(0, len(old)).equals(old)
        assert len(done.table(table)) > len(old)
