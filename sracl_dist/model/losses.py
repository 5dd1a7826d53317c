"""The contrastive loss: pure, and a sum rather than a mean, so that parts of a batch add up to the whole.

M anchors, C candidates, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sracl_dist.config.sections import Similarity


def info_nce(
    anchors_MD: Tensor,
    candidates_CD: Tensor,
    positives_M: Tensor,
    *,
    similarity: Similarity,
    temperature: float,
    excluded_MC: Tensor | None = None,
) -> Tensor:
    """Sum over anchors of -log( exp(s(z_m, c_p) / T) / sum_c exp(s(z_m, c) / T) ), p being m's positive.

    Args:
        anchors_MD: anchors z.
        candidates_CD: the positives of all anchors, which are the negatives of each other.
        positives_M: index of each anchor's positive among the candidates.
        similarity: s, the inner product or the cosine.
        temperature: T.
        excluded_MC: True where a candidate is no part of the anchor's sum, such as the anchor itself.

    Returns:
        A scalar, 0 without anchors.
    """
    if similarity == "cosine":
        anchors_MD, candidates_CD = F.normalize(anchors_MD, dim=1), F.normalize(candidates_CD, dim=1)
    logits_MC = (anchors_MD @ candidates_CD.T).float() / temperature
    if excluded_MC is not None:
        logits_MC = logits_MC.masked_fill(excluded_MC, float("-inf"))
    positive_M = logits_MC.gather(1, positives_M[:, None]).squeeze(1)
    return (torch.logsumexp(logits_MC, dim=1) - positive_M).sum()
