"""Third step over the log: number its items, apply the k-core and the split, and number who stays.

work/kept_items/<partition>.parquet  of the partition's items: dense id, PAD where it is removed
work/kept_users/<partition>.parquet  of the partition's users: whether it stays, num_train, num_validation
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, ITEM_ID, NUM_TRAIN, NUM_VALIDATION, PAD, TIME
from sracl_dist.config.sections import DataConfig
from sracl_dist.data.kcore import Core, k_core
from sracl_dist.data.known_ids import load_known_ids
from sracl_dist.data.order import EVENTS, ITEM_LISTS, LENGTH, USER_LISTS, partition_name
from sracl_dist.data.splits import Split, global_time, leave_last_out, time_cuts
from sracl_dist.errors import InputError
from sracl_dist.observe import Progress
from sracl_dist.run_folder import StageFolder

KEPT_ITEMS, KEPT_USERS = "work/kept_items/", "work/kept_users/"
STAYS = "stays"
MOST_WAITING_IDS = 1 << 22
"""Ids of so many items, at least, are looked up together; each time takes as long as all items do."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What stays of the log."""

    item_ids: pa.Array
    """[V] in the order of the dense ids."""
    lengths: NDArray[np.int32]
    """[U] interactions of each user."""
    popularity: NDArray[np.int32]
    """[V] interactions of each item."""
    first_users: list[int]
    """[P + 1] users first_users[p] .. first_users[p + 1] - 1, by dense id, are those of partition p."""
    rounds: list[dict[str, int]]
    """Of the k-core."""
    split_details: dict[str, Any]
    num_targets: dict[str, int]
    """How many training, validation and test targets there are."""


def keep_core(folder: StageFolder, num_partitions: int, data: DataConfig) -> Kept:
    """Apply the k-core and the split, and write what the last step needs.

    Raises:
        InputError: nothing stays, or the split leaves nothing to evaluate.
    """
    item_ids = _all_items(folder, num_partitions)
    places = _places_of_items(folder, num_partitions, item_ids)
    progress = Progress("prepare: k-core", num_partitions, "partitions")
    core = k_core(
        _parts(folder, places, progress), len(item_ids), data.min_user_interactions, data.min_item_interactions
    )
    progress.close()
    kept_items = np.flatnonzero(core.item_counts)
    dense = np.full(len(item_ids), PAD, np.int32)
    dense[kept_items] = np.arange(1, len(kept_items) + 1, dtype=np.int32)
    lengths = [counts[counts > 0] for counts in core.user_counts]
    dense_by_place = [dense[own] for own in places]
    splits = _splits(folder, core, lengths, dense_by_place, data)
    targets = num_targets(lengths, splits)
    _require_targets(targets, core, data)
    for partition, (counts, split) in enumerate(zip(core.user_counts, splits, strict=True)):
        folder.write_table(partition_name(KEPT_ITEMS, partition), pa.table({ITEM: dense_by_place[partition]}))
        users = {STAYS: counts > 0}
        for name, own in ((NUM_TRAIN, split.num_train), (NUM_VALIDATION, split.num_validation)):
            users[name] = np.zeros(len(counts), np.int32)
            users[name][users[STAYS]] = own
        folder.write_table(partition_name(KEPT_USERS, partition), pa.table(users))
    details = splits[0].details | {"users_not_evaluated": sum(each.details["users_not_evaluated"] for each in splits)}
    return Kept(
        item_ids=item_ids[ITEM_ID].gather(kept_items).to_arrow(compat_level=pl.CompatLevel.oldest()),
        lengths=np.concatenate(lengths),
        popularity=core.item_counts[kept_items],
        first_users=np.cumsum([0, *(len(own) for own in lengths)]).tolist(),
        rounds=core.rounds,
        split_details=details,
        num_targets=targets,
    )


def _item_lists(folder: StageFolder, num_partitions: int) -> Iterator[list[pl.DataFrame]]:
    """Ids of the items of one partition after the other, of as many together as MOST_WAITING_IDS says."""
    waiting: list[pl.DataFrame] = []
    for partition in range(num_partitions):
        waiting.append(pl.DataFrame(pl.from_arrow(folder.read_table(partition_name(ITEM_LISTS, partition)))))
        if sum(map(len, waiting)) >= MOST_WAITING_IDS or partition == num_partitions - 1:
            yield waiting
            waiting = []


def _all_items(folder: StageFolder, num_partitions: int) -> pl.DataFrame:
    """The ids of all items, those with a dense id from before first."""
    ids = load_known_ids(folder, ITEM_ID).select(ITEM_ID)
    for lists in _item_lists(folder, num_partitions):
        ids = pl.concat([ids, *lists]).unique(maintain_order=True)
    return ids


def _places_of_items(folder: StageFolder, num_partitions: int, ids: pl.DataFrame) -> list[NDArray[np.int32]]:
    """For each partition the place of each of its items among all."""
    places: list[NDArray[np.int32]] = []
    numbered = ids.with_row_index(ITEM)
    for lists in _item_lists(folder, num_partitions):
        found = pl.concat(lists).join(numbered, on=ITEM_ID, how="left", maintain_order="left")[ITEM]
        ends = np.cumsum([len(own) for own in lists])
        places += np.split(found.cast(pl.Int32).to_numpy(), ends[:-1])
    return places


def _parts(
    folder: StageFolder, places: list[NDArray[np.int32]], progress: Progress
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Events of each user and their items, of one partition after the other, none of which is held here."""
    for partition, own in enumerate(places):
        items = folder.read_table(partition_name(EVENTS, partition), [ITEM])[ITEM].to_numpy()
        yield folder.read_table(partition_name(USER_LISTS, partition), [LENGTH])[LENGTH].to_numpy(), own[items]
        progress.update(1)


def kept_rows(
    lengths: NDArray[np.int32], items: NDArray[np.int32], users_stay: NDArray[np.bool_], dense: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """[E] rows of a partition that stay: those of users and items that both do."""
    return np.repeat(users_stay, lengths) & (dense[items] != PAD)


def _splits(
    folder: StageFolder,
    core: Core,
    lengths: list[NDArray[np.int32]],
    dense: list[NDArray[np.int32]],
    data: DataConfig,
) -> list[Split]:
    """The split of each partition's users that stay."""
    if data.split == "leave_last_out":
        return [leave_last_out(own) for own in lengths]

    def times() -> Iterator[NDArray[np.int64]]:
        for partition, counts in enumerate(core.user_counts):
            events = folder.read_table(partition_name(EVENTS, partition))
            users = folder.read_table(partition_name(USER_LISTS, partition), [LENGTH])
            rows = kept_rows(users[LENGTH].to_numpy(), events[ITEM].to_numpy(), counts > 0, dense[partition])
            yield events[TIME].to_numpy()[rows]

    cuts = time_cuts(np.concatenate(list(times())), data.validation_share, data.test_share)
    return [global_time(own, each, cuts) for own, each in zip(lengths, times(), strict=True)]


def num_targets(lengths: list[NDArray[np.int32]], splits: list[Split]) -> dict[str, int]:
    """How many training, validation and test targets there are."""
    targets = {"training_targets": 0, "validation_targets": 0, "test_targets": 0}
    for own, split in zip(lengths, splits, strict=True):
        context = split.num_train + split.num_validation
        targets["training_targets"] += int(np.maximum(split.num_train - 1, 0).sum())
        targets["validation_targets"] += int(((split.num_validation > 0) & (split.num_train > 0)).sum())
        targets["test_targets"] += int(((own > context) & (context > 0)).sum())
    return targets


def _require_targets(num_targets: dict[str, int], core: Core, data: DataConfig) -> None:
    """Refuse a log of which later stages could not evaluate a model.

    One that leaves nothing to train on gets a line in the summary, for somebody who tries how a few lines are read.
    """
    lacking = [name.replace("_", " ") for name, num in num_targets.items() if not num]
    if lacking and lacking != ["training targets"]:
        left = core.rounds[-1]
        raise InputError(
            f"data.split={data.split} leaves no {', no '.join(lacking)} in the {left['interactions']:,} "
            f"interactions of {left['users']:,} users that the k-core kept; add more data, lower "
            f"data.min_user_interactions and data.min_item_interactions, or choose another data.split."
        )
