"""Who may be whose neighbour; bounds and groups on whole tables are in test_part.py."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.columns import BRAND, CATEGORIES, ITEM, MISSING
from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.neighbours.rules import NO_GROUP, load_rules, mutual_only
from sracl_dist.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(str(tmp_path))
    columns = {
        ITEM: [3, 1, 2, 4],
        BRAND: ["b", "a", None, "b"],
        CATEGORIES: pa.array([["x", "z"], ["x", "y"], [], ["z"]], pa.list_(pa.string())),
    }
    run.stage("prepare").write_table("items.parquet", pa.table(columns))
    return run


def test_items_of_one_brand_or_narrowest_category_are_a_group(run: RunFolder) -> None:
    rules, names = load_rules(NeighboursConfig(items_share="brand"), run, "items", 1)
    assert names == ["a", "", "b", "b"], "by id, whatever the order of rows"
    assert rules.groups_of(np.array([1, 2, 3, 4])).tolist() == [0, NO_GROUP, 1, 1]
    rules, names = load_rules(NeighboursConfig(items_share="category"), run, "items", 1)
    assert names == ["y", "", "z", "z"]
    for kind, share in (("users", "brand"), ("items", "nothing")):
        rules, names = load_rules(NeighboursConfig(items_share=share), run, kind, 0)
        assert names == []
        assert rules.groups_of(np.array([1, 2])).tolist() == [NO_GROUP, NO_GROUP]


def test_a_row_is_not_its_own_neighbour_and_bounds_hold() -> None:
    rules, _ = load_rules(NeighboursConfig(min_score=0.5, max_score=0.9), RunFolder("unused"), "users", 0)
    keys = np.array([[4, 5, 6, 7]])
    scores = np.array([[0.7, 0.4, 0.95, 0.9]], np.float32)
    refused = rules.refused(np.array([4]), keys, np.where(scores == np.float32(0.9), 0.899, scores).astype(np.float32))
    assert refused.tolist() == [[True, True, True, False]]
    assert rules.floor == 0.5


@given(
    lists=st.integers(1, 8).flatmap(
        lambda num: st.lists(st.lists(st.integers(0, num - 1), max_size=4, unique=True), min_size=num, max_size=num)
    ),
    first_key=st.integers(0, 1),
)
def test_mutual_lists_are_what_both_have(lists: list[list[int]], first_key: int) -> None:
    lists = [[key for key in row if key != own] for own, row in enumerate(lists)]
    keys = np.full((len(lists), 4), MISSING)
    scores = np.full((len(lists), 4), -np.inf, np.float32)
    for own, row in enumerate(lists):
        keys[own, : len(row)] = np.array(row, int) + first_key
        scores[own, : len(row)] = np.linspace(0.9, 0.1, len(row))
    found, found_scores = mutual_only(keys, scores, first_key, MISSING)
    for own, row in enumerate(lists):
        expected = [key for key in row if own in lists[key]]
        assert found[own].tolist() == [key + first_key for key in expected] + [MISSING] * (4 - len(expected))
        kept = [scores[own, row.index(key)] for key in expected]
        assert found_scores[own].tolist() == [*kept] + [-np.inf] * (4 - len(expected))
