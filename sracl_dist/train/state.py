"""Checkpoints: everything that training needs to go on, and the part of it that later stages read.

    model.safetensors       learned weights
    encoder.safetensors     what inference needs of them, with the catalogue as a finished table
    memory.safetensors      states remembered between steps (the bank)
    optimiser.safetensors   moments and step counts of Adam, by parameter
    checkpoint.json         position, best epoch, curve so far, and what the checkpoint was made from and for

A checkpoint lies between two steps, and every step seeds its random numbers from the run's seed, its own number and
the worker's rank; hence there is no state of a random generator to keep.
"""

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from sracl_dist.artifacts import RunFolder
from sracl_dist.config import Config, flatten
from sracl_dist.config.sections import ModelConfig
from sracl_dist.errors import StorageError, first_line
from sracl_dist.model.encoders import SequenceEncoder, inference_encoder
from sracl_dist.model.sracl import Recommender
from sracl_dist.stages import STAGES

WEIGHTS = "model.safetensors"
ENCODER = "encoder.safetensors"
MEMORY = "memory.safetensors"
OPTIMISER = "optimiser.safetensors"
DESCRIPTION = "checkpoint.json"
BEST = "best/"
"""Folder of the stage train with the selected checkpoint's weights, encoder and description."""
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


def made_from(config: Config, num_users: int, num_items: int) -> dict[str, Any]:
    """What a checkpoint is bound to: settings by key, and the numbers of users and items."""
    settings = flatten(config, SETTINGS, with_neutral=False)
    return {**settings, "number of users": num_users, "number of items": num_items}


def save_checkpoint(
    folder: Path, model: Recommender, optimiser: torch.optim.Optimizer, progress: Progress, source: dict[str, Any]
) -> None:
    """Write a checkpoint into `folder`, which appears whole or not at all; one that is there is replaced."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_on_cpu(model.weights()), temporary / WEIGHTS)
    save_file(_on_cpu(model.encoder.inference_tensors()), temporary / ENCODER)
    save_file(_on_cpu(model.memory()), temporary / MEMORY)
    save_file(_on_cpu(_optimiser_tensors(model, optimiser)), temporary / OPTIMISER)
    description = {"made_from": source, "progress": asdict(progress)}
    (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def load_checkpoint(
    folder: Path,
    model: Recommender,
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
        description = _description(folder)
    except (OSError, ValueError) as error:
        raise _damaged(place, error, anew) from None
    _require_same(place, anew, description["made_from"], source)
    try:
        tensors = {**load_file(folder / WEIGHTS), **load_file(folder / MEMORY)}
        model.load_state_dict(tensors)
        _restore_optimiser(model, optimiser, load_file(folder / OPTIMISER))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise _damaged(place, error, anew) from None
    return progress_of(description)


def read_description(folder: Path) -> dict[str, Any]:
    """Content of checkpoint.json.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return _description(folder)
    except (OSError, ValueError) as error:
        raise _damaged(str(folder), error) from None


def _description(folder: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return description


def progress_of(description: dict[str, Any]) -> Progress:
    """Where training stood when the described checkpoint was written."""
    known = {member.name for member in fields(Progress)}
    return Progress(**{name: value for name, value in description["progress"].items() if name in known})


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
    source = folder.read_json(BEST + DESCRIPTION)["made_from"]
    if source["number of items"] != num_items:
        raise StorageError(
            f"{folder.path(BEST)} was trained for {source['number of items']:,} items and the run now has "
            f"{num_items:,}; run jobs/train.py again."
        )
    prefix = "model."
    settings = {key.removeprefix(prefix): value for key, value in source.items() if key.startswith(prefix)}
    encoder = inference_encoder(ModelConfig(**settings), num_items)
    try:
        # Taken over instead of copied: the table of a large catalogue is most of what there is.
        encoder.load_state_dict(load_tensors(folder.read_bytes(BEST + ENCODER)), assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise _damaged(folder.path(BEST), error) from None
    return encoder.to(device).eval()


def _optimiser_tensors(model: Recommender, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": torch.as_tensor(value)
        for name, parameter in model.weights().items()
        for key, value in optimiser.state[parameter].items()
    }


def _restore_optimiser(model: Recommender, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
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


def _damaged(place: str, error: Exception, anew: str = "delete it and run jobs/train.py again") -> StorageError:
    return StorageError(
        f"The checkpoint {place} is damaged ({first_line(error)}); put its files back as they were, or {anew}."
    )
