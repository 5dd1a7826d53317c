import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sracl_dist.model import softmax
from sracl_dist.model.sampled_softmax import sampled_softmax_loss
from sracl_dist.model.sampling import Sample


def plain_loss(states: Tensor, own: Tensor, targets: Tensor, sampled: Tensor, sample: Sample) -> Tensor:
    """The same by PyTorch's own functions."""
    scores = states @ sampled.T - sample.log_expected_S
    scores = scores.masked_fill(sample.items_S == targets[:, None], float("-inf"))
    scores = torch.cat([(states * own).sum(dim=1, keepdim=True), scores], dim=1)
    return F.cross_entropy(scores, torch.zeros_like(targets), reduction="sum")


def test_by_hand() -> None:
    """Scores 1, 0 and 2 of the items 1, 2 and 3; item 1 is the target, 2 is expected once, 3 twice, and 1 is a hit."""
    table = torch.tensor([[0.0], [1.0], [0.0], [2.0]])
    sample = Sample(torch.tensor([2, 3, 1]), torch.tensor([1.0, 2.0, 5.0]).log())
    loss = sampled_softmax_loss(torch.ones(1, 1), table[[1]], torch.tensor([1]), table[sample.items_S], sample)
    expected = math.log((math.e + 1 + math.e**2 / 2) / math.e)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_sample_of_nothing_but_the_target_costs_nothing() -> None:
    states, table = torch.randn(2, 3), torch.randn(4, 3)
    sample = Sample(torch.tensor([2, 2, 2]), torch.zeros(3))
    own = table[[2, 2]].requires_grad_()
    loss = sampled_softmax_loss(states.requires_grad_(), own, torch.tensor([2, 2]), table[sample.items_S], sample)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert states.grad is not None
    assert states.grad.eq(0).all()


@settings(max_examples=60, deadline=None)
@given(
    num_positions=st.integers(0, 9),
    num_sampled=st.integers(1, 12),
    num_items=st.integers(1, 6),
    scores_per_chunk=st.integers(1, 60),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 10_000),
)
def test_loss_and_gradients_equal_those_of_torch(
    num_positions: int, num_sampled: int, num_items: int, scores_per_chunk: int, scale: float, seed: int
) -> None:
    """With few items most samples hold accidental hits and repetitions."""
    torch.manual_seed(seed)
    sample = Sample(torch.randint(num_items, (num_sampled,)), torch.randn(num_sampled))
    targets = torch.randint(num_items, (num_positions,))
    leaves = [scale * torch.randn(num_positions, 3), torch.randn(num_positions, 3), torch.randn(num_sampled, 3)]
    results = []
    for loss in (sampled_softmax_loss, plain_loss):
        states, own, sampled = (leaf.clone().requires_grad_() for leaf in leaves)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(softmax, "SCORES_PER_CHUNK", scores_per_chunk)
            patch.setattr(softmax, "LEAST_ROWS", 1)
            value = loss(states, own, targets, sampled, sample)
        results.append([value.detach(), *torch.autograd.grad(2.5 * value, (states, own, sampled))])
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near_and_gives_float32() -> None:
    torch.manual_seed(0)
    sample = Sample(torch.randint(50, (64,)), torch.randn(64))
    states, own, sampled = (torch.randn(num, 8).requires_grad_() for num in (20, 20, 64))
    targets = torch.randint(50, (20,))
    near = sampled_softmax_loss(states, own, targets, sampled, sample, torch.bfloat16)
    exact = sampled_softmax_loss(states, own, targets, sampled, sample)
    assert near.dtype == torch.float32
    assert float(near.detach()) != float(exact.detach())
    assert float(near.detach()) == pytest.approx(float(exact.detach()), rel=0.01)
    gradient = torch.autograd.grad(near, states)[0]
    assert gradient.dtype == torch.float32
    assert (gradient - torch.autograd.grad(exact, states)[0]).abs().max() < 0.03


def test_the_mean_over_all_samples_of_the_sum_below_the_bar_is_that_of_the_full_softmax() -> None:
    """Every sample of two out of three items, weighed by its probability: no chance is left."""
    table, state, shares = torch.tensor([0.3, -1.0, 0.8]), torch.ones(1, 1), [0.5, 0.2, 0.3]
    for target in range(3):
        total = 0.0
        for items in product(range(3), repeat=2):
            sample = Sample(torch.tensor(items), torch.tensor([2 * shares[item] for item in items]).log())
            sampled = table[sample.items_S, None]
            loss = sampled_softmax_loss(state, table[[target], None], torch.tensor([target]), sampled, sample)
            total += shares[items[0]] * shares[items[1]] * float((loss + table[target]).exp())
        assert total == pytest.approx(float(table.exp().sum()), rel=1e-6)
