"""Shards of dense keys: the unit in which a stage works, commits and resumes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sracl_dist.run_folder import StageFolder

_NAME = re.compile(r"(.+)/(\d{12})-(\d{12})\.parquet")


@dataclass(frozen=True)
class Shard:
    """Keys start..stop-1 of one kind."""

    kind: str
    """Folder within the stage."""
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the shard's file; it tells the range, so that a changed shard size is noticed."""
        return f"{self.kind}/{self.start:012d}-{self.stop:012d}.parquet"

    @property
    def num_rows(self) -> int:
        """How many keys."""
        return self.stop - self.start


def plan_shards(kind: str, first: int, num_rows: int, shard_rows: int) -> list[Shard]:
    """Contiguous shards of at most `shard_rows` keys that cover first..first + num_rows - 1."""
    end = first + num_rows
    return [Shard(kind, start, min(start + shard_rows, end)) for start in range(first, end, shard_rows)]


def pending_shards(folder: StageFolder, plan: Sequence[Shard]) -> list[Shard]:
    """Shards that are not committed yet; files of another plan are deleted, so that none is counted twice."""
    wanted = {shard.name for shard in plan}
    committed = {name for kind in {shard.kind for shard in plan} for name in folder.files(f"{kind}/")}
    folder.delete(committed - wanted)
    return [shard for shard in plan if shard.name not in committed]


def committed_shards(folder: StageFolder, kind: str) -> list[Shard]:
    """Shards of a kind that the stage has written, by rising key, as their names tell."""
    matches = [match for name in folder.files(f"{kind}/") if (match := _NAME.fullmatch(name))]
    shards = [Shard(match[1], int(match[2]), int(match[3])) for match in matches if match[1] == kind]
    return sorted(shards, key=lambda shard: shard.start)
