"""The benchmark of training by workers runs on a small log; of what it measures there only the loss means something."""

import math
from pathlib import Path

import pytest
from small_log import write_beauty_log

from sracl_dist.bench.run import run_bench
from sracl_dist.bench.settings import parse_settings
from sracl_dist.bench.train_scaling import TrainScalingSettings
from sracl_dist.errors import ConfigError

NAMES = ("examples_per_second", "speedup", "data_wait_share", "loss_difference")


@pytest.mark.ray
@pytest.mark.slow
def test_every_figure_is_there_and_the_loss_is_that_of_one_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_beauty_log(tmp_path)
    figures = run_bench("train_scaling", [f"path={tmp_path}", "workers=[1,2]", "batch_rows=16", "epochs=2"])["figures"]
    assert set(figures) == {"cores", *(f"{name}_{num}" for name in NAMES for num in (1, 2))}
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["speedup_1"] == 1
    assert figures["loss_difference_1"] == 0
    assert 0 < figures["loss_difference_2"] < 1e-3, "sums are rounded differently, so that two have really trained"
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()[-2:]] == ["1", "2"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("workers=[]", r"workers is \[\]; use numbers of 1 or more"),
        ("workers=[0,1]", r"workers is \[0, 1\]; use numbers of 1 or more"),
        ("epochs=0", "epochs is 0; use 1 or more"),
    ],
)
def test_a_wrong_setting_is_said(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(TrainScalingSettings, [word])
