import pytest
import torch

from sracl_dist.config.sections import SynthesisKind
from sracl_dist.model.synthesis import LEAKY_SLOPE, StateBank, Synthesis


@pytest.mark.parametrize("kind", ["learned", "uniform", "sampled"])
def test_weights_sum_to_one_over_the_known_neighbours(kind: SynthesisKind) -> None:
    synthesis = Synthesis(5, 4, 0.5, kind).train()
    known = torch.rand(7, 3) < 0.5
    known[:, 1] = True
    weights = synthesis.weights(torch.randn(7, 5), torch.randn(7, 3, 5), known)
    assert torch.allclose(weights.sum(dim=1), torch.ones(7))
    assert weights[~known].eq(0).all()
    if kind == "learned":
        assert weights[known].gt(0).all()
        assert len(weights[known].unique()) > 3
    elif kind == "uniform":
        assert torch.equal(weights, known / known.sum(dim=1, keepdim=True))
    else:
        assert sorted(weights.flatten().tolist()) == [0.0] * 14 + [1.0] * 7


def test_a_sampled_neighbour_is_any_of_the_known_ones() -> None:
    synthesis = Synthesis(5, 4, 0.5, "sampled")
    known = torch.tensor([[True, False, True, True, False]]).expand(6000, 5)
    counts = synthesis.weights(torch.zeros(6000, 5), torch.zeros(6000, 5, 5), known).sum(dim=0)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert counts[[0, 2, 3]].tolist() == pytest.approx([2000] * 3, rel=0.1)


def test_synthesis_follows_its_equation() -> None:
    synthesis = Synthesis(5, 4, 0.5, "learned").eval()
    own, others, states = torch.randn(5), torch.randn(2, 5), torch.randn(2, 4)
    project, attend = synthesis.project.weight, synthesis.attend.flatten() * 50
    with torch.no_grad():
        synthesis.attend.mul_(50)
    scores = []
    for other in others:
        score = attend @ torch.cat([project @ own, project @ other])
        scores.append(score if score > 0 else LEAKY_SLOPE * score)
    weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
    result = synthesis(own[None], others[None], torch.ones(1, 2, dtype=torch.bool), states[None])
    assert torch.allclose(result[0], weights[0] * states[0] + weights[1] * states[1], atol=1e-5)


def test_gradients_reach_both_parameters_and_the_states() -> None:
    synthesis = Synthesis(5, 4, 0.0, "learned")
    states, known = torch.randn(6, 3, 4, requires_grad=True), torch.ones(6, 3, dtype=torch.bool)
    known[0, 2] = False
    synthesis(torch.randn(6, 5), torch.randn(6, 3, 5), known, states).pow(2).sum().backward()
    for parameter in (synthesis.project.weight, synthesis.attend):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert states.grad is not None
    assert torch.equal(states.grad.ne(0).any(dim=2), known)


@pytest.mark.parametrize("kind", ["uniform", "sampled"])
def test_without_learning_there_are_no_weights(kind: SynthesisKind) -> None:
    assert list(Synthesis(5, 4, 0.5, kind).parameters()) == []


def test_dropout_acts_on_learned_weights_in_training_only() -> None:
    arguments = torch.randn(64, 3), torch.randn(64, 4, 3), torch.ones(64, 4, dtype=torch.bool), torch.ones(64, 4, 2)
    synthesis = Synthesis(3, 2, 0.5, "learned")
    assert torch.allclose(synthesis.eval()(*arguments), torch.ones(64, 2))
    sums = synthesis.train()(*arguments)[:, 0].detach()
    assert sums.std() > 0.1
    assert float(sums.mean()) == pytest.approx(1.0, abs=0.25)
    assert torch.equal(Synthesis(3, 2, 0.5, "uniform").train()(*arguments), torch.ones(64, 2))


def test_bank_knows_only_users_that_were_written() -> None:
    bank = StateBank(5, 2)
    states = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    bank.write(torch.tensor([4, 1]), states)
    assert bank.known(torch.tensor([[4, 0, -1, 1]])).tolist() == [[True, False, False, True]]
    assert bank.read(torch.tensor([[1, 4]])).tolist() == [[[3.0, 4.0], [1.0, 2.0]]]
    assert not bank.read(torch.tensor([[1]])).requires_grad
    assert list(bank.parameters()) == []
