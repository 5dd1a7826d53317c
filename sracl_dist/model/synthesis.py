"""The positive of a user in the cross-sequence contrast: a learned mean of its nearest users' states.

M users asked for, K neighbours, U users, D width, P width of the profile vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sracl_dist.columns import MISSING
from sracl_dist.config.sections import SynthesisKind
from sracl_dist.model.dropout import Dropout
from sracl_dist.model.initial import INITIAL_STD

LEAKY_SLOPE = 0.2
"""Slope of LeakyReLU below zero, as in graph attention networks and the reference."""


class StateBank(nn.Module):
    """The latest state of every user; not learned, and empty until a user is first seen."""

    states_UD: Tensor
    seen_U: Tensor

    def __init__(self, num_users: int, width: int) -> None:
        super().__init__()
        self.register_buffer("states_UD", torch.zeros(num_users, width))
        self.register_buffer("seen_U", torch.zeros(num_users, dtype=torch.bool))

    def read(self, users_MK: Tensor) -> Tensor:
        """Copies of states [M, K, D]; anything for the missing and unseen ones."""
        return self.states_UD[users_MK.clamp(min=0)]

    def known(self, users_MK: Tensor) -> Tensor:
        """Which of the users [M, K] exist and have been seen."""
        return (users_MK != MISSING) & self.seen_U[users_MK.clamp(min=0)]

    @torch.no_grad()
    def write(self, users_M: Tensor, states_MD: Tensor) -> None:
        """Remember the states of distinct users."""
        self.states_UD[users_M] = states_MD.detach().to(self.states_UD.dtype)
        self.seen_U[users_M] = True


class Synthesis(nn.Module):
    """h+ = sum of w h_u' over the neighbours u', with w of one of three kinds.

    learned: w = softmax over u' of LeakyReLU(a^T [W p_u ; W p_u']). uniform: all neighbours alike. sampled: one
    neighbour, drawn anew each time (the paper's ablation without learning).
    """

    def __init__(self, profile_width: int, width: int, dropout: float, kind: SynthesisKind) -> None:
        super().__init__()
        self.kind = kind
        self.dropout = Dropout(dropout if kind == "learned" else 0.0)
        if kind == "learned":
            self.project = nn.Linear(profile_width, width, bias=False)
            self.attend = nn.Parameter(torch.empty(2, width))
            nn.init.xavier_uniform_(self.project.weight)
            nn.init.normal_(self.attend, std=INITIAL_STD)

    def weights(self, own_MP: Tensor, others_MKP: Tensor, known_MK: Tensor) -> Tensor:
        """Weights [M, K] of each user's neighbours; they sum to 1 over the known ones and are 0 elsewhere.

        Args:
            own_MP: profile vectors p_u.
            others_MKP: profile vectors p_u' of the neighbours.
            known_MK: which neighbours count; at least one per user.
        """
        if self.kind == "sampled":
            drawn_MK = torch.rand(known_MK.shape, device=known_MK.device).masked_fill(~known_MK, -1.0)
            return F.one_hot(drawn_MK.argmax(dim=1), known_MK.shape[1]).float()
        if self.kind == "uniform":
            return known_MK.float() / known_MK.sum(dim=1, keepdim=True)
        own_M = self.project(own_MP) @ self.attend[0]
        others_MK = self.project(others_MKP) @ self.attend[1]
        scores_MK = F.leaky_relu(own_M[:, None] + others_MK, LEAKY_SLOPE)
        return scores_MK.masked_fill(~known_MK, float("-inf")).softmax(dim=1)

    def forward(self, own_MP: Tensor, others_MKP: Tensor, known_MK: Tensor, states_MKD: Tensor) -> Tensor:
        """Synthesised states h+ [M, D] out of the neighbours' states; arguments as in `weights`."""
        weights_MK = self.dropout(self.weights(own_MP, others_MKP, known_MK))
        return (weights_MK[:, None, :] @ states_MKD.to(weights_MK.dtype)).squeeze(1)
