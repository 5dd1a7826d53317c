"""The terms of the loss in the reference's way: every prefix of a history is a padded row of its own.

B prefixes, T items of all rows together, L the longest row, K neighbours, M prefixes that have a positive, D width,
C candidates.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from sracl_dist.columns import MISSING, PAD
from sracl_dist.model.item_table import ItemTable
from sracl_dist.model.losses import info_nce
from sracl_dist.model.objectives.cross_sequence import CrossSequence
from sracl_dist.model.objectives.interface import one_hot, two_view_contrast
from sracl_dist.model.objectives.intra_sequence import IntraSequence
from sracl_dist.model.rows import Rows
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables


@dataclass(frozen=True, kw_only=True)
class PrefixBatch:
    """The prefixes of a training step."""

    rows: Rows
    """The latest items of each prefix."""
    targets_B: Tensor
    """The item after each prefix."""
    users_B: Tensor
    """Whose history it is the beginning of."""

    def to(self, device: torch.device) -> "PrefixBatch":
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            rows=self.rows.to(device),
            targets_B=self.targets_B.to(device),
            users_B=self.users_B.to(device),
        )


class RowPerPrefix:
    """The reference's step: 1 + 1 + k + 2 padded rows pass through the encoder for every prefix; the logits are plain.

    It is another way to work out the terms of a model, which the product's way is tested and measured against. As in
    the reference, the prefix is encoded once for the next item and once more, under other dropout, as the anchor of
    the cross-sequence contrast; the neighbours' rows are encoded with gradient, each as often as it is named; and
    prefixes of one user in a batch are each other's negatives.

    Not copied are the reference's leaks: there the neighbours of a prefix are other prefixes, most often later or
    earlier ones of the same user, and may contain its target. Here they are other users, by their profiles, which like
    the neighbours' rows are made of training items only. Nor is padding ever drawn as a substitute.
    """

    def __init__(self, model: SraCl, tables: SemanticTables, max_length: int) -> None:
        """Work out the terms of a model.

        Args:
            model: its terms are some of next_item with the full softmax, one target ahead and no repeat bias,
                cross_sequence and intra_sequence.
            tables: those that the model was made from.
            max_length: items of the longest row.
        """
        self.model, self.tables, self.max_length = model, tables, max_length

    def __call__(self, batch: PrefixBatch) -> dict[str, Tensor]:
        """Every term by name, unweighted, a mean over the batch's prefixes, and their weighted sum under `total`."""
        table_VD = self.model.encoder.catalogue()
        ways = {
            "next_item": self._next_item,
            "cross_sequence": self._cross_sequence,
            "intra_sequence": self._intra_sequence,
        }
        return self.model.with_total({name: ways[name](batch, table_VD) for name in self.model.objectives})

    def final_states(self, rows: Rows, table_VD: Tensor) -> Tensor:
        """State [B, D] of each row's last item, after the row was padded to the longest length."""
        padded_BL = padded(rows, self.max_length)
        lengths_B = torch.full_like(rows.lengths_B, self.max_length)
        states_TD = self.model.encoder(Rows(items_T=padded_BL.flatten(), lengths_B=lengths_B), table_VD)
        states_BLD = states_TD.view(len(rows), self.max_length, states_TD.shape[1])
        final_BD: Tensor = states_BLD[torch.arange(len(rows)), rows.lengths_B - 1]
        return final_BD

    def _next_item(self, batch: PrefixBatch, table_VD: Tensor) -> Tensor:
        """Cross-entropy over all candidates; the mean is over all prefixes."""
        states_BD = self.final_states(batch.rows, table_VD)
        candidates_CD, targets_B = self.model.catalogue.candidates(ItemTable(rows_ND=table_VD), batch.targets_B)
        return F.cross_entropy(states_BD @ candidates_CD.T, targets_B)

    def _cross_sequence(self, batch: PrefixBatch, table_VD: Tensor) -> Tensor:
        """InfoNCE with the synthesis of the user's neighbours; the mean is over prefixes whose user has any."""
        term = cast(CrossSequence, self.model.objective("cross_sequence"))
        neighbours_BK = term.neighbours_UK[batch.users_B].long()
        known_BK = (neighbours_BK != MISSING) & term.exists_U[neighbours_BK.clamp(min=0)]
        has_any_B = known_BK.any(dim=1)
        users_M, known_MK = batch.users_B[has_any_B], known_BK[has_any_B]
        # The row of a missing neighbour is the user's own, with weight 0: the cost is that of k rows.
        neighbours_MK = torch.where(known_MK, neighbours_BK[has_any_B], users_M[:, None])
        rows = self.tables.latest_training_rows(neighbours_MK.flatten().cpu().numpy(), self.max_length)
        states_MKD = self.final_states(rows.to(batch.rows.device), table_VD).unflatten(0, neighbours_MK.shape)
        positives_MD = term.synthesis(term.profiles_UP[users_M], term.profiles_UP[neighbours_MK], known_MK, states_MKD)
        anchors_MD = self.final_states(batch.rows, table_VD)[has_any_B]
        own_M = torch.arange(len(anchors_MD), device=anchors_MD.device)
        candidates, excluded_MC = positives_MD, None
        if term.settings.negatives == "all":
            candidates = torch.cat([positives_MD, anchors_MD])
            excluded_MC = one_hot(own_M + len(own_M), len(candidates))
        loss = info_nce(
            anchors_MD,
            candidates,
            own_M,
            similarity=term.settings.similarity,
            temperature=term.settings.temperature,
            excluded_MC=excluded_MC,
        )
        return loss / max(1, len(anchors_MD))

    def _intra_sequence(self, batch: PrefixBatch, table_VD: Tensor) -> Tensor:
        """InfoNCE between two views of every prefix; the mean is over both views of all of them."""
        term = cast(IntraSequence, self.model.objective("intra_sequence"))
        first, second = (batch.rows.with_items(term.substituted(batch.rows.items_T)) for _ in range(2))
        first_BD, second_BD = self.final_states(Rows.concatenate([first, second]), table_VD).chunk(2)
        return two_view_contrast(first_BD, second_BD, [len(batch.rows)], 0, term.settings)


def padded(rows: Rows, length: int) -> Tensor:
    """Items [B, L] of the rows, PAD behind their ends up to this length."""
    items_BL = torch.full((len(rows), length), PAD, device=rows.device)
    positions_L = torch.arange(length)
    items_BL[(positions_L < rows.lengths_B[:, None]).to(rows.device)] = rows.items_T
    return items_BL
