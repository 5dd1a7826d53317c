"""Users and items of a generated log: who is interested in what, and when an item is there.

Users are numbered from the most active one on, bots last; items so that item i belongs to interest i mod G and is the
(i div G)-th there by popularity. Ids hide these numbers.

N users or items asked for, V items, G interests, K interests of a user, S shards.
"""

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.bench.synthetic_log.settings import BLOCK_ITEMS, MS_PER_DAY, SyntheticLogSettings

FADED = 0.05
"""An old item keeps this part of its popularity."""
_SCATTER = 618_033_989
"""Odd and no multiple of 5: multiplying by it modulo a power of ten only changes the order."""
_GROUP_DIGITS = 4
_GROUPS = np.frombuffer(b"".join(b"%04d" % number for number in range(10**_GROUP_DIGITS)), np.uint32)
Integers = NDArray[np.int64]


class Population:
    """What every shard of a log shares; it holds 16 bytes an item and nothing for a user.

    Args:
        settings: checked settings.
    """

    def __init__(self, settings: SyntheticLogSettings) -> None:
        self.settings = settings
        num_items, num_interests = settings.num_items, settings.num_interests
        self.slice_ms = int(settings.days * MS_PER_DAY) // settings.num_shards // 4 * 4
        sizes_G = (num_items - np.arange(num_interests) + num_interests - 1) // num_interests
        self.first_G = np.concatenate([[0], np.cumsum(sizes_G)])
        """[G + 1]: place of each interest's most popular item when items are ordered by interest, then popularity."""
        rank_V = np.concatenate([np.arange(size) for size in sizes_G])
        interest_V = np.repeat(np.arange(num_interests), sizes_G)
        self._weight_V = (rank_V + 1.0) ** -settings.item_exponent
        block_V = rank_V // BLOCK_ITEMS * num_interests + interest_V
        order_V = _scattered(block_V, settings.num_blocks)
        self.debut_V = (order_V * settings.num_shards // settings.num_blocks).astype(np.int32)
        """[V], by place: the shard in which the item certainly occurs; a new item is born at its start."""
        chance_V = _uniform(block_V, settings.seed)
        is_new_V = (chance_V < settings.new_item_share) & (rank_V >= BLOCK_ITEMS)
        age_V = _uniform(block_V, settings.seed + 1) * 2 * settings.half_life_days
        self._birth_V = np.where(is_new_V, self.debut_V * (self.slice_ms / MS_PER_DAY), -age_V).astype(np.float32)

    def start_ms(self, shard: int) -> int:
        """Begin of a shard's time, a multiple of 4."""
        return self.settings.start_ms + shard * self.slice_ms

    def items_at(self, places: Integers) -> Integers:
        """[N] items at places of the order by interest, then popularity."""
        interest = np.searchsorted(self.first_G, places, side="right") - 1
        return (places - self.first_G[interest]) * self.settings.num_interests + interest

    def weights(self, shard: int) -> NDArray[np.float64]:
        """[V], by place: how popular an item is during a shard; 0 before it is born."""
        day = shard * self.slice_ms / MS_PER_DAY
        age_V = np.float32(day) - self._birth_V
        life_V = np.maximum(np.exp2(age_V / np.float32(-self.settings.half_life_days)), np.float32(FADED))
        life_V[age_V < 0] = 0
        return self._weight_V * life_V

    def is_born(self, shard: int) -> NDArray[np.bool_]:
        """[V], by place: whether the item is there during a shard."""
        return np.float32(shard * self.slice_ms / MS_PER_DAY) >= self._birth_V

    def trend(self, shard: int) -> NDArray[np.floating]:
        """[G]: how much an interest is in fashion during a shard."""
        settings = self.settings
        phase_G = _uniform(np.arange(settings.num_interests), settings.seed + 2)
        return np.exp(settings.interest_drift * np.sin(2 * math.pi * (phase_G + shard / settings.num_shards)))

    def user_interests(self, users: Integers) -> Integers:
        """[N, K] interests of users, the dearest first; later ones may coincide."""
        settings = self.settings
        num_interests = settings.num_interests
        interests = np.empty((len(users), settings.interests_per_user), np.int64)
        interests[:, 0] = users % num_interests
        for slot in range(1, settings.interests_per_user):
            step = 1 + _mixed(users * settings.interests_per_user + slot, settings.seed) % np.uint64(num_interests - 1)
            interests[:, slot] = (interests[:, 0] + step.astype(np.int64)) % num_interests
        return interests

    def certain_users(self, shard: int) -> Integers:
        """Humans that certainly occur in a shard; each does in exactly one."""
        num, shards = self.settings.num_humans, self.settings.num_shards
        order = np.arange(num * shard // shards, num * (shard + 1) // shards)
        return order * pow(_multiplier(num), -1, num) % num if num > 1 else order

    def user_ids(self, users: Integers) -> pa.Array:
        """[N] strings such as user61803398."""
        return _ids("user", users, self.settings.num_users)

    def item_ids(self, items: Integers) -> pa.Array:
        """[N] strings such as item61803398."""
        return _ids("item", items, self.settings.num_items)

    def users_of(self, ids: pa.Array | pa.ChunkedArray) -> Integers:
        """[N] users with these ids."""
        return _numbers(ids, self.settings.num_users)

    def items_of(self, ids: pa.Array | pa.ChunkedArray) -> Integers:
        """[N] items with these ids."""
        return _numbers(ids, self.settings.num_items)


def _multiplier(modulus: int) -> int:
    """A number near the golden section of the modulus that shares no divisor with it."""
    number = max(int(modulus * 0.6180339887498949), 1)
    while math.gcd(number, modulus) != 1:
        number += 1
    return number


def _scattered(numbers: Integers, modulus: int) -> Integers:
    """The same numbers below the modulus in another order, in which neighbours lie far apart."""
    return numbers * _multiplier(modulus) % modulus


def _mixed(numbers: Integers, seed: int) -> NDArray[np.uint64]:
    """Numbers that look random, each a function of its own (the finaliser of SplitMix64)."""
    mixed = numbers.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _uniform(numbers: Integers, seed: int) -> NDArray[np.floating]:
    return (_mixed(numbers, seed) >> np.uint64(11)) * 2.0**-53


def _num_groups(num_ids: int) -> int:
    return 2 if num_ids <= 10 ** (2 * _GROUP_DIGITS) else 3


def _ids(prefix: str, numbers: Integers, num_ids: int) -> pa.Array:
    """Strings of a four-letter prefix and 8 or 12 digits, four at a time from a table."""
    groups = _num_groups(num_ids)
    rest = numbers * _SCATTER % 10 ** (_GROUP_DIGITS * groups)
    words = np.empty((len(numbers), 1 + groups), np.uint32)
    words[:, 0] = np.frombuffer(prefix.encode(), np.uint32)[0]
    for group in range(groups, 0, -1):
        before = rest // 10**_GROUP_DIGITS
        words[:, group] = _GROUPS[rest - before * 10**_GROUP_DIGITS]
        rest = before
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * np.int32(words.shape[1] * 4)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(words))


def _numbers(ids: pa.Array | pa.ChunkedArray, num_ids: int) -> Integers:
    modulus = 10 ** (_GROUP_DIGITS * _num_groups(num_ids))
    back = pow(_SCATTER, -1, modulus)
    return np.array([int(each[4:]) * back % modulus for each in ids.to_pylist()], np.int64)
