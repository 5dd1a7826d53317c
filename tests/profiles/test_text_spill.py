"""Texts that lie in a temporary file come back at their places, and a full disk is told of in a sentence."""

import errno
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.errors import StorageError
from sracl_dist.profiles.text_spill import TextSpill

TEXTS = st.dictionaries(st.integers(0, 30), st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1)


@given(TEXTS, st.lists(st.integers(0, 30), max_size=3), st.data())
def test_texts_come_back_at_their_places(texts: dict[int, str], cuts: list[int], data: st.DataObject) -> None:
    spill = TextSpill(31)
    places = np.array(data.draw(st.permutations(sorted(texts))), np.int64)
    whole = pa.array(["before", *(texts[place] for place in places.tolist())])
    bounds = [0, *sorted(min(cut, len(places)) for cut in cuts), len(places)]
    for start, stop in pairwise(bounds):
        spill.put(places[start:stop], whole.slice(1 + start, stop - start))
    assert np.flatnonzero(spill.has_text).tolist() == sorted(texts)
    wanted = data.draw(st.lists(st.sampled_from(sorted(texts))))
    assert spill.get(np.array(wanted, np.int64)).to_pylist() == [texts[place] for place in wanted]


def test_a_full_disk_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: memoryview) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    spill = TextSpill(1)
    monkeypatch.setattr(spill, "_file", Full())
    with pytest.raises(StorageError, match=r"No space left on device.*TMPDIR"):
        spill.put(np.array([0]), pa.array(["a text"]))
