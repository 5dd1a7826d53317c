"""Fifth step over the log: which users and items stay, how they are numbered then, and what is for training.

work/kept/items.arrow          one group: the dense id of each item, PAD where it is removed
work/kept/<partition>.arrow    one group: which users stay, and for those num_train and num_validation
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import NUM_TRAIN, NUM_VALIDATION, PAD
from sracl_dist.config.sections import DataConfig
from sracl_dist.data.encode import ITEMS, TIMES, USERS
from sracl_dist.data.groups import open_groups, write_groups
from sracl_dist.data.kcore import Core, k_core
from sracl_dist.data.numbering import Numbering
from sracl_dist.data.ordering import LENGTHS, ORDERED, partition_name
from sracl_dist.data.splits import Split, global_time, leave_last_out, time_cuts
from sracl_dist.errors import InputError
from sracl_dist.observe import Progress
from sracl_dist.run_folder import StageFolder

KEPT = "work/kept/"
KEPT_ITEMS = "work/kept/items.arrow"
DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What stays of the log."""

    lengths: NDArray[np.int32]
    """[U] interactions of each user that stays."""
    popularity: NDArray[np.int32]
    """[V] interactions of each item that stays."""
    items: NDArray[np.int64]
    """[V] number of each among all items of the log."""
    first_users: list[int]
    """[P + 1] users first_users[p] .. first_users[p + 1] - 1, by dense id, are those of partition p."""
    rounds: list[dict[str, int]]
    """Of the k-core."""
    split_details: dict[str, Any]
    num_targets: dict[str, int]
    """How many training, validation and test targets there are."""


def keep_core(folder: StageFolder, numbering: Numbering, data: DataConfig) -> Kept:
    """Apply the k-core and the split, and write what the last step needs.

    Raises:
        InputError: nothing stays, or the split leaves nothing to train on or to evaluate.
    """
    core = _core(folder, numbering, data)
    kept_items = np.flatnonzero(core.item_counts)
    dense = np.full(numbering.num_items, PAD, np.int32)
    dense[kept_items] = np.arange(1, len(kept_items) + 1, dtype=np.int32)
    lengths = [counts[counts > 0] for counts in core.user_counts]
    if data.split == "global_time":
        all_times = np.concatenate(list(_times(folder, core, dense)))
        cuts = time_cuts(all_times, data.validation_share, data.test_share)
        del all_times
        splits = [
            global_time(own, times, cuts) for own, times in zip(lengths, _times(folder, core, dense), strict=True)
        ]
    else:
        splits = [leave_last_out(own) for own in lengths]
    targets = num_targets(lengths, splits)
    _require_targets(targets, core, data)
    write_groups(folder, KEPT_ITEMS, [{DENSE: dense}])
    for partition, (counts, split) in enumerate(zip(core.user_counts, splits, strict=True)):
        group = {USERS: counts > 0, NUM_TRAIN: split.num_train, NUM_VALIDATION: split.num_validation}
        write_groups(folder, partition_name(KEPT, partition), [group])
    details = splits[0].details | {"users_not_evaluated": sum(each.details["users_not_evaluated"] for each in splits)}
    return Kept(
        lengths=np.concatenate(lengths),
        popularity=core.item_counts[kept_items],
        items=kept_items,
        first_users=np.cumsum([0, *(len(own) for own in lengths)]).tolist(),
        rounds=core.rounds,
        split_details=details,
        num_targets=targets,
    )


def _core(folder: StageFolder, numbering: Numbering, data: DataConfig) -> Core:
    progress = Progress("prepare: k-core", numbering.num_users, "users")
    core = k_core(
        _parts(folder, numbering, progress),
        numbering.num_items,
        data.min_user_interactions,
        data.min_item_interactions,
    )
    progress.close()
    return core


def _parts(
    folder: StageFolder, numbering: Numbering, progress: Progress
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Lengths and items of one partition after the other, none of which is held here."""
    for partition in range(numbering.num_partitions):
        with open_groups(folder, partition_name(ORDERED, partition), [ITEMS, LENGTHS]) as reader:
            yield reader.numpy(0, LENGTHS), reader.numpy(0, ITEMS)
        progress.update(numbering.first_users[partition + 1] - numbering.first_users[partition])


def kept_rows(
    lengths: NDArray[np.int32], items: NDArray[np.int32], users_stay: NDArray[np.bool_], dense: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """[E] rows of a partition that stay: those of users and items that both do."""
    return np.repeat(users_stay, lengths) & (dense[items] != PAD)


def _times(folder: StageFolder, core: Core, dense: NDArray[np.int32]) -> Iterator[NDArray[np.int64]]:
    """Times of the rows that stay, of one partition after the other."""
    for partition, counts in enumerate(core.user_counts):
        with open_groups(folder, partition_name(ORDERED, partition), [ITEMS, LENGTHS, TIMES]) as reader:
            keep = kept_rows(reader.numpy(0, LENGTHS), reader.numpy(0, ITEMS), counts > 0, dense)
            yield reader.numpy(0, TIMES)[keep]


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
    """Refuse a log of which later stages could not train or evaluate a model."""
    lacking = [name.replace("_", " ") for name, num in num_targets.items() if not num]
    if lacking:
        left = core.rounds[-1]
        raise InputError(
            f"data.split={data.split} leaves no {' and no '.join(lacking)} in the {left['interactions']:,} "
            f"interactions of {left['users']:,} users that the k-core kept; bring more data, lower "
            f"data.min_user_interactions and data.min_item_interactions, or choose another data.split."
        )
