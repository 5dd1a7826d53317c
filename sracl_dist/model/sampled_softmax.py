"""The next-item loss over a sample of the catalogue, as a sum, so that parts of a batch add up to the whole.

M positions, S sampled items, D width, c positions of a chunk.
"""

from typing import Any

import torch
from torch import Tensor

from sracl_dist.model.sampling import Sample
from sracl_dist.model.softmax import chunks


def sampled_softmax_loss(
    states_MD: Tensor,
    targets_MD: Tensor,
    targets_M: Tensor,
    sampled_SD: Tensor,
    sample: Sample,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sum over positions of -log softmax over the target and a sample, corrected for how the sample was drawn.

    From the score of a sampled item the logarithm of its expected number of occurrences in the sample is subtracted
    (logQ, Bengio and Senecal 2008), and one that is the position's own target is an accidental hit and left out. The
    target is there always and only once, hence its score stays as it is. So the sum below the fraction bar is on
    average that of the full softmax, and the gradient comes close.

    As in `full_softmax_loss`, scores are made, used for the loss and for all gradients, and forgotten, chunk by chunk
    of positions.

    Args:
        states_MD: states before each target.
        targets_MD: embeddings of the targets.
        targets_M: ids of the targets.
        sampled_SD: embeddings of the sampled items, shared by all positions.
        sample: which they are, and how often each was to be expected.
        dtype: number format of the products with sampled items; all else is float32.

    Returns:
        A scalar.
    """
    wants_gradient = torch.is_grad_enabled()
    with torch.autocast(states_MD.device.type, enabled=False):
        loss: Tensor = _SampledSoftmax.apply(
            states_MD.float(), targets_MD.float(), targets_M, sampled_SD.float(), sample, dtype, wants_gradient
        )
    return loss


class _SampledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        states_MD: Tensor,
        targets_MD: Tensor,
        targets_M: Tensor,
        sampled_SD: Tensor,
        sample: Sample,
        dtype: torch.dtype,
        is_grad_enabled: bool,
    ) -> Tensor:
        wants_gradient = is_grad_enabled and any(context.needs_input_grad)
        states, sampled = states_MD.to(dtype), sampled_SD.to(dtype)
        own_M = (states_MD * targets_MD).sum(dim=1)
        states_gradient, sampled_gradient = torch.empty_like(states_MD), torch.zeros_like(sampled_SD)
        surplus_M = torch.empty_like(own_M)
        loss = torch.zeros((), device=states.device)
        for chunk in chunks(len(states), len(sampled), states.device):
            own_c = own_M[chunk]
            scores_cS = (states[chunk] @ sampled.T).float().sub_(sample.log_expected_S)
            scores_cS.masked_fill_(sample.items_S == targets_M[chunk, None], float("-inf"))
            largest_c = torch.maximum(scores_cS.amax(dim=1), own_c)
            parts_cS = scores_cS.sub_(largest_c[:, None]).exp_()
            own_part_c = (own_c - largest_c).exp()
            total_c = parts_cS.sum(dim=1) + own_part_c
            loss += (total_c.log() + largest_c - own_c).sum()
            if not wants_gradient:
                continue
            shares_cS = parts_cS.div_(total_c[:, None]).to(dtype)
            surplus_M[chunk] = own_part_c / total_c - 1
            states_gradient[chunk] = (shares_cS @ sampled).float()
            sampled_gradient += shares_cS.T @ states[chunk]
        if wants_gradient:
            states_gradient += surplus_M[:, None] * targets_MD
            context.save_for_backward(states_gradient, surplus_M[:, None] * states_MD, sampled_gradient)
        return loss

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, targets_gradient, sampled_gradient = context.saved_tensors
        factor = gradients[0]
        return factor * states_gradient, factor * targets_gradient, None, factor * sampled_gradient, None, None, None
