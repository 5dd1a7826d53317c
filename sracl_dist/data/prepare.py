"""The stage prepare: read, filter, number, split and describe a log, and write its tables.

The log is worked on in pieces, each committed on its own below work/, so that memory does not grow with the log and a
run that was killed goes on with what is finished: splits of files are read and their rows dealt to partitions of users
(read), these are put in order (order), the k-core decides what stays (filter), and every partition becomes a shard of
the tables (write).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.columns import (
    ITEM,
    ITEM_ID,
    NUM_INTERACTIONS,
    NUM_TRAIN_INTERACTIONS,
    REASON,
    ROW,
    SOURCE,
    TEXT_COLUMNS,
    USER_ID,
    VALUE,
)
from sracl_dist.config import Config
from sracl_dist.config.sections import DataConfig
from sracl_dist.data import filter as filtering
from sracl_dist.data import order, read, write
from sracl_dist.data.files import FileSplit, plan_splits, sources_of
from sracl_dist.data.filter import Kept
from sracl_dist.data.interactions import Wanted
from sracl_dist.data.item_texts import ItemTexts, read_item_texts, require_items
from sracl_dist.data.known_ids import load_known_ids, save_known_ids
from sracl_dist.data.read import Layout
from sracl_dist.data.rejects import DUPLICATE, SCHEMA, UNREADABLE, Rejects, Tally
from sracl_dist.data.sources import Source, resolve
from sracl_dist.data.summary import LogTimes, make_result
from sracl_dist.errors import InputError, StageError
from sracl_dist.ids import ITEMS_TABLE, USERS
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.stages import StageResult
from sracl_dist.tasks import Tasks, open_tasks

WORK = "work"
LAYOUT = "work/layout.json"
REJECTS_TABLE = "rejects.parquet"
MOST_NAMED = 3
"""Files of a log that a message names."""


def prepare(config: Config, run: RunFolder) -> StageResult:
    """Turn the configured log and item texts into the tables items, users, sequences and rejects.

    Users and items that had dense ids from an earlier log in this run folder keep them.

    Raises:
        ConfigError: the source is unknown, or settings contradict it.
        InputError: files are missing or damaged, too many rows are unusable, or the filters and the split leave
            nothing to evaluate.
        SetupError: the log is large and no Ray cluster can be used.
        StorageError: the run folder cannot be written.
    """
    data, source, folder = config.data, resolve(config), run.stage("prepare")
    splits = plan_splits(source.log_files, data.shard_rows)
    with open_tasks(config.cluster, on_ray=sum(split.num_rows for split in splits) > data.local_rows) as tasks:
        log = order_log(tasks, folder, source, splits, data)
        kept = filtering.keep_core(folder, log.layout.num_partitions, data)
        text_rejects = Rejects()
        texts = _item_texts(folder, source, kept, data, text_rejects)
        _write(tasks, folder, kept, has_times=log.times is not None)
    num_train, time_range = write.counted(folder, kept)
    _write_items(folder, kept, texts, num_train)
    num_rejects = folder.write_tables(REJECTS_TABLE, SCHEMA, rejects(folder, text_rejects))
    if num_rejects != log.tally.rejected.total() + len(text_rejects):
        raise StageError(
            f"{log.tally.rejected.total() + len(text_rejects):,} rows were rejected but {num_rejects:,} are in "
            f"{folder.shown(REJECTS_TABLE)}; report this as a bug."
        )
    folder.delete_folder(WORK)
    save_known_ids(folder, kept.item_ids)
    return make_result(kept, log.tally, texts, text_rejects, log.times, time_range, num_rejects, data)


@dataclass(kw_only=True)
class Log:
    """A log whose events are in order below work/."""

    splits: list[FileSplit]
    layout: Layout
    tally: Tally
    times: LogTimes | None
    """None where order is all there is."""


def order_log(tasks: Tasks, folder: StageFolder, source: Source, splits: list[FileSplit], data: DataConfig) -> Log:
    """Read the log's files and put the events of each user in order, partition by partition, below work/.

    Raises:
        InputError: files are missing or damaged, or too many rows are unusable.
        StorageError: the run folder cannot be written.
    """
    layout = _layout(folder, source, data, splits)
    tasks.run(
        "prepare: reading the log",
        read.make_reader,
        (folder, layout),
        splits,
        size=lambda split: split.num_bytes // 1000,
        unit="kB",
        is_done=_are_in(folder, read.names_of_split),
    )
    done = [read.read_split(folder, split) for split in splits]
    log = Log(splits=splits, layout=layout, tally=Tally(), times=None)
    for own in done:
        log.tally.add(own.tally)
    _require_rows(folder, log, data)
    if source.columns.time is not None:
        if not layout.dates:
            read.require_one_unit(done)
        log.times = LogTimes(decimals=read.decimals_of(done), dates=bool(layout.dates))
    partitions = range(layout.num_partitions)
    rows_per_partition = log.tally.num_kept // len(partitions)
    decimals = None if log.times is None else log.times.decimals
    tasks.run(
        "prepare: ordering events",
        order.make_orderer,
        (folder, splits, done, len(partitions), decimals, data.max_user_interactions),
        partitions,
        size=lambda _: rows_per_partition,
        is_done=_are_in(folder, order.names_of_partition),
    )
    _count_ordered(folder, log)
    _limit_rejects(folder, "log", log.tally.num_read - log.tally.num_other_events, log.tally.rejected, data)
    return log


def _are_in(folder: StageFolder, names_of: Callable[[Any], set[str]]) -> Callable[[Any], bool]:
    """Whether all files of a task are there; each is looked for, as a damaged one was deleted when the stage began."""
    there = set(folder.files())
    return lambda task: names_of(task) <= there


def _layout(folder: StageFolder, source: Source, data: DataConfig, splits: Sequence[FileSplit]) -> Layout:
    """How the log is read; what an interrupted run left is deleted where it was read or dealt in another way."""
    num_known = len(load_known_ids(folder, USER_ID))
    num_partitions = max(1, -(-sum(split.num_rows for split in splits) // data.shard_rows))
    layout = Layout(
        source=source,
        wanted=Wanted(events=data.events, min_rating=data.min_rating),
        dates=None,
        block_rows=data.shard_rows,
        num_new=num_partitions,
        num_known=num_partitions if num_known else 0,
    )
    # The hash that deals users to partitions may be another one in another version of polars.
    facts = {"num_splits": len(splits), "shard_rows": data.shard_rows, "num_known": num_known, "polars": pl.__version__}
    plan = folder.read_json(LAYOUT) if folder.exists(LAYOUT) else {}
    if {name: plan.get(name) for name in facts} != facts:
        folder.delete_folder(WORK)
        for kind in (USERS, write.SEQUENCES):
            folder.delete_folder(kind)
        plan = facts | {"dates": read.first_dates(splits, layout)}
        folder.write_json(LAYOUT, plan)
    return replace(layout, dates=plan["dates"])


def _require_rows(folder: StageFolder, log: Log, data: DataConfig) -> None:
    """Refuse a log of which nothing, or too little, can be used."""
    tally = log.tally
    tally.check()
    if not tally.num_read:
        names = list(dict.fromkeys(sources_of(log.splits)))
        more = f" and {len(names) - MOST_NAMED:,} more files" if len(names) > MOST_NAMED else ""
        raise InputError(f"The log {', '.join(names[:MOST_NAMED])}{more} has no row; name files with interactions.")
    _limit_rejects(folder, "log", tally.num_read - tally.num_other_events, tally.rejected, data)
    if not tally.num_kept:
        left_out = {
            f"of kinds that are not in data.events={list(data.events)}": tally.num_other_events,
            f"below data.min_rating={data.min_rating}": tally.num_below_rating,
        }
        reasons = " and ".join(f"{num:,} are {why}" for why, num in left_out.items() if num)
        raise InputError(f"Of {tally.num_read:,} rows of the log {reasons}, which leaves none; change that.")


def _count_ordered(folder: StageFolder, log: Log) -> None:
    """Count what ordering left out."""
    counts: Counter[str] = Counter()
    for partition in range(log.layout.num_partitions):
        counts.update(folder.read_json(order.partition_name(order.EVENTS, partition, "json")))
    log.tally.num_kept, log.tally.num_over_limit = counts[order.NUM_KEPT], counts[order.NUM_OVER_LIMIT]
    if counts[order.NUM_REPEATED]:
        log.tally.rejected[DUPLICATE] += counts[order.NUM_REPEATED]
    log.tally.check()


def _write(tasks: Tasks, folder: StageFolder, kept: Kept, *, has_times: bool) -> None:
    tasks.run(
        "prepare: writing sequences",
        partial(write.make_writer, has_times=has_times),
        (folder, kept),
        [part for part in range(len(kept.first_users) - 1) if write.shard_of(kept, part, USERS).num_rows],
        unit="users",
        size=lambda partition: write.shard_of(kept, partition, USERS).num_rows,
        is_done=_are_in(folder, partial(write.names_of_written, kept)),
    )


def _item_texts(folder: StageFolder, source: Source, kept: Kept, data: DataConfig, text_rejects: Rejects) -> ItemTexts:
    """Texts of the items that stay."""
    texts = read_item_texts(
        source.text_files,
        source.item_columns,
        kept.item_ids,
        text_rejects,
        text_format=source.item_format,
        flags=source.flags,
        separator=source.separator,
        max_chars=data.max_text_chars,
    )
    broken = Counter({reason: num for reason, num in text_rejects.counts.items() if reason in UNREADABLE})
    _limit_rejects(folder, "item texts", texts.num_read, broken, data, text_rejects)
    require_items(texts, kept.item_ids, text_rejects)
    return texts


def _write_items(folder: StageFolder, kept: Kept, texts: ItemTexts, num_train: np.ndarray) -> None:
    columns = {
        ITEM: pa.array(np.arange(1, len(kept.item_ids) + 1, dtype=np.int32)),
        ITEM_ID: kept.item_ids.cast(pa.string()),
        **{name: texts.table[name] for name in TEXT_COLUMNS},
        NUM_INTERACTIONS: pa.array(kept.popularity, pa.int64()),
        NUM_TRAIN_INTERACTIONS: pa.array(num_train, pa.int64()),
    }
    folder.write_table(ITEMS_TABLE, pa.table(columns))


def _limit_rejects(
    folder: StageFolder,
    what: str,
    num_read: int,
    counts: Counter[str],
    data: DataConfig,
    text_rejects: Rejects | None = None,
) -> None:
    """Refuse to go on when so many rows are unusable that files or settings must be wrong; their table is written."""
    num_bad = counts.total()
    is_all = num_bad == num_read
    if not num_bad or (num_bad <= data.max_reject_share * num_read and not is_all):
        return
    folder.write_tables(REJECTS_TABLE, SCHEMA, rejects(folder, text_rejects))
    reason, num = counts.most_common(1)[0]
    tables = (table.filter(pc.field(REASON) == reason) for table in rejects(folder, text_rejects))
    first = next(table for table in tables if table.num_rows).slice(0, 1).to_pylist()[0]
    settings = "data.columns and data.format" if what == "log" else "data.item_columns and data.item_format"
    more = "" if is_all else f", or raise data.max_reject_share={data.max_reject_share:g}"
    raise InputError(
        f"{num_bad:,} of {num_read:,} rows of the {what} cannot be used; the commonest reason is {reason!r} ({num:,} "
        f"rows), such as {first[SOURCE]} row {first[ROW]:,}: {first[VALUE]!r}; all are in "
        f"{folder.shown(REJECTS_TABLE)}; fix the files or {settings}{more}."
    )


def rejects(folder: StageFolder, text_rejects: Rejects | None = None) -> Iterator[pa.Table]:
    """Rejected rows of the log so far, piece by piece, so that many take no more memory than few; and of item texts."""
    for name in folder.files(read.REJECTED):
        yield folder.read_table(name)
    if text_rejects is not None:
        yield text_rejects.table()
