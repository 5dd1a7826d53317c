"""The processes that hold a text encoder each."""

from collections.abc import Callable
from functools import partial

from sracl_dist.cluster import Cluster, map_shards
from sracl_dist.config.sections import EmbedConfig

Spread = Callable[..., None]
"""`cluster.map_shards` with the workers' number and resources decided: (make, arguments, shards, on_result)."""


def spread_over(cluster: Cluster, settings: EmbedConfig) -> Spread:
    """Encoders take a GPU each where there are GPUs, else an even part of the cores."""
    return partial(
        map_shards,
        num_workers=settings.num_workers,
        cpus_per_worker=1 if cluster.num_gpus else cluster.cpus_for_each(settings.num_workers),
        gpus_per_worker=1 if cluster.num_gpus else 0,
    )
