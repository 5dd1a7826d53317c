"""Loss functions: pure, and sums rather than means, so that parts of a batch add up to the whole.

M anchors or positions, C candidates, D width, V catalogue.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sracl_dist.config.sections import Similarity


def next_item_loss(states_MD: Tensor, targets_M: Tensor, catalogue_VD: Tensor) -> Tensor:
    """Sum over positions of -log softmax(h E^T)[target], the softmax being over all items 1..V.

    Args:
        states_MD: states before each target.
        targets_M: item ids 1..V.
        catalogue_VD: embeddings of the items 1..V.

    Returns:
        A scalar.
    """
    return F.cross_entropy(states_MD @ catalogue_VD.T, targets_M - 1, reduction="sum")


def info_nce(
    anchors_MD: Tensor,
    candidates_CD: Tensor,
    positives_M: Tensor,
    *,
    similarity: Similarity,
    temperature: float,
    own_M: Tensor | None = None,
) -> Tensor:
    """Sum over anchors of -log( exp(s(z_m, c_p) / T) / sum_c exp(s(z_m, c) / T) ), p being m's positive.

    Args:
        anchors_MD: anchors z.
        candidates_CD: the positives of all anchors, which are the negatives of each other.
        positives_M: index of each anchor's positive among the candidates.
        similarity: s, the inner product or the cosine.
        temperature: T.
        own_M: index of each anchor itself among the candidates, where it is one; left out of its own sum.

    Returns:
        A scalar, 0 without anchors.
    """
    if similarity == "cosine":
        anchors_MD, candidates_CD = F.normalize(anchors_MD, dim=1), F.normalize(candidates_CD, dim=1)
    logits_MC = anchors_MD @ candidates_CD.T / temperature
    if own_M is not None:
        logits_MC = logits_MC.scatter(1, own_M[:, None], float("-inf"))
    positive_M = logits_MC.gather(1, positives_M[:, None]).squeeze(1)
    return (torch.logsumexp(logits_MC, dim=1) - positive_M).sum()
