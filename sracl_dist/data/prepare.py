"""The stage prepare: read, filter, number, split and describe a log, and write its tables.

The log is worked on in pieces, each committed on its own below work/, so that memory does not grow with the log and a
killed run goes on where it was: splits of files are read and their ids numbered within blocks (encode), ids are
numbered over all blocks (numbering), rows are dealt to partitions of users (shuffle) and put in order there (ordering),
the k-core decides what stays (filtering), and every partition becomes a shard of the tables (output). A small log takes
the same steps in this process.
"""

from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.config import Config
from sracl_dist.data import output
from sracl_dist.data.encode import ITEM_IDS, USER_IDS
from sracl_dist.data.encode import USERS as USERS_STAY
from sracl_dist.data.file_splits import plan_splits
from sracl_dist.data.filtering import DENSE, KEPT, KEPT_ITEMS, Kept, keep_core
from sracl_dist.data.groups import open_groups
from sracl_dist.data.growth import LogFiles, can_grow, describe_log, grow, keeps_dense_ids
from sracl_dist.data.known_ids import save_ids
from sracl_dist.data.lasting_ids import save_lasting_ids
from sracl_dist.data.log_steps import WORK, LogSteps
from sracl_dist.data.numbering import ITEMS_FILE, USERS_FILE, Numbering
from sracl_dist.data.ordering import partition_name
from sracl_dist.data.recent import save_recent
from sracl_dist.data.reject_table import all_repeats, unusable, write_rejects
from sracl_dist.data.rejects import Rejects
from sracl_dist.data.result import item_texts, items_table, make_result, text_facts
from sracl_dist.data.sequences import ADDED
from sracl_dist.data.sources import Source, resolve
from sracl_dist.data.state import (
    LASTING,
    LASTING_IDS,
    LOG,
    STATE,
    Memory,
    State,
    load_state,
    save_memory,
    save_state,
    text_rejects_name,
)
from sracl_dist.data.tasks import open_tasks
from sracl_dist.errors import StorageError
from sracl_dist.ids import ITEMS_TABLE
from sracl_dist.observe import say
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.stages import StageResult


def prepare(config: Config, run: RunFolder) -> StageResult:
    """Turn the configured log and item texts into the tables items, users, sequences and rejects.

    Where the log has only got new files behind the old ones since the tables were made, those are added to them. Where
    it has only got new files and is read as a whole nevertheless, users and items that were there keep their dense ids.

    Raises:
        ConfigError: the source is unknown, or settings contradict it.
        InputError: files are missing or damaged, too many rows are unusable, or the filters and the split leave
            nothing to train on or to evaluate.
        SetupError: the log is large and no Ray cluster can be used.
        StorageError: the run folder cannot be written.
    """
    source, folder = resolve(config), run.stage("prepare")
    log = describe_log(config, source)
    state = load_state(folder)
    if folder.damaged_before:  # files of one step name and describe those of another
        folder.delete_folder(WORK)
    if state is not None and not folder.damaged_before and can_grow(state, log, config.data):
        return grow(config, source, folder, state, log)
    if state is None and folder.damaged_before and folder.files(ADDED):
        raise _lost_ids(folder)
    if state is not None:
        if keeps_dense_ids(state.made_from, state.files, log, config.data):
            try:
                save_lasting_ids(folder, state)
            except StorageError as error:
                if state.generation:
                    raise _lost_ids(folder) from None
                say(f"prepare: dense ids are given anew, because those there were cannot be read: {error}")
        folder.delete([LOG, *(name for name in folder.files() if name not in (LASTING_IDS, LASTING))])
    if folder.exists(LASTING) and not keeps_dense_ids(**folder.read_json(LASTING), log=log, data=config.data):
        folder.delete([LASTING, LASTING_IDS])
    return _prepare_all(config, source, folder, log)


def _lost_ids(folder: StageFolder) -> StorageError:
    """A log that has grown would get other dense ids if it were read anew, and other stages have tables of the old."""
    return StorageError(
        f"{folder.shown(STATE)} is damaged, and with it the dense ids of a log that has grown; delete the run folder "
        f"of {folder.shown()} and run all stages again."
    )


def _prepare_all(config: Config, source: Source, folder: StageFolder, log: LogFiles) -> StageResult:
    data = config.data
    splits = plan_splits(source.log_files, log.names, data.shard_rows)
    with open_tasks(config.cluster, sum(split.num_rows for split in splits)) as tasks:
        steps = LogSteps(folder=folder, source=source, data=data, splits=splits, tasks=tasks)
        numbering = steps.read()
        kept = keep_core(folder, numbering, data)
        text_rejects = Rejects()
        item_ids = _item_ids(folder, kept)
        texts = item_texts(source, item_ids, data, text_rejects)
        steps.write(numbering, kept)
    num_train, time_range = output.counted(folder, kept)
    memory = _remember(folder, numbering, kept, num_train, time_range)
    folder.write_table(ITEMS_TABLE, items_table(item_ids, texts.table, memory))
    folder.write_table(text_rejects_name(0), text_rejects.table())
    log_rejects = chain(unusable(folder, splits), all_repeats(folder, splits, numbering.num_partitions))
    num_rejects = write_rejects(folder, chain(log_rejects, [text_rejects.table()]))
    state = State(
        generation=0,
        made_from=log.made_from,
        files=log.files,
        text_files=log.text_files,
        dates=steps.dates,
        hash_key=[steps.key.first, steps.key.second],
        tally=vars(steps.tally),
        texts=text_facts(texts, text_rejects),
        rounds=kept.rounds,
        num_users=len(kept.lengths),
        num_items=len(kept.popularity),
        num_log_rejects=num_rejects - len(text_rejects),
    )
    save_state(folder, state)
    folder.delete_folder(WORK)
    return make_result(state, memory, kept.split_details, kept.num_targets, num_rejects, data)


def _item_ids(folder: StageFolder, kept: Kept) -> pa.Array:
    """[V] ids of the items that stay."""
    with open_groups(folder, ITEMS_FILE, [ITEM_IDS]) as reader:
        return reader.arrow(0, ITEM_IDS).take(pa.array(kept.items))


def _remember(
    folder: StageFolder, numbering: Numbering, kept: Kept, num_train: NDArray[np.int64], time_range: list[int] | None
) -> Memory:
    """Write what adding new files will need."""
    user_stays = []
    for partition in range(numbering.num_partitions):
        with open_groups(folder, partition_name(KEPT, partition), [USERS_STAY]) as reader:
            user_stays.append(reader.numpy(0, USERS_STAY))
    stays = np.concatenate(user_stays)
    with open_groups(folder, KEPT_ITEMS, [DENSE]) as reader:
        item_dense = reader.numpy(0, DENSE)
    memory = Memory(
        user_dense=np.where(stays, np.cumsum(stays) - 1, -1).astype(np.int32),
        item_dense=item_dense,
        lengths=kept.lengths,
        popularity=kept.popularity,
        num_train=num_train,
        **output.remembered(folder, numbering.num_partitions),
        time_range=np.array(time_range or [], np.int64),
    )
    with open_groups(folder, USERS_FILE, [USER_IDS]) as users, open_groups(folder, ITEMS_FILE, [ITEM_IDS]) as items:
        user_ids = [users.arrow(partition, USER_IDS) for partition in range(numbering.num_partitions)]
        save_ids(folder, 0, user_ids, [items.arrow(0, ITEM_IDS)])
    save_memory(folder, 0, memory)
    if time_range:
        save_recent(folder, 0, output.remembered_recent(folder, numbering.num_partitions))
    return memory
