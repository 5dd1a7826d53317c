"""The benchmark of evaluate runs on a small catalogue and says what it should; what it measures there means nothing."""

import math
from collections.abc import Iterator

import pytest
import torch

from sracl_dist.bench.evaluate import EvaluateSettings
from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.bench.settings import parse_settings
from sracl_dist.errors import ConfigError


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_figure_is_there() -> None:
    figures = run_bench("evaluate", ["quick=true", "width=16", "shard_users=250", "threads=1"])["figures"]
    assert {"peak_share", "bare_product_share", "users_per_second", "recommend_peak_share", "peak_rss_gb"} <= set(
        figures
    )
    assert figures["score_matrix_gb"] == 600 * 5000 * 4 / 1e9
    assert all(math.isfinite(value) and value > 0 for value in figures.values())


def test_settings_are_described_and_checked() -> None:
    assert all(line.endswith(".") for line in describe_settings("evaluate").splitlines())
    with pytest.raises(ConfigError, match="num_served is 7; use num_users=6 or less"):
        parse_settings(EvaluateSettings, ["num_users=6", "num_served=7"])
