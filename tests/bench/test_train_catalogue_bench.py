"""The benchmark of large catalogues runs on small ones and says what it should; its numbers there mean nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.bench.train_catalogue import synthetic_sequences
from sracl_dist.errors import ConfigError

QUICK = ["num_users=40", "batch_rows=8", "num_sampled=16", "width=8", "rounds=1", "turn_s=0.01"]


def test_every_figure_is_there_and_a_positive_number(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_bench("train_catalogue", ["sizes=[50,900]", *QUICK])
    names = ("step_ms", "table_ms", "settle_ms", "peak_rss_gb", "table_gb")
    of_sizes = {f"{name}_{size}" for name in names for size in (50, 900)}
    assert set(result["figures"]) == {"growth", "growth_beyond_table", *of_sizes}
    for name, value in result["figures"].items():
        assert math.isfinite(value), name
        assert value > 0 or name == "growth_beyond_table", name
    assert result["figures"]["table_gb_900"] == pytest.approx(3 * 4 * 901 * 8 / 1e9, rel=1e-3)
    assert "a step grows" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["sizes=[]", "sizes=[100,50]", "items_per_user=3", "turn_s=0", "rounds=0"])
def test_a_wrong_setting_is_said(word: str) -> None:
    with pytest.raises(ConfigError, match=f"^{word.split('=')[0]} is "):
        run_bench("train_catalogue", [word])
    assert "sizes" in describe_settings("train_catalogue")


@settings(max_examples=20, deadline=None)
@given(num_users=st.integers(1, 30), items_per_user=st.integers(4, 8), num_items=st.integers(1, 400))
def test_the_log_has_every_item_that_finds_a_place(num_users: int, items_per_user: int, num_items: int) -> None:
    log = synthetic_sequences(num_users, items_per_user, num_items)
    assert len(np.unique(log.items)) == min(num_items, num_users * items_per_user)
    assert log.items.min() >= 1
    assert log.items.max() <= num_items
    assert np.diff(log.offsets).tolist() == [items_per_user] * num_users
