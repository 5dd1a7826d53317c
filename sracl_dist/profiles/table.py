"""The profiles that the stage profile wrote, in shards of keys, so that a reader holds no more than it needs.

    items/<first key>-<end>.parquet    users/<first key>-<end>.parquet

A shard holds the keys of its range that were asked for, by rising key.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.columns import KEY, TEXT
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.shards import Shard, committed_shards

KINDS = ("items", "users")
"""Folders of the tables; prompts of items come before those of users."""
KEYS_PER_SHARD = 20_000


def read_profiles(run: RunFolder, kind: str, start: int, stop: int) -> list[str | None]:
    """The profiles of the keys start..stop-1 of a kind (`items` or `users`); None for a key without one."""
    folder = run.stage("profile")
    wanted = (pc.field(KEY) >= start) & (pc.field(KEY) < stop)
    texts: list[str | None] = [None] * (stop - start)
    for shard in committed_shards(folder, kind):
        if shard.start < stop and start < shard.stop:
            table = folder.read_table(shard.name, [KEY, TEXT], wanted)
            for key, text in zip(table[KEY].to_pylist(), table[TEXT].to_pylist(), strict=True):
                texts[key - start] = text or None
    return texts


def num_profiles(run: RunFolder, kind: str) -> int:
    """How many keys of a kind have a profile."""
    folder = run.stage("profile")
    tables = (folder.read_table(shard.name, [TEXT]) for shard in committed_shards(folder, kind))
    return sum(pc.sum(pc.greater(pc.binary_length(table[TEXT]), 0)).as_py() or 0 for table in tables)


def write_profiles(folder: StageFolder, kind: str, tables: Iterable[pa.Table]) -> None:
    """Write profiles that were made elsewhere.

    Args:
        folder: of the stage.
        kind: `items` or `users`.
        tables: a shard each, of at most KEYS_PER_SHARD rows by rising key, with the columns of the stage's tables.
    """
    folder.delete(folder.files(f"{kind}/"))  # those of a stage that was killed may have other ranges
    for table in tables:
        folder.write_table(Shard(kind, table[KEY][0].as_py(), table[KEY][-1].as_py() + 1).name, table)
