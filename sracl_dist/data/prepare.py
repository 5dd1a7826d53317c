"""The stage prepare: read, filter, number, split and describe a log, and write its tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import ITEM, ITEM_ID, NUM_INTERACTIONS, NUM_TRAIN_INTERACTIONS, TEXT_COLUMNS, USER, USER_ID
from sracl_dist.config import Config
from sracl_dist.config.sections import DataConfig
from sracl_dist.data.interactions import Log, in_time_order, read_log
from sracl_dist.data.item_texts import ItemTexts, read_item_texts
from sracl_dist.data.kcore import k_core
from sracl_dist.data.rejects import UNREADABLE, Rejects
from sracl_dist.data.sequences import TABLE as SEQUENCES_TABLE
from sracl_dist.data.sequences import Sequences
from sracl_dist.data.sources import Source, resolve
from sracl_dist.data.splits import Split, global_time, leave_last_out
from sracl_dist.data.statistics import statistics
from sracl_dist.errors import InputError
from sracl_dist.ids import ITEMS_TABLE, USERS_TABLE
from sracl_dist.stages import StageResult

REJECTS_TABLE = "rejects.parquet"


def prepare(config: Config, run: RunFolder) -> StageResult:
    """Turn the configured log and item texts into the tables items, users, sequences and rejects.

    Raises:
        ConfigError: the source is unknown, or settings contradict it.
        InputError: files are missing or damaged, too many rows are unusable, or the filters leave nothing.
        StorageError: the run folder cannot be written.
    """
    data = config.data
    source = resolve(config)
    log_rejects, text_rejects = Rejects(), Rejects()
    raw = read_log(source.log_files, source.columns, data.min_rating, log_rejects)
    _limit_rejects(raw.num_read, len(log_rejects), log_rejects, data, "log")
    if not len(raw):
        raise InputError(f"No row of the log reaches data.min_rating={data.min_rating:g}; lower it.")
    ordered = in_time_order(raw, log_rejects)
    _limit_rejects(raw.num_read, len(log_rejects), log_rejects, data, "log")
    kept, rounds = k_core(ordered.users, ordered.items, data.min_user_interactions, data.min_item_interactions)
    catalogue = _numbered(ordered.select(kept))
    split = _split(catalogue, data)
    texts = _texts(source, catalogue, data, text_rejects)
    sequences = Sequences(
        offsets=catalogue.offsets,
        items=catalogue.items,
        num_train=split.num_train,
        num_validation=split.num_validation,
        num_items=len(catalogue.item_ids),
    )
    tables = _tables(sequences, catalogue, texts)
    tables[REJECTS_TABLE] = pa.concat_tables([log_rejects.table(), text_rejects.table()])
    folder = run.stage("prepare")
    for name, table in tables.items():
        folder.write_table(name, table)
    details = {
        "log": {
            "rows_read": raw.num_read,
            "rows_kept": len(ordered),
            "rows_rejected": dict(log_rejects.counts),
            "rows_below_min_rating": raw.num_below_rating,
        },
        "item_texts": {
            "rows_read": texts.num_read,
            "rows_rejected": dict(text_rejects.counts),
            **texts.counts(),
        },
        "k_core_rounds": rounds,
        "split": split.details,
        "statistics": statistics(catalogue.lengths, catalogue.popularity, catalogue.times),
    }
    return StageResult(rows=_row_counts(tables, sequences), details=details, summary=_summary(details))


@dataclass(frozen=True, kw_only=True)
class _Catalogue:
    """The log after filtering, with dense ids, user after user and in time order within a user.

    Users and items are numbered by their first appearance in the files, so the same files always give the same ids.
    """

    items: NDArray[np.int32]
    """[E] 1..V"""
    times: NDArray[np.int64] | None
    """[E]"""
    offsets: NDArray[np.int64]
    """[U + 1]"""
    user_ids: pa.Array
    item_ids: pa.Array

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[U] interactions of each user."""
        return np.diff(self.offsets)

    @property
    def popularity(self) -> NDArray[np.int64]:
        """[V] interactions of each item."""
        return np.bincount(self.items, minlength=len(self.item_ids) + 1)[1:]


def _numbered(log: Log) -> _Catalogue:
    """Close the gaps that filtering left in the numbers of users and items."""
    users = np.flatnonzero(lengths := np.bincount(log.users))
    items = np.flatnonzero(counts := np.bincount(log.items))
    dense = np.zeros(len(counts), dtype=np.int32)
    dense[items] = np.arange(1, len(items) + 1, dtype=np.int32)
    return _Catalogue(
        items=dense[log.items],
        times=log.times,
        offsets=np.concatenate([[0], np.cumsum(lengths[users])]).astype(np.int64),
        user_ids=log.user_ids.take(pa.array(users)),
        item_ids=log.item_ids.take(pa.array(items)),
    )


def _limit_rejects(num_read: int, num_bad: int, rejects: Rejects, data: DataConfig, what: str) -> None:
    """Refuse to go on when so many rows are unusable that the files or settings must be wrong."""
    if num_bad and (num_bad > data.max_reject_share * num_read or (what == "log" and num_bad == num_read)):
        raise InputError(
            f"{num_bad:,} of {num_read:,} rows of the {what} cannot be used (commonest reason: "
            f"{rejects.commonest()}); mend the files or the column settings, or raise data.max_reject_share="
            f"{data.max_reject_share:g}."
        )


def _split(catalogue: _Catalogue, data: DataConfig) -> Split:
    if data.split == "leave_last_out" or catalogue.times is None:
        return leave_last_out(catalogue.lengths)
    return global_time(catalogue.lengths, catalogue.times, data.validation_share, data.test_share)


def _texts(source: Source, catalogue: _Catalogue, data: DataConfig, rejects: Rejects) -> ItemTexts:
    texts = read_item_texts(
        source.text_files,
        source.item_columns,
        catalogue.item_ids,
        rejects,
        separator=source.separator,
        max_chars=data.max_text_chars,
    )
    num_unreadable = sum(rejects.counts[reason] for reason in UNREADABLE)
    _limit_rejects(texts.num_read, num_unreadable, rejects, data, "item texts")
    return texts


def _tables(sequences: Sequences, catalogue: _Catalogue, texts: ItemTexts) -> dict[str, pa.Table]:
    lengths = catalogue.lengths
    position = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], lengths)
    training = position < np.repeat(sequences.num_train, lengths)
    num_train = np.bincount(sequences.items[training], minlength=sequences.num_items + 1)[1:]
    items = {
        ITEM: pa.array(np.arange(1, sequences.num_items + 1, dtype=np.int32)),
        ITEM_ID: catalogue.item_ids.cast(pa.string()),
        **{name: texts.table[name] for name in TEXT_COLUMNS},
        NUM_INTERACTIONS: pa.array(catalogue.popularity, pa.int64()),
        NUM_TRAIN_INTERACTIONS: pa.array(num_train, pa.int64()),
    }
    users = {
        USER: pa.array(np.arange(sequences.num_users, dtype=np.int64)),
        USER_ID: catalogue.user_ids.cast(pa.string()),
        NUM_INTERACTIONS: pa.array(lengths, pa.int64()),
        NUM_TRAIN_INTERACTIONS: pa.array(sequences.num_train, pa.int64()),
    }
    return {
        ITEMS_TABLE: pa.table(items),
        USERS_TABLE: pa.table(users),
        SEQUENCES_TABLE: sequences.to_table(catalogue.times),
    }


def _row_counts(tables: dict[str, pa.Table], sequences: Sequences) -> dict[str, int]:
    counts = {name.removesuffix(".parquet"): table.num_rows for name, table in tables.items()}
    return {
        **counts,
        "interactions": len(sequences.items),
        "training_targets": int(np.maximum(sequences.num_train - 1, 0).sum()),
        "validation_targets": len(sequences.targets("validation")[0]),
        "test_targets": len(sequences.targets("test")[0]),
    }


def _summary(details: dict[str, Any]) -> list[str]:
    log, texts, facts = details["log"], details["item_texts"], details["statistics"]
    lines = [
        f"read {log['rows_read']:,} rows: {log['rows_kept']:,} usable, {sum(log['rows_rejected'].values()):,} rejected"
        f"{_reasons(log['rows_rejected'])}, {log['rows_below_min_rating']:,} below data.min_rating",
        f"k-core kept {facts['interactions']:,} interactions of {facts['users']:,} users and {facts['items']:,} items "
        f"after {len(details['k_core_rounds']) - 1} rounds of removal",
        f"item texts: {texts['rows_read']:,} rows, {sum(texts['rows_rejected'].values()):,} rejected"
        f"{_reasons(texts['rows_rejected'])}; {texts['items_without_text']:,} items without text",
    ]
    skipped = details["split"]["users_not_evaluated"]
    if skipped:
        lines.append(f"{skipped:,} users have too few interactions in the test period to be evaluated")
    return lines


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{reason}: {num:,}" for reason, num in sorted(counts.items())) + ")"
