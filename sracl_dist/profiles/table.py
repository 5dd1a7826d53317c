"""The profiles that the stage profile wrote, by ranges of keys, so that a reader holds no more than it needs."""

import pyarrow.compute as pc

from sracl_dist.columns import KEY, TEXT
from sracl_dist.run_folder import RunFolder


def read_profiles(run: RunFolder, kind: str, start: int, stop: int) -> list[str | None]:
    """The profiles of the keys start..stop-1 of a kind (`items` or `users`); None for a key without one."""
    wanted = (pc.field(KEY) >= start) & (pc.field(KEY) < stop)
    table = run.stage("profile").read_table(f"{kind}.parquet", [KEY, TEXT], wanted)
    texts: list[str | None] = [None] * (stop - start)
    for key, text in zip(table[KEY].to_pylist(), table[TEXT].to_pylist(), strict=True):
        texts[key - start] = text or None
    return texts
