"""Training in this process; Ray must not start."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
from synthetic import make_config, make_sequences, tables_of, write_run

from sracl_dist.errors import ConfigError, StageError, StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.train import local, loop
from sracl_dist.train.launch import train
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

SEQUENCES = make_sequences(40)
OVERRIDES = ("train.local=true", "train.epochs=3", "train.batch_rows=16")
EXACT = ("epoch", "step", "loss", "gradient_norm", "learning_rate", "validation", "is_best")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run", SEQUENCES)


@pytest.fixture
def undisturbed(run: RunFolder) -> list[dict[str, Any]]:
    trainer = make_trainer(make_config(run.location, *OVERRIDES), SEQUENCES, tables_of(run, SEQUENCES), Worker())
    progress = Progress()
    for _ in fit(trainer, progress):
        pass
    return progress.history


def exact(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: line[name] for name in EXACT} for line in history]


def best_progress(run: RunFolder) -> Progress:
    return Progress(**run.stage("train").read_json("best/checkpoint.json")["progress"])


def test_it_leaves_what_workers_of_ray_leave(
    run: RunFolder, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    result = train(make_config(run.location, *OVERRIDES), run)
    folder = run.stage("train")
    assert result.rows["epochs"] == 3
    assert len(folder.read_bytes("metrics.jsonl").splitlines()) == 3
    best = result.details["best_epoch"]
    assert exact(best_progress(run).history) == exact(undisturbed[:best])
    assert set(folder.files("best")) == {f"best/{name}" for name in BEST_FILES}
    kept = {name.split("/")[1] for name in folder.files("local")} - {"kept.json"}
    assert 1 <= len(kept) <= 2


BEST_FILES = ("model.safetensors", "encoder.safetensors", "checkpoint.json")


def stop_in_step(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real_step = loop.train_step

    def step(trainer: Any, parts: Any, step: int) -> Any:
        if step == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real_step(trainer, parts, step)

    monkeypatch.setattr(loop, "train_step", step)


@pytest.mark.parametrize("number", [1, 2, 6])
def test_told_to_end_it_saves_and_goes_on_from_there(
    run: RunFolder, undisturbed: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    config = make_config(run.location, *OVERRIDES)
    with monkeypatch.context() as patch:
        stop_in_step(patch, number)
        with pytest.raises(StageError, match=rf"saved after step {number + 2}; run it"):
            train(config, run)
    assert signal.getsignal(signal.SIGTERM) is before
    began_at = []
    real_restore = local.LocalCheckpoints.restore
    monkeypatch.setattr(
        local.LocalCheckpoints,
        "restore",
        lambda self, trainer: (progress := real_restore(self, trainer), began_at.append(progress.step))[0],
    )
    result = train(config, run)
    assert began_at == [number + 2]
    last = run.stage("train").read_json("local/kept.json")["last"]
    history = run.stage("train").read_json(f"{last}/checkpoint.json")["progress"]["history"]
    assert exact(history) == exact(undisturbed)
    assert result.details["best_epoch"] == best_progress(run).best_epoch


def test_a_checkpoint_by_the_clock_lies_within_an_epoch(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    real_save = local.LocalCheckpoints.save
    monkeypatch.setattr(
        local.LocalCheckpoints,
        "save",
        lambda self, trainer, progress: (
            saved.append((progress.epoch, progress.epoch_step)),
            real_save(self, trainer, progress),
        )[1],
    )
    train(make_config(run.location, *OVERRIDES, "train.checkpoint_every_s=1e-9", "train.epochs=1"), run)
    assert saved[0] == (0, 2)  # due after the first step, and saved after the next
    assert saved[-1] == (1, 0)


def test_a_truncated_checkpoint_is_refused_with_what_to_do(run: RunFolder) -> None:
    train(make_config(run.location, *OVERRIDES), run)
    folder = run.stage("train")
    name = folder.read_json("local/kept.json")["last"] + "/optimiser.safetensors"
    folder.write_bytes(name, folder.read_bytes(name)[:100])
    with pytest.raises(
        StorageError, match=r"checkpoint \S+/local/\S+ is damaged .*delete \S+/local/ and run jobs/train"
    ):
        train(make_config(run.location, *OVERRIDES), run)


def test_several_workers_need_ray() -> None:
    with pytest.raises(ConfigError, match=r"train\.num_workers is 2; use 1 with train\.local=true"):
        make_config("unused", "train.local=true", "train.num_workers=2")
