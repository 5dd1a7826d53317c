"""Ids of users and items that keep their dense ids when a log that was prepared before is read anew as a whole.

    state/lasting.arrow    one group: ids of users and items that stay, in the order of their dense ids
    state/lasting.json     the settings and files that they stay with; written last

They are numbered before all others. More events take nobody out of the k-core, so all of them stay again, in the same
order and without gaps, and whoever comes is behind them. The files go when the log has a state of its own again.
"""

import pyarrow as pa

from sracl_dist.data.encode import ITEM_IDS, USER_IDS
from sracl_dist.data.groups import open_groups, write_groups
from sracl_dist.data.known_ids import KnownIds
from sracl_dist.data.state import LASTING, LASTING_IDS, State, load_memory
from sracl_dist.run_folder import StageFolder


def save_lasting_ids(folder: StageFolder, state: State) -> None:
    """Write the ids that stay in this state.

    Raises:
        StorageError: a file of the state is missing or damaged.
    """
    memory = load_memory(folder, state.generation)
    numbers = {USER_IDS: memory.user_numbers(), ITEM_IDS: memory.item_numbers()}
    group = {kind: KnownIds(folder, state.generation, kind).take(own) for kind, own in numbers.items()}
    write_groups(folder, LASTING_IDS, [group])
    folder.write_json(LASTING, {"made_from": state.made_from, "files": state.files})


def load_lasting_ids(folder: StageFolder) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """Users and items, by dense id; none where the log was never prepared before.

    Raises:
        StorageError: they are damaged.
    """
    if not folder.exists(LASTING):
        none = pa.array([], pa.large_string())
        return none, none
    with open_groups(folder, LASTING_IDS, [USER_IDS, ITEM_IDS]) as reader:
        return reader.arrow(0, USER_IDS), reader.arrow(0, ITEM_IDS)
