from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import fixed_lists, from_histories, make_config, make_sequences, tables_of, write_run

from sracl_dist.columns import MISSING
from sracl_dist.errors import StorageError
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables, random_others
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences


def test_rows_are_joined_by_key(run: RunFolder, tables: SemanticTables, sequences: Sequences) -> None:
    written = run.stage("neighbours").read_table("users.parquet").to_pylist()
    assert [row["key"] for row in written] != sorted(row["key"] for row in written)
    for row in written:
        assert tables.user_neighbours[row["key"]].tolist() == row["neighbours"]
    for row in run.stage("neighbours").read_table("items.parquet").to_pylist():
        assert tables.item_neighbours[row["key"]].tolist() == row["neighbours"]
    for row in run.stage("embed").read_shards("users").to_pylist():
        assert tables.user_vectors[row["key"]].tolist() == row["vector"]
    for row in run.stage("embed").read_shards("items").to_pylist():
        assert tables.item_vectors[row["key"]].tolist() == row["vector"]
    assert (tables.item_neighbours[0] == MISSING).all()
    assert (tables.item_vectors[0] == 0).all()
    assert tables.user_vectors.shape == (sequences.num_users, 8)
    assert tables.item_vectors.shape == (sequences.num_items + 1, 8)


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


@pytest.mark.parametrize("kind", ["users", "items"])
def test_a_missing_vector_is_refused(tmp_path: Path, kind: str) -> None:
    sequences = make_sequences(6)
    run = write_run(tmp_path, sequences)
    run.stage("embed").delete([f"{kind}/part-1.parquet"])
    with pytest.raises(StorageError, match=r"and run jobs/embed"):
        _ = getattr(tables_of(run, sequences), f"{kind[:-1]}_vectors")


def test_a_table_is_read_only_when_it_is_asked_for(tmp_path: Path) -> None:
    """A backbone without text needs neither vectors nor neighbours."""
    sequences = make_sequences(12)
    tables = tables_of(RunFolder(str(tmp_path)), sequences)
    SraCl(make_config("unused", "objectives.terms=[next_item]"), tables)
    with pytest.raises(StorageError):
        _ = tables.item_vectors


HISTORIES = st.lists(st.lists(st.integers(1, 6), max_size=9), min_size=1, max_size=12)


def of(histories: list[list[int]]) -> SemanticTables:
    return tables_of(RunFolder("unused"), from_histories(histories, num_items=6))


@settings(max_examples=100, deadline=None)
@given(st.data(), HISTORIES, st.integers(1, 5))
def test_latest_training_rows_by_brute_force(data: st.DataObject, histories: list[list[int]], max_length: int) -> None:
    """The last two items are held out."""
    known = [user for user, history in enumerate(histories) if len(history) > 2]
    users = data.draw(st.lists(st.sampled_from(known), max_size=6)) if known else []
    rows = of(histories).latest_training_rows(np.array(users, np.int64), max_length)
    items = [histories[user][:-2][-max_length:] for user in users]
    assert rows.lengths_B.tolist() == [len(row) for row in items]
    assert rows.items_T.tolist() == [item for row in items for item in row]


@settings(max_examples=100, deadline=None)
@given(st.data(), HISTORIES, st.integers(1, 5))
def test_rows_before_a_place_by_brute_force(data: st.DataObject, histories: list[list[int]], max_length: int) -> None:
    before = [history[:place][-max_length:] for history in histories for place in range(len(history))]
    possible = [place for place, row in enumerate(before) if row]
    places = data.draw(st.lists(st.sampled_from(possible), max_size=6)) if possible else []
    rows = of(histories).rows_before(np.array(places, np.int64), max_length)
    assert rows.lengths_B.tolist() == [len(before[place]) for place in places]
    assert rows.items_T.tolist() == [item for place in places for item in before[place]]


@settings(max_examples=100, deadline=None)
@given(HISTORIES)
def test_same_target_places_are_all_others_with_the_same_item(histories: list[list[int]]) -> None:
    """Draws that go evenly over [0, 1) meet every other training target of the item equally often."""
    tables = of(histories)
    items = [item for history in histories for item in history]
    targets, start = [], 0
    for history in histories:
        targets += range(start + 1, start + len(history) - 2)
        start += len(history)
    for place in targets:
        others = [other for other in targets if items[other] == items[place] and other != place]
        num_draws = 3 * max(1, len(others))
        draws = (np.arange(num_draws) + 0.5) / num_draws
        chosen = tables.same_target_places(np.full(num_draws, place), draws)
        assert Counter(chosen.tolist()) == Counter(3 * (others or [place]))
        first, last = tables.same_target_places(np.array([place, place]), np.array([0.0, np.nextafter(1.0, 0.0)]))
        assert {first, last} <= set(others or [place])
    everything = np.array(targets, np.int64)
    together = tables.same_target_places(everything, np.full(len(targets), 0.4))
    alone = [tables.same_target_places(everything[[index]], np.array([0.4]))[0] for index in range(len(targets))]
    assert together.tolist() == alone


def test_training_counts_are_of_training_items_only() -> None:
    assert of([[1, 1, 2, 3, 4], [2, 5, 6], [], [3]]).training_counts.tolist() == [0, 2, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("first", [0, 1])
def test_random_others_are_anybody_but_oneself_where_there_is_somebody(first: int) -> None:
    num = 40
    near = np.random.default_rng(0).integers(first, first + num, (first + num, 50)).astype(np.int32)
    near[3, 1:], near[5] = MISSING, MISSING
    others = random_others(near, first, num, seed=1)
    assert others.dtype == near.dtype
    assert np.array_equal(others == MISSING, near == MISSING)
    for row, ids in enumerate(others[first:], start=first):
        assert row not in ids
        assert set(ids.tolist()) <= {MISSING, *range(first, first + num)}
    assert len(np.unique(others[first:])) == num + 1
    assert np.array_equal(others, random_others(near, first, num, seed=1))
    assert not np.array_equal(others, random_others(near, first, num, seed=2))
