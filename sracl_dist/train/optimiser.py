"""Adam with decoupled weight decay, its groups of parameters, and the learning rate at every step."""

import math

from sracl_dist.config.sections import TrainConfig
from sracl_dist.model.sracl import SraCl
from sracl_dist.train.rowwise import RowwiseAdamW

EMBEDDING = "encoder.catalogue.embedding.weight"


def make_optimiser(config: TrainConfig, model: SraCl) -> RowwiseAdamW:
    """AdamW over three groups: matrices, item embeddings, and what must not decay (biases, norms, positions)."""
    matrices, embeddings, others = [], [], []
    for name, parameter in model.named_parameters():
        if name == EMBEDDING:
            embeddings.append(parameter)
        elif parameter.ndim >= 2 and "position_embedding" not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": embeddings, "weight_decay": config.embedding_weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return RowwiseAdamW([group for group in groups if group["params"]], config.learning_rate, model.catalogue)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step, counted from 0 over the whole training; it depends on nothing else.

    It rises linearly over train.warmup_epochs, then stays, or falls to 0 at the end of train.epochs.
    """
    total, warmup = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.learning_rate * (step + 1) / max(1.0, math.ceil(warmup))
    gone = (step - warmup) / max(1.0, total - warmup)
    if config.decay == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, gone)))
    if config.decay == "linear":
        return config.learning_rate * max(0.0, 1 - gone)
    return config.learning_rate
