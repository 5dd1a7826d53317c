"""A part against brute force: exact and by lists, with duplicates, zero vectors, rules, more ties than candidates."""

from pathlib import Path

import numpy as np
import pytest
from brute_force import brute_force, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sracl_dist.columns import MISSING
from sracl_dist.neighbours import part as part_module
from sracl_dist.neighbours.part import Part, Query, refuse_broken
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.neighbours.ranking import Ranked, merge
from sracl_dist.neighbours.rules import NO_GROUP, Rules
from sracl_dist.neighbours.search import ExactIndex, InvertedIndex, train_lists

EXACT = SearchPlan(kind="exact")


def make_parts(
    vectors: NDArray[np.float32], first_key: int, num_parts: int, rules: Rules, plan: SearchPlan = EXACT
) -> list[Part]:
    trained = None if plan.is_exact else train_lists(vectors, plan)
    parts = []
    for rows in np.array_split(np.arange(len(vectors)), num_parts):
        own = np.ascontiguousarray(vectors[rows])
        index: ExactIndex | InvertedIndex = ExactIndex(own)
        if trained is not None:
            index = InvertedIndex(trained, 1)
            index.add(own)
        parts.append(Part(rows + first_key, own, index, plan, rules))
    return parts


def all_lists(parts: list[Part], vectors: NDArray[np.float32], first_key: int, k: int, **how: int) -> Ranked:
    query = Query(keys=np.arange(len(vectors)) + first_key, vectors=vectors, num_neighbours=k, **how)
    return merge([part.answer(query) for part in parts])


@st.composite
def tables(draw: st.DrawFn) -> NDArray[np.float32]:
    """Random or clustered vectors, some of them equal, some zero."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    num, width = draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 8]))
    distinct = random.normal(size=(draw(st.integers(1, 40)), width))
    if draw(st.booleans()):
        distinct = distinct[:1] + 0.01 * distinct
    if draw(st.booleans()):
        distinct[0] = 0
    return unit(distinct[random.integers(len(distinct), size=num)])


@given(
    vectors=tables(),
    k=st.integers(1, 8),
    first_key=st.integers(0, 1),
    num_parts=st.integers(1, 3),
    min_score=st.sampled_from([None, 0.2]),
    max_score=st.sampled_from([None, 0.95]),
    num_groups=st.integers(0, 4),
    scan=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_parts_together_give_the_table_of_the_definition(
    vectors: NDArray[np.float32],
    k: int,
    first_key: int,
    num_parts: int,
    min_score: float | None,
    max_score: float | None,
    num_groups: int,
    scan: bool,
) -> None:
    groups = np.arange(len(vectors)) % (num_groups + 1) - 1 if num_groups and not scan else None
    names = None if groups is None else ["" if group == NO_GROUP else str(group) for group in groups]
    group_N = None if groups is None else groups.astype(np.int32)
    rules = Rules(min_score=min_score, max_score=max_score, group_N=group_N, first_key=first_key)
    parts = make_parts(vectors, first_key, min(num_parts, len(vectors)), rules)
    found, scores = all_lists(parts, vectors, first_key, k, scan=scan)
    low, high = (-np.inf if min_score is None else min_score), (np.inf if max_score is None else max_score)
    true_keys, true_scores = brute_force(vectors, first_key, k, min_score=low, max_score=high, groups=names)
    np.testing.assert_allclose(scores, np.float32(true_scores), atol=1e-6)
    # A pair on the very bound may fall on either side of it in another order of summation; the others may not.
    wide = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    if not any(bound is not None and (abs(wide - bound) < 1e-6).any() for bound in (min_score, max_score)):
        assert found.tolist() == true_keys or scores_tie(true_keys, found.tolist(), wide, first_key)


def scores_tie(true: list[list[int]], found: list[list[int]], wide: NDArray[np.float64], first_key: int) -> bool:
    """Whether lists differ only where two scores are equal but for the last bit of a float32."""
    for row, (right, ours) in enumerate(zip(true, found, strict=True)):
        for a, b in zip(right, ours, strict=True):
            if a != b and (MISSING in (a, b) or abs(wide[row, a - first_key] - wide[row, b - first_key]) > 1e-7):
                return False
    return True


def test_more_equal_vectors_than_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "MAX_CANDIDATES", 64)
    vectors = np.tile(unit(np.ones((1, 4))), (300, 1))
    one = all_lists(make_parts(vectors, 1, 1, Rules()), vectors, 1, 5)
    assert one[0][:3].tolist() == [[2, 3, 4, 5, 6], [1, 3, 4, 5, 6], [1, 2, 4, 5, 6]]
    assert one[0][299].tolist() == [1, 2, 3, 4, 5]
    two = all_lists(make_parts(vectors, 1, 2, Rules()), vectors, 1, 5)
    assert two[0].tolist() == one[0].tolist()


def clustered(num: int, width: int = 16) -> NDArray[np.float32]:
    random = np.random.default_rng(3)
    centres = random.normal(size=(20, width))
    return unit(centres[random.integers(20, size=num)] + random.normal(size=(num, width)))


@pytest.mark.parametrize("kind", ["ivf", "ivf_sq8", "ivf_pq"])
def test_lists_find_most_and_parts_change_nothing(kind: str) -> None:
    vectors = clustered(1500)
    plan = SearchPlan(kind=kind, num_lists=16, num_codes=4)
    true = all_lists(make_parts(vectors, 0, 1, Rules()), vectors, 0, 10)
    one = all_lists(make_parts(vectors, 0, 1, Rules(), plan), vectors, 0, 10, num_probes=8)
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(one[0].tolist(), true[0].tolist(), strict=True)])
    assert shared > (0.9 if kind != "ivf_pq" else 0.5)
    wide = vectors.astype(np.float64)
    expected = np.einsum("nkd,nd->nk", wide[one[0]], wide)
    np.testing.assert_allclose(one[1], expected, atol=1e-6)
    few = all_lists(make_parts(vectors, 0, 1, Rules(), plan), vectors, 0, 10, num_probes=1)
    found = [len(set(a) & set(b)) for a, b in zip(few[0].tolist(), true[0].tolist(), strict=True)]
    assert np.mean(found) / 10 < shared, "fewer lists find fewer"
    if kind == "ivf":
        two = all_lists(make_parts(vectors, 0, 2, Rules(), plan), vectors, 0, 10, num_probes=8)
        assert two[0].tolist() == one[0].tolist()
        np.testing.assert_array_equal(two[1], one[1])
        every = all_lists(make_parts(vectors, 0, 1, Rules(), plan), vectors, 0, 10, num_probes=16)
        assert every[0].tolist() == true[0].tolist(), "all lists together hold everything"


def test_a_broken_vector_is_refused_with_its_key() -> None:
    vectors = np.ones((4, 2), np.float32)
    refuse_broken(np.array([5, 6, 7, 8]), vectors, "items")
    vectors[2, 1] = np.inf
    with pytest.raises(Exception, match="key 7 of items is not finite"):
        refuse_broken(np.array([5, 6, 7, 8]), vectors, "items")


def test_vectors_on_disk_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    space = part_module._space(10, 4, on_disk=True)
    space[:] = 2
    assert space.sum() == 80
    assert not list(tmp_path.iterdir())
