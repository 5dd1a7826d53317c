"""A text encoder as its authors mean it: texts to unit vectors, by sentence-transformers."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from sracl_dist.config.sections import EmbedConfig
from sracl_dist.embed.model_files import fetched_folder, require_harmless
from sracl_dist.errors import SetupError, StageError
from sracl_dist.profiles.models import loading_errors

SMALLEST_NORM = 1e-12
"""Of a vector that is divided by its length; a zero one remains zero."""


class TextEncoder:
    """All modules of the model (pooling, dense layers, normalisation), its prompt, and its vectors cut where wished.

    Args:
        settings: prompt, dimensions, max_tokens and batch_rows are used.
        model: the model's folder or Hugging Face id, from `resolve_model`.

    Raises:
        SetupError: the model cannot be loaded, would run code of its own, or reads or gives less than is asked for.
    """

    def __init__(self, settings: EmbedConfig, model: str) -> None:
        with loading_errors(model, "embed.model"), _quiet_libraries():
            folder = fetched_folder(model)
            require_harmless(folder, model)
            self._model = _load(str(folder))
        if not set(self._model.modalities) <= {"text", "message"}:
            # Where it could, the library would open what a text that looks like a path or an address names.
            raise SetupError(f"The model {model} reads more than texts; set embed.model to one that reads texts only.")
        width = self._model.get_embedding_dimension()
        if settings.dimensions is not None and width is not None and settings.dimensions > width:
            raise SetupError(
                f"embed.dimensions is {settings.dimensions} but the vectors of {model} have {width}; use that or less."
            )
        longest = _num_positions(self._model)
        if longest is not None and settings.max_tokens > longest:
            raise SetupError(
                f"embed.max_tokens is {settings.max_tokens} but {model} reads at most {longest}; use that or less."
            )
        self._model.max_seq_length = settings.max_tokens
        self._prompt, self._dimensions = settings.prompt, settings.dimensions
        self._batch_rows = settings.batch_rows

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [len(texts), d], in the order of the texts; a text is cut after max_tokens.

        Raises:
            StageError: a vector is not finite; names the text.
        """
        with _quiet_libraries():
            # The library would put texts of like numbers of characters together, which costs a third more padding.
            order = np.argsort(self._num_tokens(texts), kind="stable")
            pieces = [self._encode_batch([texts[row] for row in rows]) for rows in _in_batches(order, self._batch_rows)]
        rows = np.concatenate(pieces)[np.argsort(order)]
        if not np.isfinite(rows).all():
            row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise StageError(f"The text {texts[row][:60]!r} has no finite vector; check embed.model.")
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST_NORM)

    def _num_tokens(self, texts: Sequence[str]) -> list[int]:
        tokens = self._model.tokenizer(list(texts), truncation=True, return_attention_mask=False)["input_ids"]
        return [len(own) for own in tokens]

    def _encode_batch(self, texts: list[str]) -> NDArray[np.float32]:
        encoded = self._model.encode(
            texts,
            prompt=self._prompt,
            batch_size=len(texts),
            truncate_dim=self._dimensions,
            show_progress_bar=False,
        )
        return np.asarray(encoded, np.float32)


def _in_batches(rows: NDArray[np.int64], batch_rows: int) -> list[NDArray[np.int64]]:
    return np.split(rows, range(batch_rows, len(rows), batch_rows))


def _load(folder: str) -> SentenceTransformer:
    on_gpu = torch.cuda.is_available()
    return SentenceTransformer(
        folder,
        device="cuda" if on_gpu else "cpu",
        trust_remote_code=False,
        local_files_only=True,
        # Few CPUs compute in half precision faster than in single.
        model_kwargs={"use_safetensors": True, "dtype": "auto" if on_gpu else torch.float32},
    )


def _num_positions(model: SentenceTransformer) -> int | None:
    """How many tokens the network has positions for; None where that is not limited."""
    network = model.transformers_model
    if not isinstance(network, PreTrainedModel):
        return None
    for module in network.modules():
        positions = getattr(module, "position_embeddings", None)
        if isinstance(positions, nn.Embedding):  # some count from behind the padding's own position
            return positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1)
    longest = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    return longest if longest is not None and longest > 0 else None


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries' notes and progress bars about a model off the terminal."""
    library = logging.getLogger("sentence_transformers")
    level, verbosity = library.level, transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    library.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        library.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
