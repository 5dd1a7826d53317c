"""How a training step grows with the catalogue, when the softmax runs over a sample of it.

The same synthetic log, but for the number of different items in it, is trained with catalogues of several sizes: SASRec
of the paper's size with the next item alone. Steps of all sizes take turns in one process, so that whatever else the
machine does meets all of them alike. Beside a step is measured what the table takes of it: the rows of its items read,
and updated with gradients that are there already. Once an epoch all rows are brought up to date, which is measured
too. Memory is measured in a process of its own for each size.

V catalogue.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np
import torch

from sracl_dist.bench.machine import BYTES_PER_GB, peak_rss_gb, seconds, waited_s
from sracl_dist.bench.train import say_waiting
from sracl_dist.bench.train_variant import HistoryTraining, Variant
from sracl_dist.columns import PAD
from sracl_dist.config import Config, parse_config
from sracl_dist.config.sections import require
from sracl_dist.model.tables import SemanticTables
from sracl_dist.observe import say
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import Trainer

LATER_ITEMS = 2
"""Items at the end of each history that are for validation and test."""
MEMORY_STEPS = 20
"""Steps after which memory no longer grows, but for rows that are touched for the first time."""
NUM_TABLE_STEPS = 4
"""Steps whose items the table is measured with."""
CPU = torch.device("cpu")


@dataclass(kw_only=True)
class TrainCatalogueSettings:
    """What is measured, and how long."""

    sizes: list[int] = field(default_factory=lambda: [10_000, 100_000, 1_000_000, 3_000_000])
    """Catalogue sizes, ascending."""
    num_users: int = 400_000
    """Users of the log."""
    items_per_user: int = 10
    """Items of each; every item of the catalogue is there once at least, as far as there are places for them."""
    batch_rows: int = 256
    """Histories in a step."""
    num_sampled: int = 2048
    """Items in the sample of a step."""
    in_batch_share: float = 0.5
    """Share of them that are targets of the step."""
    width: int = 64
    """Width of the model."""
    threads: int = 1
    """Threads of the processor that one product may use."""
    rounds: int = 7
    """How often each size has its turn; the medians count."""
    turn_s: float = 2.0
    """About how long a turn is, one step at least."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_users", "batch_rows", "num_sampled", "width", "threads", "rounds"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        ascending = bool(self.sizes) and all(one < other for one, other in pairwise([0, *self.sizes]))
        require(ascending, "sizes", self.sizes, "list sizes of 1 or more, the smaller first")
        enough = self.items_per_user > LATER_ITEMS + 1
        require(enough, "items_per_user", self.items_per_user, f"use {LATER_ITEMS + 2} or more")
        require(self.turn_s > 0, "turn_s", self.turn_s, "use above 0")


def measure(settings: TrainCatalogueSettings) -> dict[str, float]:
    """Figures by name, those of a size with it behind the name; see `_figures` for what they mean."""
    torch.set_num_threads(settings.threads)
    say(f"log: {settings.num_users:,} users with {settings.items_per_user} items each")
    trainings, variants = {}, {}
    for size in settings.sizes:
        trainings[size] = _training(settings, size)
        variants[size] = Variant(trainings[size], CPU)
        say(f"catalogue of {size:,} items: ready")
    table_work = {size: TableWork(training.trainer) for size, training in trainings.items()}
    started_waiting, step_s, table_s = waited_s(), _by_size(settings), _by_size(settings)
    measured_s = 0.0
    for number in range(settings.rounds):
        started = time.perf_counter()
        for size, variant in variants.items():
            step_s[size].append(variant.seconds_per_step(settings.turn_s))
            table_s[size].append(table_work[size].seconds_per_step())
        measured_s += time.perf_counter() - started
        say(f"round {number + 1} of {settings.rounds}")
    say_waiting((waited_s() - started_waiting) / measured_s)
    settle_s = {size: seconds(training.trainer.optimiser.settle, CPU) for size, training in trainings.items()}
    trainings.clear()
    variants.clear()
    table_work.clear()
    memory_gb = {size: _peak_memory_gb(settings, size) for size in settings.sizes}
    middle = [{size: median(values) for size, values in each.items()} for each in (step_s, table_s)]
    figures = _figures(settings, middle[0], middle[1], settle_s, memory_gb)
    _say_table(settings, figures)
    return figures


class TableWork:
    """What the table takes of a step: rows are read, and updated with gradients that are there."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._items = []
        for rows in trainer.batches.order(1)[:NUM_TABLE_STEPS]:
            batch = trainer.batches.batch(rows)
            asked = trainer.model.objective("next_item").views(batch).items
            self._items.append(torch.cat([batch.rows.items_T, *([] if asked is None else [asked])]))

    def seconds_per_step(self) -> float:
        """Mean over some steps."""
        return seconds(self._read_and_update, CPU) / len(self._items)

    def _read_and_update(self) -> None:
        catalogue, optimiser = self._trainer.model.catalogue, self._trainer.optimiser
        for items in self._items:
            catalogue.table(items)
            if catalogue.touched is not None:
                catalogue.touched.values_ND.grad = torch.zeros_like(catalogue.touched.values_ND)
            optimiser.step()


def synthetic_sequences(num_users: int, items_per_user: int, num_items: int) -> Sequences:
    """Histories of equal length; popularity falls with the rank, and all items are there where they find a place."""
    random = np.random.default_rng(0)
    num_places = num_users * items_per_user
    items = np.empty(num_places, dtype=np.int32)
    num_each = min(num_items, num_places)
    items[:num_each] = PAD + 1 + np.arange(num_each)
    # Log-uniform ranks: the share of an item is about in inverse proportion to its rank.
    drawn = np.exp(random.random(num_places - num_each) * np.log(num_items))
    items[num_each:] = PAD + 1 + np.minimum(drawn.astype(np.int64), num_items - 1)
    random.shuffle(items)
    return Sequences(
        offsets=np.arange(num_users + 1, dtype=np.int64) * items_per_user,
        items=items,
        num_train=np.full(num_users, items_per_user - LATER_ITEMS, dtype=np.int32),
        num_validation=np.ones(num_users, dtype=np.int32),
        num_items=num_items,
    )


def _by_size(settings: TrainCatalogueSettings) -> dict[int, list[float]]:
    return {size: [] for size in settings.sizes}


def _training(settings: TrainCatalogueSettings, size: int) -> HistoryTraining:
    sequences = synthetic_sequences(settings.num_users, settings.items_per_user, size)
    tables = SemanticTables(run=RunFolder("unused"), sequences=sequences)
    return HistoryTraining(_config(settings), sequences, tables, CPU)


def _config(settings: TrainCatalogueSettings) -> Config:
    next_item = {
        "softmax": "sampled",
        "num_sampled": settings.num_sampled,
        "in_batch_share": settings.in_batch_share,
    }
    values = {
        "run": {"dir": "unused"},
        "data": {"interactions": ["unused"]},
        "model": {"width": settings.width},
        "objectives": {"terms": ["next_item"], "next_item": next_item},
        "train": {"batch_rows": settings.batch_rows},
    }
    return parse_config(values)


def _peak_memory_gb(settings: TrainCatalogueSettings, size: int) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_train, settings, size).result()


def _train(settings: TrainCatalogueSettings, size: int) -> float:
    torch.set_num_threads(settings.threads)
    training = _training(settings, size)
    Variant(training, CPU).run(MEMORY_STEPS)
    training.trainer.optimiser.settle()
    return peak_rss_gb()


def _figures(
    settings: TrainCatalogueSettings,
    step_s: dict[int, float],
    table_s: dict[int, float],
    settle_s: dict[int, float],
    memory_gb: dict[int, float],
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for size in settings.sizes:
        figures |= {
            f"step_ms_{size}": 1e3 * step_s[size],
            # Rows read and updated, and nothing else.
            f"table_ms_{size}": 1e3 * table_s[size],
            # Once an epoch: all rows brought up to date.
            f"settle_ms_{size}": 1e3 * settle_s[size],
            f"peak_rss_gb_{size}": memory_gb[size],
            # Embeddings and both moments of Adam.
            f"table_gb_{size}": 3 * 4 * (size + 1) * settings.width / BYTES_PER_GB,
        }
    least, most = settings.sizes[0], settings.sizes[-1]
    return {
        # Time of a step with the largest catalogue over that with the smallest, and the same without the table's own.
        "growth": step_s[most] / step_s[least],
        "growth_beyond_table": (step_s[most] - table_s[most]) / (step_s[least] - table_s[least]),
        **figures,
    }


def _say_table(settings: TrainCatalogueSettings, figures: dict[str, float]) -> None:
    say(f"{'items':>10}{'step ms':>10}{'table ms':>10}{'settle ms':>11}{'peak GB':>9}{'table GB':>10}")
    for size in settings.sizes:
        names = ("step_ms", "table_ms", "settle_ms", "peak_rss_gb", "table_gb")
        step, table, settle, memory, own = (figures[f"{name}_{size}"] for name in names)
        say(f"{size:>10,}{step:>10.1f}{table:>10.1f}{settle:>11.0f}{memory:>9.2f}{own:>10.2f}")
    beyond = figures["growth_beyond_table"]
    say(f"a step grows {figures['growth']:.2f} times, {beyond:.2f} times without the table's own")
