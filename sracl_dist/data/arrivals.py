"""The events of new files of a log, with the numbers of users and items that are known from the old ones."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.data.encode import (
    ENCODED,
    ITEM_HASHES,
    ITEM_IDS,
    ITEMS,
    ROWS,
    TIMES,
    USER_HASHES,
    USER_IDS,
    USERS,
    split_name,
)
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.groups import GroupReader, open_groups
from sracl_dist.data.known_ids import KnownIds
from sracl_dist.data.strings import Register
from sracl_dist.run_folder import StageFolder


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """The usable events of the new files, in the order of arrival, and the ids that are new."""

    users: NDArray[np.int32]
    """[E] numbers."""
    items: NDArray[np.int32]
    """[E] numbers."""
    times: NDArray[np.int64] | None
    rows: NDArray[np.int64]
    """[E] see Piece.row_ids."""
    user_ids: pa.LargeStringArray
    """Of users that never appeared before, by number."""
    item_ids: pa.LargeStringArray
    new_users: Register
    """How the new ids are found."""
    new_items: Register


def read_arrivals(
    folder: StageFolder,
    splits: list[FileSplit],
    known: tuple[KnownIds, KnownIds],
    *,
    has_times: bool,
) -> Arrivals:
    """Number the events of the new files, which are encoded: known ids have their numbers, new ones get the next.

    Args:
        folder: the stage prepare.
        splits: of the new files.
        known: users and items that appeared before; the files are encoded with the same key.
        has_times: whether the log has times.

    Raises:
        HashCollisionError: two ids share half of their hash.
    """
    registers = (Register(), Register())
    first_ids: tuple[list[pa.Array], list[pa.Array]] = ([], [])
    parts: dict[str, list[NDArray]] = {name: [] for name in (USERS, ITEMS, TIMES, ROWS)}
    for split in splits:
        with open_groups(
            folder,
            split_name(ENCODED, split),
            [USERS, ITEMS, TIMES, ROWS, USER_IDS, USER_HASHES, ITEM_IDS, ITEM_HASHES],
        ) as reader:
            for block in range(len(reader)):
                _add_block(reader, block, registers, first_ids, parts)
    columns = {name: np.concatenate([np.zeros(0, np.int64), *values]) for name, values in parts.items()}
    numbered, new_ids, new_registers = [], [], []
    for register, own_ids, ids, name in zip(registers, first_ids, known, (USERS, ITEMS), strict=True):
        numbers, fresh, new = _numbers(register, ids)
        joined = pa.concat_arrays([pa.array([], pa.large_string()), *own_ids])
        new_ids.append(joined.filter(pa.array(fresh)))
        new_registers.append(new)
        numbered.append(numbers[columns[name].astype(np.int32)])
    return Arrivals(
        users=numbered[0],
        items=numbered[1],
        times=columns[TIMES] if has_times else None,
        rows=columns[ROWS],
        user_ids=new_ids[0],
        item_ids=new_ids[1],
        new_users=new_registers[0],
        new_items=new_registers[1],
    )


def _add_block(
    reader: GroupReader,
    block: int,
    registers: tuple[Register, Register],
    first_ids: tuple[list[pa.Array], list[pa.Array]],
    parts: dict[str, list[NDArray]],
) -> None:
    for place, (codes, ids, hashes) in enumerate(((USERS, USER_IDS, USER_HASHES), (ITEMS, ITEM_IDS, ITEM_HASHES))):
        own, fresh = registers[place].add(reader.numpy(block, hashes).reshape(-1, 2))
        first_ids[place].append(reader.arrow(block, ids).take(pa.array(fresh)))
        parts[codes].append(own[reader.numpy(block, codes)])
    parts[ROWS].append(reader.numpy(block, ROWS))
    if reader.has(TIMES):
        parts[TIMES].append(reader.numpy(block, TIMES))


def _numbers(register: Register, known: KnownIds) -> tuple[NDArray[np.int32], NDArray[np.bool_], Register]:
    """The number of each of the register's ids, which of them are new, and how these are found."""
    hashes, own = register.by_hash()
    found, num_known = known.find(hashes)
    numbers = np.empty(len(register), np.int32)
    numbers[own] = found
    fresh = numbers < 0
    numbers[fresh] = num_known + np.arange(int(fresh.sum()), dtype=np.int32)
    is_new = found < 0
    return numbers, fresh, Register(hashes[is_new], numbers[own[is_new]])
