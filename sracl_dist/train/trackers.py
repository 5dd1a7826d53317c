"""The curve of training in the tools that people watch: TensorBoard and MLflow, beside metrics.jsonl.

They are fed by the job's own process, from the same lines as metrics.jsonl: where MLflow's server is, and how it is
entered, comes from MLflow's environment variables there (MLFLOW_TRACKING_URI, MLFLOW_TRACKING_TOKEN,
MLFLOW_EXPERIMENT_NAME, ...), which neither the configuration nor the workers know.

    tensorboard/        event files, one for every time that the job was started
    mlflow.json         the run that is gone on with
    trackers.json       the last epoch that each of them has
"""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from sracl_dist.config import Config, flatten
from sracl_dist.errors import SetupError, first_line
from sracl_dist.observe import say
from sracl_dist.run_folder import RunFolder
from sracl_dist.secrets import masked
from sracl_dist.stages import STAGES

TENSORBOARD = "tensorboard/"
MLFLOW = "mlflow.json"
KNOWN = "trackers.json"


class Tracker(Protocol):
    """A tool that shows curves."""

    def log(self, line: dict[str, Any]) -> None:
        """Take one finished epoch, a line of metrics.jsonl."""

    def close(self, *, succeeded: bool) -> None:
        """Nothing more comes; `succeeded` tells whether training reached its end."""


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and numbers of an epoch, nested names joined by a slash; `@` becomes `_at_`, which not every tool takes."""
    for name, value in line.items():
        if isinstance(value, dict):
            for inner, number in scalars(value):
                yield f"{name}/{inner}", number
        elif value is not None and name not in ("epoch", "is_best"):
            yield name.replace("@", "_at_"), float(value)


class TensorBoard:
    """An event file, copied to the run folder after every epoch, since that may lie where no file can be appended to.

    Raises:
        SetupError: its package is missing.
    """

    def __init__(self, config: Config, run: RunFolder) -> None:  # noqa: ARG002
        try:
            from tensorboardX.event_file_writer import EventsWriter
        except ImportError:
            raise _missing("tensorboard", "tensorboardX") from None
        self._folder = run.stage("train")
        self._temporary = tempfile.TemporaryDirectory(prefix="sracl-tensorboard-")
        # SummaryWriter would write in a thread that its flush() does not wait for.
        self._writer = EventsWriter(f"{self._temporary.name}/events", f".{uuid.uuid4().hex[:8]}")

    def log(self, line: dict[str, Any]) -> None:
        """See `Tracker.log`."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=number) for name, number in scalars(line)]
        self._writer.write_event(Event(wall_time=time.time(), step=line["epoch"], summary=Summary(value=values)))
        self._writer.flush()
        for path in Path(self._temporary.name).iterdir():
            self._folder.write_bytes(TENSORBOARD + path.name, path.read_bytes())

    def close(self, *, succeeded: bool) -> None:  # noqa: ARG002
        """See `Tracker.close`."""
        self._writer.close()
        self._temporary.cleanup()


class Mlflow:
    """A run of MLflow, gone on with when training goes on.

    Raises:
        SetupError: its package is missing, or its server does not answer.
    """

    def __init__(self, config: Config, run: RunFolder) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise _missing("mlflow", "mlflow-skinny") from None
        self._folder = run.stage("train")
        try:
            self._client = MlflowClient()
            self._run_id = self._begin(config, run)
        except Exception as error:  # whatever its store raises: a database's, a server's, a network's
            raise SetupError(
                f"MLflow cannot be used ({first_line(error)}); check MLFLOW_TRACKING_URI, or take mlflow out of "
                f"train.trackers."
            ) from None
        self._folder.write_json(MLFLOW, {"run_id": self._run_id})

    def _begin(self, config: Config, run: RunFolder) -> str:
        if self._folder.exists(MLFLOW):
            run_id = str(self._folder.read_json(MLFLOW)["run_id"])
            self._client.set_terminated(run_id, "RUNNING")
            return run_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "sracl_dist")
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        shown = masked(run.shown)
        begun = self._client.create_run(place, run_name=shown.rstrip("/").rsplit("/", 1)[-1])
        for key, value in flatten(config, STAGES["train"].settings, with_neutral=False).items():
            self._client.log_param(begun.info.run_id, key, value)
        self._client.set_tag(begun.info.run_id, "run.dir", shown)
        return str(begun.info.run_id)

    def log(self, line: dict[str, Any]) -> None:
        """See `Tracker.log`."""
        for name, number in scalars(line):
            self._client.log_metric(self._run_id, name, number, step=line["epoch"])

    def close(self, *, succeeded: bool) -> None:
        """See `Tracker.close`."""
        self._client.set_terminated(self._run_id, "FINISHED" if succeeded else "KILLED")


TRACKERS: dict[str, Callable[[Config, RunFolder], Tracker]] = {"tensorboard": TensorBoard, "mlflow": Mlflow}


class Trackers:
    """Those in train.trackers; training does not end because one of them fails, which is said once.

    An epoch that a tracker has missed is told with the next one.
    """

    def __init__(self, config: Config, run: RunFolder) -> None:
        self._folder = run.stage("train")
        self._trackers = {name: TRACKERS[name](config, run) for name in config.train.trackers}
        self._known: dict[str, int] = self._folder.read_json(KNOWN) if self._folder.exists(KNOWN) else {}
        self._failed: set[str] = set()

    def log(self, history: list[dict[str, Any]]) -> None:
        """Take all epochs so far; those that a tracker knows are passed over."""
        for name, tracker in self._trackers.items():
            with self._going_on(name):
                for line in history:
                    if line["epoch"] > self._known.get(name, 0):
                        tracker.log(line)
                        self._known[name] = line["epoch"]
                        self._folder.write_json(KNOWN, self._known)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for name, tracker in self._trackers.items():
            with self._going_on(name):
                tracker.close(succeeded=kind is None)

    @contextlib.contextmanager
    def _going_on(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if name not in self._failed:
                say(f"train: {name} cannot be written ({first_line(error)}); training goes on, and it is tried again")
            self._failed.add(name)


def _missing(name: str, package: str) -> SetupError:
    return SetupError(f"train.trackers has {name}, whose package is missing; pip install {package}, or take it out.")
