"""The progress line of training: workers' own output does not reach the driver, so they tell it through an actor."""

import threading
import time
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sracl_dist import observe
from sracl_dist.config import Config
from sracl_dist.train.batches import TrainingBatches
from sracl_dist.train.room import RoomOfWorkers
from sracl_dist.train.state import Progress
from sracl_dist.train.trackers import Trackers
from sracl_dist.train.worker import Worker

LABEL = "train"
POLL_S = 0.5
SILENCE_S = 30.0
"""After so long without news it is looked whether the workers lack room."""


class _Board:
    """An actor that holds the latest news from the first worker, and its finished epochs, for the driver to read."""

    def __init__(self) -> None:
        self._news: dict[str, Any] = {}
        self._history: list[dict[str, Any]] = []

    def post(self, news: dict[str, Any]) -> None:
        self._news = news

    def latest(self) -> dict[str, Any]:
        return self._news

    def end_epoch(self, history: list[dict[str, Any]]) -> None:
        self._history = history

    def history(self) -> list[dict[str, Any]]:
        return self._history


class Reporter:
    """The worker's side of the progress line."""

    def __init__(self, board: Any, worker: Worker, progress: Progress, batches: TrainingBatches) -> None:
        self._board, self._speaks, self._posted = board, worker.is_first, 0.0
        # Steps differ little in their targets; at the end of the epoch the count is exact again.
        begun = batches.num_targets * progress.epoch_step // batches.num_steps
        self._num_targets = batches.num_targets
        self._done = self._already = progress.epoch * batches.num_targets + begun

    def on_step(self, num: int, progress: Progress) -> None:
        """Count targets; tell the driver now and then."""
        self._done += num
        if self._speaks and time.monotonic() - self._posted >= POLL_S:
            self._post(progress)

    def on_epoch(self, progress: Progress) -> None:
        """Tell the driver what the epoch brought."""
        self._done = progress.epoch * self._num_targets
        self._board.end_epoch.remote(progress.history)
        self._post(progress)

    def _post(self, progress: Progress) -> None:
        self._posted = time.monotonic()
        news: dict[str, Any] = {
            "already": self._already,
            "done": self._done,
            "epoch": progress.epoch,
            "best": progress.best_value,
        }
        if progress.history:
            last = progress.history[-1]
            news["per worker"] = last["examples_per_second"] / last["num_workers"]
        self._board.post.remote(news)


class Display:
    """The driver's side: a thread that reads the board while Ray Train blocks, draws the line and feeds the trackers.

    Args:
        config: the run's.
        num_targets: targets of an epoch.
        trackers: told of every finished epoch.
        room: what the workers need.
    """

    def __init__(self, config: Config, num_targets: int, trackers: Trackers, room: RoomOfWorkers) -> None:
        # On this process's node, since on another it would be lost with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.board: Any = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here).remote()
        self._num_workers, self._min_workers = config.train.num_workers, config.train.min_workers
        self._trackers, self._tracked = trackers, 0
        self._epochs, self._metric = config.train.epochs, config.train.metric
        self._total = num_targets * self._epochs
        self._line: observe.Progress | None = None
        self._room = room
        self._news: dict[str, Any] = {}
        self._news_came = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="training progress", daemon=True)

    def __enter__(self) -> "Display":
        plural = "s" if self._num_workers > 1 else ""
        least = "" if self._min_workers is None else f"{self._min_workers} to "
        observe.say(f"{LABEL}: starting {least}{self._num_workers} worker{plural}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._line is not None:
            self._line.close()
        ray.kill(self.board)

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            self._draw()
        self._draw()

    def _draw(self) -> None:
        try:
            news = ray.get(self.board.latest.remote())
            history = ray.get(self.board.history.remote()) if news and news["epoch"] > self._tracked else []
        except ray.exceptions.RayError:
            return
        if news != self._news:
            self._news, self._news_came = news, time.monotonic()
        elif time.monotonic() - self._news_came > SILENCE_S:
            self._say_what_lacks()
        if not news:
            return
        if history:
            self._trackers.log(history)
            self._tracked = len(history)
        if self._line is None:
            self._line = observe.Progress(LABEL, self._total, "targets", done=news["already"])
        facts: dict[str, Any] = {"epochs": f"{news['epoch']}/{self._epochs}"}
        if news["epoch"]:
            facts[f"best {self._metric}"] = f"{news['best']:.4f}"
            facts["targets/s per worker"] = news["per worker"]
        # After workers died, training goes on from an earlier place, and the line goes back with it.
        self._line.update(news["done"] - self._line.done, **facts)

    def _say_what_lacks(self) -> None:
        self._news_came = time.monotonic()
        try:
            there = self._room.num_there
        except (ray.exceptions.RayError, RuntimeError, OSError):  # the cluster itself is gone
            return
        if there < self._room.num_workers:
            observe.say(f"{LABEL}: waiting for a node: there is room for {there} of {self._room.num_workers} workers")
