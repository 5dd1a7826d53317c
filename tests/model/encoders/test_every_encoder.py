import pytest
import torch
from synthetic import NUM_ITEMS

from sracl_dist.columns import PAD
from sracl_dist.config import Config
from sracl_dist.errors import ConfigError
from sracl_dist.model.encoders import SequenceEncoder, build_encoder, inference_encoder
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.state import made_from


def make_rows(*lengths: int) -> Rows:
    return Rows(items_T=torch.randint(1, NUM_ITEMS + 1, (sum(lengths),)), lengths_B=torch.tensor(lengths).long())


def states_of(encoder: SequenceEncoder, rows: Rows) -> torch.Tensor:
    return encoder(rows, encoder.catalogue()).detach()


def test_a_later_item_never_changes_an_earlier_state(encoder: SequenceEncoder) -> None:
    rows = make_rows(6, 1, 9, 6)
    states = states_of(encoder, rows)
    for changed in range(len(rows.items_T)):
        items = rows.items_T.clone()
        items[changed] = 1 + items[changed] % NUM_ITEMS
        difference = (states_of(encoder, rows.with_items(items)) - states).abs().amax(dim=1)
        row = next(index for index, last in enumerate(rows.last_B.tolist()) if changed <= last)
        depends = torch.zeros(len(items), dtype=torch.bool)
        depends[changed : rows.last_B[row] + 1] = True
        assert difference[~depends].eq(0).all()
        assert difference[depends].gt(1e-4).all()


def test_a_state_does_not_depend_on_the_other_rows_of_the_batch(encoder: SequenceEncoder) -> None:
    rows = make_rows(3, 20, 1, 9, 4, 5, 17, 8, 1, 12, 7)
    together = states_of(encoder, rows)
    alone = [states_of(encoder, rows.select(torch.tensor([row]))) for row in range(len(rows))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    order = torch.randperm(len(rows))
    shuffled = states_of(encoder, rows.select(order))
    assert torch.allclose(shuffled, torch.cat([alone[row] for row in order]), atol=1e-5)


def test_gradients_do_not_depend_on_the_other_rows_of_the_batch(encoder: SequenceEncoder) -> None:
    rows = make_rows(3, 11, 1, 5)
    wanted = torch.randn(len(rows.items_T), 16)
    (encoder(rows, encoder.catalogue()) * wanted).sum().backward()
    together = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    encoder.zero_grad()
    for row, own in enumerate(wanted.split(rows.lengths_B.tolist())):
        (encoder(rows.select(torch.tensor([row])), encoder.catalogue()) * own).sum().backward()
    for name, parameter in encoder.named_parameters():
        gradient = together[name]
        assert gradient is not None
        assert parameter.grad is not None
        assert (gradient - parameter.grad).abs().max() <= 1e-4 * max(1, gradient.abs().max()), name


def test_hidden_items_are_harmless(encoder: SequenceEncoder) -> None:
    """Their place remains, but they say nothing, and they are never learned."""
    rows = make_rows(7, 4)
    hidden = rows.items_T.clone()
    hidden[[0, 3, 10]] = PAD
    states = encoder(rows.with_items(hidden), encoder.catalogue())
    assert states.isfinite().all()
    assert not torch.allclose(states[3], states_of(encoder, rows)[3])
    (states * torch.randn_like(states)).sum().backward()
    gradient = encoder.catalogue.embedding.weight.grad
    assert gradient is not None
    assert gradient[PAD].eq(0).all()
    assert gradient[rows.items_T[1]].ne(0).any()


def test_an_empty_batch_passes(encoder: SequenceEncoder) -> None:
    """With a gradient for every weight, for which other workers wait."""
    states = encoder(make_rows(), encoder.catalogue())
    assert states.shape == (0, 16)
    states.sum().backward()
    without = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.eq(0).all() for parameter in encoder.parameters() if parameter.grad is not None)


def test_dropout_acts_in_training_only(encoder: SequenceEncoder) -> None:
    rows = make_rows(5, 5)
    assert torch.equal(states_of(encoder, rows), states_of(encoder, rows))
    encoder.train()
    assert not torch.equal(states_of(encoder, rows), states_of(encoder, rows))


def test_initial_weights_follow_torchs_random_state(
    encoder: SequenceEncoder, long_config: Config, tables: SemanticTables
) -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(build_encoder(long_config.model, tables).state_dict())
    assert all(torch.equal(value, drawn[1][name]) for name, value in drawn[0].items())
    assert any(not torch.equal(value, drawn[2][name]) for name, value in drawn[0].items())
    assert all(value.abs().max() < 0.5 for name, value in drawn[0].items() if "norm" not in name)


def test_an_unknown_encoder_is_named(config: Config, tables: SemanticTables) -> None:
    config.model.encoder = "sasrek"
    with pytest.raises(ConfigError, match=r"model\.encoder is 'sasrek'; use one of sasrec, gru4rec, hstu"):
        build_encoder(config.model, tables)
    with pytest.raises(ConfigError, match="sasrek"):
        inference_encoder(config.model, NUM_ITEMS)


def test_all_settings_of_the_model_are_bound_to_a_checkpoint(config: Config) -> None:
    assert {f"model.{name}" for name in vars(config.model)} <= made_from(config, 1, 1, {}).keys()
