"""Two random views of a history: a piece of it, some items hidden, or a piece shuffled (CL4SRec, Xie et al. 2022).

B rows, T items of all rows together, H histories.
"""

import torch
from torch import Tensor

from sracl_dist.columns import PAD
from sracl_dist.config import Config
from sracl_dist.config.sections import RandomViewsConfig
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives.interface import Encoded, Objective, Views, two_view_contrast
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables

CROP, MASK, REORDER = range(3)


class RandomViews(Objective):
    """InfoNCE between two views of a history, each made by one of the three operators, drawn for each view."""

    def __init__(self, settings: RandomViewsConfig) -> None:
        super().__init__()
        self.settings = settings
        self.weight = settings.weight

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "RandomViews":  # noqa: ARG003  it needs no table
        """See `Objective.build`."""
        return cls(config.objectives.random_views)

    def views(self, batch: Batch) -> Views:
        """Both views of every history."""
        rows = batch.rows.select(batch.histories_H)
        return Views(rows=Rows.concatenate([augmented(rows, self.settings), augmented(rows, self.settings)]))

    def forward(self, batch: Batch, views: Views, encoded: Encoded) -> Tensor:
        """See `Objective.forward`; the mean is over both views of every history."""
        first_HD, second_HD = encoded.view_states_TD[views.rows.last_B].chunk(2)
        return two_view_contrast(first_HD, second_HD, batch.histories_per_rank, batch.rank, self.settings)


def augmented(rows: Rows, settings: RandomViewsConfig) -> Rows:
    """One view of each row.

    Crop keeps a piece of floor(crop_share x n) items, at least one; mask hides floor(mask_share x n) items, whose place
    remains; reorder shuffles a piece of floor(reorder_share x n) items.
    """
    operator_B = torch.randint(3, (len(rows),))
    operator_T = operator_B.repeat_interleave(rows.lengths_B)
    items_T = rows.items_T.cpu()

    inside_T = _piece(rows, settings.crop_share, shortest=1)
    kept_T = (operator_T != CROP) | inside_T
    hidden_T = (operator_T == MASK) & _some(rows, settings.mask_share)
    order_T = _shuffled_within(rows, (operator_T == REORDER) & _piece(rows, settings.reorder_share, shortest=0))

    changed_T = torch.where(hidden_T, PAD, items_T[order_T])[kept_T]
    row_T = torch.arange(len(rows)).repeat_interleave(rows.lengths_B)
    lengths_B = torch.bincount(row_T[kept_T], minlength=len(rows))
    return Rows(items_T=changed_T.to(rows.device), lengths_B=lengths_B)


def _share_of(lengths_B: Tensor, share: float, shortest: int) -> Tensor:
    # A product such as 0.6 x 5 may lie a rounding below the whole number that it means.
    return (lengths_B.double() * share + 1e-9).floor().long().clamp(min=shortest)


def _piece(rows: Rows, share: float, shortest: int) -> Tensor:
    """True [T] inside a random piece of each row with this share of its items."""
    lengths_B = _share_of(rows.lengths_B, share, shortest)
    first_B = (torch.rand(len(rows)) * (rows.lengths_B - lengths_B + 1)).long()
    first_B = torch.minimum(first_B, rows.lengths_B - lengths_B)
    positions_T = rows.positions_T.cpu()
    first_T, length_T = (values.repeat_interleave(rows.lengths_B) for values in (first_B, lengths_B))
    return (positions_T >= first_T) & (positions_T < first_T + length_T)


def _some(rows: Rows, share: float) -> Tensor:
    """True [T] at a random choice of this share of each row's items."""
    row_T = torch.arange(len(rows)).repeat_interleave(rows.lengths_B)
    order_T = torch.argsort(row_T + torch.rand(len(row_T), dtype=torch.float64))
    rank_T = torch.empty_like(order_T)
    rank_T[order_T] = rows.positions_T.cpu()  # sorted places keep the rows' order, hence their positions are the ranks
    return rank_T < _share_of(rows.lengths_B, share, 0).repeat_interleave(rows.lengths_B)


def _shuffled_within(rows: Rows, inside_T: Tensor) -> Tensor:
    """Order [T] of the items in which each row's marked piece, one stretch, is shuffled and the rest stays."""
    places_T = torch.arange(len(inside_T), dtype=torch.float64)
    row_T = torch.arange(len(rows)).repeat_interleave(rows.lengths_B)
    first_B = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    first_B = first_B.scatter_reduce(0, row_T[inside_T], places_T[inside_T], "amin")
    # Keys of a piece lie between its first place and half a place behind it, where no other key is.
    keys_T = torch.where(inside_T, first_B[row_T] + 0.5 * torch.rand(len(inside_T), dtype=torch.float64), places_T)
    return torch.argsort(keys_T)
