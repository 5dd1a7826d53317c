import math

import numpy as np
import pytest

from sracl_dist.evaluate.metrics import METRICS, mean_metrics, per_user_metrics


def test_metrics_by_hand() -> None:
    values = mean_metrics(np.array([1, 3, 6, 21]), num_items=100)
    assert list(values) == list(METRICS)
    assert values["hr@5"] == 2 / 4
    assert values["hr@10"] == values["hr@20"] == 3 / 4
    assert values["ndcg@5"] == pytest.approx((1 + 1 / 2) / 4)
    assert values["ndcg@20"] == pytest.approx((1 + 1 / 2 + 1 / math.log2(7)) / 4)
    assert values["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 6 + 1 / 21) / 4)


def test_a_target_that_is_no_candidate_counts_nothing() -> None:
    # The catalogue is smaller than the cutoffs, so the rank alone would look like a hit.
    values = mean_metrics(np.array([4, 1]), num_items=3)
    assert values["hr@5"] == values["hr@20"] == values["ndcg@10"] == values["mrr"] == 0.5


def test_one_value_per_user() -> None:
    values = per_user_metrics(np.array([2, 50], np.int32), num_items=60)
    assert values["mrr"].tolist() == [0.5, 0.02]
    assert values["hr@5"].tolist() == [1.0, 0.0]


def test_nobody_gives_zero() -> None:
    assert set(mean_metrics(np.zeros(0, np.int32), num_items=5).values()) == {0.0}
