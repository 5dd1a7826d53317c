"""When a log has only grown: its new files are read and added to the tables of the old ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.columns import SOURCE, TEXT_COLUMNS
from sracl_dist.config import Config, flatten
from sracl_dist.config.sections import DataConfig
from sracl_dist.data import encode
from sracl_dist.data.append import Addition, add_arrivals
from sracl_dist.data.arrivals import read_arrivals
from sracl_dist.data.encode import ITEM_IDS, ITEMS, ROWS, USER_IDS, LogFormat
from sracl_dist.data.file_splits import FileSplit, plan_splits
from sracl_dist.data.filtering import num_targets
from sracl_dist.data.interactions import Tally
from sracl_dist.data.known_ids import KnownIds, save_ids, save_lookup
from sracl_dist.data.lasting_ids import save_lasting_ids
from sracl_dist.data.log_steps import WORK, limit_rejects
from sracl_dist.data.output import users_table
from sracl_dist.data.readers import short_names
from sracl_dist.data.recent import load_recent, save_recent
from sracl_dist.data.reject_table import REJECTS_TABLE, repeats, unusable, write_rejects
from sracl_dist.data.rejects import DUPLICATE, Rejects, excerpts
from sracl_dist.data.result import item_texts, items_table, make_result, text_facts
from sracl_dist.data.sequences import ADDED
from sracl_dist.data.sources import FILES, Source
from sracl_dist.data.splits import leave_last_out
from sracl_dist.data.state import (
    GROWING,
    LOG,
    Memory,
    State,
    load_dropped,
    load_memory,
    save_dropped,
    save_memory,
    save_state,
    text_rejects_name,
)
from sracl_dist.data.strings import HashCollisionError
from sracl_dist.data.tasks import open_tasks
from sracl_dist.ids import ITEMS_TABLE, USERS
from sracl_dist.observe import say
from sracl_dist.run_folder import StageFolder
from sracl_dist.shards import Shard, committed_shards
from sracl_dist.stages import STAGES, StageResult

MAX_NEW_SHARE = 0.25
"""Of a larger share of new rows the tables are made anew, which takes less memory and is hardly slower."""

MAX_GENERATIONS = 30
"""After so many additions the tables are made anew, because every reader has to put these in place."""


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
    num_old = len(state.files)
    return (
        data.source == FILES
        and data.split == "leave_last_out"
        and data.max_user_interactions is None
        and state.made_from == log.made_from
        and _contents(state.files) == _contents(log.files[:num_old])
        and (state.generation < MAX_GENERATIONS or len(log.files) == num_old)
        and _num_new_rows(log, num_old, data) <= MAX_NEW_SHARE * state.tally["num_kept"]
    )


def keeps_dense_ids(made_from: dict[str, Any], files: list[list[str]], log: LogFiles, data: DataConfig) -> bool:
    """Whether all users and items that stay in tables of these settings and files stay in those of the log.

    They do where it has only got new files, in whatever order, unless a limit on users' events takes old ones away.
    """
    return (
        data.max_user_interactions is None
        and made_from == log.made_from
        and set(_contents(files)) <= set(_contents(log.files))
    )


def _contents(files: list[list[str]]) -> list[tuple[str, str]]:
    """Path, size and time; the name in the table of rejects depends on the other files."""
    return [(path, facts) for path, _, facts in files]


def _num_new_rows(log: LogFiles, num_old: int, data: DataConfig) -> int:
    return sum(split.num_rows for split in _new_splits(log, num_old, data))


def _new_splits(log: LogFiles, num_old: int, data: DataConfig) -> list[FileSplit]:
    paths = [Path(path) for path, _, _ in log.files[num_old:]]
    return plan_splits(paths, log.names[num_old:], data.shard_rows)


def grow(config: Config, source: Source, folder: StageFolder, state: State, log: LogFiles) -> StageResult:
    """Add the files that are new to the tables.

    Raises:
        InputError: a new file is damaged, or too many rows are unusable.
        HashCollisionError: two ids have the same hash; the next run reads the whole log, with another key.
        StorageError: the run folder cannot be read or written.
    """
    # What an interrupted addition left must not be taken for a part of the tables.
    later = [name for name in folder.files(ADDED) if name > f"{ADDED}/{state.generation:06d}.parquet"]
    folder.delete(later)
    folder.delete_folder(WORK)
    was_interrupted = folder.exists(GROWING)
    folder.write_json(GROWING, {"generation": state.generation + 1})
    old = state
    new_rejects: list[pa.Table] = []
    if len(log.files) > len(state.files):
        growth = _Growth(config=config, source=source, folder=folder, state=state, log=log)
        try:
            memory, new_rejects = growth.add()
        except HashCollisionError:
            save_lasting_ids(folder, old)
            folder.delete([LOG])
            raise
        state = growth.state
    else:
        memory = load_memory(folder, state.generation)
    _write_users(folder, state.generation, memory, old.num_users)
    item_ids = KnownIds(folder, state.generation, ITEM_IDS).take(memory.item_numbers())
    if not was_interrupted and log.text_files == state.text_files and len(item_ids) == old.num_items:
        texts = folder.read_table(ITEMS_TABLE, list(TEXT_COLUMNS))
        text_rejects = folder.read_table(text_rejects_name(old.generation))
    else:
        texts, text_rejects, state = _read_texts(source, config.data, state, log, item_ids)
    folder.write_table(ITEMS_TABLE, items_table(item_ids, texts, memory))
    old_rejects = _renamed(folder.read_table(REJECTS_TABLE).slice(0, old.num_log_rejects), old, log)
    log_rejects = pa.concat_tables([old_rejects, *new_rejects])
    num_rejects = write_rejects(folder, [log_rejects, text_rejects])
    folder.write_table(text_rejects_name(state.generation), text_rejects)
    save_state(folder, replace(state, num_log_rejects=log_rejects.num_rows))
    folder.delete_folder(WORK)
    split = leave_last_out(memory.lengths)
    targets = num_targets([memory.lengths], [split])
    return make_result(state, memory, split.details, targets, num_rejects, config.data)


def _renamed(rejects: pa.Table, state: State, log: LogFiles) -> pa.Table:
    """Rejected rows of the old files, under the names that these have among all files."""
    names = {}
    for (path, old, _), (_, new, _) in zip(state.files, log.files, strict=False):
        names[path] = names[old] = new  # an interrupted addition may have left the whole path
    places = pc.index_in(rejects[SOURCE], pa.array(list(names), pa.string()))
    sources = pa.array(list(names.values()), pa.string()).take(places)
    return rejects.set_column(rejects.column_names.index(SOURCE), SOURCE, sources)


def _read_texts(
    source: Source, data: DataConfig, state: State, log: LogFiles, item_ids: pa.Array
) -> tuple[pa.Table, pa.Table, State]:
    """Texts and rejected rows of them, and the state with what is said about both."""
    rejects = Rejects()
    texts = item_texts(source, item_ids, data, rejects)
    facts = text_facts(texts, rejects)
    return texts.table, rejects.table(), replace(state, texts=facts, text_files=log.text_files)


def _write_users(folder: StageFolder, generation: int, memory: Memory, num_old: int) -> None:
    """A shard more of the table `users` for new ones; one that an interrupted addition left goes."""
    folder.delete(shard.name for shard in committed_shards(folder, USERS) if shard.stop > num_old)
    if len(memory.lengths) > num_old:
        ids = KnownIds(folder, generation, USER_IDS).take(memory.user_numbers(num_old))
        folder.write_table(Shard(USERS, num_old, len(memory.lengths)).name, users_table(num_old, ids))


@dataclass(kw_only=True)
class _Growth:
    """One addition to a log."""

    config: Config
    source: Source
    folder: StageFolder
    state: State
    log: LogFiles

    def add(self) -> tuple[Memory, list[pa.Table]]:
        """Read the new files and write what changes; returns the new memory, and rejected rows."""
        data, folder = self.config.data, self.folder
        splits = _new_splits(self.log, len(self.state.files), data)
        has_times = self.source.columns.time is not None
        tally = self._encode(splits)
        known = [KnownIds(folder, self.state.generation, kind) for kind in (USER_IDS, ITEM_IDS)]
        arrivals = read_arrivals(folder, splits, (known[0], known[1]), has_times=has_times)
        dropped = load_dropped(folder, self.state.generation, has_times=has_times)
        generation = self.state.generation + 1
        least = (data.min_user_interactions, data.min_item_interactions)
        addition = add_arrivals(
            folder,
            generation,
            load_memory(folder, self.state.generation),
            dropped,
            load_recent(folder, self.state.generation) if has_times else None,
            arrivals,
            least,
        )
        self._count(tally, addition)
        save_dropped(folder, generation, 0, addition.dropped)
        save_lookup(folder, generation, arrivals.new_users, arrivals.new_items)
        save_ids(folder, generation, [arrivals.user_ids], [arrivals.item_ids])
        save_memory(folder, generation, addition.memory)
        if addition.recent is not None:
            save_recent(folder, generation, addition.recent)
        self.state = replace(
            self.state,
            generation=generation,
            files=self.log.files,
            tally=vars(tally),
            rounds=addition.rounds,
            num_users=len(addition.memory.lengths),
            num_items=len(addition.memory.popularity),
        )
        say(
            f"prepare: added {len(arrivals.users) - addition.num_repeated:,} events of {len(splits):,} new pieces of "
            f"files to the tables; {addition.num_changed:,} users changed"
        )
        items = KnownIds(folder, generation, ITEM_IDS)
        return addition.memory, [*unusable(folder, splits), _repeats(splits, addition, items)]

    def _encode(self, splits: Sequence[FileSplit]) -> Tally:
        data, folder = self.config.data, self.folder
        layout = LogFormat(
            columns=self.source.columns,
            min_rating=data.min_rating,
            dates=self.state.dates,
            key=self.state.key(),
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


def _repeats(splits: Sequence[FileSplit], addition: Addition, known: KnownIds) -> pa.Table:
    order = np.argsort(addition.repeats[ROWS])
    rows, items = (addition.repeats[name][order] for name in (ROWS, ITEMS))
    return repeats(splits, rows, excerpts(known.take(items)))
