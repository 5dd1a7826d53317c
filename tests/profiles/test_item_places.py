"""The bounded table of places is what sorting all training events and choosing evenly would give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_texts import sequences_of

from sracl_dist.profiles import item_places
from sracl_dist.profiles.item_places import NO_PLACE, fill_item_places, shared_item_places
from sracl_dist.sequences import Sequences

NUM_ITEMS = 4


def sorted_places(sequences: Sequences, item: int, num_places: int) -> list[int]:
    """All places of the item, and those at even steps of them."""
    training = np.concatenate(
        [np.arange(sequences.num_train[user]) + sequences.offsets[user] for user in range(sequences.num_users)]
    ).astype(np.int64)
    places = training[sequences.items[training] == item]
    if len(places) > num_places:
        chosen = np.linspace(0, len(places) - 1, num_places).round().astype(np.int64)
        places = places[np.unique(chosen)]
    found: list[int] = places.tolist()
    return found


def made(sequences: Sequences, num_places: int) -> NDArray[np.int64]:
    table = np.empty((sequences.num_items + 1, num_places), np.int64)
    fill_item_places(table, sequences)
    return table


HISTORIES = st.lists(st.lists(st.integers(1, NUM_ITEMS), min_size=2, max_size=60), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(HISTORIES, st.integers(1, 12), st.integers(1, 70))
def test_the_places_are_those_of_a_sort(histories: list[list[int]], num_places: int, events_per_piece: int) -> None:
    sequences = sequences_of(histories, NUM_ITEMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_places, "EVENTS_PER_PIECE", events_per_piece)
        table = made(sequences, num_places)
    for item in range(NUM_ITEMS + 1):
        expected = sorted_places(sequences, item, num_places)
        assert table[item].tolist() == expected + [NO_PLACE] * (num_places - len(expected))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 3000), st.integers(1, 40))
def test_steps_are_rounded_as_those_of_linspace(num_events: int, num_places: int) -> None:
    sequences = sequences_of([[1] * num_events + [1, 1]], 1)
    assert [place for place in made(sequences, num_places)[1] if place != NO_PLACE] == sorted_places(
        sequences, 1, num_places
    )


def test_processes_share_one_table() -> None:
    sequences = sequences_of([[1, 2, 1, 3, 4, 4], [2, 1, 4, 4]], NUM_ITEMS)
    shared = shared_item_places(sequences, 2, "a test of places")
    np.testing.assert_array_equal(shared, made(sequences, 2))
    assert not shared.flags.writeable
