"""How fast a log is prepared: rows per second and memory, how both grow, and against one process of polars.

Logs of rising size are generated with as many events per user and per item, prepared by the stage as it is in a program
of its own, with whatever Ray processes it starts, and the smallest one also by polars in one process.

    rows_per_second      of the largest log, Ray's start included
    peak_rss_gb          its largest memory, all processes together
    reference_ratio      time of the stage over that of polars, on the log of reference_events
    reference_rss_gb     largest memory of polars there
    growth               time per event of a log over that of the next smaller one, the largest of these ratios
    wall_s_N             time of the log of N events
    peak_rss_gb_N        memory there
    append_share         time of adding one hundredth of new events to the largest log, some of them late, over that of
                         preparing it
"""

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sracl_dist.bench.polars_prepare import TIMESTAMP
from sracl_dist.bench.process_tree import Measured, run_measured
from sracl_dist.columns import ITEM_ID, USER_ID
from sracl_dist.config.sections import require
from sracl_dist.data.synthetic.events import MIN_DELAY_MS
from sracl_dist.data.synthetic_log import SyntheticLogSettings, write_log
from sracl_dist.observe import duration, say

EVENTS_PER_USER, EVENTS_PER_ITEM = 20, 100
NEW_EVENTS, NEW_USERS = 100, 10
"""One event in so many is added, and one in so many of those is of a user that never appeared before."""


@dataclass(kw_only=True)
class PrepareSettings:
    """What is prepared."""

    num_events: list[int] = field(default_factory=lambda: [1_000_000, 10_000_000])
    """Events of the logs, rising; the users are a twentieth and the items a hundredth of them."""
    reference_events: int = 10_000_000
    """Events of the log that polars prepares as well; one of `num_events`, and it must fit into memory."""
    folder: str | None = None
    """Folder that keeps the generated logs for the next time; null makes them anew."""
    late_share: float = 0.02
    """Share of the added events that happened before the log's end, by as much as late sessions of generated logs."""
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
        require(0 <= self.late_share <= 1, "late_share", self.late_share, "use a share from 0 to 1")
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
                arguments = ["-m", "sracl_dist.bench.polars_prepare", str(_log(logs, num)), f"{scratch}/polars"]
                reference = run_measured(arguments)
                _say("polars", num, reference)
            stage[num] = _run_stage(f"{scratch}/run-{num}", [_log(logs, num)])
            _say("stage", num, stage[num])
        new = Path(scratch) / "new"
        num_new = write_new_events(_log(logs, num), new, num // NEW_EVENTS, settings.late_share)
        addition = _run_stage(f"{scratch}/run-{num}", [_log(logs, num), new])
        _say("addition", num_new, addition)
    last = settings.num_events[-1]
    per_event = [stage[num].wall_s / num for num in settings.num_events]
    return {
        "rows_per_second": last / stage[last].wall_s,
        "peak_rss_gb": max(each.peak_rss_gb for each in stage.values()),
        "reference_ratio": stage[settings.reference_events].wall_s / reference.wall_s,
        "reference_rss_gb": reference.peak_rss_gb,
        "append_share": addition.wall_s / stage[last].wall_s,
        "growth": max((larger / smaller for smaller, larger in pairwise(per_event)), default=1.0),
        **{f"wall_s_{num}": stage[num].wall_s for num in settings.num_events},
        **{f"peak_rss_gb_{num}": stage[num].peak_rss_gb for num in settings.num_events},
    }


def _run_stage(location: str, folders: list[Path]) -> Measured:
    return run_measured(["-m", "sracl_dist.bench.prepare_log", location, *map(str, folders)])


def write_new_events(log: Path, target: Path, num: int, late_share: float) -> int:
    """Write the next day of a log: some of its last events again, partly of new users, after its end or late.

    Args:
        log: folder of the log's Parquet files.
        target: folder to make.
        num: how many events, at most those of the last file.
        late_share: of events that happened before the log's end.

    Returns:
        How many they are.
    """
    last = pq.read_table(sorted(log.glob("*.parquet"))[-1])
    random = np.random.default_rng(0)
    events = last.take(pa.array(np.sort(random.choice(last.num_rows, min(num, last.num_rows), replace=False))))
    users = pc.if_else(
        pa.array(random.random(events.num_rows) < 1 / NEW_USERS),
        pc.binary_join_element_wise(events[USER_ID], "new", "-"),
        events[USER_ID],
    )
    old_times = last[TIMESTAMP].to_numpy()
    delays_ms = MIN_DELAY_MS + random.exponential(SyntheticLogSettings.late_hours * 3_600_000, events.num_rows)
    times = np.where(
        random.random(events.num_rows) < late_share,
        old_times.max() - delays_ms.astype(np.int64),
        events[TIMESTAMP].to_numpy() + (old_times.max() - old_times.min() + 1),
    )
    target.mkdir()
    columns = {USER_ID: users, ITEM_ID: events[ITEM_ID], TIMESTAMP: times}
    pq.write_table(pa.table(columns), target / "part-new.parquet")
    return int(events.num_rows)


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
