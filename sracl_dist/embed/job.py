"""embed: one unit vector for every item and every user, from its profile, its raw text, or both."""

from collections.abc import Callable

import pyarrow as pa

from sracl_dist.cluster import connected, map_shards
from sracl_dist.columns import TEXT
from sracl_dist.config import Config
from sracl_dist.config.sections import EmbedConfig
from sracl_dist.embed.from_file import take_vectors
from sracl_dist.embed.vectors import FIRST_KEY, vectors_table
from sracl_dist.errors import StorageError
from sracl_dist.observe import Progress
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.table import read_profiles
from sracl_dist.profiles.texts import TrainingTexts, load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import Shard, pending_shards, plan_shards
from sracl_dist.stages import StageResult


def embed_texts(config: Config, run: RunFolder) -> StageResult:
    """Write the shards below `items/` and `users/` with the columns key and vector.

    Raises:
        InputError: finished vectors cannot be taken from the files of embed.items or embed.users.
    """
    folder, settings = run.stage("embed"), config.embed
    prepared = run.stage("prepare").manifest()
    if prepared is None:
        raise StorageError(f"{run.stage('prepare').path()} is not finished; run jobs/prepare.py.")
    num_rows = {kind: prepared.rows[kind] for kind in FIRST_KEY}
    plan = [
        shard
        for kind, first in FIRST_KEY.items()
        for shard in plan_shards(kind, first, num_rows[kind], settings.shard_rows)
    ]
    pending = pending_shards(folder, plan)
    taken = take_vectors(config, run, pending)
    pending = [shard for shard in pending if shard.kind not in taken.kinds]
    total = sum(num for kind, num in num_rows.items() if kind not in taken.kinds)
    progress = Progress("embed: texts", total, done=total - sum(shard.num_rows for shard in pending))

    def commit(shard: Shard, table: pa.Table) -> None:
        folder.write_table(shard.name, table)
        progress.update(table.num_rows)

    if pending:
        with connected(config.cluster) as cluster:
            map_shards(
                _make_embedder,
                (settings, resolve_model(settings.model), run),
                pending,
                commit,
                num_workers=settings.num_workers,
                cpus_per_worker=1 if cluster.num_gpus else cluster.cpus_for_each(settings.num_workers),
                gpus_per_worker=1 if cluster.num_gpus else 0,
            )
    progress.close()
    return StageResult(rows=num_rows, details=_count_profiles(run) | taken.details, summary=taken.summary)


def raw_text(texts: TrainingTexts, kind: str, key: int, items_per_user: int) -> str:
    """What the user's own data say: an item's line, or a user's latest training items, newest first.

    The newest come first because the encoder cuts long texts at their end.
    """
    if kind == "items":
        return texts.item(key).line
    latest = texts.history(key)[-items_per_user:]
    return ". ".join(texts.item(item).line for item in reversed(latest))


def text_to_embed(raw: str, profile: str | None, kind: str, choice: str) -> str:
    """The chosen text; a raw history comes behind the profile, because it may fill the whole length."""
    if choice == "raw" or not profile:
        return raw
    if choice == "profile":
        return profile
    return f"{raw}. {profile}" if kind == "items" else f"{profile} {raw}"


def _make_embedder(settings: EmbedConfig, model: str, run: RunFolder) -> Callable[[Shard], pa.Table]:
    """Runs in a worker: load the encoder and the texts once."""
    from sracl_dist.embed.encoder import TextEncoder

    texts = load_training_texts(run)
    in_windows = settings.long_texts == "windows"
    encoder = TextEncoder(model, settings.max_tokens, settings.batch_rows, in_windows=in_windows)

    def embed(shard: Shard) -> pa.Table:
        keys = range(shard.start, shard.stop)
        profiles = read_profiles(run, shard.kind, shard.start, shard.stop)
        chosen = [
            text_to_embed(raw_text(texts, shard.kind, key, settings.items_per_user), profile, shard.kind, settings.text)
            for key, profile in zip(keys, profiles, strict=True)
        ]
        vectors = encoder.encode(chosen)
        return vectors_table(shard, vectors, settings.precision)

    return embed


def _count_profiles(run: RunFolder) -> dict[str, int]:
    folder = run.stage("profile")
    tables = {kind: folder.read_table(f"{kind}.parquet", [TEXT]) for kind in FIRST_KEY}
    return {
        f"num_{kind}_with_profile": sum(1 for text in table[TEXT].to_pylist() if text) for kind, table in tables.items()
    }
