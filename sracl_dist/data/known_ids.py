"""Ids of users and items that earlier files of a log brought: found by their hashes, and told by their numbers.

    state/ids/<generation>.arrow          one group: ids of users and items that first appear in that generation
    state/ids/<generation>.lookup.arrow   one group: the hashes of both, ascending, and the number of each

A generation is a whole log or one addition to it; see state. Nothing that an earlier one wrote is written again, and
finding N ids reads the lookups, but no id.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.data.encode import ITEM_HASHES, ITEM_IDS, ITEMS, USER_HASHES, USER_IDS, USERS
from sracl_dist.data.groups import open_groups, write_groups
from sracl_dist.data.strings import Hashes, Register
from sracl_dist.run_folder import StageFolder

IDS = "state/ids/"
_LOOKUPS = {USER_IDS: (USER_HASHES, USERS), ITEM_IDS: (ITEM_HASHES, ITEMS)}
"""Arrays of hashes and of numbers."""


def save_ids(folder: StageFolder, generation: int, user_ids: Iterable[pa.Array], item_ids: Iterable[pa.Array]) -> None:
    """Write the ids that are new in a generation, in the order of their numbers."""
    empty = pa.array([], pa.large_string())
    group = {USER_IDS: pa.concat_arrays([empty, *user_ids]), ITEM_IDS: pa.concat_arrays([empty, *item_ids])}
    write_groups(folder, f"{IDS}{generation:06d}.arrow", [group])


def save_lookup(folder: StageFolder, generation: int, users: Register, items: Register) -> None:
    """Write how the same ids are found; the registers hold these and no others."""
    group: dict[str, NDArray] = {}
    for (hashes_name, numbers_name), register in zip(_LOOKUPS.values(), (users, items), strict=True):
        hashes, numbers = register.by_hash()
        group |= {hashes_name: hashes.T.ravel(), numbers_name: numbers}
    write_groups(folder, f"{IDS}{generation:06d}.lookup.arrow", [group])


class KnownIds:
    """Users or items that appeared up to a generation, whether they stay or not.

    Args:
        folder: the stage prepare.
        generation: the latest.
        kind: USER_IDS or ITEM_IDS.
    """

    def __init__(self, folder: StageFolder, generation: int, kind: str) -> None:
        self._folder, self._generations, self._kind = folder, range(generation + 1), kind

    def find(self, hashes: Hashes) -> tuple[NDArray[np.int32], int]:
        """[N] the number of each id, -1 for one that never appeared, and how many did; fastest for ascending hashes.

        Args:
            hashes: [N, 2] with the key of the lookups.

        Raises:
            HashCollisionError: two different ids share half of their bits.
            StorageError: a file is missing or damaged.
        """
        numbers, num_known = np.full(len(hashes), -1, np.int32), 0
        hashes_name, numbers_name = _LOOKUPS[self._kind]
        for generation in self._generations:
            left = np.flatnonzero(numbers < 0)
            name = f"{IDS}{generation:06d}.lookup.arrow"
            with open_groups(self._folder, name, [hashes_name, numbers_name]) as reader:
                register = Register(reader.numpy(0, hashes_name).reshape(2, -1).T, reader.numpy(0, numbers_name))
            numbers[left] = register.find(hashes[left])
            num_known += len(register)
        return numbers, num_known

    def take(self, numbers: NDArray[np.integer]) -> pa.LargeStringArray:
        """The ids with these numbers, in this order.

        Raises:
            StorageError: a file is missing or damaged.
        """
        parts, places, start = [pa.array([], pa.large_string())], [np.zeros(0, np.int64)], 0
        for generation in self._generations if len(numbers) else ():
            with open_groups(self._folder, f"{IDS}{generation:06d}.arrow", [self._kind]) as reader:
                ids = reader.arrow(0, self._kind)
            own = np.flatnonzero((numbers >= start) & (numbers < start + len(ids)))
            parts.append(ids.take(pa.array(numbers[own] - start)))
            places.append(own)
            start += len(ids)
        found, order = pa.concat_arrays(parts), np.concatenate(places)
        if (order[1:] > order[:-1]).all():
            return found
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return found.take(pa.array(inverse))
