"""A text encoder with its own pooling: texts to unit vectors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import cached_file

from sracl_dist.errors import SetupError, StageError
from sracl_dist.profiles.models import loading_errors

SMALLEST_NORM = 1e-12
"""Of a vector that is divided by its length; a zero one stays zero."""
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


class TextEncoder:
    """Encodes texts in batches of similar length, so that little is spent on padding."""

    def __init__(self, model: str, max_tokens: int, batch_rows: int, *, in_windows: bool = False) -> None:
        with loading_errors(model, "embed.model"):
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            self._tokenizer = AutoTokenizer.from_pretrained(model, config=config, trust_remote_code=False)
            network = AutoModel.from_pretrained(model, config=config, trust_remote_code=False, use_safetensors=True)
            self._model = network.eval()
        longest = getattr(self._model.config, "max_position_embeddings", max_tokens)
        if max_tokens > longest:
            raise SetupError(f"embed.max_tokens is {max_tokens} but {model} reads at most {longest}; use that or less.")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self._pooling = _pooling_of(model)
        self._max_tokens, self._batch_rows, self._in_windows = max_tokens, batch_rows, in_windows

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [len(texts), d], in the order of the texts.

        A text longer than max_tokens is cut there, or read in windows of that length, whose pooled states are averaged
        in proportion to their tokens.

        Raises:
            StageError: a vector is not finite.
        """
        encoded = self._tokenizer(
            list(texts), truncation=True, max_length=self._max_tokens, return_overflowing_tokens=self._in_windows
        )
        ids = encoded["input_ids"]
        rows = np.array(encoded["overflow_to_sample_mapping"] if self._in_windows else range(len(ids)))
        sums = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        order = sorted(range(len(ids)), key=lambda window: len(ids[window]))
        for start in range(0, len(order), self._batch_rows):
            windows = order[start : start + self._batch_rows]
            weights = np.array([[len(ids[window])] for window in windows], np.float32)
            np.add.at(sums, rows[windows], weights * self._pooled([ids[window] for window in windows]))
        if not np.isfinite(sums).all():
            row = int(np.flatnonzero(~np.isfinite(sums).all(axis=1))[0])
            raise StageError(f"The text {texts[row][:60]!r} has no finite vector; check embed.model.")
        vectors: NDArray[np.float32] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), SMALLEST_NORM)
        return vectors

    def _pooled(self, ids: list[list[int]]) -> NDArray[np.float32]:
        batch = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._device)
        states_BLD = self._model(**batch).last_hidden_state.float()
        mask_BL1 = batch["attention_mask"].unsqueeze(-1).to(states_BLD.dtype)
        if self._pooling == "cls":
            pooled_BD = states_BLD[:, 0]
        elif self._pooling == "max":
            pooled_BD = states_BLD.masked_fill(mask_BL1 == 0, float("-inf")).amax(dim=1)
        else:
            pooled_BD = (states_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1).clamp(min=1)
        pooled: NDArray[np.float32] = pooled_BD.cpu().numpy()
        return pooled


def _pooling_of(model: str) -> str:
    """Pooling that the model was trained with, from its sentence-transformers files; mean where it has none."""
    found: Any = cached_file(
        model,
        "1_Pooling/config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is None:
        return "mean"
    settings = json.loads(Path(found).read_text(encoding="utf-8"))
    if settings.get("pooling_mode") in POOLINGS.values():
        return str(settings["pooling_mode"])
    chosen = [pooling for name, pooling in POOLINGS.items() if settings.get(name)]
    if len(chosen) != 1:
        raise SetupError(f"The pooling of {model} is not one of mean, cls and max; choose another embed.model.")
    return chosen[0]
