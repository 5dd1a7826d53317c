"""Scores of the whole catalogue in tiles of users and items, and the exact score of a pair.

A score is the inner product of a user's state and an item's representation. What one is exactly must not depend on the
tile it stands in, else an item with the same representation as another might score a last bit higher: so the score of
a pair is the sum of its products in float64, added in an order of its own. The float32 product of a tile only says
which pairs need it: those that lie nearer to what they are compared with than rounding can reach.

B users of a chunk, I items of a tile, D width, V catalogue, S pairs of a user and an item of its history, P pairs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.errors import StageError
from sracl_dist.evaluate.threads import side_by_side
from sracl_dist.histories import Histories
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.rows import latest_rows

Result = TypeVar("Result")

CHUNK_USERS, TILE_ITEMS = 256, 2048
"""Users and items of a tile: so small that what a product writes is still in the processor's cache when it is compared,
and so large that calling the product costs little beside it."""
GPU_CHUNK_USERS, GPU_TILE_ITEMS = 4096, 16_384
"""The same on a GPU, which needs large products to be busy."""
PAIRS_AT_A_TIME = 32_768
"""Pairs scored exactly at a time."""
ROWS_AT_A_TIME = 16_384
"""Items whose norms are taken at a time."""
ROUNDING = 1.01 * 2.0**-24
"""Share by which a product or a sum of float32 may be wrong, with what float64 may add to it."""
NOT_NUMBERS = "The model yields scores that are not numbers; train again with a lower train.learning_rate."


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Users whose scores are made together."""

    start: int
    """Index of the first."""
    states_BD: Tensor
    margin_B: Tensor
    """How far a float32 product with any item can be from the exact score; float64."""
    seen_S: Tensor
    """user x V + column of every item in a history, ascending, each once; a column is an item's id less 1."""
    num_items: int

    def __len__(self) -> int:
        return len(self.states_BD)

    @property
    def seen_pairs(self) -> tuple[Tensor, Tensor]:
        """User [S] within the chunk and column [S] of the same."""
        return self.seen_S // self.num_items, self.seen_S % self.num_items

    def is_seen(self, users_P: Tensor, columns_P: Tensor) -> Tensor:
        """Whether the column is of an item that the user's history holds."""
        if not len(self.seen_S):
            return torch.zeros_like(users_P, dtype=torch.bool)
        keys_P = users_P * self.num_items + columns_P
        places_P = torch.searchsorted(self.seen_S, keys_P).clamp_(max=len(self.seen_S) - 1)
        return self.seen_S[places_P] == keys_P


class CatalogueScores:
    """What an encoder scores the catalogue with; made once for many users."""

    @torch.no_grad()
    def __init__(self, encoder: SequenceEncoder, device: torch.device) -> None:
        """Make the representations of all items.

        Raises:
            StageError: one is not a number.
        """
        self.device, self._encoder = device, encoder
        with _Inference(encoder):
            self._table_VD = encoder.catalogue()
        self.items_VD = self._table_VD[1:].float()
        bias = encoder.repeat_bias
        self.repeat_bias = 0.0 if bias is None else float(bias)
        """What is added to the score of an item that is in the history already."""
        norms = [_norms(part).amax() for part in self.items_VD.split(ROWS_AT_A_TIME)]
        self._largest_norm = torch.stack(norms).amax()
        if not math.isfinite(float(self._largest_norm) + self.repeat_bias):
            raise StageError(NOT_NUMBERS)

    @property
    def num_items(self) -> int:
        """Catalogue size V."""
        return len(self.items_VD)

    def for_chunks(self, contexts: Sequence[NDArray[np.int32]], work: Callable[[Chunk], Result]) -> list[Result]:
        """What the work makes of the users with these contexts, chunk by chunk in order; no context may be empty.

        Chunks are worked on side by side in threads. The encoder sees the latest items of a context only, but all of
        them count as seen.

        Raises:
            StageError: a score is not a number.
        """
        contexts = Histories.of(contexts)
        num_users = CHUNK_USERS if self.device.type == "cpu" else GPU_CHUNK_USERS

        @torch.no_grad()
        def encode_and_work(start: int) -> Result:
            return work(self._chunk(start, contexts[start : start + num_users]))

        with _Inference(self._encoder):
            return side_by_side(encode_and_work, range(0, len(contexts), num_users), self.device)

    def _chunk(self, start: int, contexts: Histories) -> Chunk:
        rows = latest_rows(contexts, self._encoder.max_length).to(self.device)
        states_BD = self._encoder(rows, self._table_VD)[rows.last_B].float()
        return Chunk(
            start=start,
            states_BD=states_BD,
            margin_B=self._margin(states_BD),
            seen_S=torch.from_numpy(_seen(contexts, self.num_items)).to(self.device),
            num_items=self.num_items,
        )

    def _margin(self, states_BD: Tensor) -> Tensor:
        """Bound of a product's error, in whatever order it is added up (Higham 2002, 3.1).

        No sum within the product can exceed the product of the norms; so if that is a float32, all scores are numbers.
        """
        width = states_BD.shape[1]
        reach_B = _norms(states_BD) * self._largest_norm
        if not bool((reach_B < torch.finfo(torch.float32).max).all()):
            raise StageError(NOT_NUMBERS)
        share = width * ROUNDING / (1 - width * ROUNDING)
        return share * reach_B + width * torch.finfo(torch.float32).tiny

    @torch.no_grad()
    def tiles(self, chunk: Chunk) -> Iterator[tuple[int, Tensor]]:
        """Products [I, B] of all items with the chunk's states, tile by tile, and the first column of each.

        A tile is overwritten by the next one.
        """
        num_columns = TILE_ITEMS if self.device.type == "cpu" else GPU_TILE_ITEMS
        buffer_IB = torch.empty(min(num_columns, self.num_items), len(chunk), device=self.device)
        # With neither of them turned around, the library multiplies such small matrices a tenth faster.
        states_DB = chunk.states_BD.T.contiguous()
        for start, items_ID in enumerate(self.items_VD.split(num_columns)):
            yield start * num_columns, torch.mm(items_ID, states_DB, out=buffer_IB[: len(items_ID)])

    @torch.no_grad()
    def exact(self, chunk: Chunk, users_P: Tensor, columns_P: Tensor) -> Tensor:
        """Scores [P] of pairs in float64, without the bias of repeats; the same to the bit wherever a pair stands."""
        parts = [torch.zeros(0, dtype=torch.float64, device=self.device)]
        for users, columns in zip(users_P.split(PAIRS_AT_A_TIME), columns_P.split(PAIRS_AT_A_TIME), strict=True):
            # A product of two float32 is exact in float64.
            products_PD = chunk.states_BD[users].double().mul_(self.items_VD[columns])
            while (width := products_PD.shape[1]) > 1:
                half = (width + 1) // 2
                products_PD[:, : width - half] += products_PD[:, half:]
                products_PD = products_PD[:, :half]
            parts.append(products_PD[:, 0])
        return torch.cat(parts)


def below(values: Tensor) -> Tensor:
    """The nearest float32 that is less than each float64."""
    single = values.float()
    return torch.nextafter(single, torch.full_like(single, -math.inf))


def above(values: Tensor) -> Tensor:
    """The nearest float32 that is more than each float64."""
    single = values.float()
    return torch.nextafter(single, torch.full_like(single, math.inf))


class _Inference:
    """The encoder without its dropout; afterwards as it was."""

    def __init__(self, encoder: SequenceEncoder) -> None:
        self._encoder, self._was_training = encoder, encoder.training

    def __enter__(self) -> None:
        self._encoder.eval()

    def __exit__(self, *_: object) -> None:
        self._encoder.train(self._was_training)


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows.double(), dim=1)


def _seen(contexts: Histories, num_items: int) -> NDArray[np.int64]:
    users_T = np.repeat(np.arange(len(contexts)), contexts.lengths_B)
    return np.unique(users_T * num_items + contexts.items_T - 1)
