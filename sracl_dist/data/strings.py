"""Distinct strings of a column, found by sorting keyed hashes: faster than a hash table that outgrows the cache.

128 bits stand for a string. The key is random and new for every run, so nobody can prepare strings that meet; what
comes out does not depend on it. N strings.
"""

import secrets
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.errors import StageError

Hashes = NDArray[np.uint64]
_FIRST, _SECOND = (np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F))
"""Multipliers of MurmurHash3, https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp"""
_MIXERS = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_WORD_BYTES = 8


class HashCollisionError(StageError):
    """Two different strings share half of their bits."""


@dataclass(frozen=True)
class HashKey:
    """What the hashes of a run depend on."""

    first: int
    second: int

    @classmethod
    def new(cls) -> "HashKey":
        """A random key."""
        return cls(secrets.randbits(64), secrets.randbits(64))


@dataclass(frozen=True, kw_only=True)
class Distinct:
    """The distinct strings of some."""

    ids: pa.LargeStringArray
    """[D] by first appearance."""
    codes: NDArray[np.int32]
    """[N] place of each string in `ids`."""
    hashes: Hashes
    """[D, 2] of the distinct strings."""


def distinct_strings(values: pa.LargeStringArray, key: HashKey) -> Distinct:
    """Number the strings by first appearance.

    Raises:
        StageError: two different strings share half of their bits.
    """
    hashes = hash_strings(values, key)
    codes, places = Register().add(hashes)
    return Distinct(ids=values.take(pa.array(places)), codes=codes, hashes=hashes[places])


class Register:
    """Numbers strings by first appearance, one lot after the other, in 20 bytes for each distinct one.

    >>> register, key = Register(), HashKey.new()
    >>> hashes = hash_strings(pa.array(["b", "a", "b", "c"], pa.large_string()), key)
    >>> register.add(hashes[:3])
    (array([0, 1, 0], dtype=int32), array([0, 1]))
    >>> register.add(hashes[1:])
    (array([1, 0, 2], dtype=int32), array([2]))
    """

    def __init__(self, hashes: Hashes | None = None, numbers: NDArray[np.int32] | None = None) -> None:
        """Begin with nothing, or with what `by_hash` of another one told."""
        self._first, self._second = np.zeros((2, 0), np.uint64) if hashes is None else hashes.T
        self._numbers = np.zeros(0, np.int32) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def by_hash(self) -> tuple[Hashes, NDArray[np.int32]]:
        """The strings by ascending hash: [N, 2] these, in columns, and [N] the number of each."""
        return np.stack([self._first, self._second]).T, self._numbers

    def add(self, hashes: Hashes) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """[N] the number of each string, and the places among them at which new strings first appear, ascending.

        Raises:
            StageError: two different strings share half of their bits.
        """
        order, starts = _groups(hashes)
        if not len(order):
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        lengths = np.diff(starts, append=len(order))
        first, second = hashes[order[starts], 0], hashes[order[starts], 1]
        places = np.minimum.reduceat(order, starts)
        at = np.searchsorted(self._first, first)
        numbers = self._found(at, first, second)
        new = np.flatnonzero(numbers < 0)
        by_appearance = new[np.argsort(places[new])]
        numbers[by_appearance] = len(self) + np.arange(len(new), dtype=np.int32)
        self._first = np.insert(self._first, at[new], first[new])
        self._second = np.insert(self._second, at[new], second[new])
        self._numbers = np.insert(self._numbers, at[new], numbers[new])
        codes = np.empty(len(hashes), np.int32)
        codes[order] = np.repeat(numbers, lengths)
        return codes, places[by_appearance]

    def find(self, hashes: Hashes) -> NDArray[np.int32]:
        """[N] the number of each string, -1 for one that was never added."""
        return self._found(np.searchsorted(self._first, hashes[:, 0]), hashes[:, 0], hashes[:, 1])

    def _found(self, at: NDArray[np.int64], first: Hashes, second: Hashes) -> NDArray[np.int32]:
        """[N] the number of each string, -1 for one that is new; `at` is where its first half would be inserted."""
        if not len(self):
            return np.full(len(first), -1, np.int32)
        near = np.minimum(at, len(self) - 1)
        found = self._first[near] == first
        if (self._second[near[found]] != second[found]).any():
            raise collision()
        return np.where(found, self._numbers[near], np.int32(-1))


def _groups(hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """An order in which equal strings are neighbours, and where each string's group starts in it."""
    order = np.argsort(hashes[:, 0])
    first, second = hashes[order, 0], hashes[order, 1]
    differs = first[1:] != first[:-1]
    if (second[1:][~differs] != second[:-1][~differs]).any():
        raise collision()
    return order, np.flatnonzero(np.append(len(order) > 0, differs)[: len(order)])


def collision() -> HashCollisionError:
    """The error for two strings that share half of their bits."""
    return HashCollisionError(
        "Two different ids have the same hash, which happens once in a million runs; run the job again, which takes "
        "other hashes."
    )


def hash_strings(values: pa.LargeStringArray, key: HashKey) -> Hashes:
    """[N, 2] two independent hashes of each string; work follows the bytes of all and the words of the longest."""
    offsets, padded = _buffers(values)
    starts, lengths = offsets[:-1], np.diff(offsets)
    # Every 8 bytes of the data as a number, wherever they start.
    words = np.ndarray((max(len(padded) - _WORD_BYTES + 1, 0),), "<u8", padded, strides=(1,))
    state = [lengths.astype(np.uint64) ^ np.uint64(seed) for seed in (key.first, key.second)]
    rows: NDArray[np.int64] | None = None
    for word in range(-(-int(lengths.max(initial=0)) // _WORD_BYTES)):
        at = word * _WORD_BYTES
        rows = np.flatnonzero(lengths > at) if rows is None else rows[lengths[rows] > at]
        whole = len(rows) == len(lengths)
        own_starts, rest = (starts, lengths - at) if whole else (starts[rows], lengths[rows] - at)
        value = words[own_starts + at]
        short = np.maximum(_WORD_BYTES - rest, 0).astype(np.uint64) * np.uint64(8)
        value &= np.uint64(0xFFFFFFFFFFFFFFFF) >> short
        for half, (multiplier, other) in enumerate(((_FIRST, _SECOND), (_SECOND, _FIRST))):
            mixed = value * multiplier
            mixed ^= mixed >> np.uint64(33)
            mixed *= other
            if whole:
                state[half] = _round(state[half] ^ mixed, multiplier)
            else:
                state[half][rows] = _round(state[half][rows] ^ mixed, multiplier)
    return np.stack([_finished(each) for each in state], axis=1)


def _buffers(values: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """[N + 1] offsets into the bytes, and the bytes with room for a word behind the last."""
    _, offset_buffer, data = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + len(values) + 1]
    if not len(values) or data is None:
        return np.zeros(len(values) + 1, np.int64), np.zeros(0, np.uint8)
    start, end = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(end - start + _WORD_BYTES, np.uint8)
    padded[: end - start] = np.frombuffer(data, np.uint8)[start:end]
    return offsets - start, padded


def _round(state: NDArray[np.uint64], multiplier: np.uint64) -> NDArray[np.uint64]:
    state ^= state >> np.uint64(29)
    state *= multiplier
    return state


def _finished(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for mixer in _MIXERS:
        state ^= state >> np.uint64(33)
        state *= mixer
    state ^= state >> np.uint64(33)
    return state
