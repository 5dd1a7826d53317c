"""A small log with planted groups: users of a group walk along the group's own cycle of items.

Item and user vectors point to the group, so neighbours are members of the same group.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from sracl_dist.columns import PAD
from sracl_dist.config import Config, parse_config
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.inputs import Batch
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import Manifest, RunFolder, StageFolder
from sracl_dist.sequences import Sequences
from sracl_dist.shards import Shard
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.state import BEST, DESCRIPTION, ENCODER, WEIGHTS, Progress
from sracl_dist.train.worker import Worker

NUM_GROUPS = 4
ITEMS_PER_GROUP = 12
NUM_ITEMS = NUM_GROUPS * ITEMS_PER_GROUP
WIDTH = 8


def make_config(location: object = "unused", *overrides: str) -> Config:
    """A small model that trains in a second."""
    values: dict[str, Any] = {
        "run": {"dir": str(location), "seed": 3},
        "data": {"interactions": ["unused.csv"]},
        "cluster": {"address": "local", "num_cpus": 2, "object_store_bytes": 80_000_000},
        "model": {
            "width": 16,
            "num_layers": 1,
            "num_heads": 2,
            "feedforward_width": 32,
            "dropout": 0.1,
            "max_length": 6,
        },
        "train": {"epochs": 3, "batch_rows": 32, "learning_rate": 0.01},
        "evaluate": {"shard_users": 37, "num_workers": 2},
        "recommend": {"shard_users": 50, "num_items": 5, "num_workers": 2},
    }
    return parse_config(values, overrides)


def make_sequences(num_users: int = 160, seed: int = 0, lengths: tuple[int, int] = (3, 14)) -> Sequences:
    """Each user starts anywhere in its group's cycle and mostly goes one item on."""
    random = np.random.default_rng(seed)
    histories = []
    for user in range(num_users):
        steps = 1 + (random.random(random.integers(*lengths)) < 0.1)
        places = (random.integers(ITEMS_PER_GROUP) + np.cumsum(steps)) % ITEMS_PER_GROUP
        histories.append(1 + (user % NUM_GROUPS) * ITEMS_PER_GROUP + places)
    return from_histories(histories, num_items=NUM_ITEMS)


def from_histories(histories: list[Any], *, num_items: int) -> Sequences:
    """The last item of each history is for test, the one before for validation."""
    lengths = np.array([len(history) for history in histories])
    return Sequences(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.concatenate([np.zeros(0), *histories]).astype(np.int32),
        num_train=np.maximum(lengths - 2, 0).astype(np.int32),
        num_validation=np.minimum(lengths, 1).astype(np.int32),
        num_items=num_items,
    )


def with_other_future(sequences: Sequences, seed: int = 1) -> Sequences:
    """The same training items, but every validation and test item another one."""
    place = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], np.diff(sequences.offsets))
    is_future = place >= np.repeat(sequences.num_train, np.diff(sequences.offsets))
    shift = np.random.default_rng(seed).integers(1, sequences.num_items, len(sequences.items))
    changed = 1 + (sequences.items - 1 + shift) % sequences.num_items
    return replace(sequences, items=np.where(is_future, changed, sequences.items).astype(np.int32))


def differences(one: Batch, other: Batch) -> list[str]:
    """Fields in which two batches differ."""
    names = ["rows.items_T", "rows.lengths_B", *(member.name for member in fields(Batch) if member.name != "rows")]
    pairs = [(name, attrgetter(name)(one), attrgetter(name)(other)) for name in names]
    return [name for name, a, b in pairs if not (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b)]


def write_run(
    location: Path,
    sequences: Sequences,
    *,
    num_neighbours: int = 4,
    user_groups: NDArray[Any] | None = None,
    item_groups: NDArray[Any] | None = None,
    manifest_of: Callable[[RunFolder, str], Manifest] | None = None,
) -> RunFolder:
    """The stages prepare, embed and neighbours as if they had run; rows of all tables are shuffled.

    Each has the manifest that `manifest_of` yields just before it begins.

    Groups are those of `make_sequences` unless others are given, up to WIDTH.
    """
    run = RunFolder(str(location))
    random = np.random.default_rng(0)
    if user_groups is None:
        user_groups = np.arange(sequences.num_users) % NUM_GROUPS
    if item_groups is None:
        item_groups = np.arange(sequences.num_items) * NUM_GROUPS // sequences.num_items
    kinds = []
    for kind, first, groups in (("users", 0, user_groups), ("items", 1, item_groups)):
        vectors = np.eye(WIDTH)[groups] + random.normal(0, 0.1, (len(groups), WIDTH))
        kinds.append((kind, first, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    with writing(run, "prepare", sequences, manifest_of) as folder:
        _write_prepare(folder, sequences)
    with writing(run, "embed", sequences, manifest_of) as folder:
        for kind, first, vectors in kinds:
            _write_vectors(folder, kind, first, vectors, random)
    with writing(run, "neighbours", sequences, manifest_of) as folder:
        for kind, first, vectors in kinds:
            _write_neighbours(folder, kind, first, vectors, num_neighbours, random)
    return run


@contextlib.contextmanager
def writing(
    run: RunFolder, name: str, sequences: Sequences, manifest_of: Callable[[RunFolder, str], Manifest] | None = None
) -> Iterator[StageFolder]:
    """A stage as if it ran, for the duration of the block."""
    manifest = make_manifest(name, {}) if manifest_of is None else manifest_of(run, name)
    manifest.rows = {"users": sequences.num_users, "items": sequences.num_items}
    with run.working_on(name, manifest.fingerprint) as folder:
        yield folder
        folder.commit(manifest)


def make_manifest(name: str, rows: dict[str, int]) -> Manifest:
    return Manifest(stage=name, fingerprint=name, version=1, config={}, external={}, inputs={}, rows=rows)


def fixed_lists(values: NDArray[Any], kind: pa.DataType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind), values.shape[1])


def enlarge(encoder: SequenceEncoder) -> None:
    """Initial weights are so small, or zero, that a mistake could hide in rounding."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        encoder.catalogue.embedding.weight[PAD].zero_()


def tables_of(run: RunFolder, sequences: Sequences) -> SemanticTables:
    return SemanticTables(run=run, sequences=sequences)


def _write_prepare(folder: StageFolder, sequences: Sequences) -> None:
    folder.write_table(Shard("sequences", 0, sequences.num_users).name, sequences.to_table())
    items, users = np.arange(1, sequences.num_items + 1), np.arange(sequences.num_users)
    item_table = pa.table({"item": pa.array(items, pa.int32()), "item_id": [f"item-{item}" for item in items]})
    user_table = pa.table({"user": pa.array(users, pa.int64()), "user_id": [f"user-{user}" for user in users]})
    folder.write_table("items.parquet", item_table.take(pa.array(items[::-1] - 1)))
    folder.write_table(Shard("users", 0, sequences.num_users).name, user_table.take(pa.array(users[::-1])))


def _write_vectors(
    folder: StageFolder, kind: str, first: int, vectors: NDArray[Any], random: np.random.Generator
) -> None:
    keys = random.permutation(len(vectors))
    half = len(keys) // 2
    for part, own in enumerate((keys[:half], keys[half:])):
        columns = {"key": pa.array(own + first, pa.int64()), "vector": fixed_lists(vectors[own], pa.float32())}
        folder.write_table(f"{kind}/part-{part}.parquet", pa.table(columns))


def _write_neighbours(
    folder: StageFolder, kind: str, first: int, vectors: NDArray[Any], num: int, random: np.random.Generator
) -> None:
    """The nearest by inner product; row 0 lacks all neighbours and row 1 all but the first."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :num]
    scores, ids = np.take_along_axis(similarity, nearest, axis=1), nearest + first
    for row, start in ((0, 0), (1, 1)):
        ids[row, start:], scores[row, start:] = -1, -np.inf
    order = random.permutation(len(vectors))
    columns = {
        "key": pa.array(order + first, pa.int64()),
        "neighbours": fixed_lists(ids[order], pa.int32()),
        "scores": fixed_lists(scores[order], pa.float32()),
    }
    folder.write_table(f"{kind}.parquet", pa.table(columns))


def write_best(run: RunFolder, config: Config, sequences: Sequences, scratch: Path, *, num_epochs: int = 0) -> None:
    """The stage train as if it had run, with the weights after so many epochs."""
    config.train.epochs = num_epochs
    trainer = make_trainer(config, sequences, tables_of(run, sequences), Worker())
    progress = Progress()
    for _ in fit(trainer, progress):
        pass
    trainer.save(scratch / "state", progress)
    with writing(run, "train", sequences) as folder:
        for name in (WEIGHTS, ENCODER, DESCRIPTION):
            folder.write_bytes(BEST + name, (scratch / "state" / name).read_bytes())
