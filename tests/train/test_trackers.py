"""Event files and a database of MLflow that are real, and read back by their own means."""

import builtins
import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from synthetic import make_config
from tensorboardX.proto.event_pb2 import Event

from sracl_dist.config import Config
from sracl_dist.errors import ConfigError, SetupError
from sracl_dist.run_folder import RunFolder
from sracl_dist.train import trackers as module
from sracl_dist.train.trackers import Trackers, scalars

EXPERIMENT = "sracl_dist"


def make_line(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "loss": {"next_item": 4.0 / epoch, "total": 5.0 / epoch},
        "gradient_norm": 1.5,
        "gpu_memory_bytes": None,
        "validation": {"seen_kept": {"ndcg@20": 0.25 * epoch}},
        "is_best": True,
    }


HISTORY = [make_line(1), make_line(2), make_line(3)]


def config_for(tmp_path: Path, *names: str) -> tuple[Config, RunFolder]:
    config = make_config(tmp_path / "run", f"train.trackers=[{','.join(names)}]")
    return config, RunFolder(config.run.dir)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def only_run(client: MlflowClient) -> Any:
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    return run


def metric(client: MlflowClient, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(only_run(client).info.run_id, name)]


def events(folder: Path) -> list[tuple[str, int, float]]:
    """Scalars of all event files; a record is its length, a checksum, the event and another checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_names_of_an_epochs_numbers() -> None:
    assert dict(scalars(HISTORY[1])) == {
        "step": 20.0,
        "loss/next_item": 2.0,
        "loss/total": 2.5,
        "gradient_norm": 1.5,
        "validation/seen_kept/ndcg_at_20": 0.5,
    }


def test_tensorboard_has_every_epoch_once(tmp_path: Path) -> None:
    config, run = config_for(tmp_path, "tensorboard")
    with Trackers(config, run) as first:
        first.log(HISTORY[:1])
        first.log(HISTORY[:2])
    with Trackers(config, run) as second:  # the job was started again
        second.log(HISTORY)
    found = events(tmp_path / "run" / "train" / "tensorboard")
    losses = sorted((step, value) for tag, step, value in found if tag == "loss/next_item")
    assert losses == [(1, 4.0), (2, 2.0), (3, pytest.approx(4 / 3))]
    assert len(list((tmp_path / "run" / "train" / "tensorboard").iterdir())) == 2


def test_mlflow_goes_on_with_its_run(tmp_path: Path, client: MlflowClient) -> None:
    config, run = config_for(tmp_path, "mlflow")
    with contextlib.suppress(KeyboardInterrupt), Trackers(config, run) as first:
        assert only_run(client).info.status == "RUNNING"
        first.log(HISTORY[:2])
        raise KeyboardInterrupt
    assert only_run(client).info.status == "KILLED"
    with Trackers(config, run) as second:
        assert only_run(client).info.status == "RUNNING"
        second.log(HISTORY)
    assert only_run(client).info.status == "FINISHED"
    assert metric(client, "validation/seen_kept/ndcg_at_20") == [(1, 0.25), (2, 0.5), (3, 0.75)]
    parameters = only_run(client).data.params
    assert parameters["train.learning_rate"] == "0.01"
    assert parameters["model.width"] == "16"
    assert {key.split(".")[0] for key in parameters} == {"model", "objectives", "train", "run"}
    assert "train.trackers" not in parameters


def test_no_secret_of_the_location_is_told(
    tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = config_for(tmp_path, "mlflow")
    monkeypatch.setattr(run, "location", "s3://key:secret@bucket/runs/mine")
    Trackers(config, run)
    assert only_run(client).data.tags["run.dir"] == "s3://***@bucket/runs/mine"
    assert only_run(client).info.run_name == "mine"


def test_no_secret_of_the_environment_is_told(
    tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDER_KEY", "hf_0123456789")
    monkeypatch.setenv("SEED_KEY", "123456789")
    config = make_config(
        tmp_path / "run", "train.trackers=[mlflow]", f"run.dir={tmp_path}/hf_0123456789", "run.seed=123456789"
    )
    Trackers(config, RunFolder(config.run.dir))
    told = only_run(client)
    assert told.data.params["run.seed"] == "***"
    assert told.data.tags["run.dir"] == f"{tmp_path}/***"
    assert "0123456789" not in str(told)


def test_what_a_tracker_missed_comes_later(
    tmp_path: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = config_for(tmp_path, "mlflow", "tensorboard")
    trackers = Trackers(config, run)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_metric", lambda *_, **__: 1 / 0)
        trackers.log(HISTORY[:1])
        trackers.log(HISTORY[:2])
    assert capsys.readouterr().err.count("mlflow cannot be written (division by zero); training goes on") == 1
    assert ("loss/total", 2, 2.5) in events(tmp_path / "run" / "train" / "tensorboard")
    trackers.log(HISTORY)
    assert metric(client, "loss/total") == [(1, 5.0), (2, 2.5), (3, pytest.approx(5 / 3))]


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    real_import = builtins.__import__

    def without(module_name: str, *arguments: Any, **others: Any) -> Any:
        if module_name.split(".")[0] in ("mlflow", "tensorboardX"):
            raise ImportError(module_name)
        return real_import(module_name, *arguments, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SetupError, match=f"train.trackers has {name}, whose package is missing; pip install {package}"):
        Trackers(*config_for(tmp_path, name))


def test_a_server_that_does_not_answer_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/no/such/folder.db")
    monkeypatch.setattr(module.Mlflow, "_begin", lambda *_: 1 / 0)
    with pytest.raises(SetupError, match=r"MLflow cannot be used \(.*\); check MLFLOW_TRACKING_URI"):
        Trackers(*config_for(tmp_path, "mlflow"))


def test_none_is_asked_for_by_default(tmp_path: Path) -> None:
    config, run = config_for(tmp_path)
    with Trackers(config, run) as trackers:
        trackers.log(HISTORY)
    assert run.stage("train").files() == []


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.trackers is \['wandb'\]; use any of tensorboard, mlflow"):
        make_config("unused", "train.trackers=[wandb]")
