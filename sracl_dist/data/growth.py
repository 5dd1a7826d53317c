"""When a log has only grown: its new files are read and added to the tables of the old ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sracl_dist.artifacts import StageFolder
from sracl_dist.columns import PAD, TEXT_COLUMNS
from sracl_dist.config import Config, flatten
from sracl_dist.config.sections import DataConfig
from sracl_dist.data import encode
from sracl_dist.data.append import Addition, add_arrivals
from sracl_dist.data.arrivals import read_arrivals
from sracl_dist.data.encode import ITEM_IDS, ITEMS, ROWS, USER_IDS, LogFormat
from sracl_dist.data.file_splits import FileSplit, plan_splits
from sracl_dist.data.filtering import num_targets
from sracl_dist.data.interactions import Tally
from sracl_dist.data.log_steps import WORK, limit_rejects
from sracl_dist.data.output import users_table
from sracl_dist.data.readers import short_names
from sracl_dist.data.reject_table import REJECTS_TABLE, repeats, unusable, write_rejects
from sracl_dist.data.rejects import DUPLICATE, Rejects, excerpts
from sracl_dist.data.result import item_texts, items_table, make_result, text_facts
from sracl_dist.data.sequences import ADDED
from sracl_dist.data.sources import FILES, Source
from sracl_dist.data.splits import leave_last_out
from sracl_dist.data.state import (
    Memory,
    State,
    ids_group,
    load_dropped,
    load_ids,
    load_memory,
    save_dropped,
    save_memory,
    save_state,
    text_rejects_name,
)
from sracl_dist.data.strings import HashKey
from sracl_dist.data.tasks import open_tasks
from sracl_dist.ids import ITEMS_TABLE, USERS
from sracl_dist.observe import say
from sracl_dist.shards import Shard, committed_shards
from sracl_dist.stages import STAGES, StageResult

MAX_NEW_SHARE = 0.25
"""Of a larger share of new rows the tables are made anew, which takes less memory and is hardly slower."""

MAX_GENERATIONS = 30
"""After so many additions the tables are made anew."""


@dataclass(frozen=True, kw_only=True)
class LogFiles:
    """What the tables depend on."""

    made_from: dict[str, Any]
    files: list[list[str]]
    """As in State."""
    text_files: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Name of each file of the log in the table of rejects."""
        return [name for _, name, _ in self.files]


def describe_log(config: Config, source: Source) -> LogFiles:
    """What the tables of this log would depend on."""
    settings = flatten(config, ("data",), with_neutral=False)
    settings.pop("data.interactions", None)
    names = short_names(source.log_files)
    return LogFiles(
        made_from=json.loads(json.dumps({"version": STAGES["prepare"].version, "settings": settings})),
        files=[[str(path), name, _facts(path)] for path, name in zip(source.log_files, names, strict=True)],
        text_files={str(path): _facts(path) for path in source.text_files},
    )


def _facts(path: Path) -> str:
    info = path.stat()
    return f"{info.st_size}/{info.st_mtime_ns}"


def can_grow(state: State, log: LogFiles, data: DataConfig) -> bool:
    """Whether new files can be added to what there is.

    A split in time moves for everybody with every new event, and a limit on users' events takes old events away; both
    need the whole log. So do tables that were added to often, which takes those who read them longer and longer.
    """
    return (
        data.source == FILES
        and data.split == "leave_last_out"
        and data.max_user_interactions is None
        and state.made_from == log.made_from
        and state.files == log.files[: len(state.files)]
        and state.generation < MAX_GENERATIONS
        and _num_new_rows(log, len(state.files), data) <= MAX_NEW_SHARE * state.tally["num_kept"]
    )


def _num_new_rows(log: LogFiles, num_old: int, data: DataConfig) -> int:
    return sum(split.num_rows for split in _new_splits(log, num_old, data))


def _new_splits(log: LogFiles, num_old: int, data: DataConfig) -> list[FileSplit]:
    paths = [Path(path) for path, _, _ in log.files[num_old:]]
    return plan_splits(paths, log.names[num_old:], data.shard_rows)


def grow(config: Config, source: Source, folder: StageFolder, state: State, log: LogFiles) -> StageResult:
    """Add the files that are new to the tables.

    Raises:
        InputError: a new file is damaged, or too many rows are unusable.
        StorageError: the run folder cannot be read or written.
    """
    # What an interrupted addition left must not be taken for a part of the tables.
    later = [name for name in folder.files(ADDED) if name > f"{ADDED}/{state.generation:06d}.parquet"]
    folder.delete([*later, *folder.files(WORK)])
    memory = load_memory(folder, state.generation)
    item_ids = load_ids(folder, state.generation, ITEM_IDS)
    num_items, old_generation = len(memory.popularity), state.generation
    log_rejects = folder.read_table(REJECTS_TABLE).slice(0, state.num_log_rejects)
    if len(log.files) > len(state.files):
        growth = _Growth(config=config, source=source, folder=folder, state=state, log=log)
        memory, item_ids, new_rejects = growth.add(memory, item_ids)
        state = growth.state
        log_rejects = pa.concat_tables([log_rejects, *new_rejects])
    text_rejects, texts, state = _texts(
        folder, source, config.data, state, log, memory, item_ids, num_items, old_generation
    )
    folder.write_table(ITEMS_TABLE, items_table(_by_dense(item_ids, memory.item_dense, PAD), texts, memory))
    num_rejects = write_rejects(folder, [log_rejects, text_rejects])
    folder.write_table(text_rejects_name(state.generation), text_rejects)
    save_state(folder, replace(state, num_log_rejects=log_rejects.num_rows))
    folder.delete(folder.files(WORK))
    split = leave_last_out(memory.lengths)
    targets = num_targets([memory.lengths], [split])
    return make_result(state, memory, split.details, targets, num_rejects, config.data)


def _by_dense(ids: pa.Array, dense: np.ndarray, nothing: int) -> pa.Array:
    """Ids in the order of their dense ids."""
    numbers = np.flatnonzero(dense != nothing)
    return ids.take(pa.array(numbers[np.argsort(dense[numbers])]))


def _texts(
    folder: StageFolder,
    source: Source,
    data: DataConfig,
    state: State,
    log: LogFiles,
    memory: Memory,
    item_ids: pa.Array,
    num_known: int,
    old_generation: int,
) -> tuple[pa.Table, pa.Table, State]:
    """Rejected rows and texts; the files are read only where something about them or the items is new."""
    if log.text_files == state.text_files and num_known == len(memory.popularity):
        table = folder.read_table(ITEMS_TABLE, list(TEXT_COLUMNS))
        return folder.read_table(text_rejects_name(old_generation)), table, state
    rejects = Rejects()
    texts = item_texts(source, _by_dense(item_ids, memory.item_dense, PAD), data, rejects)
    facts = text_facts(texts, rejects)
    return rejects.table(), texts.table, replace(state, texts=facts, text_files=log.text_files)


@dataclass(kw_only=True)
class _Growth:
    """One addition to a log."""

    config: Config
    source: Source
    folder: StageFolder
    state: State
    log: LogFiles

    def add(self, memory: Memory, item_ids: pa.Array) -> tuple[Memory, pa.Array, list[pa.Table]]:
        """Read the new files and write what changes; returns the new memory, ids of all items, and rejected rows."""
        data, folder = self.config.data, self.folder
        splits = _new_splits(self.log, len(self.state.files), data)
        user_ids = load_ids(folder, self.state.generation, USER_IDS)
        has_times = self.source.columns.time is not None
        key = HashKey.new()
        tally = self._encode(splits, key)
        arrivals = read_arrivals(folder, splits, (user_ids, item_ids), key, has_times=has_times)
        dropped = load_dropped(folder, self.state.generation, has_times=has_times)
        generation = self.state.generation + 1
        least = (data.min_user_interactions, data.min_item_interactions)
        addition = add_arrivals(folder, generation, memory, dropped, arrivals, least)
        self._count(tally, addition)
        save_dropped(folder, generation, 0, addition.dropped)
        save_memory(folder, generation, addition.memory, ids_group([arrivals.user_ids], [arrivals.item_ids]))
        user_ids = pa.concat_arrays([user_ids, arrivals.user_ids])
        item_ids = pa.concat_arrays([item_ids, arrivals.item_ids])
        self._write_users(addition.memory, _by_dense(user_ids, addition.memory.user_dense, -1), len(memory.lengths))
        self.state = replace(
            self.state,
            generation=generation,
            files=self.log.files,
            tally=vars(tally),
            rounds=addition.rounds,
        )
        say(
            f"prepare: added {len(arrivals.users) - addition.num_repeated:,} events of {len(splits):,} new pieces of "
            f"files to the tables; {addition.num_changed:,} users changed"
        )
        return addition.memory, item_ids, [*unusable(folder, splits), _repeats(splits, addition, item_ids)]

    def _encode(self, splits: Sequence[FileSplit], key: HashKey) -> Tally:
        data, folder = self.config.data, self.folder
        layout = LogFormat(
            columns=self.source.columns,
            min_rating=data.min_rating,
            dates=self.state.dates,
            key=key,
            block_rows=data.shard_rows,
        )
        with open_tasks(self.config.cluster, sum(split.num_rows for split in splits)) as tasks:
            tasks.run(
                "prepare: reading new files",
                encode.make_encoder,
                (folder, layout),
                splits,
                size=lambda split: split.num_bytes // 1000,
                unit="kB",
                is_done=lambda _: False,
            )
        tally = self.state.counts()
        for split in splits:
            tally.add(encode.tally_of(folder, split))
        return tally

    def _count(self, tally: Tally, addition: Addition) -> None:
        if addition.num_repeated:
            tally.rejected[DUPLICATE] += addition.num_repeated
            tally.num_kept -= addition.num_repeated
        tally.check()
        limit_rejects(tally.num_read, tally.rejected.total(), tally.rejected, self.config.data, "log")

    def _write_users(self, memory: Memory, user_ids: pa.Array, num_old: int) -> None:
        """The table `users`, with a shard more for new ones."""
        split = leave_last_out(memory.lengths)
        shards = [shard for shard in committed_shards(self.folder, USERS) if shard.stop <= num_old]
        num_users = len(memory.lengths)
        for shard in [*shards, *([Shard(USERS, num_old, num_users)] if num_users > num_old else [])]:
            rows = slice(shard.start, shard.stop)
            ids = user_ids.slice(shard.start, shard.num_rows)
            table = users_table(shard.start, ids, memory.lengths[rows], split.num_train[rows])
            self.folder.write_table(shard.name, table)


def _repeats(splits: Sequence[FileSplit], addition: Addition, item_ids: pa.Array) -> pa.Table:
    order = np.argsort(addition.repeats[ROWS])
    rows, items = (addition.repeats[name][order] for name in (ROWS, ITEMS))
    return repeats(splits, rows, excerpts(item_ids.take(pa.array(items))))
