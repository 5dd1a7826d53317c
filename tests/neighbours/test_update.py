"""What is kept of the last lists, on paper and against a table made anew."""

from pathlib import Path

import numpy as np

from sracl_dist.columns import MISSING
from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.neighbours.update import Lists, compare, load_lists, made_from, save_lists
from sracl_dist.run_folder import RunFolder, StageFolder

NO = MISSING


def make_lists() -> Lists:
    keys = np.array([[2, 3], [1, 3], [1, 2], [2, NO]])
    return Lists(keys=keys, scores=np.zeros(keys.shape, np.float32), hashes=np.array([11, 12, 13, 14], np.uint64))


def test_rows_with_a_changed_vector_or_member_are_searched() -> None:
    changes = compare(make_lists(), np.array([11, 99, 13, 14], np.uint64), first_key=1)
    assert changes.changed_keys.tolist() == [2]
    assert changes.needs_search.tolist() == [True] * 4, "key 2 is in every other list"
    changes = compare(make_lists(), np.array([99, 12, 13, 14], np.uint64), first_key=1)
    assert changes.changed_keys.tolist() == [1]
    assert changes.needs_search.tolist() == [True, True, True, False]


def test_new_rows_are_searched_and_the_others_kept() -> None:
    changes = compare(make_lists(), np.array([11, 12, 13, 14, 15, 16], np.uint64), first_key=1)
    assert changes.changed_keys.tolist() == [5, 6]
    assert changes.needs_search.tolist() == [False] * 4 + [True] * 2


def test_rows_that_lost_a_member_are_searched() -> None:
    changes = compare(make_lists(), np.array([11, 12], np.uint64), first_key=1)
    assert changes.changed_keys.tolist() == []
    assert changes.needs_search.tolist() == [True, True], "key 3 is gone"
    same = compare(make_lists(), np.array([11, 12, 13, 14], np.uint64), first_key=1)
    assert not same.needs_search.any()


def test_lists_of_other_settings_are_not_taken(tmp_path: Path) -> None:
    folder: StageFolder = RunFolder(str(tmp_path)).stage("neighbours")
    plan = SearchPlan(kind="exact")
    origin = made_from(NeighboursConfig(), plan)
    assert load_lists(folder, "items", origin) is None
    save_lists(folder, "items", make_lists(), 1, origin)
    kept = load_lists(folder, "items", made_from(NeighboursConfig(mutual=True, query_block_rows=7), plan))
    assert kept is not None
    assert kept.keys.tolist() == make_lists().keys.tolist()
    assert kept.hashes.tolist() == [11, 12, 13, 14]
    for other in (NeighboursConfig(num_neighbours=3), NeighboursConfig(max_score=0.9)):
        assert load_lists(folder, "items", made_from(other, plan)) is None
    lists = SearchPlan(kind="ivf", num_lists=4)
    assert load_lists(folder, "items", made_from(NeighboursConfig(), lists)) is None
    assert made_from(NeighboursConfig(min_recall=0.5), plan) == origin, "an exact search has no probes"
    assert made_from(NeighboursConfig(min_recall=0.5), lists) != made_from(NeighboursConfig(), lists)
