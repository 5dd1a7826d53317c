"""The paired test by hand, against a naive computation, and against flipping signs; ranks that cannot be paired."""

import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from sracl_dist.errors import StageError
from sracl_dist.evaluate.metrics import METRICS
from sracl_dist.evaluate.paired import PROTOCOLS, compare, paired_test, user_metrics


def ranks(kept: Sequence[int], removed: Sequence[int] | None = None, *, targets: Sequence[int] = ()) -> pa.Table:
    num = len(kept)
    columns = {
        "user": pa.array(range(num), pa.int64()),
        "target": pa.array(targets or range(1, num + 1), pa.int32()),
        "rank_seen_kept": pa.array(kept, pa.int32()),
        "rank_seen_removed": pa.array(removed or kept, pa.int32()),
    }
    return pa.table(columns)


def test_by_hand() -> None:
    # Mean 2, sample variance (1 + 1 + 0 + 0) / 3 = 2/3, standard error sqrt(2/3/4) = 0.4082, t = 4.899.
    test = paired_test(np.array([1.0, 3.0, 2.0, 2.0]))
    assert test.num_users == 4
    assert test.difference == 2.0
    assert test.t == pytest.approx(2 * math.sqrt(6))
    assert test.low == pytest.approx(2 - 1.959964 / math.sqrt(6))
    assert test.high == pytest.approx(2 + 1.959964 / math.sqrt(6))


@pytest.mark.parametrize(
    ("t", "p_value"), [(0.0, 1.0), (1.0, 0.317311), (1.644854, 0.1), (-1.959964, 0.05), (2.575829, 0.01), (5.0, 5.7e-7)]
)
def test_p_of_a_known_t(t: float, p_value: float) -> None:
    # Differences t / sqrt(n) -+ a have mean t / sqrt(n); a is chosen for a sample standard deviation of 1.
    num = 1000
    spread = math.sqrt((num - 1) / num)
    test = paired_test(t / math.sqrt(num) + spread * np.tile([1.0, -1.0], num // 2))
    assert test.t == pytest.approx(t, abs=1e-9)
    assert test.p_value == pytest.approx(p_value, rel=1e-2 if t == 5 else 1e-4)


def test_equals_a_naive_computation() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1, 500).tolist()
    test = paired_test(np.array(differences))
    mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(500)
    assert test.t == pytest.approx(mean / error)
    normal = statistics.NormalDist()
    assert test.p_value == pytest.approx(2 * (1 - normal.cdf(abs(mean / error))))
    assert (test.low, test.high) == pytest.approx(
        (mean + normal.inv_cdf(0.025) * error, mean - normal.inv_cdf(0.025) * error)
    )


def test_agrees_with_flipping_signs() -> None:
    """Under no difference every sign is as likely: of all flips, p is the share with a mean at least as large."""
    differences = np.random.default_rng(3).normal(0.35, 1, 16)
    signs = np.array(list(itertools.product([1, -1], repeat=16)))
    exact = float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean())
    assert paired_test(differences).p_value == pytest.approx(exact, abs=0.03)


def test_no_difference_and_the_same_difference_for_everybody() -> None:
    none = paired_test(np.zeros(5))
    assert (none.difference, none.low, none.high, none.t, none.p_value) == (0, 0, 0, 0, 1)
    same = paired_test(np.full(4, -0.5))
    assert (same.difference, same.low, same.high, same.t, same.p_value) == (-0.5, -0.5, -0.5, -math.inf, 0)


def test_values_are_means_over_seeds_joined_by_user() -> None:
    second = ranks([3, 1, 30], [1, 1, 2])
    metrics = user_metrics("a", [ranks([1, 3, 50], [1, 2, 2]), second.take([2, 0, 1])], num_items=40)
    assert metrics.users_U.tolist() == [0, 1, 2]
    assert set(metrics.values) == set(PROTOCOLS)
    assert set(metrics.values["seen_kept"]) == set(METRICS)
    assert metrics.values["seen_kept"]["hr@20"].tolist() == [1, 1, 0]
    assert metrics.values["seen_kept"]["ndcg@20"].tolist() == [0.75, 0.75, 0]
    assert metrics.values["seen_kept"]["mrr"].tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 60])
    assert metrics.values["seen_removed"]["mrr"].tolist() == [1, 0.75, 0.5]


def test_comparing_is_first_minus_second() -> None:
    better = user_metrics("better", [ranks([1, 1, 1, 3])], num_items=40)
    worse = user_metrics("worse", [ranks([1, 3, 3, 3]).take([3, 1, 0, 2])], num_items=40)
    test = compare(better, worse, "seen_kept", "ndcg@20")
    assert test.difference == 0.25
    assert test == paired_test(np.array([0, 0.5, 0.5, 0]))
    assert compare(worse, better, "seen_kept", "ndcg@20").difference == -0.25
    assert compare(better, better, "seen_removed", "hr@20").p_value == 1


def test_other_targets_are_refused() -> None:
    first = user_metrics("first", [ranks([1, 2, 3], targets=[7, 8, 9])], num_items=40)
    second = user_metrics("second", [ranks([1, 2, 3], targets=[7, 5, 4])], num_items=40)
    with pytest.raises(
        StageError,
        match=r"^The ranks of first and second are of other test items for 2 users, the first user 1 with "
        r"items 8 and 5; evaluate them with the same tables of the stage prepare\.$",
    ):
        compare(first, second, "seen_kept", "hr@20")
    with pytest.raises(StageError, match="The ranks of the seeds of both are of other test items for 1 users"):
        user_metrics("both", [ranks([1, 2]), ranks([1, 2], targets=[1, 3])], num_items=40)


def test_other_users_are_refused() -> None:
    first = user_metrics("first", [ranks([1, 2, 3])], num_items=40)
    second = user_metrics("second", [ranks([1, 2, 3, 4]).slice(1)], num_items=40)
    with pytest.raises(StageError, match=r"are of other users \(3 and 3, of them 2 in both\); "):
        compare(first, second, "seen_kept", "hr@20")


def test_too_few_users_and_no_seed_are_refused() -> None:
    alone = user_metrics("alone", [ranks([1])], num_items=40)
    with pytest.raises(StageError, match="alone was evaluated on 1 users; a paired test takes two or more"):
        compare(alone, alone, "seen_kept", "hr@20")
    with pytest.raises(StageError, match="nothing has no ranks to average"):
        user_metrics("nothing", [], num_items=40)
