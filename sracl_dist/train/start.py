"""A trainer from the tables of a run, in the process that will train with it."""

from sracl_dist.config import Config
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import load_sequences
from sracl_dist.train.available import available_bytes, device_bytes
from sracl_dist.train.estimate import estimate, require_memory, sizes_of
from sracl_dist.train.loop import Trainer, make_trainer
from sracl_dist.train.worker import Worker, prepare_process


def start_trainer(config: Config, run: RunFolder, worker: Worker, workers_here: int = 1) -> Trainer:
    """Set torch up for repeatable results, read the tables, and make the trainer; see `make_trainer` for errors.

    Args:
        config: of the training.
        run: whose tables are read.
        worker: place of this process.
        workers_here: how many workers share this machine's memory.

    Raises:
        StageError: the memory of this machine or its GPU cannot suffice.
    """
    prepare_process(worker.device, config.train.cpus_per_worker)
    sequences = load_sequences(run)
    require_memory(
        estimate(config, sizes_of(config, run, sequences), on_gpu=worker.is_on_gpu),
        workers_here=workers_here,
        host_bytes=available_bytes(),
        device_bytes=device_bytes(worker.device),
    )
    return make_trainer(config, sequences, SemanticTables(run=run, sequences=sequences), worker)
