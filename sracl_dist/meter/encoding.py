"""Texts to vectors on the cluster, each distinct text once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.config.sections import EmbedConfig
from sracl_dist.embed.workers import Spread
from sracl_dist.observe import Progress


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Texts that a worker encodes together."""

    start: int
    texts: tuple[str, ...]


def encode_all(
    texts: Mapping[str, Sequence[str]], settings: EmbedConfig, model: str, spread: Spread
) -> dict[str, NDArray[np.float32]]:
    """Unit vectors [n, d] of several lists of texts, by their names; equal texts are encoded once."""
    distinct = list(dict.fromkeys(text for several in texts.values() for text in several))
    num = settings.shard_rows
    pieces = [Piece(start=start, texts=tuple(distinct[start : start + num])) for start in range(0, len(distinct), num)]
    progress = Progress("meter: texts", len(distinct), "texts")
    parts: dict[int, NDArray[np.float32]] = {}

    def take(piece: Piece, vectors: NDArray[np.float32]) -> None:
        parts[piece.start] = vectors
        progress.update(len(vectors))

    spread(_make_encoder, (settings, model), pieces, take)
    progress.close()
    vectors = np.concatenate([parts[piece.start] for piece in pieces])
    place_of = {text: place for place, text in enumerate(distinct)}
    return {name: vectors[[place_of[text] for text in several]] for name, several in texts.items()}


def _make_encoder(settings: EmbedConfig, model: str) -> Callable[[Piece], NDArray[np.float32]]:
    """Runs in a worker: load the encoder once."""
    encoder = _load_encoder(settings, model)
    return lambda piece: encoder.encode(piece.texts)


def _load_encoder(settings: EmbedConfig, model: str) -> Any:
    from sracl_dist.embed.encoder import TextEncoder

    return TextEncoder(settings, model)
