import numpy as np
from synthetic import from_histories

from sracl_dist.evaluate.ranking import Ranks
from sracl_dist.evaluate.slices import LENGTHS, length_groups, popularity_groups, slice_metrics


def test_length_groups() -> None:
    groups = length_groups(np.array([1, 6, 7, 10, 11, 50], np.int32))
    assert [LENGTHS[group] for group in groups] == ["<7", "<7", "7-10", "7-10", ">10", ">10"]


def test_popularity_thirds_of_the_interactions() -> None:
    # 12 interactions: item 2 begins in the first third and fills it, items 1 and 3 the second, the rest the last.
    groups = popularity_groups(np.array([0, 2, 4, 2, 1, 1, 1, 1, 0]))
    assert groups.tolist() == [3, 1, 0, 1, 2, 2, 2, 2, 3]


def test_slices_cover_every_user_once() -> None:
    sequences = from_histories([[1, 1, 2, 3, 4], [2, 5, 1], [*range(1, 7), 1, 2, 3, 4, 2]], num_items=6)
    users, targets = sequences.targets("test")
    ranks = Ranks(seen_kept=np.array([1, 2, 6], np.int32), seen_removed=np.array([1, 7, 7], np.int32))
    slices = slice_metrics(sequences, users, targets, ranks)
    for groups in slices.values():
        assert sum(group["num_users"] for group in groups) == len(users) == 3
    by_length = {group["name"]: group for group in slices["num_training_items"]}
    assert by_length["<7"]["num_users"] == 2
    assert by_length["<7"]["seen_kept"]["mrr"] == 0.75
    assert by_length["<7"]["seen_removed"]["mrr"] == 0.5
    assert by_length[">10"]["seen_kept"]["mrr"] == 0.0
    assert by_length["7-10"]["seen_kept"]["hr@20"] == 1.0
