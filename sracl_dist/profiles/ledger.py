"""What is known of every distinct prompt of a run, in arrays: some 60 bytes each, whatever it is made of."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sracl_dist.profiles.hashes import places_of
from sracl_dist.profiles.prompt_shards import PromptPiece, PromptShard
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.store_index import BestAnswers
from sracl_dist.run_folder import StageFolder


class Ledger:
    """A row per distinct prompt, in the order in which prompts occur first.

    Args:
        hashes: of all prompts, packed, in the order of the shards.
    """

    def __init__(self, hashes: NDArray[np.bytes_]) -> None:
        self._sorted, first = np.unique(hashes, return_index=True)
        order = np.argsort(first)
        self.places = first[order]
        """Where each occurs first among all prompts, rising."""
        self._rows = np.empty(len(order), np.int32)
        self._rows[order] = np.arange(len(order), dtype=np.int32)
        self.num_attempts = np.zeros(len(order), np.int32)
        """In all runs."""
        self.num_failures = np.zeros(len(order), np.int32)
        """Those among the attempts that a model has seen; only these count towards profile.max_attempts."""
        self.was_cut = np.zeros(len(order), np.bool_)
        """Whether the last answer was cut before it said anything."""
        self.is_answered = np.zeros(len(order), np.bool_)

    def __len__(self) -> int:
        return len(self.places)

    def find(self, hashes: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Rows of packed hashes; -1 for one that is none of the run's prompts."""
        found = places_of(hashes, self._sorted)
        return np.where(found < 0, -1, self._rows[found]) if len(self) else found

    def learn(self, best: BestAnswers) -> NDArray[np.int64]:
        """Take over what the store knows; returns the row of each of its prompts, or -1."""
        rows = self.find(best.hashes)
        known = rows >= 0
        own = rows[known]
        self.num_attempts[own], self.num_failures[own] = best.num_attempts[known], best.num_failures[known]
        self.was_cut[own], self.is_answered[own] = best.was_cut[known], ~best.is_failure[known]
        return rows


class PromptSet:
    """Prompts that are to be asked now, read from their shards when somebody goes through them.

    Args:
        folder: of the stage.
        shards: of all prompts of the run.
        ledger: of all prompts of the run.
        rows: of the ledger, rising.
    """

    def __init__(
        self, folder: StageFolder, shards: Sequence[PromptShard], ledger: Ledger, rows: NDArray[np.int64]
    ) -> None:
        self.folder, self.rows = folder, rows
        self._shards, self._ledger = shards, ledger

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Prompt]:
        for piece in self.pieces():
            yield from piece.read(self.folder)

    def pieces(self) -> Iterator[PromptPiece]:
        """The prompts of each shard."""
        ledger, start, first = self._ledger, 0, 0
        for shard in self._shards:
            end = start + shard.num_prompts
            # Places rise with the rows, so that the rows of a shard's end are found without those of all prompts.
            last = int(np.searchsorted(self.rows, np.searchsorted(ledger.places, end)))
            own, first = self.rows[first:last], last
            if len(own):
                yield PromptPiece(
                    shard=shard.prompts,
                    kind=shard.kind,
                    rows=ledger.places[own] - start,
                    attempts=ledger.num_attempts[own] + 1,
                    num_failures=ledger.num_failures[own],
                    wants_room=ledger.was_cut[own],
                )
            start = end

    def part(self, start: int, stop: int) -> "PromptSet":
        """The prompts start..stop-1."""
        return self.of_rows(self.rows[start:stop])

    def of_rows(self, rows: NDArray[np.int64]) -> "PromptSet":
        """Other prompts of the same run, by their rows of the ledger."""
        return PromptSet(self.folder, self._shards, self._ledger, rows)
