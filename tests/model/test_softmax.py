import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sracl_dist.model import softmax
from sracl_dist.model.softmax import LaterTargets, Repeats, full_softmax_loss

NUM_POSITIONS, NUM_CANDIDATES, WIDTH = 23, 17, 6


class Case:
    """States, candidates, targets and what else there may be, and the plain computation in float64."""

    def __init__(self, *, seed: int = 0, scale: float = 1.0, repeats: bool = False, later: bool = False) -> None:
        torch.manual_seed(seed)
        self.states = (scale * torch.randn(NUM_POSITIONS, WIDTH)).requires_grad_()
        self.candidates = torch.randn(NUM_CANDIDATES, WIDTH).requires_grad_()
        self.targets = torch.randint(NUM_CANDIDATES, (NUM_POSITIONS,))
        self.leaves = [self.states, self.candidates]
        self.repeats: Repeats | None = None
        if repeats:
            rows, columns = torch.nonzero(torch.rand(NUM_POSITIONS, NUM_CANDIDATES) < 0.2).unbind(1)
            kept = (rows != 3) & (rows != NUM_POSITIONS - 1)  # positions without any, one of them the last
            self.repeats = Repeats(rows[kept], columns[kept], torch.tensor(0.7).requires_grad_())
            assert (self.repeats.columns_R == self.targets[self.repeats.rows_R]).any()
            self.leaves.append(self.repeats.bias)
        self.later: LaterTargets | None = None
        if later:
            later_targets = torch.randint(NUM_CANDIDATES, (NUM_POSITIONS, 3))
            later_targets[:4, 1] = self.targets[:4]  # the next item comes once more
            weights = torch.tensor([0.5, 0.25, 0.125]) * (torch.rand(NUM_POSITIONS, 3) < 0.7)
            self.later = LaterTargets(later_targets, weights)

    def loss(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return full_softmax_loss(
            self.states, self.candidates, self.targets, repeats=self.repeats, later=self.later, dtype=dtype
        )

    def expected(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss, and the gradients of two and a half times the loss by the leaves."""
        leaves = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        scores = leaves[0] @ leaves[1].T
        if self.repeats is not None:
            seen = torch.zeros(NUM_POSITIONS, NUM_CANDIDATES, dtype=torch.float64)
            seen[self.repeats.rows_R, self.repeats.columns_R] = 1.0
            scores = scores + leaves[2] * seen
        losses = F.cross_entropy(scores, self.targets, reduction="none")
        if self.later is not None:
            weight = torch.ones(NUM_POSITIONS, dtype=torch.float64)
            for targets, weights in zip(self.later.targets_MF.T, self.later.weights_MF.T, strict=True):
                losses = losses + weights * F.cross_entropy(scores, targets, reduction="none")
                weight = weight + weights
            losses = losses / weight
        return losses.sum().detach(), torch.autograd.grad(2.5 * losses.sum(), leaves)


def assert_close(value: Tensor | None, expected: Tensor, relative: float) -> None:
    """Within `relative` of the largest entry."""
    assert value is not None
    assert (value.detach().double() - expected).abs().max() <= relative * expected.abs().max() + 1e-7


WITH = pytest.mark.parametrize(("repeats", "later"), [(False, False), (True, False), (False, True), (True, True)])


@pytest.mark.parametrize("scores_per_chunk", [1, 17, 18, 40, 7 * 17, 22 * 17, 23 * 17, 10**6])
@WITH
def test_loss_and_gradients_equal_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, scores_per_chunk: int, repeats: bool, later: bool
) -> None:
    monkeypatch.setattr(softmax, "SCORES_PER_CHUNK", scores_per_chunk)
    monkeypatch.setattr(softmax, "LEAST_ROWS", 1)
    case = Case(repeats=repeats, later=later)
    loss = case.loss()
    expected, gradients = case.expected()
    assert_close(loss, expected, 1e-5)
    (2.5 * loss).backward()
    for leaf, gradient in zip(case.leaves, gradients, strict=True):
        assert_close(leaf.grad, gradient, 1e-5)


@pytest.mark.parametrize("tile_rows", [1, 5, 23, 100])
@pytest.mark.parametrize("scores_per_chunk", [1, 20, 85, 10**6])
@WITH
def test_tiles_change_nothing(
    monkeypatch: pytest.MonkeyPatch, scores_per_chunk: int, tile_rows: int, repeats: bool, later: bool
) -> None:
    monkeypatch.setattr(softmax, "SCORES_PER_CHUNK", scores_per_chunk)
    monkeypatch.setattr(softmax, "LEAST_ROWS", 10**9)  # so many would never fit: always tiles
    monkeypatch.setattr(softmax, "TILE_ROWS", tile_rows)
    for dtype, relative in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        case = Case(repeats=repeats, later=later)
        loss = case.loss(dtype)
        expected, gradients = case.expected()
        assert_close(loss, expected, relative)
        (2.5 * loss).backward()
        for leaf, gradient in zip(case.leaves, gradients, strict=True):
            assert_close(leaf.grad, gradient, relative)


def test_tiles_bear_scores_that_exp_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of 0, 300 and -300, the largest in the last tile; each alone in its tile."""
    monkeypatch.setattr(softmax, "SCORES_PER_CHUNK", 1)
    monkeypatch.setattr(softmax, "LEAST_ROWS", 10**9)
    states, candidates = torch.tensor([[300.0]]).requires_grad_(), torch.tensor([[-1.0], [0.0], [1.0]])
    loss = full_softmax_loss(states, candidates, torch.tensor([1]))
    assert float(loss.detach()) == pytest.approx(300)
    loss.backward()
    assert states.grad is not None
    assert float(states.grad) == pytest.approx(1.0)


def test_no_more_scores_are_held_than_fit_into_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "SCORES_PER_CHUNK", 640)
    monkeypatch.setattr(softmax, "TILE_ROWS", 8)
    held: list[int] = []
    scores = softmax._Work.scores

    def counted(work: softmax._Work, chunk: slice, tile: slice) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        result = scores(work, chunk, tile)
        held.append(result[0].numel())
        return result

    monkeypatch.setattr(softmax._Work, "scores", counted)
    for num_candidates in (20, 21, 5000):
        held.clear()
        states, candidates = torch.randn(70, 2, requires_grad=True), torch.randn(num_candidates, 2)
        full_softmax_loss(states, candidates, torch.zeros(70, dtype=torch.long))
        assert max(held) <= 640
        assert sum(held) == (1 if num_candidates == 20 else 2) * 70 * num_candidates


@WITH
def test_gradients_equal_finite_differences(repeats: bool, later: bool) -> None:
    case = Case(seed=1, repeats=repeats, later=later)
    case.loss().backward()
    for leaf in case.leaves:
        direction = torch.randn_like(leaf)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                leaf.add_(sign * 1e-2 * direction)
                ends.append(float(case.loss()))
                leaf.sub_(sign * 1e-2 * direction)
        assert leaf.grad is not None
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(float((leaf.grad * direction).sum()), rel=1e-2, abs=1e-2)


def test_a_target_whose_share_rounds_to_nothing_has_the_right_loss() -> None:
    states = torch.tensor([[300.0, 0.0], [0.0, 1.0]], requires_grad=True)
    candidates = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = full_softmax_loss(states, candidates, torch.tensor([1, 2]))
    assert float(loss.detach()) == pytest.approx(600 + math.log(2 + math.e) - 1, rel=1e-6)
    loss.backward()
    assert states.grad is not None
    assert candidates.grad is not None
    assert states.grad[0].tolist() == pytest.approx([2.0, 0.0])  # towards the target, away from the certain one
    assert candidates.grad[:2, 0].tolist() == pytest.approx([300.0, -300.0])


@pytest.mark.parametrize("gap", [80, 88, 95, 100, 103, 104, 150])
def test_a_share_on_its_way_to_nothing_has_lost_no_digits(gap: float) -> None:
    states, candidates = torch.ones(1, 1, requires_grad=True), torch.tensor([[0.0], [float(gap)]])
    loss = full_softmax_loss(states, candidates, torch.tensor([0]))
    assert float(loss.detach()) == pytest.approx(gap, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 30.0, 1000.0])
def test_small_and_extreme_scores(scale: float) -> None:
    case = Case(seed=2, scale=scale, repeats=True)
    loss = case.loss()
    expected, gradients = case.expected()
    assert_close(loss, expected, 1e-5)
    (2.5 * loss).backward()
    for leaf, gradient in zip(case.leaves, gradients, strict=True):
        # A share's relative error is that of its score, hence of `scale` roundings.
        assert_close(leaf.grad, gradient, max(1e-5, scale * 1e-6))


@pytest.mark.parametrize("scores_per_chunk", [40, 10**6])
@WITH
def test_bfloat16_is_near(monkeypatch: pytest.MonkeyPatch, scores_per_chunk: int, repeats: bool, later: bool) -> None:
    """It has 8 bits: a score is off by up to 1/256 of itself, and so are loss and gradients, times a few."""
    monkeypatch.setattr(softmax, "SCORES_PER_CHUNK", scores_per_chunk)
    monkeypatch.setattr(softmax, "LEAST_ROWS", 1)
    case = Case(repeats=repeats, later=later)
    loss = case.loss(torch.bfloat16)
    expected, gradients = case.expected()
    assert loss.dtype == torch.float32
    assert_close(loss, expected, 0.01)
    (2.5 * loss).backward()
    for leaf, gradient in zip(case.leaves, gradients, strict=True):
        assert leaf.grad is not None
        assert leaf.grad.dtype == torch.float32
        assert_close(leaf.grad, gradient, 0.03)


def test_bfloat16_does_not_lose_small_parts_of_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum over 2,000 chunks in bfloat16 would stand still at 256 times the summand."""
    monkeypatch.setattr(softmax, "SCORES_PER_CHUNK", 2)
    monkeypatch.setattr(softmax, "LEAST_ROWS", 1)
    states, candidates = torch.ones(2000, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    full_softmax_loss(states, candidates, torch.zeros(2000, dtype=torch.long), dtype=torch.bfloat16).backward()
    assert candidates.grad is not None
    assert candidates.grad.flatten().tolist() == [-1000.0, 1000.0]


@WITH
def test_without_gradients_the_value_is_the_same(repeats: bool, later: bool) -> None:
    case = Case(repeats=repeats, later=later)
    with torch.no_grad():
        loss = case.loss()
    assert not loss.requires_grad
    assert_close(loss, case.expected()[0], 1e-5)


def test_no_positions_give_zero_and_gradients_of_zero() -> None:
    states, candidates, bias = torch.zeros(0, 4, requires_grad=True), torch.randn(5, 4).requires_grad_(), torch.ones(())
    none = torch.zeros(0, dtype=torch.long)
    loss = full_softmax_loss(states, candidates, none, Repeats(none, none, bias.requires_grad_()))
    loss.backward()
    assert float(loss.detach()) == 0
    assert candidates.grad is not None
    assert candidates.grad.eq(0).all()
    assert bias.grad is not None
    assert float(bias.grad) == 0
