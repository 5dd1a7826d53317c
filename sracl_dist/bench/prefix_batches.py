"""Training histories with a row for every prefix, as the reference has them, and the order in which they are trained.

N items of all users, E prefixes of all users, B prefixes of a step, T items of all rows together.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from sracl_dist.bench.row_per_prefix import PrefixBatch
from sracl_dist.model.rows import Rows
from sracl_dist.sequences import Sequences


class PrefixBatches:
    """All prefixes of the users' training items with a training item behind them, one epoch after the other.

    Of a prefix the latest max_length items are seen. There is one worker; the order depends on seed and epoch alone.
    """

    def __init__(self, sequences: Sequences, max_length: int, batch_rows: int, seed: int) -> None:
        self._items, self._seed = sequences.items, seed
        user_N = np.repeat(np.arange(sequences.num_users), np.diff(sequences.offsets))
        position_N = np.arange(len(user_N)) - sequences.offsets[user_N]
        # Places of the targets: the items that are neither a user's first one nor held out.
        self._target_E = np.flatnonzero((position_N > 0) & (position_N < sequences.num_train[user_N]))
        self._user_E = user_N[self._target_E]
        self._length_E = np.minimum(position_N[self._target_E], max_length)
        self.num_targets = len(self._target_E)
        self.num_steps = -(-self.num_targets // batch_rows)

    def order(self, epoch: int) -> list[NDArray[np.integer]]:
        """Prefixes of every step of the epoch; steps differ by one prefix at most."""
        shuffled_E = np.random.default_rng([self._seed, epoch]).permutation(self.num_targets)
        return np.array_split(shuffled_E, self.num_steps) if self.num_steps else []

    def batch(self, rows: NDArray[np.integer]) -> PrefixBatch:
        """The step with these prefixes."""
        target_B, lengths_B = self._target_E[rows], self._length_E[rows]
        # Place of an item in the log, less its place in the batch.
        shift_B = target_B - np.cumsum(lengths_B)
        items_T = self._items[np.arange(int(lengths_B.sum())) + np.repeat(shift_B, lengths_B)]
        return PrefixBatch(
            rows=Rows(items_T=torch.from_numpy(items_T.astype(np.int64)), lengths_B=torch.from_numpy(lengths_B)),
            targets_B=torch.from_numpy(self._items[target_B].astype(np.int64)),
            users_B=torch.from_numpy(self._user_E[rows]),
        )
