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
    sequences = _sequences(catalogue, split)
    num_targets = _num_targets(sequences)
    _require_targets(num_targets, sequences, data)
    texts = _texts(source, catalogue, data, text_rejects)
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
    rows = {name.removesuffix(".parquet"): table.num_rows for name, table in tables.items()}
    rows |= {"interactions": len(sequences.items), **num_targets}
    return StageResult(rows=rows, details=details, summary=_summary(details))


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


def _sequences(catalogue: _Catalogue, split: Split) -> Sequences:
    return Sequences(
        offsets=catalogue.offsets,
        items=catalogue.items,
        num_train=split.num_train,
        num_validation=split.num_validation,
        num_items=len(catalogue.item_ids),
    )


def _num_targets(sequences: Sequences) -> dict[str, int]:
    return {
        "training_targets": int(np.maximum(sequences.num_train - 1, 0).sum()),
        "validation_targets": len(sequences.targets("validation")[0]),
        "test_targets": len(sequences.targets("test")[0]),
    }


def _require_targets(num_targets: dict[str, int], sequences: Sequences, data: DataConfig) -> None:
    """Refuse a log of which later stages could not train or evaluate a model."""
    lacking = [name.replace("_", " ") for name, num in num_targets.items() if not num]
    if lacking:
        raise InputError(
            f"data.split={data.split} leaves no {' and no '.join(lacking)} in the {len(sequences.items):,} "
            f"interactions of {sequences.num_users:,} users that the k-core kept; bring more data, lower "
            f"data.min_user_interactions and data.min_item_interactions, or choose another data.split."
        )


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
    num_skipped = details["split"]["users_not_evaluated"]
    if num_skipped:
        lines.append(f"{num_skipped:,} users have {_WHY_NOT_EVALUATED[details['split']['method']]}")
    return lines


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{reason}: {num:,}" for reason, num in sorted(counts.items())) + ")"
