"""Vectors in shards that are named as the stage embed names them, which the search needs and a training does not."""

from sracl_dist.embed.vectors import FIRST_KEY
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import plan_shards


def name_shards(run: RunFolder) -> None:
    """Write the vectors of a synthetic run anew, in the order of their keys, half of them in each shard."""
    folder = run.stage("embed")
    for kind, first in FIRST_KEY.items():
        table = folder.read_shards(f"{kind}/").sort_by("key")
        folder.delete(folder.files(f"{kind}/"))
        for shard in plan_shards(kind, first, table.num_rows, -(-table.num_rows // 2)):
            folder.write_table(shard.name, table.slice(shard.start - first, shard.num_rows))
