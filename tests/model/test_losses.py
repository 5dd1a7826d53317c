import math

import pytest
import torch

from sracl_dist.config.sections import Similarity
from sracl_dist.model.losses import info_nce, next_item_loss


def naive(
    anchors: list[list[float]],
    candidates: list[list[float]],
    positives: list[int],
    own: list[int] | None,
    similarity: str,
    temperature: float,
) -> float:
    def compare(left: list[float], right: list[float]) -> float:
        product = sum(a * b for a, b in zip(left, right, strict=True))
        if similarity == "cosine":
            product /= math.sqrt(sum(a * a for a in left)) * math.sqrt(sum(b * b for b in right))
        return product / temperature

    total = 0.0
    for index, anchor in enumerate(anchors):
        below = 0.0
        for place, candidate in enumerate(candidates):
            if own is None or place != own[index]:
                below += math.exp(compare(anchor, candidate))
        total -= math.log(math.exp(compare(anchor, candidates[positives[index]])) / below)
    return total


@pytest.mark.parametrize("similarity", ["inner_product", "cosine"])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("with_own", [False, True])
def test_info_nce_equals_the_double_loop(similarity: Similarity, temperature: float, with_own: bool) -> None:
    torch.manual_seed(1)
    candidates, positives, own = torch.randn(6, 4), [3, 4, 5], [0, 1, 2]
    anchors = candidates[:3]
    loss = info_nce(
        anchors,
        candidates,
        torch.tensor(positives),
        similarity=similarity,
        temperature=temperature,
        own_M=torch.tensor(own) if with_own else None,
    )
    expected = naive(
        anchors.tolist(), candidates.tolist(), positives, own if with_own else None, similarity, temperature
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_info_nce_without_anchors_is_zero_and_has_a_gradient() -> None:
    anchors = torch.zeros(0, 4, requires_grad=True)
    for candidates in (torch.zeros(0, 4), torch.randn(3, 4)):
        loss = info_nce(
            anchors, candidates, torch.zeros(0, dtype=torch.long), similarity="inner_product", temperature=1.0
        )
        loss.backward()
        assert float(loss) == 0.0


def test_next_item_loss_by_hand() -> None:
    catalogue = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    states, targets = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1, 3])
    expected = math.log(2 * math.e + 1) - 1 + math.log(1 + 2 * math.exp(2)) - 2
    assert float(next_item_loss(states, targets, catalogue)) == pytest.approx(expected, rel=1e-6)
