"""Real searches with real trials on a small cluster: interrupted, resumed, reproduced."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tune_run import searchable, write_config

from sracl_dist.run_folder import RunFolder
from sracl_dist.tune import launch
from sracl_dist.tune.job import tune
from sracl_dist.tune.records import Records

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

JOBS = Path(__file__).parents[2] / "jobs"
EPOCHS = 4

TIMES = ("wall_s", "examples_per_second", "data_wait_share")
"""What differs from one run to the next."""


def start(job: str, config: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(JOBS.parent)}
    return subprocess.Popen(
        [sys.executable, str(JOBS / f"{job}.py"), "--config", str(config), *overrides],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    _, output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def read(run: RunFolder) -> dict[int, Any]:
    return Records(run.stage("tune")).trials


def curve(run: RunFolder, number: int) -> list[dict[str, Any]]:
    text = run.stage("tune").read_bytes(f"trials/{number:04d}/metrics.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: line[key] for key in line if key not in TIMES} for line in lines]


def kill_when(process: subprocess.Popen[str], run: RunFolder, is_time: Any) -> None:
    """SIGKILL for the driver alone, as the kernel does when memory is short."""
    deadline = time.monotonic() + 200
    while not is_time(read(run)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.slow
@pytest.mark.fault
def test_a_search_that_is_killed_goes_on_without_redoing_anything(tmp_path: Path) -> None:
    _, run = searchable(tmp_path)
    file = tmp_path / "search.yaml"
    kill_when(start("tune", file), run, lambda trials: any(trial.is_done for trial in trials.values()))
    before = {number: trial for number, trial in read(run).items() if trial.is_done}
    folder = Path(run.stage("tune").path())
    # As if the driver had been killed before it could tidy up.
    run.stage("tune").write_bytes(f"trials/{min(before):04d}/last-0/model.safetensors", b"left over")
    times = {
        path: path.stat().st_mtime_ns
        for number in before
        for path in (folder / f"trials/{number:04d}").rglob("*")
        if path.is_file() and "last-" not in str(path)
    }
    assert before

    output = finish(start("tune", file))

    trials = read(run)
    assert sorted(trials) == list(range(6))
    assert all(trial.is_done and len(trial.curve) <= EPOCHS for trial in trials.values())
    for number, trial in before.items():
        assert trials[number] == trial
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert "tune: 0 placement groups left over\n" in output
    assert not run.stage("tune").library_files("session")
    for number, trial in trials.items():
        lines = curve(run, number)
        assert [line["validation"]["seen_kept"]["ndcg@20"] for line in lines] == trial.curve
        assert not [name for name in run.stage("tune").files(f"trials/{number:04d}") if "last-" in name]

    # Again: nothing is left to do.
    assert "tune: done before, all 6 trials have ended" in finish(start("tune", file))

    # The best configuration, as it is, trains to the same numbers.
    best = max(trials.values(), key=lambda trial: trial.best_value or 0)
    finish(start("train", folder / "best.yaml"))
    again = RunFolder(str(folder / "best"))
    lines = [json.loads(line) for line in again.stage("train").read_bytes("metrics.jsonl").splitlines()]
    assert without_times(lines[: len(best.curve)]) == without_times(curve(run, best.number))
    if best.status == "finished":
        assert again.stage("train").manifest().details["best_validation"] == lines[best.best_epoch - 1]["validation"]
    weights = [folder / f"trials/{best.id}/best/model.safetensors", folder / "best/train/best/model.safetensors"]
    assert best.status != "finished" or weights[0].read_bytes() == weights[1].read_bytes()

    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == [trial.id for trial in trials.values()]
    assert [float(row["ndcg@20"]) for row in rows] == [trial.best_value for trial in trials.values()]


@pytest.mark.slow
@pytest.mark.fault
def test_a_running_trial_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Killed within its one trial, which ends with the curve of an undisturbed one."""
    overrides = ("train.epochs=30", "train.patience=30", "tune.num_trials=1", "tune.scheduler=none")
    curves = []
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
        _, run = searchable(tmp_path / name, *overrides)
        file = tmp_path / name / "search.yaml"
        if name == "killed":
            kill_when(start("tune", file, *overrides), run, lambda trials: trials and len(trials[0].curve) >= 2)
            num_before = len(read(run)[0].curve)
            assert 2 <= num_before < 30
        finish(start("tune", file, *overrides))
        curves.append(curve(run, 0))
        assert read(run)[0].status == "finished"
    assert without_times(curves[0]) == without_times(curves[1])


@pytest.mark.slow
def test_trials_of_two_workers_leave_no_placement_group_and_are_reproduced(tmp_path: Path) -> None:
    write_config(tmp_path)
    overrides = ("train.num_workers=2", "tune.num_trials=4", "tune.num_random=4", "tune.reduction_factor=2")
    _, run = searchable(tmp_path, *overrides)
    output = finish(start("tune", tmp_path / "search.yaml", *overrides))
    assert "tune: 4 trials to go, 1 side by side" in output
    assert "tune: 0 placement groups left over\n" in output
    trials = read(run)
    assert {trial.status for trial in trials.values()} == {"finished", "stopped"}
    folder = Path(run.stage("tune").path())
    finish(start("train", folder / "best.yaml"))
    best = max(trials.values(), key=lambda trial: trial.best_value or 0)
    lines = [json.loads(line) for line in (folder / "best/train/metrics.jsonl").read_text().splitlines()]
    assert [line["validation"]["seen_kept"]["ndcg@20"] for line in lines][: len(best.curve)] == best.curve


def test_an_interrupt_ends_in_order_with_the_command_to_go_on(tmp_path: Path) -> None:
    _, run = searchable(tmp_path)
    process = start("tune", tmp_path / "search.yaml")
    deadline = time.monotonic() + 200
    while not read(run) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, output = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert f"tune: interrupted; go on with python jobs/tune.py --config {tmp_path / 'search.yaml'}\n" in output
    assert not any(trial.status == "failed" for trial in read(run).values())


def test_an_interrupt_that_a_library_hides_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_trials(*_: Any, **__: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise UnboundLocalError

    monkeypatch.setattr(launch, "run_trials", run_trials)
    config, run = searchable(tmp_path)
    with pytest.raises(UnboundLocalError):
        tune(config, run)
    assert "tune: interrupted; go on with python jobs/tune.py" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_that_diverges_fails_alone_and_the_time_budget_leaves_the_rest_for_later(tmp_path: Path) -> None:
    space = {"train.learning_rate": {"choice": [1e30, 0.01]}}
    fixed = ("tune.algorithm=grid", "train.max_gradient_norm=null", "tune.max_concurrent=1", "tune.scheduler=none")
    _, run = searchable(tmp_path, *fixed, space=space)
    file = tmp_path / "search.yaml"
    process = start("tune", file, *fixed, "tune.time_budget_s=0.001")
    _, output = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "error: No trial has brought a metric (none came as far as its first epoch)" in output
    assert read(run) == {}

    output = finish(start("tune", file, *fixed))

    diverged, good = read(run)[0], read(run)[1]
    assert (diverged.status, diverged.curve) == ("failed", [])
    assert "use a lower train.learning_rate" in diverged.reason
    assert (good.status, len(good.curve)) == ("finished", EPOCHS)
    assert "1 trials finished, 0 stopped early, 1 failed" in output


@pytest.mark.slow
def test_hyperband_stops_and_resumes_like_the_others(tmp_path: Path) -> None:
    overrides = ("tune.scheduler=hyperband", "tune.reduction_factor=2", "tune.algorithm=random")
    _, run = searchable(tmp_path, *overrides)
    file = tmp_path / "search.yaml"
    kill_when(start("tune", file, *overrides), run, lambda trials: sum(trial.is_done for trial in trials.values()) >= 2)
    output = finish(start("tune", file, *overrides))
    assert "tune: 0 placement groups left over\n" in output
    assert {trial.status for trial in read(run).values()} <= {"finished", "stopped"}
    assert len(read(run)) == 6
