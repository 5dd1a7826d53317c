import pytest

from sracl_dist.model.inputs import Batch
from sracl_dist.sequences import Sequences
from sracl_dist.train.batches import TrainingBatches


@pytest.fixture
def batch(sequences: Sequences) -> Batch:
    """Most of the histories; some rows are early windows of long ones."""
    batches = TrainingBatches(sequences, 6, 32, 0)
    return batches.batch(batches.order(0)[0])
