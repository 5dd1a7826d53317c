import math

import pytest
import torch
import torch.nn.functional as F
from synthetic import NUM_ITEMS, enlarge

from sracl_dist.config import Config
from sracl_dist.model.encoders import build_encoder
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables


def plain(weights: dict[str, torch.Tensor], items: list[int], *, heads: int, layers: int, norm: str) -> torch.Tensor:
    """The whole encoder for one row, with a mask of L x L and a loop over heads."""

    def linear(name: str, values: torch.Tensor) -> torch.Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normed(name: str, values: torch.Tensor) -> torch.Tensor:
        centred = values - values.mean(dim=1, keepdim=True)
        deviation = centred.pow(2).mean(dim=1, keepdim=True).add(1e-12).sqrt()
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(block: str, values: torch.Tensor) -> torch.Tensor:
        query, key, value = linear(f"{block}.query_key_value", values).chunk(3, dim=1)
        share = values.shape[1] // heads
        future = torch.ones(len(items), len(items), dtype=torch.bool).triu(1)
        parts = []
        for head in range(heads):
            own = slice(head * share, (head + 1) * share)
            scores = (query[:, own] @ key[:, own].T / math.sqrt(share)).masked_fill(future, float("-inf"))
            parts.append(scores.softmax(dim=1) @ value[:, own])
        return linear(f"{block}.attention_output", torch.cat(parts, dim=1))

    def feedforward(block: str, values: torch.Tensor) -> torch.Tensor:
        return linear(f"{block}.narrow", F.gelu(linear(f"{block}.widen", values)))

    states = weights["catalogue.embedding.weight"][items] + weights["position_embedding.weight"][: len(items)]
    if norm == "post":
        states = normed("norm", states)
    for layer in range(layers):
        block = f"blocks.{layer}"
        if norm == "post":
            states = normed(f"{block}.attention_norm", states + attention(block, states))
            states = normed(f"{block}.feedforward_norm", states + feedforward(block, states))
        else:
            states = states + attention(block, normed(f"{block}.attention_norm", states))
            states = states + feedforward(block, normed(f"{block}.feedforward_norm", states))
    return states if norm == "post" else normed("norm", states)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_it_is_a_transformer(long_config: Config, tables: SemanticTables, norm: str) -> None:
    long_config.model.norm = norm  # type: ignore[assignment]
    encoder = build_encoder(long_config.model, tables).eval()
    enlarge(encoder)
    rows = Rows(items_T=torch.randint(1, NUM_ITEMS + 1, (16,)), lengths_B=torch.tensor([9, 2, 5]))
    states = encoder(rows, encoder.catalogue())
    weights = {name: value.detach() for name, value in encoder.named_parameters()}
    expected = [plain(weights, items.tolist(), heads=2, layers=2, norm=norm) for items in rows.items_T.split([9, 2, 5])]
    assert torch.allclose(states, torch.cat(expected), atol=1e-4)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_attention_in_training_is_the_same_but_for_dropout(
    long_config: Config, tables: SemanticTables, norm: str
) -> None:
    """On a CPU it is another computation."""
    long_config.model.norm = norm  # type: ignore[assignment]
    long_config.model.dropout, long_config.model.attention_dropout = 0.0, 1e-9
    encoder = build_encoder(long_config.model, tables)
    enlarge(encoder)
    rows = Rows(items_T=torch.randint(1, NUM_ITEMS + 1, (16,)), lengths_B=torch.tensor([9, 2, 5]))
    trained = encoder.train()(rows, encoder.catalogue())
    assert torch.allclose(trained, encoder.eval()(rows, encoder.catalogue()), atol=1e-5)
    blocks = [module for module in encoder.modules() if hasattr(module, "attention_dropout")]
    assert len(blocks) == 2
    for block in blocks:
        block.attention_dropout.rate = 0.5
    drawn = torch.stack([encoder.train()(rows, encoder.catalogue()).detach() for _ in range(8)])
    assert drawn.std(dim=0).amax(dim=1).gt(1e-3).all()
