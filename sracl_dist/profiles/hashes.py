"""Hashes of prompts as numbers: millions of them in 16 bytes each."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

HASH = np.dtype("S16")
"""numpy orders these by their bytes; that trailing zeros are not shown does not matter to it."""
NUM_DIGITS = 32
_VALUES = np.full(256, 255, np.uint8)
_VALUES[list(b"0123456789abcdef")] = np.arange(16)


def packed(hashes: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Hashes of `HASH` [n] from texts of 32 hexadecimal digits.

    Raises:
        ValueError: one of them is something else.
    """
    if isinstance(hashes, pa.ChunkedArray):
        parts = [packed(chunk) for chunk in hashes.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, HASH)
    texts = hashes.cast(pa.string())
    if texts.null_count or (not pc.all(pc.equal(pc.binary_length(texts), NUM_DIGITS)).as_py() and len(texts)):
        raise ValueError(f"a prompt's hash does not have {NUM_DIGITS} digits")
    if not len(texts):
        return np.zeros(0, HASH)
    start = int(np.frombuffer(texts.buffers()[1], np.int32)[texts.offset])
    digits = np.frombuffer(texts.buffers()[2], np.uint8, NUM_DIGITS * len(texts), start)
    values = _VALUES[digits].reshape(-1, 2)
    if values.max() > 15:
        raise ValueError("a prompt's hash has other digits than 0 to 9 and a to f")
    return (values[:, 0] << 4 | values[:, 1]).astype(np.uint8).view(HASH)


def places_of(wanted: NDArray[np.bytes_], known: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Where each wanted hash is among the known ones, which rise; -1 where it is not."""
    if not len(known):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[places] == wanted, places, -1)
