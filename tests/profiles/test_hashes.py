"""Hashes as numbers are the same hashes, in the same order."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.profiles.hashes import packed, places_of

HASHES = st.lists(st.integers(0, 2**128 - 1) | st.integers(0, 3), max_size=20).map(
    lambda numbers: [f"{number:032x}" for number in numbers]
)


@settings(deadline=None)
@given(HASHES, st.integers(0, 20), st.integers(0, 20))
def test_packed_hashes_are_the_digits_bytes(hashes: list[str], start: int, cut: int) -> None:
    column = pa.chunked_array([hashes[:cut], hashes[cut:]], pa.string())
    expected = [bytes.fromhex(hash_).rstrip(b"\0") for hash_ in hashes]
    assert packed(column).tolist() == expected
    assert packed(pa.array(hashes, pa.string()).slice(start)).tolist() == expected[start:]


@settings(deadline=None)
@given(HASHES, HASHES)
def test_places_are_those_of_a_dictionary(wanted: list[str], known: list[str]) -> None:
    rising = np.unique(packed(pa.array(known, pa.string())))
    places = places_of(packed(pa.array(wanted, pa.string())), rising)
    own = {hash_: place for place, hash_ in enumerate(sorted(set(known)))}
    assert places.tolist() == [own.get(hash_, -1) for hash_ in wanted]


@pytest.mark.parametrize("text", ["", "short", "g" * 32, "A" * 32, "0" * 33, None])
def test_anything_else_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="a prompt's hash"):
        packed(pa.array(["0" * 32, text], pa.string()))
