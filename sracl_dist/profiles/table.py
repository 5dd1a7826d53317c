"""The tables of profiles: written by the stage profile, read by ranges of keys so that no reader holds all of them."""

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.columns import KEY, TEXT
from sracl_dist.run_folder import RunFolder, StageFolder


def write_profiles(folder: StageFolder, kind: str, table: pa.Table) -> None:
    """Write the profiles of a kind (`items` or `users`), one row per profiled key."""
    folder.write_table(f"{kind}.parquet", table)


def read_profiles(run: RunFolder, kind: str, start: int, stop: int) -> list[str | None]:
    """The profiles of the keys start..stop-1 of a kind (`items` or `users`); None for a key without one."""
    wanted = (pc.field(KEY) >= start) & (pc.field(KEY) < stop)
    table = run.stage("profile").read_table(f"{kind}.parquet", [KEY, TEXT], wanted)
    texts: list[str | None] = [None] * (stop - start)
    for key, text in zip(table[KEY].to_pylist(), table[TEXT].to_pylist(), strict=True):
        texts[key - start] = text or None
    return texts
