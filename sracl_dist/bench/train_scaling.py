"""How training grows with its workers: the stage train itself, on Ray, its steps shared out over 1, 2 and 4 of them.

The model is that of `bench train`, without dropout and with terms that draw nothing, so that the loss must not depend
on the number of workers, whose random numbers are their own. A worker has one core; where the machine has fewer cores
than workers, these share them, and nothing can be gained. Vectors and neighbours are random (see bench/tables.py).
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from sracl_dist.bench.tables import prepared_tables
from sracl_dist.cluster import connected
from sracl_dist.config import Config, parse_config
from sracl_dist.config.sections import require
from sracl_dist.model.sracl import TOTAL
from sracl_dist.observe import say
from sracl_dist.private_cluster import usable_cpus
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.curve import METRICS
from sracl_dist.train.launch import train

VECTOR_WIDTH = 384
"""Width of the vectors of users' profiles; that of small text encoders."""


@dataclass(kw_only=True)
class TrainScalingSettings:
    """What is measured, and how long."""

    source: str = "amazon-2014:beauty"
    """The log, as in data.source."""
    path: str | None = None
    """Folder with a local copy of it, as in data.path; null looks in $SRACL_DATA, then the cache, then fetches it."""
    workers: list[int] = field(default_factory=lambda: [1, 2, 4])
    """Numbers of workers, the first of which the others are compared with."""
    batch_rows: int = 256
    """Histories in a step, of all workers together."""
    num_neighbours: int = 10
    """Users whose states are synthesised (k)."""
    epochs: int = 3
    """Passes over the log; the first one is not counted for the speed, where there are others."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("batch_rows", "num_neighbours", "epochs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        several = bool(self.workers) and min(self.workers) >= 1
        require(several, "workers", self.workers, "use numbers of 1 or more")


def measure(settings: TrainScalingSettings) -> dict[str, float]:
    """Figures by name, those of a number of workers with it behind the name; see `_figures`.

    Raises:
        ConfigError: the source is unknown.
        InputError: the log cannot be found, fetched or used.
    """
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as folder:
        run, first = RunFolder(folder), _config(settings, folder, settings.workers[0])
        prepared_tables(first, run, VECTOR_WIDTH)
        with connected(first.cluster):
            curves = {num: _curve(_config(settings, folder, num), run) for num in settings.workers}
    figures = _figures(curves)
    _say_table(figures, settings.workers)
    return figures


def _config(settings: TrainScalingSettings, folder: str, num_workers: int) -> Config:
    values = {
        "run": {"dir": folder},
        "cluster": {"address": "local", "num_cpus": max(settings.workers)},
        "data": {"source": settings.source, "path": settings.path},
        "neighbours": {"num_neighbours": settings.num_neighbours},
        "model": {
            "encoder": "sasrec",
            "width": 64,
            "num_layers": 2,
            "num_heads": 2,
            "max_length": 20,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
        "objectives": {
            "terms": ["next_item", "cross_sequence"],
            "cross_sequence": {"num_neighbours": settings.num_neighbours},
        },
        "train": {
            "num_workers": num_workers,
            "batch_rows": settings.batch_rows,
            "epochs": settings.epochs,
            "patience": settings.epochs,
        },
    }
    return parse_config(values, [])


def _curve(config: Config, run: RunFolder) -> list[dict[str, Any]]:
    """Train from the beginning; returns the lines of the curve."""
    folder = run.stage("train")
    shutil.rmtree(folder.path(), ignore_errors=True)
    train(config, run)
    return [json.loads(line) for line in folder.read_bytes(METRICS).splitlines()]


def _figures(curves: dict[int, list[dict[str, Any]]]) -> dict[str, float]:
    first, *_ = curves.values()
    slowest = _median(first, "examples_per_second")
    figures: dict[str, float] = {"cores": usable_cpus()}
    for num, lines in curves.items():
        rate = _median(lines, "examples_per_second")
        figures |= {
            f"examples_per_second_{num}": rate,
            f"speedup_{num}": rate / slowest,
            # Share of the time in which the first worker waited for its next batch.
            f"data_wait_share_{num}": _median(lines, "data_wait_share"),
            # The largest relative difference of an epoch's loss from that of the first number of workers.
            f"loss_difference_{num}": max(
                abs(line["loss"][TOTAL] / other["loss"][TOTAL] - 1) for line, other in zip(lines, first, strict=True)
            ),
        }
    return figures


def _median(lines: list[dict[str, Any]], name: str) -> float:
    """Over the epochs, but for the first, which also fills caches, where there are others."""
    return median(float(line[name]) for line in lines[1:] or lines)


def _say_table(figures: dict[str, float], workers: list[int]) -> None:
    say(f"{figures['cores']:.0f} cores")
    say(f"{'workers':>7}{'examples/s':>12}{'of each':>9}{'speedup':>9}{'waiting for data':>18}{'loss differs by':>17}")
    for num in workers:
        rate, speedup = figures[f"examples_per_second_{num}"], figures[f"speedup_{num}"]
        waiting, difference = figures[f"data_wait_share_{num}"], figures[f"loss_difference_{num}"]
        say(f"{num:>7}{rate:>12,.0f}{rate / num:>9,.0f}{speedup:>9.2f}{waiting:>18.1%}{difference:>17.0e}")
