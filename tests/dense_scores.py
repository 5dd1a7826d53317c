"""Scores of the whole catalogue by their definition, for tests."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.rows import latest_rows


@torch.no_grad()
def dense_scores(encoder: SequenceEncoder, contexts: Sequence[NDArray[np.int32]]) -> Tensor:
    """Scores [B, V] in float64 of items 1..V after each context, the bias of repeats included."""
    was_training = encoder.training
    encoder.eval()
    table_VD = encoder.catalogue()
    rows = latest_rows(contexts, encoder.max_length).to(table_VD.device)
    scores_BV = encoder(rows, table_VD)[rows.last_B].double() @ table_VD[1:].double().T
    encoder.train(was_training)
    if encoder.repeat_bias is not None:
        for row, context in enumerate(contexts):
            scores_BV[row, np.unique(context) - 1] += encoder.repeat_bias.double()
    return scores_BV
