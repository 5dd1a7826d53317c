import pytest
import torch

from sracl_dist.model.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(100_003,), (401, 251), (50, 2, 32, 31)])
def test_each_element_is_dropped_at_the_rate_and_the_others_are_scaled(rate: float, shape: tuple[int, ...]) -> None:
    values = torch.rand(shape) + 1
    result = Dropout(rate).train()(values)
    dropped = result == 0
    assert result.shape == values.shape
    assert torch.allclose(result[~dropped], values[~dropped] / (1 - rate))
    assert float(dropped.float().mean()) == pytest.approx(rate, abs=0.01)


def test_neighbouring_elements_are_dropped_independently() -> None:
    """Four of them come from one random number."""
    kept = Dropout(0.5).train()(torch.ones(200_000)).ne(0).view(-1, 4)
    patterns = (kept * torch.tensor([1, 2, 4, 8])).sum(dim=1)
    assert patterns.bincount(minlength=16).tolist() == pytest.approx([50_000 / 16] * 16, rel=0.1)


def test_evaluation_and_a_rate_of_zero_change_nothing() -> None:
    values = torch.randn(5, 3)
    assert torch.equal(Dropout(0.7).eval()(values), values)
    assert torch.equal(Dropout(0.0).train()(values), values)


def test_the_gradient_passes_where_the_value_does() -> None:
    values = torch.rand(1000, requires_grad=True)
    result = Dropout(0.25).train()(values)
    result.sum().backward()
    assert values.grad is not None
    assert torch.allclose(values.grad, (result.detach() != 0) / 0.75)


def test_masks_follow_torchs_random_state() -> None:
    values, drop = torch.ones(1000), Dropout(0.5).train()
    torch.manual_seed(1)
    first, second = drop(values), drop(values)
    torch.manual_seed(1)
    assert torch.equal(drop(values), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_format_stays(dtype: torch.dtype) -> None:
    assert Dropout(0.5).train()(torch.ones(7, dtype=dtype)).dtype == dtype


def test_nothing_to_drop() -> None:
    assert Dropout(0.5).train()(torch.zeros(0, 4)).shape == (0, 4)
