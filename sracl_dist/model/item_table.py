"""Representations of the items of a step, all of the catalogue or only those that the step needs.

V catalogue, N items of a step, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sracl_dist.model.rows import Rows


@dataclass(frozen=True, kw_only=True)
class ItemTable:
    """Rows of items, PAD's first, and where each item's row is."""

    rows_ND: Tensor
    """Representations; that of PAD is zero."""
    items_N: Tensor | None = None
    """The items, ascending, PAD among them; None where they are all of them, so that an item's id is its place."""

    def places(self, items: Tensor) -> Tensor:
        """Row of each of the items, which must be in the table."""
        return items if self.items_N is None else torch.searchsorted(self.items_N, items)

    def of(self, items: Tensor) -> Tensor:
        """Representations [..., D] of items of any shape."""
        return self.rows_ND[self.places(items)]

    def placed(self, rows: Rows) -> Rows:
        """The rows with items' places instead of their ids, as an encoder takes them together with `rows_ND`."""
        return rows if self.items_N is None else rows.with_items(self.places(rows.items_T))


@dataclass(frozen=True, kw_only=True)
class TouchedRows:
    """Embeddings that a step has read, and, as the gradient of `values_ND`, what it asks of them."""

    items_N: Tensor
    """Whose embeddings; ascending, without repetition."""
    values_ND: Tensor
    """Their values in the step: a leaf of its graph."""
