"""How fast training is: the fast path against a row per prefix, and against what the machine can do.

All variants train the same model (SASRec of the paper's size, both contrastive terms of the reference's form) on the
same log in the same process, in turns, so that whatever else the machine does meets all of them alike. An example is a
training target, and a step is everything from the choice of its rows to the optimiser's.

    baseline    a row per prefix, 14 padded rows for every example, 256 examples a step, as in the reference
    bank        a row per history, neighbours' states from the bank
    bfloat16    the same with products in bfloat16
    encoded     the same as bank, but the neighbours are encoded in the step

Vectors and neighbours are random (see bench/tables.py). Memory is measured in processes of their own.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from sracl_dist.bench.machine import matrix_gflops, product_gflops, waited_s
from sracl_dist.bench.prefix_training import PrefixTraining
from sracl_dist.bench.tables import prepared_tables
from sracl_dist.bench.train_memory import Memory, peak_memory
from sracl_dist.bench.train_variant import CatalogueSoftmax, HistoryTraining, MakeTraining, Training, Variant
from sracl_dist.config import Config, parse_config
from sracl_dist.config.sections import require
from sracl_dist.model.softmax import GPU_SCORES_PER_CHUNK, SCORES_PER_CHUNK
from sracl_dist.model.tables import SemanticTables
from sracl_dist.observe import duration, say
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences

VECTOR_WIDTH = 384
"""Width of the vectors of users' profiles; that of small text encoders."""
BASELINE, BANK, BFLOAT16, ENCODED = "baseline", "bank", "bfloat16", "encoded"
OVERRIDES = {
    BASELINE: ("objectives.cross_sequence.neighbour_states=encoded",),
    BANK: (),
    BFLOAT16: ("train.precision=bfloat16",),
    ENCODED: ("objectives.cross_sequence.neighbour_states=encoded",),
}
MEMORY_STEPS: dict[str, tuple[MakeTraining, int]] = {BASELINE: (PrefixTraining, 2), BANK: (HistoryTraining, 20)}
"""Steps after which memory no longer grows."""

TOLERABLE_WAITING = 0.02
"""Share of the time that this process may wait for the processor before figures are called distorted."""


@dataclass(kw_only=True)
class TrainSettings:
    """What is measured, and how long."""

    source: str = "amazon-2014:beauty"
    """The log, as in data.source."""
    path: str | None = None
    """Folder with a local copy of it, as in data.path; null looks in $SRACL_DATA, then the cache, then fetches it."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 2
    """Threads of the processor that one product may use."""
    batch_rows: int = 256
    """Histories in a step of the fast path, as in configs/beauty/."""
    baseline_batch_rows: int = 256
    """Prefixes in a step of the baseline."""
    num_neighbours: int = 10
    """Users whose states are synthesised (k), and items that may replace one."""
    rounds: int = 5
    """How often each variant has its turn; the medians count."""
    turn_s: float = 2.0
    """About how long a turn is, one step at least."""
    matrix_width: int = 2048
    """Rows and columns of the square matrices whose product is the machine's peak."""
    quick: bool = False
    """One short turn each and small matrices: shows that it runs, and measures nothing."""

    def __post_init__(self) -> None:
        if self.quick:
            self.rounds, self.turn_s, self.matrix_width = 1, 0.01, 256

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("threads", "batch_rows", "baseline_batch_rows", "num_neighbours", "rounds", "matrix_width"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        require(self.turn_s > 0, "turn_s", self.turn_s, "use above 0")
        require(self.device in ("cpu", "cuda"), "device", self.device, "use cpu or cuda")
        there = self.device == "cpu" or torch.cuda.is_available()
        require(there, "device", self.device, "use cpu where PyTorch finds no GPU")


def measure(settings: TrainSettings) -> dict[str, float]:
    """Figures by name; see `_figures` for what they mean.

    Raises:
        ConfigError: the source is unknown.
        InputError: the log cannot be found, fetched or used.
    """
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as folder:
        configs = {name: _config(settings, folder, name) for name in OVERRIDES}
        run = RunFolder(folder)
        sequences = prepared_tables(configs[BANK], run, VECTOR_WIDTH)
        _say_log(sequences)
        tables = SemanticTables(run=run, sequences=sequences)
        device = torch.device(settings.device)
        baseline = PrefixTraining(configs[BASELINE], sequences, tables, device)
        fast = {name: HistoryTraining(configs[name], sequences, tables, device) for name in (BANK, BFLOAT16, ENCODED)}
        trainings: dict[str, Training] = {BASELINE: baseline, **fast}
        variants = {name: Variant(training, device) for name, training in trainings.items()}
        softmax = CatalogueSoftmax(fast[BANK].trainer)
        rounds = _measure_in_turns(settings, variants, softmax, device)
        epoch_s = variants[BANK].epoch_s()
        memory = {
            name: peak_memory(make, configs[name], folder, settings.device, settings.threads, num_steps)
            for name, (make, num_steps) in MEMORY_STEPS.items()
        }
        operations = {name: variant.operations_per_example() for name, variant in variants.items()}
    figures = _figures(rounds, operations, epoch_s, memory, settings)
    _say_table(rounds, figures)
    return figures


def _config(settings: TrainSettings, folder: str, variant: str) -> Config:
    contrast = {"similarity": "inner_product", "temperature": 1.0, "num_neighbours": settings.num_neighbours}
    is_baseline = variant == BASELINE
    values = {
        "run": {"dir": folder},
        "data": {"source": settings.source, "path": settings.path},
        "neighbours": {"num_neighbours": settings.num_neighbours},
        "model": {"encoder": "sasrec", "width": 64, "num_layers": 2, "num_heads": 2, "max_length": 20},
        "objectives": {
            "terms": ["next_item", "cross_sequence", "intra_sequence"],
            "cross_sequence": {**contrast, "negatives": "all"},
            "intra_sequence": contrast,
        },
        "train": {"batch_rows": settings.baseline_batch_rows if is_baseline else settings.batch_rows},
    }
    return parse_config(values, OVERRIDES[variant])


def _measure_in_turns(
    settings: TrainSettings, variants: dict[str, Variant], softmax: CatalogueSoftmax, device: torch.device
) -> dict[str, list[float]]:
    """Every round's value of all that is measured by time, by name."""
    num_candidates, width = softmax.table_shape
    chunk = SCORES_PER_CHUNK if device.type == "cpu" else GPU_SCORES_PER_CHUNK
    chunk_rows = max(1, chunk // num_candidates)
    turns: dict[str, Callable[[], float]] = {
        name: lambda variant=variant: variant.examples_per_second(settings.turn_s)  # type: ignore[misc]
        for name, variant in variants.items()
    }
    turns |= {
        "softmax": softmax.seconds_per_example,
        "matrix": lambda: matrix_gflops(settings.matrix_width, device),
        "narrow": lambda: product_gflops(chunk_rows, width, num_candidates, device),
    }
    rounds: dict[str, list[float]] = {name: [] for name in turns}
    started, waited_before_s = time.perf_counter(), waited_s()
    for index in range(settings.rounds):
        for name, turn in turns.items():
            rounds[name].append(turn())
        rates = ", ".join(f"{name} {rounds[name][-1]:,.0f}" for name in variants)
        say(f"round {index + 1} of {settings.rounds}: examples per second: {rates}")
    say_waiting((waited_s() - waited_before_s) / (time.perf_counter() - started))
    return rounds


def _figures(
    rounds: dict[str, list[float]],
    operations: dict[str, float],
    epoch_s: float,
    memory: dict[str, Memory],
    settings: TrainSettings,
) -> dict[str, float]:
    middle = {name: median(values) for name, values in rounds.items()}
    peak = middle["matrix"] * 1e9
    shares = {name: operations[name] * middle[name] / peak for name in OVERRIDES}
    figures = {
        # The fast path over the row per prefix, both float32.
        "speedup": middle[BANK] / middle[BASELINE],
        "examples_per_second": middle[BANK],
        # Floating point operations of the products of a step, over what the machine can do in its time.
        "peak_share": shares[BANK],
        # Time of the softmax over the catalogue, forwards and backwards, in that of a step.
        "catalogue_softmax_share": middle["softmax"] * middle[BANK],
        "peak_rss_gb": memory[BANK].rss_gb,
        "baseline_examples_per_second": middle[BASELINE],
        "baseline_peak_share": shares[BASELINE],
        "baseline_peak_rss_gb": memory[BASELINE].rss_gb,
        "bfloat16_examples_per_second": middle[BFLOAT16],
        "bfloat16_speedup": middle[BFLOAT16] / middle[BASELINE],
        "encoded_examples_per_second": middle[ENCODED],
        "encoded_speedup": middle[ENCODED] / middle[BASELINE],
        "encoded_peak_share": shares[ENCODED],
        # A whole measured epoch of the fast path, without validation.
        "seconds_per_epoch": epoch_s,
        "matrix_peak_gflops": middle["matrix"],
        # The product of some states with the catalogue, as wide as the model only.
        "narrow_matrix_gflops": middle["narrow"],
        "megaflop_per_example": operations[BANK] / 1e6,
        "baseline_megaflop_per_example": operations[BASELINE] / 1e6,
    }
    if settings.device == "cuda":
        figures |= {
            "peak_gpu_gb": memory[BANK].gpu_gb,
            "baseline_peak_gpu_gb": memory[BASELINE].gpu_gb,
        }
    return figures


def _say_log(sequences: Sequences) -> None:
    num_targets = int((sequences.num_train - 1).clip(min=0).sum())
    say(f"log: {sequences.num_users:,} users, {sequences.num_items:,} items, {num_targets:,} training targets")


def say_waiting(share: float) -> None:
    """Warn where this process had to wait for the processor for too large a share of its time."""
    if share > TOLERABLE_WAITING:
        say(
            f"warning: other work had the processor for {share:.0%} of the time, which distorts even the ratios, since "
            f"variants suffer unequally; measure again on an idle machine"
        )


def _say_table(rounds: dict[str, list[float]], figures: dict[str, float]) -> None:
    say(f"{'variant':<10}{'examples/s':>12}{'lowest':>9}{'highest':>9}{'speedup':>9}")
    for name in OVERRIDES:
        values = rounds[name]
        speedup = median(values) / figures["baseline_examples_per_second"]
        say(f"{name:<10}{median(values):>12,.0f}{min(values):>9,.0f}{max(values):>9,.0f}{speedup:>9.2f}")
    say(
        f"bank: {figures['peak_share']:.1%} of the matrix peak of {figures['matrix_peak_gflops']:,.0f} GFLOP/s "
        f"(baseline {figures['baseline_peak_share']:.1%}), {figures['catalogue_softmax_share']:.0%} of a step in the "
        f"catalogue's softmax, an epoch in {duration(figures['seconds_per_epoch'])}, {figures['peak_rss_gb']:.2f} GB "
        f"(baseline {figures['baseline_peak_rss_gb']:.2f} GB)"
    )
