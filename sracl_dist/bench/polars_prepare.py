"""The same work as the stage prepare in one process of polars, as somebody would write it for a log that fits.

Read, number ids, deduplicate, k-core, sort, group, write. Run as a program with two arguments: the folder of the log's
Parquet files, and the folder to write to.
"""

import sys
from pathlib import Path

import polars as pl

from sracl_dist.columns import ITEM, ITEM_ID, ITEMS, TIMES, USER, USER_ID

LEAST = 5
"""Fewest interactions of users and items, as data.min_user_interactions has it."""
TIMESTAMP = "timestamp"


def prepare_with_polars(source: Path, target: Path) -> int:
    """Write sequences, users and items; returns the interactions that stay."""
    log = pl.read_parquet(source / "*.parquet", columns=[USER_ID, ITEM_ID, TIMESTAMP])
    ids = {}
    for name, external in ((USER, USER_ID), (ITEM, ITEM_ID)):
        ids[name] = log.select(pl.col(external).unique(maintain_order=True)).with_row_index(name)
        log = log.join(ids[name], on=external, how="left", maintain_order="left").drop(external)
    log = log.unique([USER, ITEM, TIMESTAMP], keep="first", maintain_order=True)
    while True:
        stays = log.filter(pl.len().over(USER) >= LEAST, pl.len().over(ITEM) >= LEAST)
        if len(stays) == len(log):
            break
        log = stays
    log = log.sort(USER, TIMESTAMP, maintain_order=True)
    grouped = log.group_by(USER, maintain_order=True).agg(pl.col(ITEM).alias(ITEMS), pl.col(TIMESTAMP).alias(TIMES))
    target.mkdir(parents=True, exist_ok=True)
    grouped.write_parquet(target / "sequences.parquet")
    for name in (USER, ITEM):
        counts = log.group_by(name, maintain_order=True).len()
        ids[name].join(counts, on=name, maintain_order="left").write_parquet(target / f"{name}s.parquet")
    return len(log)


if __name__ == "__main__":
    prepare_with_polars(Path(sys.argv[1]), Path(sys.argv[2]))
