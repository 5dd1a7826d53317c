"""A small log with texts."""

import pytest
from small_texts import item_text, sequences_of

from sracl_dist.profiles.texts import TrainingTexts


@pytest.fixture
def texts() -> TrainingTexts:
    """Six items; the last two items of each history are held out."""
    histories = [[1, 2, 3, 4, 5, 6], [2, 3, 1, 6, 5], [4, 4, 2, 1]]
    return TrainingTexts([item_text(item) for item in range(1, 7)], sequences_of(histories, 6))
