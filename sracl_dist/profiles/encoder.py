"""A text encoder with its own pooling: texts to unit vectors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file

from sracl_dist.errors import SetupError, StageError, first_line

POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}


class TextEncoder:
    """Encodes texts in batches of similar length, so that little is spent on padding."""

    def __init__(self, model: str, max_tokens: int, batch_rows: int) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model)
            self._model = AutoModel.from_pretrained(model).eval()
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise SetupError(f"The text encoder {model} cannot be loaded ({reason}); mend embed.model.") from None
        longest = getattr(self._model.config, "max_position_embeddings", max_tokens)
        if max_tokens > longest:
            raise SetupError(f"embed.max_tokens is {max_tokens} but {model} reads at most {longest}; use that or less.")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self._pooling = _pooling_of(model)
        self._max_tokens, self._batch_rows = max_tokens, batch_rows

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [len(texts), d], in the order of the texts.

        Raises:
            StageError: a vector is not finite.
        """
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        vectors = np.empty((len(ids), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), self._batch_rows):
            rows = order[start : start + self._batch_rows]
            vectors[rows] = self._encode_batch([ids[row] for row in rows])
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise StageError(f"The text {texts[row][:60]!r} has no finite vector; check embed.model.")
        return vectors

    def _encode_batch(self, ids: list[list[int]]) -> NDArray[np.float32]:
        batch = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._device)
        states_BLD = self._model(**batch).last_hidden_state.float()
        mask_BL1 = batch["attention_mask"].unsqueeze(-1).to(states_BLD.dtype)
        if self._pooling == "cls":
            pooled_BD = states_BLD[:, 0]
        elif self._pooling == "max":
            pooled_BD = states_BLD.masked_fill(mask_BL1 == 0, float("-inf")).amax(dim=1)
        else:
            pooled_BD = (states_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1).clamp(min=1)
        unit_BD: NDArray[np.float32] = torch.nn.functional.normalize(pooled_BD, dim=-1).cpu().numpy()
        return unit_BD


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
