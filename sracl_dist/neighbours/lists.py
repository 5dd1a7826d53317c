"""Inverted lists, before they are searched: learning their centres once, and how many of them a query should visit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.cluster import map_shards
from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.embed.vectors import VectorShards
from sracl_dist.neighbours.part import Query, refuse_broken
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.neighbours.quality import recall, sample_rows
from sracl_dist.neighbours.ranking import merge
from sracl_dist.observe import say
from sracl_dist.run_folder import StageFolder

TRAINING_SEED, TUNING_SEED = 2, 1
"""Choose the vectors that the centres are learned from, and the rows that probes are tuned on; these are others than
those whose recall is reported."""
MARGIN = 0.25
"""Share of the recall that may be missed which tuning leaves unused, since its sample is not the reported one."""


def train_once(folder: StageFolder, name: str, shards: VectorShards, plan: SearchPlan, cpus: int) -> NDArray[np.uint8]:
    """The trained index as bytes, from the file where an interrupted search has left it."""
    if not folder.exists(name):
        say(f"neighbours: {shards.kind}: learning {plan.num_lists:,} lists")
        map_shards(
            _make_trainer,
            (shards, plan),
            [shards.kind],
            lambda _, trained: folder.write_bytes(name, trained.tobytes()),
            num_workers=1,
            cpus_per_worker=cpus,
        )
    return np.frombuffer(folder.read_bytes(name), np.uint8)


def _make_trainer(shards: VectorShards, plan: SearchPlan) -> Callable[[str], NDArray[np.uint8]]:
    from sracl_dist.neighbours.search import train_lists

    def train(kind: str) -> NDArray[np.uint8]:
        rows = sample_rows(shards.num_rows, plan.num_sampled, TRAINING_SEED)
        vectors = shards.read_keys(rows + shards.first_key)
        refuse_broken(rows + shards.first_key, vectors, kind)
        return train_lists(vectors, plan)

    return train


def tune_probes(
    shards: VectorShards, plan: SearchPlan, settings: NeighboursConfig, ask: Callable[[Query], list[Any]]
) -> int:
    """The smallest number of lists, to about an eighth, with which a sample reaches the recall, or all of them."""
    keys = sample_rows(shards.num_rows, settings.num_sampled, TUNING_SEED) + shards.first_key
    query = Query(keys=keys, vectors=shards.read_keys(keys), num_neighbours=settings.num_neighbours, scan=True)
    true = merge(ask(query))
    wanted = settings.min_recall + MARGIN * (1 - settings.min_recall)

    def measured(num_probes: int) -> float:
        found = recall(merge(ask(replace(query, scan=False, num_probes=num_probes))), true)
        say(f"neighbours: {shards.kind}: recall {found:.4f} with {num_probes} of {plan.num_lists:,} lists")
        return found

    too_few, enough = 0, 1
    while enough < plan.num_lists and measured(enough) < wanted:
        too_few, enough = enough, min(2 * enough, plan.num_lists)
    while enough - too_few > max(1, enough // 8):
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if measured(middle) >= wanted else (middle, enough)
    return enough
