"""The stage evaluate: ranks of all users' test items, in shards over the cluster, and what they amount to.

ranks/<first>-<end>.parquet    user, target, rank_seen_kept, rank_seen_removed
metrics.json                   metrics by protocol, slices, and who was not evaluated and why
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sracl_dist.cluster import connected, map_shards
from sracl_dist.columns import RANK_SEEN_KEPT, RANK_SEEN_REMOVED, TARGET, USER
from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.evaluate.ranking import Ranks, rank_targets
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.evaluate.slices import slice_metrics
from sracl_dist.observe import Progress
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.sequences import Sequences, load_sequences
from sracl_dist.shards import Shard, pending_shards, plan_shards
from sracl_dist.stages import StageResult
from sracl_dist.train.state import load_best_encoder

STAGE = "evaluate"
RANKS = "ranks"
METRICS = "metrics.json"


def evaluate(config: Config, run: RunFolder) -> StageResult:
    """Rank the catalogue for every user with a test item, with the weights of the selected epoch.

    Raises:
        StageError: a score is not a number, nobody can be evaluated, or a user was not ranked exactly once.
        SetupError: the cluster is too small.
        StorageError: the checkpoint or a table is damaged.
    """
    folder, sequences = run.stage(STAGE), load_sequences(run)
    plan = plan_shards(RANKS, 0, sequences.num_users, config.evaluate.shard_users)
    pending = pending_shards(folder, plan)
    num_pending = sum(shard.num_rows for shard in pending)
    progress = Progress(STAGE, sequences.num_users, "users", done=sequences.num_users - num_pending)
    if pending:
        with connected(config.cluster) as cluster:
            map_shards(
                make_ranker,
                (run,),
                pending,
                lambda shard, _: progress.update(shard.num_rows),
                num_workers=config.evaluate.num_workers,
                cpus_per_worker=config.evaluate.cpus_per_worker,
                gpus_per_worker=min(1, cluster.num_gpus),
            )
    progress.close()
    return _summarise(run, sequences)


def make_ranker(run: RunFolder) -> Callable[[Shard], int]:
    """What a worker does: rank a shard's users and commit their ranks; returns how many they are."""
    sequences, folder = load_sequences(run), run.stage(STAGE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = CatalogueScores(load_best_encoder(run, sequences.num_items, device), device)
    all_users, all_targets = sequences.targets("test")

    def rank(shard: Shard) -> int:
        own = slice(*np.searchsorted(all_users, [shard.start, shard.stop]))
        users_U, targets_U = all_users[own], all_targets[own]
        ranks = rank_targets(scores, sequences.contexts(users_U, "test"), targets_U)
        columns = {
            USER: pa.array(users_U, pa.int64()),
            TARGET: pa.array(targets_U, pa.int32()),
            RANK_SEEN_KEPT: pa.array(ranks.seen_kept, pa.int32()),
            RANK_SEEN_REMOVED: pa.array(ranks.seen_removed, pa.int32()),
        }
        folder.write_table(shard.name, pa.table(columns))
        return len(users_U)

    return rank


def _summarise(run: RunFolder, sequences: Sequences) -> StageResult:
    folder = run.stage(STAGE)
    users_U, targets_U = sequences.targets("test")
    if not len(users_U):
        raise StageError("No user has a test item; lower data.min_user_interactions or change data.split.")
    table = folder.read_shards(f"{RANKS}/")
    _require_everybody_once(folder, table, users_U)
    table = table.sort_by(USER)
    ranks = Ranks(
        seen_kept=table[RANK_SEEN_KEPT].to_numpy(),
        seen_removed=table[RANK_SEEN_REMOVED].to_numpy(),
    )
    kept = mean_metrics(ranks.seen_kept, sequences.num_items)
    removed = mean_metrics(ranks.seen_removed, sequences.num_items)
    report: dict[str, Any] = {
        "split": "test",
        "candidates": f"all {sequences.num_items} items",
        "ties": "rank = 1 + the number of other items that score at least as high",
        "num_users": len(users_U),
        "not_evaluated": _not_evaluated(sequences),
        "seen_kept": kept,
        "seen_removed": removed,
        "slices": slice_metrics(sequences, users_U, targets_U, ranks),
    }
    folder.write_json(METRICS, report)
    return StageResult(
        rows={RANKS: table.num_rows},
        details={"seen_kept": kept, "seen_removed": removed, "not_evaluated": report["not_evaluated"]},
        summary=[
            f"{protocol.replace('_', ' '):12}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            for protocol, values in (("seen_kept", kept), ("seen_removed", removed))
        ],
    )


def _require_everybody_once(folder: StageFolder, table: pa.Table, users_U: np.ndarray) -> None:
    ranked = np.sort(table[USER].to_numpy())
    if not np.array_equal(ranked, users_U):
        raise StageError(
            f"{len(ranked):,} ranks were made of {len(np.unique(ranked)):,} users where {len(users_U):,} have a test "
            f"item; {folder.anew}."
        )


def _not_evaluated(sequences: Sequences) -> dict[str, int]:
    """Users without a rank, by the reason."""
    num_items = np.diff(sequences.offsets)
    num_context = sequences.num_train + sequences.num_validation
    no_target = num_items <= num_context
    return {"no test item": int(no_target.sum()), "no item before it": int((~no_target & (num_context == 0)).sum())}
