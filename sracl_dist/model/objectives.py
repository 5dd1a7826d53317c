"""The terms of the loss: each reads a batch and the states of its rows, and yields one number.

Every term is this worker's share: the sum over workers is the mean over the whole batch. A new objective is a
subclass, a line in OBJECTIVES, and its name in ObjectivesConfig.check, which must not import torch to know the names; a
test holds the two equal.

B rows, L positions, D width, K neighbours, V catalogue, U users, H histories of this worker, G of all workers,
M histories that have a positive.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from sracl_dist.columns import MISSING, PAD
from sracl_dist.config import Config
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.gather import gather_rows
from sracl_dist.model.inputs import Batch, last_states
from sracl_dist.model.losses import info_nce, next_item_loss
from sracl_dist.model.synthesis import StateBank, Synthesis
from sracl_dist.model.tables import SemanticTables


class Objective(nn.Module, ABC):
    """One term of the loss."""

    weight = 1.0
    """What the term is multiplied with in the total."""

    @classmethod
    @abstractmethod
    def build(cls, config: Config, tables: SemanticTables) -> "Objective":
        """From the configuration and those tables that the term needs."""

    @abstractmethod
    def forward(self, batch: Batch, encoder: SequenceEncoder, states_BLD: Tensor) -> Tensor:
        """This worker's share of the term, a scalar; every worker must call it."""


class NextItem(Objective):
    """Cross-entropy of h_t E^T against the item after t, over the whole catalogue."""

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "NextItem":  # noqa: ARG003  the term has no settings
        """See `Objective.build`."""
        return cls()

    def forward(self, batch: Batch, encoder: SequenceEncoder, states_BLD: Tensor) -> Tensor:
        """See `Objective.forward`; the mean is over all trained targets."""
        trained_BL = batch.targets_BL != PAD
        loss = next_item_loss(states_BLD[trained_BL], batch.targets_BL[trained_BL], encoder.catalogue())
        return loss / max(1, batch.num_targets)


class CrossSequence(Objective):
    """InfoNCE of h_u with h_u+, the synthesis of its nearest users' latest states.

    Negatives are the synthesised states of the batch's other users, on all workers.
    """

    neighbours_UK: Tensor
    profiles_UP: Tensor

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.settings = config.objectives.cross_sequence
        self.weight = self.settings.weight
        self.register_buffer("neighbours_UK", torch.from_numpy(tables.user_neighbours), persistent=False)
        self.register_buffer("profiles_UP", torch.from_numpy(tables.user_vectors), persistent=False)
        self.bank = StateBank(tables.num_users, config.model.width)
        self.synthesis = Synthesis(tables.user_vectors.shape[1], config.model.width, config.model.dropout)

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "CrossSequence":
        """See `Objective.build`."""
        return cls(config, tables)

    def forward(self, batch: Batch, encoder: SequenceEncoder, states_BLD: Tensor) -> Tensor:  # noqa: ARG002
        """See `Objective.forward`; the mean is over users with a neighbour whose state is known."""
        states_HD = last_states(states_BLD, batch.lengths_B)[batch.histories_H]
        usable_G = self.bank.known(self._neighbours(batch.history_users_G)).any(dim=1)
        usable_per_rank = [part.sum() for part in usable_G.split(batch.histories_per_rank)]
        counts = torch.stack(usable_per_rank).tolist()
        own_usable_H = usable_G.split(batch.histories_per_rank)[batch.rank]

        positives_MD = self._synthesise(batch.own_history_users()[own_usable_H])
        candidates = gather_rows(positives_MD, counts, batch.rank)
        start = sum(counts[: batch.rank])
        loss = info_nce(
            states_HD[own_usable_H],
            candidates,
            torch.arange(start, start + counts[batch.rank], device=candidates.device),
            similarity=self.settings.similarity,
            temperature=self.settings.temperature,
        )
        if self.training:
            self._remember(batch, states_HD)
        return loss / max(1, sum(counts))

    def _neighbours(self, users_M: Tensor) -> Tensor:
        return self.neighbours_UK[users_M].long()

    def _synthesise(self, users_M: Tensor) -> Tensor:
        neighbours_MK = self._neighbours(users_M)
        return self.synthesis(
            self.profiles_UP[users_M],
            self.profiles_UP[neighbours_MK.clamp(min=0)],
            self.bank.known(neighbours_MK),
            self.bank.read(neighbours_MK),
        )

    def _remember(self, batch: Batch, states_HD: Tensor) -> None:
        """Write the states of all workers' histories, so that every worker's bank is the same."""
        states_GD = gather_rows(states_HD.detach(), batch.histories_per_rank, batch.rank)
        self.bank.write(batch.history_users_G, states_GD)


class IntraSequence(Objective):
    """InfoNCE between two views of a history, each with some of its items replaced by near ones.

    Each view is an anchor for the other; negatives are both views of the batch's other histories, on all workers.
    """

    neighbours_VK: Tensor
    num_neighbours_V: Tensor

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.settings = config.objectives.intra_sequence
        self.weight = self.settings.weight
        # A draw takes one of the first so many entries of a list, hence the missing ones go to its end.
        missing_VK = tables.item_neighbours == MISSING
        order_VK = np.argsort(missing_VK, axis=1, kind="stable")
        compact_VK = np.take_along_axis(tables.item_neighbours, order_VK, axis=1)
        self.register_buffer("neighbours_VK", torch.from_numpy(compact_VK), persistent=False)
        self.register_buffer("num_neighbours_V", torch.from_numpy((~missing_VK).sum(axis=1)), persistent=False)

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "IntraSequence":
        """See `Objective.build`."""
        return cls(config, tables)

    def forward(self, batch: Batch, encoder: SequenceEncoder, states_BLD: Tensor) -> Tensor:  # noqa: ARG002
        """See `Objective.forward`; the mean is over both views of every history."""
        items_HL, lengths_H = batch.items_BL[batch.histories_H], batch.lengths_B[batch.histories_H]
        views_HL = torch.cat([self.view(items_HL), self.view(items_HL)])
        views_HD = last_states(encoder(views_HL), torch.cat([lengths_H, lengths_H]))
        first_HD, second_HD = views_HD[: len(lengths_H)], views_HD[len(lengths_H) :]
        counts, num_histories = batch.histories_per_rank, sum(batch.histories_per_rank)
        candidates = torch.cat([gather_rows(first_HD, counts, batch.rank), gather_rows(second_HD, counts, batch.rank)])
        start = sum(counts[: batch.rank])
        first_H = torch.arange(start, start + counts[batch.rank], device=candidates.device)
        second_H = first_H + num_histories
        loss = info_nce(
            views_HD,
            candidates,
            torch.cat([second_H, first_H]),
            similarity=self.settings.similarity,
            temperature=self.settings.temperature,
            own_M=torch.cat([first_H, second_H]),
        )
        return loss / max(1, 2 * num_histories)

    def view(self, items_BL: Tensor) -> Tensor:
        """A copy in which each item is, with probability replacement_rate, a random member of its neighbour list.

        PAD, and an item without neighbours, stay as they are.
        """
        num_BL = self.num_neighbours_V[items_BL]
        chosen_BL = torch.rand(items_BL.shape, device=items_BL.device) < self.settings.replacement_rate
        # The clamp guards against a product that rounds up to the count itself.
        slots_BL = (torch.rand(items_BL.shape, device=items_BL.device) * num_BL).long()
        slots_BL = torch.minimum(slots_BL, (num_BL - 1).clamp(min=0))
        replacements_BL = self.neighbours_VK[items_BL, slots_BL].long()
        return torch.where(chosen_BL & (num_BL > 0), replacements_BL, items_BL)


OBJECTIVES: dict[str, type[Objective]] = {
    "next_item": NextItem,
    "cross_sequence": CrossSequence,
    "intra_sequence": IntraSequence,
}
