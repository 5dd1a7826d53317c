"""The validation ranks of all users, made by all workers together.

U evaluated users.
"""

import numpy as np
import torch

from sracl_dist.errors import StageError
from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.sequences import Sequences
from sracl_dist.train.worker import Worker

BLOCK_USERS = 2048
"""Users ranked together; blocks are the same for any number of workers, and with them the metrics to the last bit."""


def validate(encoder: SequenceEncoder, sequences: Sequences, worker: Worker) -> dict[str, dict[str, float]]:
    """Metrics by protocol over all users with a validation item, the same on every worker.

    Raises:
        StageError: a score is not a number, or a user was not ranked exactly once.
    """
    users_U, targets_U = sequences.targets("validation")
    ranks_3U = torch.zeros(3, len(users_U), dtype=torch.int32)
    scores = CatalogueScores(encoder, worker.device)
    starts = range(0, len(users_U), BLOCK_USERS)
    for start in starts[worker.rank :: worker.world_size]:
        block = slice(start, start + BLOCK_USERS)
        ranks = rank_targets(scores, sequences.contexts(users_U[block], "validation"), targets_U[block])
        ranks_3U[0, block] = torch.from_numpy(ranks.seen_kept)
        ranks_3U[1, block] = torch.from_numpy(ranks.seen_removed)
        ranks_3U[2, block] += 1
    kept_U, removed_U, times_U = worker.sum_over_workers(ranks_3U).cpu().numpy()
    if not np.all(times_U == 1):
        raise StageError(f"{int((times_U != 1).sum())} users were not ranked exactly once; report this as a defect.")
    return {
        "seen_kept": mean_metrics(kept_U, sequences.num_items),
        "seen_removed": mean_metrics(removed_U, sequences.num_items),
    }
