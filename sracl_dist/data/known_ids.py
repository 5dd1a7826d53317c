"""Ids that had dense ids when the log was last prepared; numbered first, they keep them when the log has grown.

More events take nobody out of the k-core (unless data.max_user_interactions pushes old ones out), so all of them stay,
in their order, and whoever is new comes behind them. Of another log they are ids without events, which it removes.

ids/users.parquet, ids/items.parquet    ids in the order of the dense ids; they survive a change of settings
"""

import polars as pl
import pyarrow as pa

from sracl_dist.columns import ITEM_ID, USER_ID
from sracl_dist.ids import USERS
from sracl_dist.run_folder import StageFolder
from sracl_dist.shards import committed_shards

IDS = "ids/"
KNOWN = "known"
"""Column with the place of an id among those known."""


def _name(column: str) -> str:
    return f"{IDS}{'users' if column == USER_ID else 'items'}.parquet"


def load_known_ids(folder: StageFolder, column: str) -> pl.DataFrame:
    """Users or items that had dense ids, in their order: their ids in `column`, and KNOWN.

    Args:
        folder: the stage prepare.
        column: USER_ID or ITEM_ID.

    Raises:
        StorageError: the file is damaged.
    """
    name = _name(column)
    ids = folder.read_table(name)[column] if folder.exists(name) else pa.array([], pa.large_string())
    return pl.DataFrame({column: pl.from_arrow(ids)}).with_row_index(KNOWN).select(column, KNOWN)


def save_known_ids(folder: StageFolder, item_ids: pa.Array) -> None:
    """Remember the ids, in the order of their dense ids, for the next time; those of users from the table `users`."""
    users = (folder.read_table(shard.name, [USER_ID]) for shard in committed_shards(folder, USERS))
    folder.write_tables(_name(USER_ID), pa.schema([(USER_ID, pa.string())]), users)
    folder.write_table(_name(ITEM_ID), pa.table({ITEM_ID: item_ids}))
