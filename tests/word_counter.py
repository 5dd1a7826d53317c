"""An encoder that needs no model."""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class WordCounter:
    """An encoder to which texts are alike that share words; the real one is that of the tests of embed."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 256), np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, zlib.crc32(word.encode()) % 256] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
