"""Training, evaluation and recommendation on real Ray workers, over one small run."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from safetensors.torch import load
from synthetic import make_config, make_manifest, make_sequences, tables_of, write_run

from sracl_dist.errors import SetupError, StageError, StorageError
from sracl_dist.evaluate.job import evaluate
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.recommend import recommend
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import StageResult
from sracl_dist.train import launch, loop
from sracl_dist.train import work as work_module
from sracl_dist.train.launch import train
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.state import Progress, load_best_encoder
from sracl_dist.train.worker import Worker

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SEQUENCES = make_sequences(100)
OVERRIDES = (
    "train.num_workers=2",
    "train.trackers=[tensorboard]",
    "model.dropout=0",
    "model.attention_dropout=0",
    "objectives.terms=[next_item,cross_sequence]",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    location: Path = tmp_path_factory.mktemp("launch") / "run"
    return write_run(location, SEQUENCES)


def undisturbed_curve(run: RunFolder, *overrides: str) -> list[dict[str, Any]]:
    """The curve of one process."""
    trainer = make_trainer(make_config(run.location, *overrides), SEQUENCES, tables_of(run, SEQUENCES), Worker())
    progress = Progress()
    for _ in fit(trainer, progress):
        pass
    return progress.history


@dataclass(frozen=True)
class Trained:
    result: StageResult
    output: str
    """What the person saw."""


@pytest.fixture(scope="module")
def trained(run: RunFolder) -> Trained:
    with contextlib.redirect_stderr(io.StringIO()) as output:
        result = train(make_config(run.location, *OVERRIDES), run)
    run.stage("train").commit(make_manifest("train", result.rows))
    return Trained(result, output.getvalue())


def read_curve(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.stage("train").read_bytes("metrics.jsonl").splitlines()]


def test_two_workers_learn_what_one_process_learns(trained: Trained, run: RunFolder) -> None:
    curve = read_curve(run)
    assert [line["epoch"] for line in curve] == [1, 2, 3]
    for line, expected in zip(curve, undisturbed_curve(run, *OVERRIDES), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert line["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-2)


def test_the_result_describes_the_run(trained: Trained, run: RunFolder) -> None:
    result, curve = trained.result, read_curve(run)
    assert result.rows == {"epochs": 3, "training_targets": int((SEQUENCES.num_train - 1).clip(0).sum())}
    assert result.details["best_validation"] == curve[result.details["best_epoch"] - 1]["validation"]
    assert result.details["num_workers"] == 2
    weights = load(run.stage("train").read_bytes("best/model.safetensors"))
    assert result.details["num_parameters"] == sum(value.numel() for value in weights.values())
    progress = run.stage("train").read_json("best/checkpoint.json")["progress"]
    assert progress["epoch"] == progress["best_epoch"] == result.details["best_epoch"]


def test_progress_reaches_the_driver(trained: Trained, run: RunFolder) -> None:
    need, start, *_ = trained.output.splitlines()
    assert need.startswith("train: needs about ")
    assert "for each of 2 workers" in need
    assert start == "train: starting 2 workers"
    assert "3/3 epochs" in trained.output
    assert "targets/s per worker" in trained.output
    assert run.stage("train").read_json("trackers.json") == {"tensorboard": 3}


def test_two_evaluating_workers_equal_one_process(trained: Trained, run: RunFolder) -> None:
    evaluate(make_config(run.location, *OVERRIDES), run)
    table = run.stage("evaluate").read_shards("ranks").sort_by("user")
    users, targets = SEQUENCES.targets("test")
    scores = CatalogueScores(load_best_encoder(run, SEQUENCES.num_items, torch.device("cpu")), torch.device("cpu"))
    kept, removed = [], []
    for start in range(0, len(users), 37):  # the same shards, in one process
        block = slice(start, start + 37)
        contexts = [SEQUENCES.context(int(user), "test") for user in users[block]]
        ranks = rank_targets(scores, contexts, targets[block])
        kept += ranks.seen_kept.tolist()
        removed += ranks.seen_removed.tolist()
    assert table["user"].to_pylist() == users.tolist()
    assert table["rank_seen_kept"].to_pylist() == kept
    assert table["rank_seen_removed"].to_pylist() == removed


def test_recommendations_for_everybody(trained: Trained, run: RunFolder) -> None:
    assert recommend(make_config(run.location, *OVERRIDES), run).rows == {"recommendations": 100}
    table = run.stage("recommend").read_shards("recommendations")
    assert table["user_id"].to_pylist() == [f"user-{user}" for user in range(100)]


def test_more_workers_than_the_cluster_holds_are_refused(run: RunFolder) -> None:
    config = make_config(run.location, "train.num_workers=3")
    with pytest.raises(SetupError, match=r"train\.num_workers is 3 and the cluster has room for 2 workers with 1 CPU"):
        train(config, run)


def test_what_cannot_fit_into_memory_is_refused_before_it_begins(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEQUENCES)
    config = make_config(run.location, "objectives.terms=[next_item]", "model.width=1000000000")
    with (
        contextlib.redirect_stderr(io.StringIO()) as output,
        pytest.raises(StageError, match=r"^Training needs about [\d.]+ GB of memory and [\d.]+ GB are there; the la"),
    ):
        train(config, run)
    assert "train: needs about " in output.getvalue()


def test_fewer_workers_than_the_least_are_refused(run: RunFolder) -> None:
    config = make_config(run.location, "train.num_workers=4", "train.min_workers=3")
    with pytest.raises(SetupError, match=r"train\.min_workers is 3 and the cluster has room for 2 workers"):
        train(config, run)


def test_a_failure_is_told_in_one_sentence(run: RunFolder) -> None:
    folder = run.stage("train")
    known = StageError("The loss is nan; use a lower train.learning_rate.")
    failures: dict[int, Exception] = {0: KeyError("x"), 1: known}
    assert launch._as_sentence(WorkerGroupError("workers failed", failures), folder) is known
    assert launch._as_sentence(ControllerError(known), folder) is known
    unknown = launch._as_sentence(WorkerGroupError("workers failed", {0: KeyError("x")}), folder)
    assert str(unknown).startswith("Training failed after train.max_failures restarts (KeyError: 'x')")
    full = launch._as_sentence(ControllerError(OSError(28, "No space left on device")), folder)
    assert isinstance(full, StorageError)
    assert "checkpoints cannot be written ([Errno 28] No space left on device); make room" in str(full)
    controller = launch._as_sentence(ControllerError(RuntimeError("one\ntwo")), folder)
    assert str(controller) == "Training failed (RuntimeError: one); mend the cause and run it again."


def test_an_unwritable_run_folder_is_told_in_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_sequences(12))
    run.stage("train").write_bytes("checkpoints", b"a file where the folder belongs")
    with pytest.raises(StorageError, match=r"train/checkpoints/\S+ cannot be written; .*run\.dir"):
        train(make_config(run.location), run)


@pytest.mark.slow
def test_what_a_worker_raises_reaches_the_driver(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_sequences(12))
    overrides = ("train.learning_rate=1e30", "train.max_gradient_norm=null")
    with pytest.raises(StageError, match=r"lower train\.learning_rate"):
        train(make_config(run.location, *overrides), run)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "num_attempts"), [(StageError("It cannot go on."), 1), (KeyError("x"), 3)])
def test_only_what_may_pass_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, num_attempts: int
) -> None:
    attempts = tmp_path / "attempts"

    def work(*_: object) -> None:
        if ray.train.get_context().get_world_rank() == 1:
            with attempts.open("a") as stream:
                stream.write("once more\n")
            raise error
        ray.train.report({})  # a barrier, at which the other worker never arrives

    monkeypatch.setattr(launch, "work", work)
    run = write_run(tmp_path / "run", make_sequences(12))
    with pytest.raises(StageError, match="It cannot go on" if num_attempts == 1 else "after train.max_failures"):
        train(make_config(run.location, "train.num_workers=2", "train.max_failures=2"), run)
    assert len(attempts.read_text().splitlines()) == num_attempts


KILLED = """
import sys
from synthetic import make_config
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.launch import train

train(make_config(sys.argv[1], *sys.argv[2:]), RunFolder(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.fault
def test_a_run_that_was_killed_goes_on_and_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEQUENCES)
    config = make_config(run.location, "train.epochs=10", "train.patience=10")
    victim = start_victim(run, "train.epochs=10", "train.patience=10")
    deadline = time.monotonic() + 120
    while not run.stage("train").exists("metrics.jsonl") and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    num_before = len(read_curve(run))
    assert 1 <= num_before < 10

    orphan = "checkpoints/checkpoint_2020-01-01_00-00-00.000000/state/model.safetensors"
    run.stage("train").plain.write_bytes(orphan, b"uploaded but not recorded")

    train(config, run)
    kept = {name.split("/")[1] for name in run.stage("train").library_files("checkpoints") if name.count("/") > 1}
    assert 1 <= len(kept) <= 2
    expected_curve = undisturbed_curve(run, "train.epochs=10", "train.patience=10")
    for line, expected in zip(read_curve(run), expected_curve, strict=True):
        for name in ("epoch", "step", "loss", "gradient_norm", "validation", "is_best"):
            assert line[name] == expected[name], (line["epoch"], name)


INTERRUPTED = """
import signal
import sys
from synthetic import make_config
from sracl_dist.run_folder import RunFolder
from sracl_dist.cli import exit_status
from sracl_dist.train.launch import train

signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background of a shell ignore it
config = make_config(sys.argv[1], *sys.argv[2:])
sys.exit(exit_status(lambda: train(config, RunFolder(sys.argv[1]))))
"""


@pytest.mark.slow
@pytest.mark.fault
def test_an_interrupt_ends_as_it_ends_other_jobs(tmp_path: Path) -> None:
    """Ray Train's own handler would exit with a status of its own."""
    run = write_run(tmp_path / "run", SEQUENCES)
    victim = start_victim(run, "train.epochs=500", "train.patience=500", program=INTERRUPTED)
    deadline = time.monotonic() + 120
    while not run.stage("train").exists("metrics.jsonl") and time.monotonic() < deadline:
        time.sleep(0.1)
    victim.send_signal(signal.SIGINT)
    assert victim.wait(60) == 130
    assert run.stage("train").manifest() is None


def start_victim(run: RunFolder, *overrides: str, program: str = KILLED) -> subprocess.Popen[bytes]:
    """Train in a process group that a test may kill."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.getcwd()])}
    return subprocess.Popen(
        [sys.executable, "-c", program, run.location, *overrides], env=environment, start_new_session=True
    )


LONG_EPOCHS = (
    "train.num_workers=2",
    "train.batch_rows=2",
    "train.epochs=2",
    "model.dropout=0",
    "model.attention_dropout=0",
    "objectives.terms=[next_item,cross_sequence]",
)
"""Fifty steps and more in an epoch."""


class Slowed:
    """Steps take a while, and one worker meets its fate once, in the middle of an epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, marker: Path, signal_number: int, at_step: int) -> None:
        real_step = loop.train_step

        def step(trainer: Any, parts: Any, step: int) -> Any:
            if trainer.worker.rank == 1 and step >= at_step and not marker.exists():
                marker.write_text(str(step))
                os.kill(os.getpid(), signal_number)
            time.sleep(0.02)
            return real_step(trainer, parts, step)

        def work(*arguments: Any) -> None:
            loop.train_step = step
            real_work(*arguments)

        real_work = launch.work
        monkeypatch.setattr(launch, "work", work)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize(("number", "every_s"), [(signal.SIGKILL, 0.3), (signal.SIGTERM, None)], ids=["kill", "term"])
def test_a_worker_that_dies_within_an_epoch_costs_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, every_s: float | None
) -> None:
    """SIGKILL: training goes on from what the clock had saved; SIGTERM: from the step after the signal."""
    run = write_run(tmp_path / "run", SEQUENCES)
    marker = tmp_path / "died"
    Slowed(monkeypatch, marker, number, at_step=30)
    restored = tmp_path / "restored"
    real_restore = work_module._restore

    def restore(*arguments: Any) -> Progress:
        progress = real_restore(*arguments)
        with restored.open("a") as stream:
            stream.write(f"{progress.step} ")
        return progress

    slowed_work = launch.work

    def work(*arguments: Any) -> None:
        work_module._restore = restore
        slowed_work(*arguments)

    monkeypatch.setattr(launch, "work", work)
    every = "null" if every_s is None else str(every_s)
    train(make_config(run.location, *LONG_EPOCHS, f"train.checkpoint_every_s={every}"), run)

    died_at, places = int(marker.read_text()), [int(word) for word in restored.read_text().split()]
    assert places[:2] == [0, 0]
    assert len(places) == 4
    assert 0 < places[2] == places[3] <= died_at + 3
    if number == signal.SIGTERM:
        assert places[2] > died_at
    for line, expected in zip(read_curve(run), undisturbed_curve(run, *LONG_EPOCHS), strict=True):
        assert line["step"] == expected["step"]
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        for protocol, metrics in expected["validation"].items():
            assert line["validation"][protocol] == pytest.approx(metrics, abs=0.03)


@pytest.mark.slow
@pytest.mark.fault
def test_a_truncated_checkpoint_is_refused_with_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEQUENCES)
    train(make_config(run.location), run)
    for name in run.stage("train").library_files("checkpoints"):
        if name.endswith("state/model.safetensors"):
            content = run.stage("train").read_bytes(name)
            run.stage("train").plain.write_bytes(name, content[: len(content) // 2])
    with pytest.raises(StorageError, match=r"\S+/checkpoint_\S+ is damaged .*delete \S+/checkpoints and run jobs"):
        train(make_config(run.location), run)


@pytest.mark.slow
def test_it_starts_with_as_many_workers_as_there_is_room_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SEQUENCES)
    overrides = (*OVERRIDES, "train.num_workers=4")
    result = train(make_config(run.location, *overrides, "train.min_workers=1"), run)
    assert result.details["num_workers"] in (1, 2)  # of CPUs there are two
    for line, expected in zip(read_curve(run), undisturbed_curve(run, *overrides), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-3)
