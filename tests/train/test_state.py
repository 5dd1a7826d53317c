import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from dense_scores import dense_scores
from safetensors.torch import save
from synthetic import make_config, write_best

from sracl_dist.config import Config
from sracl_dist.errors import StorageError
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import RunFolder
from sracl_dist.run_folder.plain import parse_sealed_json, sealed_json
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import Trainer, fit, make_trainer
from sracl_dist.train.state import (
    DESCRIPTION,
    ENCODER,
    MEMORY,
    OPTIMISER,
    WEIGHTS,
    Progress,
    load_best_encoder,
    num_parameters_in,
)
from sracl_dist.train.worker import Worker

CPU = torch.device("cpu")


@pytest.fixture
def trainer(config: Config, sequences: Sequences, tables: SemanticTables) -> Trainer:
    return make_trainer(config, sequences, tables, Worker())


@pytest.fixture
def saved(trainer: Trainer, tmp_path: Path) -> Path:
    progress = Progress()
    next(fit(trainer, progress))
    trainer.save(tmp_path / "state", progress)
    return tmp_path / "state"


def test_round_trip(trainer: Trainer, saved: Path, config: Config, tables: SemanticTables) -> None:
    other = make_trainer(config, trainer.sequences, tables, Worker())
    progress = other.load(saved, place="it", anew="begin anew")
    assert (progress.epoch, progress.best_epoch, progress.epochs_without_gain) == (1, 1, 0)
    assert progress.step == trainer.batches.num_steps
    assert [line["epoch"] for line in progress.history] == [1]
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert other.model.memory()["objectives.cross_sequence.bank.seen_U"].any()
    before, after = trainer.optimiser.state_dict(), other.optimiser.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert before["state"].keys() == after["state"].keys()
    for index, state in before["state"].items():
        for key, value in state.items():
            assert torch.equal(value, after["state"][index][key])


def test_files_are_safetensors_and_json(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted([WEIGHTS, ENCODER, MEMORY, OPTIMISER, DESCRIPTION])
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.width=8"], "model.width was 16 and is 8"),
        (["train.learning_rate=0.5", "run.seed=4"], "run.seed was 3 and is 4; train.learning_rate was 0.01 and is 0.5"),
    ],
)
def test_other_settings_are_refused(
    saved: Path, sequences: Sequences, tables: SemanticTables, overrides: list[str], message: str
) -> None:
    other = make_trainer(make_config("unused", *overrides), sequences, tables, Worker())
    with pytest.raises(StorageError, match=message):
        other.load(saved, place="it", anew="begin anew")


def test_another_catalogue_is_refused(trainer: Trainer, saved: Path) -> None:
    trainer.source["number of items"] = 49
    with pytest.raises(StorageError, match="number of items was 48 and is 49"):
        trainer.load(saved, place="it", anew="begin anew")


def test_the_number_of_workers_may_change(saved: Path, sequences: Sequences, tables: SemanticTables) -> None:
    make_trainer(make_config("unused", "train.num_workers=2"), sequences, tables, Worker()).load(
        saved, place="it", anew="begin anew"
    )


@pytest.mark.parametrize("name", [WEIGHTS, MEMORY, OPTIMISER, DESCRIPTION])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_is_refused(trainer: Trainer, saved: Path, name: str, damage: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).unlink()
    if damage == "cut":
        (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match="is damaged"):
        trainer.load(saved, place="it", anew="begin anew")


def test_best_encoder_needs_nothing_but_its_files(
    tmp_path: Path, run: RunFolder, config: Config, sequences: Sequences
) -> None:
    write_best(run, config, sequences, tmp_path)
    encoder = load_best_encoder(run, sequences.num_items, CPU)
    assert not encoder.training
    assert encoder.max_length == config.model.max_length
    with pytest.raises(StorageError, match="was trained for 48 items and the run now has 50"):
        load_best_encoder(run, 50, CPU)
    description = json.loads(run.stage("train").read_bytes("best/checkpoint.json"))
    assert description["made_from"]["model.width"] == 16


@pytest.mark.parametrize("overrides", [(), ("model.item_text=true", "model.repeat_bias=true", "model.encoder=gru4rec")])
def test_best_encoder_scores_like_the_trained_one(
    tmp_path: Path, run: RunFolder, sequences: Sequences, tables: SemanticTables, overrides: tuple[str, ...]
) -> None:
    config = make_config("unused", *overrides)
    trainer = make_trainer(config, sequences, tables, Worker())
    write_best(run, config, sequences, tmp_path, num_epochs=1)
    next(fit(trainer, Progress()))
    contexts = [sequences.context(user, "test") for user in range(10)]
    expected = dense_scores(trainer.model.encoder, contexts)
    scores = dense_scores(load_best_encoder(run, sequences.num_items, CPU), contexts)
    assert torch.equal(scores, expected)


def test_parameters_are_counted_by_the_header(trainer: Trainer) -> None:
    weights = {name: value.detach().clone() for name, value in trainer.model.weights().items()}
    assert num_parameters_in(save(weights)) == sum(value.numel() for value in weights.values())
    assert num_parameters_in(save(weights, {"format": "pt"})) == num_parameters_in(save(weights))


def test_a_damaged_best_encoder_is_refused(
    tmp_path: Path, run: RunFolder, config: Config, sequences: Sequences
) -> None:
    write_best(run, config, sequences, tmp_path)
    folder = run.stage("train")
    content = folder.read_bytes("best/encoder.safetensors")
    folder.write_bytes("best/encoder.safetensors", content[: len(content) // 2])
    with pytest.raises(StorageError, match=r"best/?,? is damaged"):
        load_best_encoder(run, sequences.num_items, CPU)


@pytest.mark.parametrize(
    "claimed",
    [
        {"model.width": 10**9},
        {"model.num_layers": 10**9},
        {"model.max_length": 10**12},
        {"model.feedforward_width": 10**9},
        {"model.width": "wide"},
        {"model.encoder": "no such encoder"},
        {"model.encoder": ["sasrec"]},
        {"model.num_heads": 0},
        {"model.unknown": 1},
        {"number of items": None},
    ],
)
def test_nothing_is_allocated_by_what_a_description_claims(
    tmp_path: Path, run: RunFolder, config: Config, sequences: Sequences, claimed: dict[str, Any]
) -> None:
    write_best(run, config, sequences, tmp_path)
    place = Path(run.stage("train").path("best/checkpoint.json"))
    description = parse_sealed_json(place.read_bytes())
    description["made_from"] |= claimed
    place.write_bytes(sealed_json(description))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), limits[1]))
    try:
        with pytest.raises(StorageError, match=r"best/ is damaged .+ run jobs/train\.py again"):
            load_best_encoder(run, sequences.num_items, CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"[" * 100_000, b'{"made_from": {}, "progress": {}, "files": {}}', b"\xff"]
)
def test_a_description_that_is_none_is_one_sentence(
    tmp_path: Path, run: RunFolder, config: Config, sequences: Sequences, content: bytes
) -> None:
    write_best(run, config, sequences, tmp_path)
    Path(run.stage("train").path("best/checkpoint.json")).write_bytes(content)
    with pytest.raises(StorageError, match=r"best/ is damaged .+ run jobs/train\.py again"):
        load_best_encoder(run, sequences.num_items, CPU)


def test_weights_of_another_training_are_refused(
    tmp_path: Path, run: RunFolder, config: Config, sequences: Sequences
) -> None:
    write_best(run, config, sequences, tmp_path / "one", num_epochs=1)
    content = run.stage("train").read_bytes("best/encoder.safetensors")
    write_best(run, config, sequences, tmp_path / "two", num_epochs=2)
    Path(run.stage("train").path("best/encoder.safetensors")).write_bytes(content)
    with pytest.raises(StorageError, match=r"best/ is damaged \(encoder\.safetensors was changed\)"):
        load_best_encoder(run, sequences.num_items, CPU)
