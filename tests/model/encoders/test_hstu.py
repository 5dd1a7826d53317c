import pytest
import torch
from synthetic import NUM_ITEMS, enlarge

from sracl_dist.config import Config
from sracl_dist.model.encoders import build_encoder
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables


def plain(weights: dict[str, torch.Tensor], items: list[int], *, heads: int, layers: int) -> torch.Tensor:
    """Equations 1 to 3 for one row, a number at a time along both positions."""

    def silu(values: torch.Tensor) -> torch.Tensor:
        return values / (1 + (-values).exp())

    def linear(name: str, values: torch.Tensor) -> torch.Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normed(name: str, values: torch.Tensor) -> torch.Tensor:
        centred = values - values.mean(dim=1, keepdim=True)
        deviation = centred.pow(2).mean(dim=1, keepdim=True).add(1e-6).sqrt()
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    states = weights["catalogue.embedding.weight"][items] + weights["position_embedding.weight"][: len(items)]
    longest, width = weights["position_embedding.weight"].shape
    share = width // heads
    for layer in range(layers):
        block = f"blocks.{layer}"
        gate, query, key, value = silu(linear(f"{block}.project", normed(f"{block}.input_norm", states))).chunk(4, 1)
        attended = torch.zeros(len(items), width)
        for head in range(heads):
            own = slice(head * share, (head + 1) * share)
            for now in range(len(items)):
                for then in range(now + 1):
                    score = query[now, own] @ key[then, own] + weights[f"{block}.distance_bias"][now - then]
                    attended[now, own] += silu(score) / longest * value[then, own]
        states = states + linear(f"{block}.output", normed(f"{block}.attended_norm", attended) * gate)
    return normed("norm", states)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_it_follows_its_equations(long_config: Config, tables: SemanticTables, num_heads: int) -> None:
    long_config.model.encoder, long_config.model.num_heads = "hstu", num_heads
    encoder = build_encoder(long_config.model, tables).eval()
    enlarge(encoder)
    rows = Rows(items_T=torch.randint(1, NUM_ITEMS + 1, (11,)), lengths_B=torch.tensor([7, 4]))
    states = encoder(rows, encoder.catalogue())
    weights = {name: value.detach() for name, value in encoder.named_parameters()}
    expected = [plain(weights, items.tolist(), heads=num_heads, layers=2) for items in rows.items_T.split([7, 4])]
    assert torch.allclose(states, torch.cat(expected), atol=1e-4)
