"""Prompts of a run that lie in its folder, as the stage leaves them there, and hashes that go by a name."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sracl_dist.profiles.hashes import packed
from sracl_dist.profiles.ledger import Ledger, PromptSet
from sracl_dist.profiles.prompt_shards import PromptShard, write_prompts
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.table import KINDS
from sracl_dist.run_folder import StageFolder

SHARD_ROWS = 3


def hash_of(name: str) -> str:
    """A hash that tells its name."""
    return name.encode().hex().ljust(32, "0")


def name_of(hash_: str) -> str:
    return bytes.fromhex(hash_).rstrip(b"\0").decode()


def to_ask(folder: StageFolder, prompts: Sequence[Prompt], shard_rows: int = SHARD_ROWS) -> tuple[PromptSet, Ledger]:
    """Write the prompts, whose keys rise, and take them up as they are; no two have the same hash."""
    shards = []
    for kind in KINDS:
        own = [prompt for prompt in prompts if prompt.kind == kind]
        for start in range(0, len(own), shard_rows):
            piece = own[start : start + shard_rows]
            shards.append(PromptShard(kind=kind, keys=np.array([prompt.key for prompt in piece])))
            write_prompts(folder, shards[-1], iter(piece))
    ledger = Ledger(packed(pa.array([prompt.prompt_hash for prompt in prompts], pa.string())))
    ledger.num_attempts[:] = [prompt.attempt - 1 for prompt in prompts]
    ledger.num_failures[:] = [prompt.num_failures for prompt in prompts]
    ledger.was_cut[:] = [prompt.wants_room for prompt in prompts]
    return PromptSet(folder, shards, ledger, np.arange(len(prompts))), ledger
