"""The benchmark of neighbours runs on small tables and says what it should; what it measures there means nothing."""

import math

import pytest

from sracl_dist.bench.neighbours import NeighboursSettings
from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.bench.settings import parse_settings
from sracl_dist.errors import ConfigError


@pytest.mark.ray
def test_every_figure_is_there_and_the_recall_is_reached() -> None:
    words = ["quick=true", "exact_width=16", "listed_width=16", "num_neighbours=5", "threads=1"]
    figures = run_bench("neighbours", words)["figures"]
    assert figures["lists_recall"] >= 0.95
    assert figures["lists_num_probes"] <= figures["lists_num_lists"]
    assert 0 < figures["lists_worker_gb"] < 3
    assert figures["distance_matrix_gb"] == pytest.approx(5000**2 * 4 / 1e9)
    assert all(math.isfinite(value) and value >= 0 for value in figures.values())


def test_settings_are_described_and_checked() -> None:
    assert all(line.endswith(".") for line in describe_settings("neighbours").splitlines())
    with pytest.raises(ConfigError, match=r"min_recall is 2\.0; use above 0 and at most 1"):
        parse_settings(NeighboursSettings, ["min_recall=2"])
