import math

import pytest
import torch
from synthetic import make_config

from sracl_dist.config.sections import OBJECTIVE_NAMES
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.optimiser import learning_rate, make_optimiser
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

EVERYTHING = (
    f"objectives.terms=[{','.join(OBJECTIVE_NAMES)}]",
    "model.item_text=true",
    "model.repeat_bias=true",
    "train.weight_decay=0.3",
    "train.embedding_weight_decay=0.7",
)


@pytest.mark.parametrize(
    ("encoder", "matrices"),
    [
        (
            "sasrec",
            ["attention_output.weight", "narrow.weight", "query_key_value.weight", "widen.weight"],
        ),
        ("gru4rec", ["output.weight", "recurrent.weight_hh_l0", "recurrent.weight_ih_l0"]),
        ("hstu", ["output.weight", "project.weight"]),
    ],
)
def test_what_decays(tables: SemanticTables, encoder: str, matrices: list[str]) -> None:
    config = make_config("unused", *EVERYTHING, f"model.encoder={encoder}")
    model = SraCl(config, tables)
    optimiser = make_optimiser(config.train, model)
    name_of = {parameter: name for name, parameter in model.named_parameters()}
    decay = {name_of[value]: group["weight_decay"] for group in optimiser.param_groups for value in group["params"]}
    assert decay.keys() == model.weights().keys()
    assert [name for name, value in decay.items() if value == 0.7] == ["encoder.catalogue.embedding.weight"]
    expected = {
        "encoder.catalogue.text.projection.weight",
        "objectives.cross_sequence.synthesis.attend",
        "objectives.cross_sequence.synthesis.project.weight",
        *(f"encoder.{'' if encoder == 'gru4rec' else 'blocks.0.'}{name}" for name in matrices),
    }
    assert {name for name, value in decay.items() if value == 0.3} == expected
    assert set(decay.values()) == {0.0, 0.3, 0.7}


def test_decay_shrinks_what_has_no_gradient(tables: SemanticTables) -> None:
    config = make_config("unused", "objectives.terms=[next_item]", "train.weight_decay=0.3", "train.learning_rate=0.5")
    config.train.embedding_weight_decay = 0.7
    model = SraCl(config, tables)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimiser(config.train, model).step()
    for name, share in (
        ("encoder.catalogue.embedding.weight", 1 - 0.5 * 0.7),
        ("encoder.blocks.0.widen.weight", 1 - 0.5 * 0.3),
        ("encoder.position_embedding.weight", 1),
        ("encoder.norm.weight", 1),
    ):
        assert torch.allclose(dict(model.named_parameters())[name], share * before[name]), name


def rates(num_steps: int, *overrides: str, steps_per_epoch: int = 10) -> list[float]:
    config = make_config("unused", "train.learning_rate=0.2", *(f"train.{override}" for override in overrides)).train
    return [learning_rate(config, step, steps_per_epoch) for step in range(num_steps)]


def test_without_a_schedule_the_rate_stays() -> None:
    assert rates(25, "epochs=2") == [0.2] * 25


def test_the_rate_rises_over_the_warm_up() -> None:
    assert rates(7, "epochs=2", "warmup_epochs=0.5") == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2, 0.2, 0.2])
    assert rates(5, "epochs=2", "warmup_epochs=0.25") == pytest.approx([0.2 / 3, 0.4 / 3, 0.2, 0.2, 0.2])
    assert rates(3, "epochs=2", "warmup_epochs=0.01") == [0.2] * 3


def test_the_rate_falls_to_nothing_at_the_end() -> None:
    linear = rates(21, "epochs=2", "decay=linear")
    assert linear == pytest.approx([0.2 * (1 - step / 20) for step in range(21)])
    assert linear[20] == 0
    cosine = rates(21, "epochs=2", "decay=cosine")
    assert [cosine[step] for step in (0, 5, 10, 15, 20)] == pytest.approx(
        [0.2, 0.1 * (1 + math.sqrt(0.5)), 0.1, 0.1 * (1 - math.sqrt(0.5)), 0]
    )


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_the_fall_begins_behind_the_warm_up_and_never_ends_below_nothing(decay: str) -> None:
    found = rates(45, "epochs=4", "warmup_epochs=1", f"decay={decay}")
    assert found[9] == found[10] == max(found) == pytest.approx(0.2)
    assert found[25] == pytest.approx(0.1)
    assert found[10:41] == sorted(found[10:41], reverse=True)
    assert found[40:] == pytest.approx([0.0] * 5, abs=1e-12)


def test_the_warm_up_may_take_the_whole_training() -> None:
    assert rates(20, "epochs=2", "warmup_epochs=2", "decay=linear") == pytest.approx(
        [0.2 * (step + 1) / 20 for step in range(20)]
    )


def test_training_follows_the_schedule(sequences: Sequences, tables: SemanticTables) -> None:
    config = make_config("unused", "train.warmup_epochs=1", "train.decay=linear", "train.epochs=3")
    trainer = make_trainer(config, sequences, tables, Worker())
    progress, used = Progress(), []
    for _ in fit(trainer, progress, lambda _num, _progress: used.append(trainer.optimiser.param_groups[-1]["lr"])):
        pass
    steps = trainer.batches.num_steps
    assert used == pytest.approx([learning_rate(config.train, step, steps) for step in range(3 * steps)])
    assert [line["learning_rate"] for line in progress.history] == used[steps - 1 :: steps]
