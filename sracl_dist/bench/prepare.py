"""How fast a log is prepared: rows per second and memory, how both grow, and against one process of polars.

Logs of rising size are generated with as many events per user and per item, prepared by the stage as it is in a program
of its own, with whatever Ray processes it starts, and one of them also by polars in one process.

    rows_per_second      of the largest log, Ray's start included
    peak_rss_gb          its largest memory, all processes together
    reference_ratio      time of the stage over that of polars, on the log of reference_events
    reference_rss_gb     largest memory of polars there
    growth               time per event of a log over that of the next smaller one, the largest of these ratios
    wall_s_N             time of the log of N events
    peak_rss_gb_N        memory there
"""

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from sracl_dist.bench.process_tree import Measured, run_measured
from sracl_dist.bench.synthetic_log import SyntheticLogSettings, write_log
from sracl_dist.config.sections import require
from sracl_dist.observe import duration, say

EVENTS_PER_USER, EVENTS_PER_ITEM = 20, 100


@dataclass(kw_only=True)
class PrepareSettings:
    """What is prepared."""

    num_events: list[int] = field(default_factory=lambda: [1_000_000, 10_000_000])
    """Events of the logs, rising; the users are a twentieth and the items a hundredth of them."""
    reference_events: int = 10_000_000
    """Events of the log that polars prepares as well; one of `num_events`, and it must fit into memory."""
    folder: str | None = None
    """Folder that keeps the generated logs for the next time; null makes them each time."""
    num_processes: int = 2
    """Processes that generate."""
    quick: bool = False
    """Small logs: shows that it runs, and measures nothing."""

    def __post_init__(self) -> None:
        if self.quick:
            self.num_events, self.reference_events = [5_000, 15_000], 15_000

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        sizes = self.num_events
        rising = bool(sizes) and sizes == sorted(set(sizes)) and sizes[0] >= 5000
        require(rising, "num_events", sizes, "use rising numbers from 5000 on, for example [1000000,10000000]")
        known = self.reference_events in sizes
        require(known, "reference_events", self.reference_events, f"use one of num_events={sizes}")
        require(self.num_processes >= 1, "num_processes", self.num_processes, "use 1 or more")


def measure(settings: PrepareSettings) -> dict[str, float]:
    """Figures by name; see the module."""
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as scratch:
        logs = Path(settings.folder or scratch).expanduser()
        stage: dict[int, Measured] = {}
        for num in settings.num_events:
            _generate(logs, num, settings.num_processes)
            # Polars and the stage run right after each other, because processors change their speed within minutes.
            if num == settings.reference_events:
                reference = _run("polars_prepare", _log(logs, num), f"{scratch}/polars")
                _say("polars", num, reference)
            stage[num] = _run("prepare_log", f"{scratch}/run-{num}", _log(logs, num))
            _say("stage", num, stage[num])
    last = settings.num_events[-1]
    per_event = [stage[num].wall_s / num for num in settings.num_events]
    return {
        "rows_per_second": last / stage[last].wall_s,
        "peak_rss_gb": max(each.peak_rss_gb for each in stage.values()),
        "reference_ratio": stage[settings.reference_events].wall_s / reference.wall_s,
        "reference_rss_gb": reference.peak_rss_gb,
        "growth": max((larger / smaller for smaller, larger in pairwise(per_event)), default=1.0),
        **{f"wall_s_{num}": stage[num].wall_s for num in settings.num_events},
        **{f"peak_rss_gb_{num}": stage[num].peak_rss_gb for num in settings.num_events},
    }


def _run(module: str, *arguments: str | Path) -> Measured:
    return run_measured(["-m", f"sracl_dist.bench.{module}", *map(str, arguments)])


def _log(logs: Path, num_events: int) -> Path:
    return logs / f"events-{num_events}" / "interactions"


def _generate(logs: Path, num_events: int, num_processes: int) -> None:
    settings = SyntheticLogSettings(
        num_events=num_events,
        num_users=num_events // EVENTS_PER_USER,
        num_items=num_events // EVENTS_PER_ITEM,
        num_processes=num_processes,
    )
    facts = write_log(_log(logs, num_events).parent, settings)
    say(
        f"log of {num_events:,} events: {facts['num_users']:,} users, {facts['num_items']:,} items, "
        f"{facts['num_duplicates']:,} duplicates, {facts['num_out_of_order']:,} rows out of order"
    )


def _say(what: str, num_events: int, measured: Measured) -> None:
    rate = num_events / measured.wall_s
    say(
        f"{what}, {num_events:,} events: {duration(measured.wall_s)}, {rate:,.0f} rows/s, "
        f"{measured.peak_rss_gb:.2f} GB at most"
    )
