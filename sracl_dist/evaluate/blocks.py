"""Blocks of a tile's products: a number of a block tells whether it holds wanted ones, and few do.

I items of a tile, B users of a chunk, b blocks of a user's column of a tile, W items of a block, n blocks that wait, P
pairs of a user and an item.
"""

from itertools import groupby

import torch
from torch import Tensor

BLOCK_ITEMS = 256
"""Items of a block, or all of a tile that they do not divide."""
WAITING_BLOCKS = 4096
"""Blocks that wait at most, beside those of one tile."""


def in_blocks(tile_IB: Tensor) -> Tensor:
    """The same products as blocks [b, W, B]."""
    num_items, num_users = tile_IB.shape
    return tile_IB.view(-1, BLOCK_ITEMS if num_items % BLOCK_ITEMS == 0 else num_items, num_users)


class WaitingBlocks:
    """Blocks with wanted products, which are picked out of many at a time: a tile has too few for what a call costs."""

    def __init__(self, most: int | None = None) -> None:
        """Let at most so many wait, or WAITING_BLOCKS if these are fewer."""
        self._most = WAITING_BLOCKS if most is None else min(most, WAITING_BLOCKS)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        """User [n], first column [n] and products [n, W]."""
        self._num_blocks = 0

    @property
    def are_many(self) -> bool:
        """Whether it is time to take them."""
        return self._num_blocks > self._most

    def add(self, first_column: int, tile_IB: Tensor, is_wanted_bB: Tensor) -> None:
        """Keep these blocks of a tile that begins at this column."""
        blocks_n, users_n = is_wanted_bB.nonzero().unbind(1)
        if len(users_n):
            blocks_bWB = in_blocks(tile_IB)
            columns_n = first_column + blocks_n * blocks_bWB.shape[1]
            self._parts.append((users_n, columns_n, blocks_bWB[blocks_n, :, users_n]))
            self._num_blocks += len(users_n)

    def take(self, lowest_B: Tensor, end_B: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """User [P], column [P] and value [P] of products from the user's lowest on, and below its end; none is left."""
        none = lowest_B.new_empty(0)
        picked = [(none.long(), none.long(), none)]
        # The last tile's blocks may have another width.
        for _, parts in groupby(self._parts, key=lambda part: part[2].shape[1]):
            users_n, columns_n, products_nW = (torch.cat(part) for part in zip(*parts, strict=True))
            is_wanted_nW = products_nW >= lowest_B[users_n, None]
            if end_B is not None:
                is_wanted_nW &= products_nW < end_B[users_n, None]
            blocks_P, places_P = is_wanted_nW.nonzero().unbind(1)
            picked.append((users_n[blocks_P], columns_n[blocks_P] + places_P, products_nW[blocks_P, places_P]))
        self._parts.clear()
        self._num_blocks = 0
        users_P, columns_P, products_P = (torch.cat(part) for part in zip(*picked, strict=True))
        return users_P, columns_P, products_P
