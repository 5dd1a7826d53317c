"""The benchmark of workers' memory runs on a small log and says what it should; its numbers there mean nothing."""

import math

import pytest

from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.errors import ConfigError

QUICK = ["num_events=3000", "num_users=100", "num_items=60", "vector_width=8", "batch_rows=16", "num_steps=2"]
NAMES = ("own_gb", "mapped_gb", "machine_gb", "peak_own_gb", "least_peak_own_gb", "start_s")


def test_every_figure_is_there_and_a_positive_number(capsys: pytest.CaptureFixture[str]) -> None:
    figures = run_bench("train_workers", ["num_workers=[1,2]", "validates=true", *QUICK])["figures"]
    assert set(figures) == {f"{name}_{num}" for name in NAMES for num in (1, 2)}
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    assert "2 workers: each" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["num_workers=[]", "num_workers=[2,0]", "num_steps=0", "vector_width=0"])
def test_a_wrong_setting_is_said(word: str) -> None:
    with pytest.raises(ConfigError, match=f"^{word.split('=')[0]} is "):
        run_bench("train_workers", [word])
    assert "num_workers" in describe_settings("train_workers")
