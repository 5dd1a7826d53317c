"""embed: one unit vector for every item and every user, from its profile, its raw text, or both."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.cluster import connected, map_shards
from sracl_dist.columns import HAS_PROFILE
from sracl_dist.config import Config
from sracl_dist.config.sections import ClusterConfig, EmbedConfig
from sracl_dist.embed.from_file import take_vectors
from sracl_dist.embed.vectors import FIRST_KEY, vectors_table
from sracl_dist.errors import StorageError
from sracl_dist.observe import Progress
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.table import read_profiles
from sracl_dist.profiles.texts import TrainingTexts, load_training_texts
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

    if pending:
        _on_workers(config.cluster, settings, run, pending, commit)
    progress.close()
    counts = {f"num_{kind}_with_profile": num for kind, num in with_profile.items() if kind not in taken.kinds}
    return StageResult(rows=num_rows, details=counts | taken.details, summary=taken.summary)


def plan_of_all(num_rows: dict[str, int], shard_rows: int) -> list[Shard]:
    """The shards of all kinds, given how many rows each has."""
    return [
        shard for kind, first in FIRST_KEY.items() for shard in plan_shards(kind, first, num_rows[kind], shard_rows)
    ]


def raw_text(texts: TrainingTexts, kind: str, key: int, items_per_user: int) -> str:
    """What the user's own data say: an item's line and description, or a user's latest training items."""
    return text_to_embed(*_before_and_behind(texts, kind, key, items_per_user), None, "raw")


def text_to_embed(before: str, behind: str, profile: str | None, choice: str) -> str:
    """The chosen text: raw, a profile, or both with the profile between what is short and what is long.

    The encoder cuts a text at its end, so what may fill the whole length is last.
    """
    if choice == "profile" and profile:
        return profile
    text = before
    for part in (profile if choice == "raw_and_profile" else None, behind):
        if text and part:
            text += " " if text.endswith((".", "!", "?")) else ". "
        text += part or ""
    return text


def _before_and_behind(texts: TrainingTexts, kind: str, key: int, items_per_user: int) -> tuple[str, str]:
    """The raw text in two: what is short, and what may fill the whole length, a history with its newest item first."""
    if kind == "items":
        item = texts.item(key)
        return item.line, item.description
    latest = texts.history(key)[-items_per_user:]
    return "", ". ".join(texts.item(item).line for item in reversed(latest))


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


def _on_workers(
    cluster_config: ClusterConfig,
    settings: EmbedConfig,
    run: RunFolder,
    pending: list[Shard],
    commit: Callable[[Shard, pa.Table], None],
) -> None:
    model = resolve_model(settings.model)
    with connected(cluster_config) as cluster:
        map_shards(
            _make_embedder,
            (settings, model, run),
            pending,
            commit,
            num_workers=settings.num_workers,
            cpus_per_worker=1 if cluster.num_gpus else cluster.cpus_for_each(settings.num_workers),
            gpus_per_worker=1 if cluster.num_gpus else 0,
        )


def _make_embedder(settings: EmbedConfig, model: str, run: RunFolder) -> Callable[[Shard], pa.Table]:
    """Runs in a worker: load the encoder and the texts once."""
    from sracl_dist.embed.encoder import TextEncoder

    encoder = TextEncoder(settings, model)
    texts = load_training_texts(run)

    def embed(shard: Shard) -> pa.Table:
        keys = range(shard.start, shard.stop)
        profiles = read_profiles(run, shard.kind, shard.start, shard.stop)
        chosen = [
            text_to_embed(*_before_and_behind(texts, shard.kind, key, settings.items_per_user), profile, settings.text)
            for key, profile in zip(keys, profiles, strict=True)
        ]
        vectors = encoder.encode(chosen)
        has_profile = pa.array([profile is not None for profile in profiles])
        return vectors_table(shard, vectors, settings.precision).append_column(HAS_PROFILE, has_profile)

    return embed
