import pytest
import torch
from synthetic import NUM_ITEMS

from sracl_dist.columns import PAD
from sracl_dist.config import Config
from sracl_dist.errors import ConfigError
from sracl_dist.model.encoders import ENCODERS, SequenceEncoder, build_encoder
from sracl_dist.model.inputs import last_states, right_padded
from sracl_dist.train.state import made_from


@pytest.fixture(params=sorted(ENCODERS))
def encoder(request: pytest.FixtureRequest, config: Config) -> SequenceEncoder:
    config.model.encoder = request.param
    encoder = build_encoder(config.model, NUM_ITEMS).eval()
    # Initial weights are so small that a leak could hide in rounding.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(5)
    return encoder


def test_a_later_item_never_changes_an_earlier_state(encoder: SequenceEncoder) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (8, 6))
    states = encoder(items)
    for changed in range(6):
        other = items.clone()
        other[:, changed] = 1 + items[:, changed] % NUM_ITEMS
        difference = (encoder(other) - states).abs().amax(dim=(0, 2))
        assert difference[:changed].eq(0).all()
        assert difference[changed:].gt(0).all()


def test_padding_changes_no_state(encoder: SequenceEncoder) -> None:
    items = torch.randint(1, NUM_ITEMS + 1, (8, 3))
    padded = torch.cat([items, torch.full((8, 3), PAD)], dim=1)
    assert torch.allclose(encoder(padded)[:, :3], encoder(items), atol=1e-6)
    with torch.no_grad():
        encoder.item_embedding.weight[PAD] = 100.0
    assert torch.allclose(encoder(padded)[:, :3], encoder(items), atol=1e-6)


def test_padding_embedding_is_zero_and_never_learned(config: Config) -> None:
    encoder = build_encoder(config.model, NUM_ITEMS)
    assert encoder.item_embedding.weight[PAD].eq(0).all()
    (encoder(torch.tensor([[3, 4, PAD]])) * torch.randn(16)).sum().backward()  # a plain sum is constant behind a norm
    gradient = encoder.item_embedding.weight.grad
    assert gradient is not None
    assert gradient[PAD].eq(0).all()
    assert gradient[3].ne(0).any()
    assert encoder.catalogue().shape == (NUM_ITEMS, config.model.width)


def test_an_empty_batch_passes(encoder: SequenceEncoder) -> None:
    assert encoder(torch.zeros(0, 1, dtype=torch.long)).shape == (0, 1, 16)


def test_unknown_encoder_is_named(config: Config) -> None:
    config.model.encoder = "sasrek"
    with pytest.raises(ConfigError, match=r"model\.encoder is 'sasrek'; use one of sasrec"):
        build_encoder(config.model, NUM_ITEMS)


def test_right_padded_keeps_the_latest_items() -> None:
    histories = [torch.arange(1, 6).int().numpy(), torch.arange(1, 3).int().numpy(), torch.arange(0).int().numpy()]
    items, lengths = right_padded(histories, 3)
    assert items.tolist() == [[3, 4, 5], [1, 2, PAD], [PAD, PAD, PAD]]
    assert lengths.tolist() == [3, 2, 0]


def test_last_states_reads_each_rows_last_item() -> None:
    states = torch.arange(12.0).view(2, 3, 2)
    assert last_states(states, torch.tensor([3, 1])).tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_all_settings_of_the_model_are_bound_to_a_checkpoint(config: Config) -> None:
    assert {f"model.{name}" for name in vars(config.model)} <= made_from(config, 1, 1).keys()
