import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synthetic import from_histories, tables_of

from sracl_dist.errors import StageError
from sracl_dist.model.sampled_softmax import sampled_softmax_loss
from sracl_dist.model.sampling import ItemSampler
from sracl_dist.run_folder import RunFolder

INTERACTIONS = np.array([0, 9, 0, 4, 1, 16, 0])
TARGETS = np.array([0, 6, 0, 4, 0, 10, 0])


def sampler(power: float = 0.5, num_sampled: int = 1000, in_batch_share: float = 0.0) -> ItemSampler:
    return ItemSampler(INTERACTIONS, TARGETS, power=power, num_sampled=num_sampled, in_batch_share=in_batch_share)


def frequencies(items: torch.Tensor) -> NDArray[np.float64]:
    return np.bincount(items.numpy(), minlength=len(INTERACTIONS)) / len(items)


@pytest.mark.parametrize(
    ("power", "weights"), [(0.0, [0, 1, 0, 1, 1, 1, 0]), (0.5, [0, 3, 0, 2, 1, 4, 0]), (1.0, [0, 9, 0, 4, 1, 16, 0])]
)
def test_items_come_as_often_as_expected(power: float, weights: list[int]) -> None:
    num = 40_000
    items, log_expected = sampler(power, num).draw(torch.zeros(0, dtype=torch.long))
    shares = np.array(weights) / sum(weights)
    assert np.allclose(log_expected.exp().numpy(), num * shares[items.numpy()], rtol=1e-5)
    # Five standard deviations of a binomial share.
    assert (np.abs(frequencies(items) - shares) <= 5 * np.sqrt(shares * (1 - shares) / num)).all()


def test_a_mixture_takes_its_share_from_the_targets_of_the_step() -> None:
    targets = torch.tensor([3, 5, 5, 1])
    items, log_expected = sampler(0.5, 8, 0.5).draw(targets)
    assert sorted(items[4:].tolist()) == [1, 3, 5, 5]
    expected = {1: 4 * 0.3 + 4 * 0.3, 3: 4 * 0.2 + 4 * 0.2, 4: 4 * 0.1, 5: 4 * 0.4 + 4 * 0.5}
    assert log_expected.exp().tolist() == pytest.approx([expected[item] for item in items.tolist()])


def test_more_than_there_are_targets_come_again() -> None:
    items, _ = sampler(0.5, 6, 1.0).draw(torch.tensor([3, 5]))
    assert sorted(items.tolist()) == [3, 3, 3, 5, 5, 5]
    items, _ = sampler(0.5, 6, 0.5).draw(torch.zeros(0, dtype=torch.long))
    assert len(items) == 3


def test_rounding_never_leads_to_an_item_without_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.tensor([0.0, 0.3, 1.0 - 2**-53, 1.0]).double())
    assert sampler(num_sampled=4).draw(torch.zeros(0, dtype=torch.long)).items_S.tolist() == [1, 3, 5, 5]


def test_shares_of_a_large_catalogue_are_exact() -> None:
    """20 million items with a rare one at the end, more than the 2^24 that PyTorch's own draw can tell apart."""
    counts = np.ones(20_000_001, dtype=np.int64)
    counts[0] = 0
    one = ItemSampler(counts, counts, power=1.0, num_sampled=200_000, in_batch_share=0.0)
    items, log_expected = one.draw(torch.zeros(0, dtype=torch.long))
    assert torch.allclose(log_expected.exp(), torch.tensor(0.01), rtol=1e-6)
    tenths = np.bincount(((items.numpy() - 1) // 2_000_000), minlength=10)
    assert np.abs(tenths - 20_000).max() < 5 * np.sqrt(20_000)
    assert int(items.max()) > 2**24


def test_without_a_trained_item_there_is_nothing_to_sample() -> None:
    nothing = np.zeros(4, dtype=np.int64)
    with pytest.raises(StageError, match="No item occurs in training"):
        ItemSampler(nothing, nothing, power=1.0, num_sampled=2, in_batch_share=0.0)


def test_targets_are_counted_without_first_items() -> None:
    tables = tables_of(RunFolder("unused"), from_histories([[1, 2, 2, 3, 4], [2, 1, 9, 9], [5, 6]], num_items=9))
    assert tables.training_counts.tolist() == [0, 2, 3, 0, 0, 0, 0, 0, 0, 0]
    assert tables.target_counts.tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 0, 0]


@settings(max_examples=15, deadline=None)
@given(
    power=st.sampled_from([0.0, 0.5, 1.0]),
    in_batch_share=st.sampled_from([0.0, 0.3, 0.5]),
    num_sampled=st.sampled_from([16, 64]),
    seed=st.integers(0, 1000),
)
def test_the_expected_sum_below_the_bar_is_that_of_the_full_softmax(
    power: float, in_batch_share: float, num_sampled: int, seed: int
) -> None:
    """Over many samples, each with the targets of a random step; within five standard errors of their mean.

    exp(loss + own score) is the sum below the fraction bar. Items without training interactions are no part of it.
    """
    torch.manual_seed(seed)
    one = sampler(power, num_sampled, in_batch_share)
    table, state = torch.randn(len(INTERACTIONS), 3), torch.randn(1, 3)
    target, targets = torch.tensor([1]), torch.from_numpy(np.repeat(np.arange(len(TARGETS)), TARGETS))
    full = float((state @ table[INTERACTIONS > 0].T).exp().sum())
    own = table[target]
    sums = []
    for _ in range(600):
        step = targets[torch.randint(len(targets), (12,))]
        sample = one.draw(step)
        loss = sampled_softmax_loss(state, own, target, table[sample.items_S], sample)
        sums.append(float((loss + (state * own).sum()).exp()))
    error = float(np.std(sums)) / np.sqrt(len(sums))
    assert abs(float(np.mean(sums)) - full) <= 5 * error + 1e-4 * full
    assert error < 0.1 * full
