import math

import pytest
import torch

from sracl_dist.config.sections import Similarity
from sracl_dist.model.losses import info_nce


def naive(
    anchors: list[list[float]],
    candidates: list[list[float]],
    positives: list[int],
    excluded: list[list[bool]] | None,
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
            if excluded is None or not excluded[index][place]:
                below += math.exp(compare(anchor, candidate))
        total -= math.log(math.exp(compare(anchor, candidates[positives[index]])) / below)
    return total


@pytest.mark.parametrize("similarity", ["inner_product", "cosine"])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("with_excluded", [False, True])
def test_info_nce_equals_the_double_loop(similarity: Similarity, temperature: float, with_excluded: bool) -> None:
    torch.manual_seed(1)
    candidates, positives = torch.randn(6, 4), [3, 4, 3]
    anchors = torch.cat([candidates[:2], torch.randn(1, 4)])
    excluded = torch.tensor([[1, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1]]).bool()
    loss = info_nce(
        anchors,
        candidates,
        torch.tensor(positives),
        similarity=similarity,
        temperature=temperature,
        excluded_MC=excluded if with_excluded else None,
    )
    expected = naive(
        anchors.tolist(),
        candidates.tolist(),
        positives,
        excluded.tolist() if with_excluded else None,
        similarity,
        temperature,
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_info_nce_without_anchors_is_zero_and_has_a_gradient() -> None:
    anchors = torch.zeros(0, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    for candidates in (torch.zeros(0, 4), torch.randn(3, 4)):
        loss = info_nce(anchors, candidates, none, similarity="inner_product", temperature=1.0)
        loss.backward()
        assert float(loss.detach()) == 0.0


def test_similarities_far_beyond_the_exponential_are_fine() -> None:
    anchors, candidates = torch.tensor([[1000.0]], requires_grad=True), torch.tensor([[1.0], [2.0]])
    loss = info_nce(anchors, candidates, torch.tensor([0]), similarity="inner_product", temperature=1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1000.0)
    assert anchors.grad is not None
    assert anchors.grad.item() == pytest.approx(1.0)
