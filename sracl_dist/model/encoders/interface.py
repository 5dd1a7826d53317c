"""What every sequence encoder is.

T items of all rows together, D width, V catalogue.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sracl_dist.columns import PAD
from sracl_dist.config.sections import ModelConfig
from sracl_dist.model.catalogue import Catalogue, FixedCatalogue
from sracl_dist.model.initial import INITIAL_STD
from sracl_dist.model.rows import Rows

CATALOGUE = "catalogue."
TABLE = "catalogue.table_VD"
REPEAT_UNIT = 10.0
"""The bias of repeats is learned in such units, because Adam moves a weight by the learning rate per step at most, and
where nobody ever takes an item twice the bias has a long way to go."""


class SequenceEncoder(nn.Module, ABC):
    """A causal encoder and the catalogue whose representations it reads and its states are compared with."""

    def __init__(self, config: ModelConfig, catalogue: Catalogue | FixedCatalogue) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.catalogue = catalogue
        self.repeat_units = nn.Parameter(torch.zeros(())) if config.repeat_bias else None

    @property
    def repeat_bias(self) -> Tensor | None:
        """What is added to the score of an item that is in the history already; None where nothing is."""
        return None if self.repeat_units is None else REPEAT_UNIT * self.repeat_units

    @abstractmethod
    def forward(self, rows: Rows, table_VD: Tensor) -> Tensor:
        """States [T, D] of all items of the rows, each at most max_length long.

        The state of an item is a function of itself and the items before it in its row.

        Args:
            rows: histories.
            table_VD: what the catalogue yields, [V + 1, D], made once for a step; or with rows that name places in
                it instead of items, the table of a step's items only (see `ItemTable.placed`).
        """

    def embed(self, rows: Rows, table_VD: Tensor) -> Tensor:
        """Representations [T, D] of the rows' items; a hidden one's are zero and get no gradient."""
        return F.embedding(rows.items_T, table_VD, padding_idx=PAD)

    @torch.no_grad()
    def inference_tensors(self) -> dict[str, Tensor]:
        """What inference needs, by name: the encoder's own weights, and the catalogue as a finished table."""
        own = {name: value for name, value in self.state_dict().items() if not name.startswith(CATALOGUE)}
        return {**own, TABLE: self.catalogue()}


def initialise(module: nn.Module) -> None:
    """Normal weights and zero biases, for `nn.Module.apply`; the catalogue has done its own already."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


class GroupedAttention(nn.Module, ABC):
    """Attention within rows: projections of T items are laid out by the rows' groups, attended, and put back."""

    def attend(self, rows: Rows, projected_TE: Tensor) -> Tensor:
        """Attended values [T, D] out of what `attend_group` takes, T x E."""
        places, slot_T = rows.groups
        slots = [self.attend_group(projected_TE[places_bL]).flatten(0, 1) for places_bL in places]
        # Without rows there are no groups, but the gradient's way through the weights must be there all the same.
        return torch.cat(slots or [self.attend_group(projected_TE[:, None]).flatten(0, 1)])[slot_T]

    @abstractmethod
    def attend_group(self, projected_bLE: Tensor) -> Tensor:
        """Causal attention [b, L, D] within b rows of L positions; what stands behind a row's end is ignored."""
