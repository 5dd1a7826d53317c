"""embed: one unit vector for every item and every user, from its profile, its raw text, or both."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.cluster import connected
from sracl_dist.columns import HAS_PROFILE
from sracl_dist.config import Config
from sracl_dist.config.sections import EmbedConfig
from sracl_dist.embed.from_file import take_vectors
from sracl_dist.embed.texts import text_of
from sracl_dist.embed.vectors import FIRST_KEY, vectors_table
from sracl_dist.embed.workers import spread_over
from sracl_dist.errors import StorageError
from sracl_dist.meter.job import measure_texts, stored_measures, texts_to_take
from sracl_dist.observe import Progress
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.table import read_profiles
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.shards import Shard, pending_shards, plan_shards
from sracl_dist.stages import StageResult


def embed_texts(config: Config, run: RunFolder) -> StageResult:
    """Write the shards below `items/` and `users/` with the columns key and vector, and has_profile of encoded texts.

    Raises:
        InputError: finished vectors cannot be taken from the files of embed.items or embed.users.
    """
    settings, folder = config.embed, run.stage("embed")
    num_rows = _num_rows(run)
    plan = plan_of_all(num_rows, settings.shard_rows)
    pending = pending_shards(folder, plan)
    taken = take_vectors(config, run, pending)
    plan, pending = ([shard for shard in shards if shard.kind not in taken.kinds] for shards in (plan, pending))
    with_profile = _num_with_profile(folder, sorted(set(plan) - set(pending), key=lambda shard: shard.name))
    total = sum(shard.num_rows for shard in plan)
    progress = Progress("embed: texts", total, done=total - sum(shard.num_rows for shard in pending))

    def commit(shard: Shard, table: pa.Table) -> None:
        folder.write_table(shard.name, table)
        with_profile[shard.kind] += pc.sum(table[HAS_PROFILE]).as_py()
        progress.update(table.num_rows)

    measured = stored_measures(settings, run) if plan else {}
    if pending or measured is None:
        model = resolve_model(settings.model)
        with connected(config.cluster) as cluster:
            spread = spread_over(cluster, settings)
            if measured is None:
                kinds = [kind for kind in FIRST_KEY if kind not in taken.kinds]
                measured = measure_texts(config, run, model, kinds, spread)
            spread(_make_embedder, (settings, model, run, texts_to_take(settings, measured)), pending, commit)
    progress.close()
    details: dict[str, Any] = {
        f"num_{kind}_with_profile": num for kind, num in with_profile.items() if kind not in taken.kinds
    }
    details |= taken.details | ({"meter": measured} if measured else {})
    return StageResult(rows=num_rows, details=details, summary=taken.summary)


def plan_of_all(num_rows: dict[str, int], shard_rows: int) -> list[Shard]:
    """The shards of all kinds, given how many rows each has."""
    return [
        shard for kind, first in FIRST_KEY.items() for shard in plan_shards(kind, first, num_rows[kind], shard_rows)
    ]


def _num_rows(run: RunFolder) -> dict[str, int]:
    prepared = run.stage("prepare").manifest()
    if prepared is None:
        raise StorageError(f"{run.stage('prepare').path()} is not finished; run jobs/prepare.py.")
    return {kind: prepared.rows[kind] for kind in FIRST_KEY}


def _num_with_profile(folder: StageFolder, committed: list[Shard]) -> dict[str, int]:
    """How many rows of each kind have a profile, in shards of an earlier start."""
    nums = dict.fromkeys(FIRST_KEY, 0)
    for shard in committed:
        nums[shard.kind] += pc.sum(folder.read_table(shard.name, [HAS_PROFILE])[HAS_PROFILE]).as_py()
    return nums


def _make_embedder(
    settings: EmbedConfig, model: str, run: RunFolder, choices: dict[str, str]
) -> Callable[[Shard], pa.Table]:
    """Runs in a worker: load the encoder and the texts once. `choices` has the text to take, by kind."""
    from sracl_dist.embed.encoder import TextEncoder

    encoder = TextEncoder(settings, model)
    texts = load_training_texts(run)

    def embed(shard: Shard) -> pa.Table:
        keys = range(shard.start, shard.stop)
        profiles = read_profiles(run, shard.kind, shard.start, shard.stop)
        chosen = [
            text_of(texts, shard.kind, key, profile, choices[shard.kind], settings.items_per_user)
            for key, profile in zip(keys, profiles, strict=True)
        ]
        vectors = encoder.encode(chosen)
        has_profile = pa.array([profile is not None for profile in profiles])
        return vectors_table(shard, vectors, settings.precision).append_column(HAS_PROFILE, has_profile)

    return embed
