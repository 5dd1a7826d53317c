"""A user's history against the synthesis of its nearest users' histories (sections 3.2 and 3.3 of the paper).

K neighbours, U users, D width, P width of the profile vectors, H histories of this worker, G of all workers,
M of this worker's histories that have a positive, N distinct neighbours.
"""

import torch
from torch import Tensor

from sracl_dist.columns import MISSING
from sracl_dist.config import Config
from sracl_dist.model.gather import gather_rows
from sracl_dist.model.inputs import Batch
from sracl_dist.model.losses import info_nce
from sracl_dist.model.objectives.interface import Encoded, Objective, Views, one_hot
from sracl_dist.model.synthesis import StateBank, Synthesis
from sracl_dist.model.tables import SemanticTables, random_others, tensor_of


class CrossSequence(Objective):
    """InfoNCE of h_u with h_u+, the synthesis of its nearest users' states.

    Negatives are the synthesised states of the batch's other users, on all workers, and with `negatives=all` the other
    users' own states too.
    """

    neighbours_UK: Tensor
    profiles_UP: Tensor
    exists_U: Tensor

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.settings = config.objectives.cross_sequence
        self.weight = self.settings.weight
        self.max_length = config.model.max_length
        neighbours_UK = tables.user_neighbours[:, : self.settings.num_neighbours]
        if self.settings.neighbours == "random":
            neighbours_UK = random_others(neighbours_UK, 0, tables.num_users, config.run.seed)
        self.register_buffer("neighbours_UK", tensor_of(neighbours_UK), persistent=False)
        self.register_buffer("profiles_UP", tensor_of(tables.user_vectors), persistent=False)
        self.register_buffer("exists_U", torch.from_numpy(tables.sequences.num_train > 0), persistent=False)
        self.synthesis = Synthesis(
            tables.user_vectors.shape[1], config.model.width, config.model.dropout, self.settings.synthesis
        )
        self.tables = tables
        self.bank = (
            StateBank(tables.num_users, config.model.width) if self.settings.neighbour_states == "bank" else None
        )

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "CrossSequence":
        """See `Objective.build`."""
        return cls(config, tables)

    def views(self, batch: Batch) -> Views:
        """The neighbours' latest training items, where they are encoded in the step."""
        if self.bank is not None:
            return super().views(batch)
        neighbours_HK = self._neighbours(batch.own_history_users())
        wanted_N = torch.unique(neighbours_HK[self._known(neighbours_HK)])
        rows = self.tables.latest_training_rows(wanted_N.cpu().numpy(), self.max_length)
        return Views(rows=rows.to(batch.rows.device), notes=wanted_N)

    def forward(self, batch: Batch, views: Views, encoded: Encoded) -> Tensor:
        """See `Objective.forward`; the mean is over users with a neighbour whose state is known."""
        states_HD = encoded.states_TD[batch.rows.last_B[batch.histories_H]]
        known_GK = self._known(self._neighbours(batch.history_users_G))
        usable_per_rank = known_GK.any(dim=1).split(batch.histories_per_rank)
        counts = torch.stack([part.sum() for part in usable_per_rank]).tolist()
        usable_H = usable_per_rank[batch.rank]

        positives_MD = self._synthesise(batch.own_history_users()[usable_H], views, encoded)
        loss = self._contrast(states_HD[usable_H], positives_MD, counts, batch.rank)
        if self.training and self.bank is not None:
            # The states of all workers' histories, so that every worker's bank is the same. They are gathered when all
            # have read what they need of this step: workers of a machine may share a bank (train/machine_memory.py).
            states_GD = gather_rows(states_HD.detach(), batch.histories_per_rank, batch.rank)
            self.bank.write(batch.history_users_G, states_GD)
        return loss / max(1, sum(counts))

    def _contrast(self, anchors_MD: Tensor, positives_MD: Tensor, counts: list[int], rank: int) -> Tensor:
        candidates = gather_rows(positives_MD, counts, rank)
        start = sum(counts[:rank])
        own_M = torch.arange(start, start + counts[rank], device=candidates.device)
        excluded_MC = None
        if self.settings.negatives == "all":
            candidates = torch.cat([candidates, gather_rows(anchors_MD, counts, rank)])
            excluded_MC = one_hot(own_M + sum(counts), len(candidates))
        return info_nce(
            anchors_MD,
            candidates,
            own_M,
            similarity=self.settings.similarity,
            temperature=self.settings.temperature,
            excluded_MC=excluded_MC,
        )

    def _neighbours(self, users_M: Tensor) -> Tensor:
        return self.neighbours_UK[users_M].long()

    def _known(self, users_MK: Tensor) -> Tensor:
        if self.bank is not None:
            return self.bank.known(users_MK)
        return (users_MK != MISSING) & self.exists_U[users_MK.clamp(min=0)]

    def _synthesise(self, users_M: Tensor, views: Views, encoded: Encoded) -> Tensor:
        neighbours_MK = self._neighbours(users_M)
        if self.bank is not None:
            states_MKD = self.bank.read(neighbours_MK)
        else:
            states_ND = encoded.view_states_TD[views.rows.last_B]
            places_MK = torch.searchsorted(views.notes, neighbours_MK).clamp(max=max(0, len(views.notes) - 1))
            states_MKD = states_ND[places_MK]
        return self.synthesis(
            self.profiles_UP[users_M],
            self.profiles_UP[neighbours_MK.clamp(min=0)],
            self._known(neighbours_MK),
            states_MKD,
        )
