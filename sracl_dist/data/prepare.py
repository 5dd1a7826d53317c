"""The stage prepare: read, filter, number, split and describe a log, and write its tables.

The log is worked on in pieces, each committed on its own below work/, so that memory does not grow with the log and a
killed run goes on where it was: splits of files are read and their ids numbered within blocks (encode), ids are
numbered over all blocks (numbering), rows are dealt to partitions of users (shuffle) and put in order there (ordering),
the k-core decides what stays (filtering), and every partition becomes a shard of the tables (output). A small log takes
the same steps in this process.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from sracl_dist.artifacts import RunFolder, StageFolder
from sracl_dist.columns import (
    ITEM,
    ITEM_ID,
    NUM_INTERACTIONS,
    NUM_TRAIN_INTERACTIONS,
    TEXT_COLUMNS,
)
from sracl_dist.config import Config
from sracl_dist.config.sections import DataConfig
from sracl_dist.data import output
from sracl_dist.data.encode import ITEM_IDS
from sracl_dist.data.file_splits import plan_splits
from sracl_dist.data.filtering import Kept, keep_core
from sracl_dist.data.groups import open_groups
from sracl_dist.data.item_texts import ItemTexts, read_item_texts
from sracl_dist.data.log_steps import WORK, LogSteps, limit_rejects
from sracl_dist.data.numbering import ITEMS_FILE
from sracl_dist.data.reject_table import write_rejects
from sracl_dist.data.rejects import UNREADABLE, Rejects
from sracl_dist.data.sequences import SEQUENCES
from sracl_dist.data.sources import Source, resolve
from sracl_dist.data.statistics import statistics
from sracl_dist.data.tasks import open_tasks
from sracl_dist.ids import ITEMS_TABLE, USERS
from sracl_dist.stages import StageResult

_WHY_NOT_EVALUATED = {
    "leave_last_out": "fewer than three interactions, so they are trained on but not evaluated",
    "global_time": "no interaction in the test period or none before it, so they are not evaluated on it",
}


def prepare(config: Config, run: RunFolder) -> StageResult:
    """Turn the configured log and item texts into the tables items, users, sequences and rejects.

    Raises:
        ConfigError: the source is unknown, or settings contradict it.
        InputError: files are missing or damaged, too many rows are unusable, or the filters and the split leave
            nothing to train on or to evaluate.
        SetupError: the log is large and no Ray cluster can be used.
        StorageError: the run folder cannot be written.
    """
    source, folder, data = resolve(config), run.stage("prepare"), config.data
    splits = plan_splits(source.log_files, data.shard_rows)
    with open_tasks(config.cluster, sum(split.num_rows for split in splits)) as tasks:
        steps = LogSteps(folder=folder, source=source, data=data, splits=splits, tasks=tasks)
        numbering = steps.read()
        kept = keep_core(folder, numbering, data)
        text_rejects = Rejects()
        item_ids = _item_ids(folder, kept)
        texts = _texts(source, item_ids, data, text_rejects)
        steps.write(kept)
    num_train, time_range = output.counted(folder, kept)
    folder.write_table(ITEMS_TABLE, _items_table(item_ids, texts, kept, num_train))
    num_rejects = write_rejects(folder, splits, numbering, text_rejects)
    folder.delete(folder.files(WORK))
    details = {
        "log": {
            "rows_read": steps.tally.num_read,
            "rows_kept": steps.tally.num_kept,
            "rows_rejected": dict(steps.tally.rejected),
            "rows_below_min_rating": steps.tally.num_below_rating,
            "rows_over_max_user_interactions": steps.tally.num_over_limit,
        },
        "item_texts": {
            "rows_read": texts.num_read,
            "rows_rejected": dict(text_rejects.counts),
            **texts.counts(),
        },
        "k_core_rounds": kept.rounds,
        "split": kept.split_details,
        "statistics": statistics(kept.lengths, kept.popularity, time_range),
    }
    num_users = len(kept.lengths)
    rows = {"items": len(kept.items), USERS: num_users, SEQUENCES: num_users, "rejects": num_rejects}
    rows |= {"interactions": int(kept.popularity.sum(dtype=np.int64)), **kept.num_targets}
    return StageResult(rows=rows, details=details, summary=_summary(details, data))


def _item_ids(folder: StageFolder, kept: Kept) -> pa.Array:
    """[V] ids of the items that stay."""
    with open_groups(folder, ITEMS_FILE, [ITEM_IDS]) as reader:
        return reader.arrow(0, ITEM_IDS).take(pa.array(kept.items))


def _texts(source: Source, item_ids: pa.Array, data: DataConfig, rejects: Rejects) -> ItemTexts:
    texts = read_item_texts(
        source.text_files,
        source.item_columns,
        item_ids,
        rejects,
        separator=source.separator,
        max_chars=data.max_text_chars,
    )
    num_unreadable = sum(rejects.counts[reason] for reason in UNREADABLE)
    limit_rejects(texts.num_read, num_unreadable, rejects.counts, data, "item texts")
    return texts


def _items_table(item_ids: pa.Array, texts: ItemTexts, kept: Kept, num_train: np.ndarray) -> pa.Table:
    return pa.table(
        {
            ITEM: pa.array(np.arange(1, len(item_ids) + 1, dtype=np.int32)),
            ITEM_ID: item_ids.cast(pa.string()),
            **{name: texts.table[name] for name in TEXT_COLUMNS},
            NUM_INTERACTIONS: pa.array(kept.popularity, pa.int64()),
            NUM_TRAIN_INTERACTIONS: pa.array(num_train, pa.int64()),
        }
    )


def _summary(details: dict[str, Any], data: DataConfig) -> list[str]:
    log, texts, facts = details["log"], details["item_texts"], details["statistics"]
    lines = [
        f"read {log['rows_read']:,} rows: {log['rows_kept']:,} usable, {sum(log['rows_rejected'].values()):,} rejected"
        f"{_reasons(log['rows_rejected'])}, {log['rows_below_min_rating']:,} below data.min_rating",
        f"k-core kept {facts['interactions']:,} interactions of {facts['users']:,} users and {facts['items']:,} items "
        f"after {len(details['k_core_rounds']) - 1} rounds of removal",
        f"item texts: {texts['rows_read']:,} rows, {sum(texts['rows_rejected'].values()):,} rejected"
        f"{_reasons(texts['rows_rejected'])}; {texts['items_without_text']:,} items without text",
    ]
    num_over = log["rows_over_max_user_interactions"]
    if num_over:
        lines.append(
            f"left out {num_over:,} events before the latest {data.max_user_interactions:,} of their user "
            f"(data.max_user_interactions)"
        )
    num_skipped = details["split"]["users_not_evaluated"]
    if num_skipped:
        lines.append(f"{num_skipped:,} users have {_WHY_NOT_EVALUATED[details['split']['method']]}")
    return lines


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{reason}: {num:,}" for reason, num in sorted(counts.items())) + ")"
