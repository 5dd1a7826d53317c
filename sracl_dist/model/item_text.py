"""What an item's text adds to its representation.

V catalogue, N items, D width, P width of the text vectors.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sracl_dist.columns import PAD
from sracl_dist.model.initial import INITIAL_STD

ITEMS_PER_PIECE = 16_384
"""Items whose text vectors are brought together at a time where all of them are asked for."""


class ItemText(nn.Module):
    """W t_v, t_v being the text vector of the item less the mean over the items that are trained.

    The vectors are a part of the module, on its device, or stay where they are, from where only those of the asked
    items are fetched.
    """

    centre_P: Tensor

    def __init__(
        self, vectors_VP: NDArray[np.float32], is_trained_V: NDArray[np.bool_], width: int, *, on_device: bool
    ) -> None:
        super().__init__()
        self._vectors_VP, self._on_device = vectors_VP, on_device
        self.register_buffer("centre_P", torch.from_numpy(_mean(vectors_VP, is_trained_V)), persistent=False)
        if on_device:
            centred_VP = vectors_VP - self.centre_P.numpy()
            centred_VP[PAD] = 0
            self.register_buffer("centred_VP", torch.from_numpy(np.asarray(centred_VP)), persistent=False)
        self.projection = nn.Linear(vectors_VP.shape[1], width, bias=False)
        nn.init.normal_(self.projection.weight, std=INITIAL_STD)

    def added_to(self, own_ND: Tensor, items_N: Tensor | None = None) -> Tensor:
        """Representations [N, D] with what the texts of these items, or of all, add to what they have of their own.

        Where all are asked for and their vectors lie elsewhere, `own_ND` itself takes what is added, piece by piece:
        another table of all items may not fit into memory.
        """
        if self._on_device:
            centred_VP = self.get_buffer("centred_VP")
            added_ND: Tensor = own_ND + self.projection(centred_VP if items_N is None else centred_VP[items_N])
            return added_ND
        if items_N is not None:
            return own_ND + self.projection(self._fetched(items_N))
        for items in torch.arange(len(own_ND), device=own_ND.device).split(ITEMS_PER_PIECE):
            own_ND[items[0] : items[-1] + 1] += self.projection(self._fetched(items))
        return own_ND

    def _fetched(self, items_N: Tensor) -> Tensor:
        """Centred vectors [N, P] on the device."""
        found_NP = torch.from_numpy(self._vectors_VP[items_N.cpu().numpy()]).to(items_N.device)
        return found_NP.sub_(self.centre_P).masked_fill_((items_N == PAD)[:, None], 0.0)


def _mean(vectors_VP: NDArray[np.float32], is_trained_V: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean over the items that are trained, piece by piece, since a copy of all may not fit into memory."""
    total_P = np.zeros(vectors_VP.shape[1])
    for start in range(0, len(vectors_VP), ITEMS_PER_PIECE):
        piece = slice(start, start + ITEMS_PER_PIECE)
        total_P += vectors_VP[piece][is_trained_V[piece]].sum(axis=0, dtype=np.float64)
    return (total_P / max(1, is_trained_V.sum())).astype(np.float32)
