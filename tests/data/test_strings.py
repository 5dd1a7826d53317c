"""Numbering of strings against a plain loop, and what happens when hashes meet."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.data.strings import HashKey, Register, distinct_strings, hash_strings
from sracl_dist.errors import StageError

KEY = HashKey(1, 2)
texts = st.lists(st.one_of(st.text(max_size=3), st.text(alphabet="ab\0", min_size=6, max_size=26)), max_size=40)


def large(values):
    return pa.array(values, pa.large_string())


@settings(deadline=None)
@given(values=texts, start=st.integers(0, 5))
def test_numbers_by_first_appearance(values, start):
    array = large(values).slice(start)
    found = distinct_strings(array, KEY)
    expected = list(dict.fromkeys(values[start:]))
    assert found.ids.to_pylist() == expected
    assert found.codes.tolist() == [expected.index(value) for value in values[start:]]
    assert np.array_equal(found.hashes, hash_strings(large(expected), KEY))


@settings(deadline=None)
@given(lots=st.lists(texts, min_size=1, max_size=4), asked=texts)
def test_a_register_goes_on_counting_and_finds(lots, asked):
    register, known = Register(), []
    for lot in lots:
        codes, places = register.add(hash_strings(large(lot), KEY))
        fresh = [place for place, value in enumerate(lot) if value not in known and value not in lot[:place]]
        assert places.tolist() == fresh
        known += [lot[place] for place in fresh]
        assert codes.tolist() == [known.index(value) for value in lot]
    assert len(register) == len(known)
    found = register.find(hash_strings(large(asked), KEY)).tolist()
    assert found == [known.index(value) if value in known else -1 for value in asked]


def test_bytes_behind_a_string_and_its_length_matter():
    values = ["", "\0", "\0\0", "a", "a\0", "a" * 8, "a" * 9, "a" * 16, "a" * 8 + "b", "b" + "a" * 8]
    assert len(distinct_strings(large(values), KEY).ids) == len(values)


def test_half_a_million_strings_have_as_many_hashes_in_each_half():
    hashes = hash_strings(large([f"user{number}" for number in range(500_000)]), HashKey.new())
    for half in (0, 1):
        assert len(np.unique(hashes[:, half])) == 500_000
        ones = np.unpackbits(hashes[:, half].copy().view(np.uint8)).mean()
        assert abs(ones - 0.5) < 0.001


def test_keys_give_other_hashes():
    one, other = (hash_strings(large(["same"]), HashKey.new()) for _ in range(2))
    assert (one != other).all()


def test_two_strings_with_half_a_hash_in_common_are_noticed():
    hashes = np.array([[5, 1], [5, 2]], np.uint64)
    with pytest.raises(StageError, match="have the same hash"):
        Register().add(hashes)
    register = Register()
    register.add(hashes[:1])
    for refused in (register.add, register.find):
        with pytest.raises(StageError, match="have the same hash"):
            refused(hashes[1:])
