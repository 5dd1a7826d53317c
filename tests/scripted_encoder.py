"""Encoders whose states and representations are given, for tests of what is made of scores."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.config.sections import ModelConfig
from sracl_dist.model.catalogue import FixedCatalogue
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.encoders.interface import REPEAT_UNIT
from sracl_dist.model.rows import Rows

CPU = torch.device("cpu")


class _Given(SequenceEncoder):
    """Representations [V, D] are given."""

    def __init__(self, rows_VD: NDArray[np.floating], repeat_bias: float | None) -> None:
        config = ModelConfig(width=rows_VD.shape[1], max_length=3, repeat_bias=repeat_bias is not None)
        super().__init__(config, FixedCatalogue(config, len(rows_VD)))
        self.catalogue.table_VD[1:] = torch.from_numpy(np.asarray(rows_VD, np.float32))
        if self.repeat_units is not None and repeat_bias is not None:
            self.repeat_units.data.fill_(repeat_bias / REPEAT_UNIT)


class Scripted(_Given):
    """Scores are given: the state at an item of user u is the unit vector of u, the representations hold the scores."""

    def __init__(
        self, scores_UV: NDArray[np.float32], contexts: list[NDArray[np.int32]], repeat_bias: float | None = None
    ) -> None:
        super().__init__(scores_UV.T, repeat_bias)
        self._latest = [tuple(context[-3:].tolist()) for context in contexts]

    def forward(self, rows: Rows, table_VD: Tensor) -> Tensor:
        users = [self._latest.index(tuple(items.tolist())) for items in rows.items_T.split(rows.lengths_B.tolist())]
        return torch.eye(len(self._latest))[torch.tensor(users).repeat_interleave(rows.lengths_B)]


class Stated(_Given):
    """The state depends on the sum of the row's items: it is one of those given, modulo their number."""

    def __init__(
        self, states_SD: NDArray[np.floating], rows_VD: NDArray[np.floating], repeat_bias: float | None = None
    ) -> None:
        super().__init__(rows_VD, repeat_bias)
        self._states_SD = torch.from_numpy(np.asarray(states_SD, np.float32))

    def forward(self, rows: Rows, table_VD: Tensor) -> Tensor:
        sums = [int(items.sum()) for items in rows.items_T.split(rows.lengths_B.tolist())]
        return self._states_SD[torch.tensor(sums).repeat_interleave(rows.lengths_B) % len(self._states_SD)]

    def states(self, contexts: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Last state of each context."""
        sums = [int(context[-3:].sum()) for context in contexts]
        states: NDArray[np.float32] = self._states_SD[torch.tensor(sums) % len(self._states_SD)].numpy()
        return states
