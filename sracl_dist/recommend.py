"""The stage recommend: the best items for every user after the whole history, in the user's own ids.

recommendations/<first>-<end>.parquet    user_id, item_ids list, scores list, best first
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch

from sracl_dist.cluster import connected, map_shards
from sracl_dist.columns import ITEM_IDS, SCORES, USER_ID
from sracl_dist.config import Config
from sracl_dist.errors import StorageError
from sracl_dist.evaluate.best import best_items
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.ids import ITEMS_TABLE, load_item_ids, load_user_ids
from sracl_dist.observe import Progress
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import load_sequences
from sracl_dist.shards import Shard, pending_shards, plan_shards
from sracl_dist.stages import StageResult
from sracl_dist.train.state import load_best_encoder

STAGE = "recommend"
RECOMMENDATIONS = "recommendations"


def recommend(config: Config, run: RunFolder) -> StageResult:
    """Write recommend.num_items items for every user, fewer where the catalogue has no more to offer.

    Raises:
        StageError: a score is not a number.
        SetupError: the cluster is too small.
        StorageError: the checkpoint or a table is damaged.
    """
    folder, sequences, settings = run.stage(STAGE), load_sequences(run), config.recommend
    plan = plan_shards(RECOMMENDATIONS, 0, sequences.num_users, settings.shard_users)
    pending = pending_shards(folder, plan)
    num_pending = sum(shard.num_rows for shard in pending)
    progress = Progress(STAGE, sequences.num_users, "users", done=sequences.num_users - num_pending)
    if pending:
        with connected(config.cluster) as cluster:
            map_shards(
                make_recommender,
                (run, settings.num_items, settings.remove_seen),
                pending,
                lambda shard, _: progress.update(shard.num_rows),
                num_workers=settings.num_workers,
                cpus_per_worker=settings.cpus_per_worker,
                gpus_per_worker=min(1, cluster.num_gpus),
            )
    progress.close()
    num_rows = sum(folder.num_values(name, USER_ID) for name in folder.files(f"{RECOMMENDATIONS}/"))
    if num_rows != sequences.num_users:
        raise StorageError(
            f"{folder.shown(RECOMMENDATIONS)} has {num_rows:,} rows for {sequences.num_users:,} users; {folder.anew}."
        )
    return StageResult(
        rows={RECOMMENDATIONS: num_rows},
        details={"num_items": settings.num_items, "remove_seen": settings.remove_seen},
        summary=[f"up to {settings.num_items} items for each of {num_rows:,} users"],
    )


def make_recommender(run: RunFolder, num_items: int, remove_seen: bool) -> Callable[[Shard], int]:
    """What a worker does: recommend to a shard's users and commit the lists; returns how many they are."""
    sequences, folder = load_sequences(run), run.stage(STAGE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = CatalogueScores(load_best_encoder(run, sequences.num_items, device), device)
    item_ids = load_item_ids(run)
    if len(item_ids) != sequences.num_items:
        raise StorageError(
            f"{run.stage('prepare').shown(ITEMS_TABLE)} lists {len(item_ids):,} of {sequences.num_items:,} items; "
            f"{run.stage('prepare').anew}."
        )

    def serve(shard: Shard) -> int:
        users = np.arange(shard.start, shard.stop)
        best = best_items(scores, sequences.histories(users), num_items, remove_seen=remove_seen)
        offsets = pa.array(np.concatenate([[0], np.cumsum(best.lengths)]), pa.int32())
        columns = {
            USER_ID: load_user_ids(run, shard).external(users),
            ITEM_IDS: pa.ListArray.from_arrays(offsets, item_ids.external(best.items)),
            SCORES: pa.ListArray.from_arrays(offsets, pa.array(best.scores, pa.float32())),
        }
        folder.write_table(shard.name, pa.table(columns))
        return shard.num_rows

    return serve
