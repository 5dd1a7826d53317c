"""A prepared log with vectors and neighbours that mean nothing, for measurements of speed.

How long a training step takes does not depend on what the vectors say or who the neighbours are, only on how many there
are; so there is no need for a language model, a text encoder or a search.

N keys, K neighbours, P width of the vectors.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import KEY, NEIGHBOURS, VECTOR
from sracl_dist.config import Config
from sracl_dist.model.tables import random_others
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences, load_sequences
from sracl_dist.shards import plan_shards
from sracl_dist.stages import STAGES, run_stage, stage_status


def prepared_tables(config: Config, run: RunFolder, vector_width: int) -> Sequences:
    """Run the stage prepare, write what embed and neighbours would, and return the sequences.

    Vectors are random and of unit length; neighbours are random others, as many as config.neighbours says.

    Raises:
        ConfigError: the source is unknown.
        InputError: the log cannot be found, fetched or used.
    """
    stage = STAGES["prepare"]
    run_stage(stage, config, run, stage_status(stage, config, run).draft)
    sequences = load_sequences(run)
    random = np.random.default_rng(0)
    for kind, first, num in (("users", 0, sequences.num_users), ("items", 1, sequences.num_items)):
        for shard in plan_shards(kind, first, num, config.embed.shard_rows):
            vectors_NP = random.standard_normal((shard.num_rows, vector_width), dtype=np.float32)
            vectors_NP /= np.linalg.norm(vectors_NP, axis=1, keepdims=True)
            keys = pa.array(np.arange(shard.start, shard.stop), pa.int64())
            run.stage("embed").write_table(shard.name, pa.table({KEY: keys, VECTOR: _lists(vectors_NP)}))
        anyone_NK = np.zeros((num, config.neighbours.num_neighbours), dtype=np.int32)
        others_NK = first + random_others(anyone_NK, 0, num, 0)
        columns = {KEY: pa.array(np.arange(first, first + num), pa.int64()), NEIGHBOURS: _lists(others_NK)}
        run.stage("neighbours").write_table(f"{kind}.parquet", pa.table(columns))
    return sequences


def _lists(values: NDArray[np.float32] | NDArray[np.int32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
