"""Checkpoints: everything that training needs to go on, and the part of it that later stages read.

    model.safetensors       learned weights
    encoder.safetensors     what inference needs of them, with the catalogue as a finished table
    memory.safetensors      states remembered between steps (the bank)
    optimiser.safetensors   moments and step counts of Adam, by parameter
    checkpoint.json         position, best epoch, curve so far, and what the checkpoint was made from and for

A checkpoint lies between two steps, and every step seeds its random numbers from the run's seed, its own number and
the worker's rank; hence there is no state of a random generator to keep.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from sracl_dist.config import Config, flatten
from sracl_dist.config.sections import ModelConfig
from sracl_dist.errors import ConfigError, StorageError, first_line
from sracl_dist.model.encoders import SequenceEncoder, inference_encoder
from sracl_dist.model.sracl import SraCl
from sracl_dist.run_folder import RunFolder
from sracl_dist.run_folder.plain import dataclass_from, parse_sealed_json, sealed_json
from sracl_dist.stages import STAGES

WEIGHTS = "model.safetensors"
ENCODER = "encoder.safetensors"
MEMORY = "memory.safetensors"
OPTIMISER = "optimiser.safetensors"
DESCRIPTION = "checkpoint.json"
BEST = "best/"
"""Folder of the stage train with the selected checkpoint's weights, encoder and description."""
NUMBER_OF_ITEMS = "number of items"
SETTINGS = STAGES["train"].settings
"""What a checkpoint is bound to; fields that cannot change a result, such as the number of workers, may differ."""


@dataclass(kw_only=True)
class Progress:
    """Where training stands, between two steps."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Finished optimiser steps."""
    epoch_step: int = 0
    """Those of the epoch that is not finished; 0 between two epochs."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over these steps, of all workers: the terms of the loss, and the gradient's norm."""
    train_s: float = 0.0
    """Seconds that they took."""
    wait_s: float = 0.0
    """Seconds of these in which the first worker waited for its batches."""
    best_epoch: int = 0
    """Epoch with the best validation metric; 0 before the first."""
    best_value: float = float("-inf")
    """Its value."""
    epochs_without_gain: int = 0
    """Finished epochs since the best one."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One line of metrics.jsonl per finished epoch."""


def made_from(config: Config, num_users: int, num_items: int, tables: dict[str, str]) -> dict[str, Any]:
    """What a checkpoint is bound to: settings by key, the numbers of users and items, and the tables that were read."""
    settings = flatten(config, SETTINGS, with_neutral=False)
    return {**settings, "number of users": num_users, NUMBER_OF_ITEMS: num_items, **tables}


def tables_read(run: RunFolder) -> dict[str, str]:
    """Fingerprints of the stages that training reads, as far as they are there."""
    manifests = {name: run.stage(name).manifest() for name in STAGES["train"].inputs}
    return {f"the stage {name}": manifest.fingerprint for name, manifest in manifests.items() if manifest is not None}


def save_checkpoint(
    folder: Path, model: SraCl, optimiser: torch.optim.Optimizer, progress: Progress, source: dict[str, Any]
) -> None:
    """Write a checkpoint into `folder`, which appears whole or not at all; one that is there is replaced."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_on_cpu(model.weights()), temporary / WEIGHTS)
    save_file(_on_cpu(model.encoder.inference_tensors()), temporary / ENCODER)
    save_file(_on_cpu(model.memory()), temporary / MEMORY)
    save_file(_on_cpu(_optimiser_tensors(model, optimiser)), temporary / OPTIMISER)
    files = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
    description = {"made_from": source, "progress": asdict(progress), "files": files}
    (temporary / DESCRIPTION).write_bytes(sealed_json(description))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def load_checkpoint(
    folder: Path,
    model: SraCl,
    optimiser: torch.optim.Optimizer,
    source: dict[str, Any],
    *,
    place: str,
    anew: str,
) -> Progress:
    """Restore model and optimiser from `folder`.

    Args:
        folder: its files, which may be copies.
        model: takes its weights and memory.
        optimiser: takes its moments.
        source: what it must have been made from.
        place: where it is kept, for messages.
        anew: what makes the training begin anew, for messages: delete this and run that.

    Raises:
        StorageError: the checkpoint is damaged, or was made from other settings or another catalogue.
    """
    try:
        description = _parse((folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(place, error, anew) from None
    _require_same(place, anew, description.made_from, source)
    try:
        for name in description.files:
            _require_same_content(description, name, _sha256(folder / name))
        model.load_state_dict({**load_file(folder / WEIGHTS), **load_file(folder / MEMORY)})
        _restore_optimiser(model, optimiser, load_file(folder / OPTIMISER))
    except (OSError, ValueError, SafetensorError, RuntimeError, KeyError) as error:
        raise _damaged(place, error, anew) from None
    return description.progress


def read_published(read: Callable[[str], bytes], *, place: str, anew: str) -> dict[str, bytes]:
    """The files of a checkpoint that later stages read, by name; `read` yields a file's content.

    Raises:
        StorageError: one is damaged.
    """
    try:
        files = {name: read(name) for name in (WEIGHTS, ENCODER, DESCRIPTION)}
        description = _parse(files[DESCRIPTION])
        for name in (WEIGHTS, ENCODER):
            _require_same_content(description, name, hashlib.sha256(files[name]).hexdigest())
    except (OSError, ValueError, StorageError) as error:
        raise _damaged(place, error, anew) from None
    return files


def read_progress(folder: Path, *, place: str, anew: str) -> Progress:
    """Where training stood when a checkpoint was written; arguments as for `load_checkpoint`.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return _parse((folder / DESCRIPTION).read_bytes()).progress
    except (OSError, ValueError) as error:
        raise _damaged(place, error, anew) from None


@dataclass(frozen=True, kw_only=True)
class _Description:
    """What checkpoint.json holds."""

    made_from: dict[str, Any]
    progress: Progress
    files: dict[str, str]
    """SHA-256 of every file of tensors."""


def _parse(content: bytes) -> _Description:
    """Raises ValueError where a character of it has changed."""
    value = parse_sealed_json(content)
    return dataclass_from(_Description, value | {"progress": dataclass_from(Progress, value.get("progress"))})


def _require_same_content(description: _Description, name: str, sha256: str) -> None:
    """Raises ValueError where a file is not what was written."""
    if sha256 != description.files.get(name):
        raise ValueError(f"{name} was changed")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def num_parameters_in(weights: bytes) -> int:
    """How many numbers the tensors of a safetensors file have together, as its header tells.

    The header is JSON behind its length in 8 bytes (https://github.com/huggingface/safetensors, "Format").
    """
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def load_best_encoder(run: RunFolder, num_items: int, device: torch.device) -> SequenceEncoder:
    """The encoder of the selected epoch, ready for inference.

    Args:
        run: the run folder whose stage train is finished.
        num_items: size of the catalogue that will be scored.
        device: where it will run.

    Raises:
        StorageError: it is damaged, or was trained for another catalogue.
    """
    folder = run.stage("train")
    try:
        description = _parse(folder.read_bytes(BEST + DESCRIPTION))
        trained_for = int(description.made_from[NUMBER_OF_ITEMS])
        if trained_for != num_items:
            raise StorageError(
                f"{folder.shown(BEST)} was trained for {trained_for:,} items and the run now has {num_items:,}; "
                f"{folder.anew}."
            )
        content = folder.read_bytes(BEST + ENCODER)
        _require_same_content(description, ENCODER, hashlib.sha256(content).hexdigest())
        return _encoder_of(description.made_from, num_items, load_tensors(content)).to(device).eval()
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, ConfigError) as error:
        raise _damaged(folder.shown(BEST), error, "run jobs/train.py again, which repairs it") from None


def _encoder_of(made_from: dict[str, Any], num_items: int, tensors: dict[str, Tensor]) -> SequenceEncoder:
    """The described encoder; no more memory is taken than its tensors have, whatever the description says."""
    prefix = "model."
    settings = {key.removeprefix(prefix): value for key, value in made_from.items() if key.startswith(prefix)}
    config = dataclass_from(ModelConfig, settings)
    config.check()
    if config.num_layers > len(tensors):
        raise ValueError(f"it names {config.num_layers:,} layers and has {len(tensors):,} tensors")
    with torch.device("meta"):
        encoder = inference_encoder(config, num_items)
    # Taken over instead of copied: the table of a large catalogue is most of what there is.
    encoder.load_state_dict(tensors, assign=True)
    return encoder


def _optimiser_tensors(model: SraCl, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": torch.as_tensor(value)
        for name, parameter in model.weights().items()
        for key, value in optimiser.state[parameter].items()
    }


def _restore_optimiser(model: SraCl, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Hand the state over by `load_state_dict`, which puts each tensor on the device it belongs to."""
    name_of = {parameter: name for name, parameter in model.weights().items()}
    # The optimiser numbers its parameters group by group.
    names = [name_of[parameter] for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for joined, value in tensors.items():
        key, name = joined.split("/", 1)
        state.setdefault(names.index(name), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _require_same(place: str, anew: str, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    keys = sorted(saved.keys() | wanted.keys())
    differences = [
        f"{key} was {saved.get(key)!r} and is {wanted.get(key)!r}" for key in keys if saved.get(key) != wanted.get(key)
    ]
    if differences:
        raise StorageError(
            f"The checkpoint {place} belongs to other work ({'; '.join(differences)}); restore these settings, or "
            f"{anew}."
        )


def _damaged(place: str, error: Exception, anew: str) -> StorageError:
    return StorageError(
        f"The checkpoint {place} is damaged ({first_line(error)}); put its files back as they were, or {anew}."
    )
