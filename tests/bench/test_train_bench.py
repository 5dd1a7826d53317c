"""The benchmark of training runs on a small log and says what it should; what it measures there means nothing."""

import importlib
import json
import math
from pathlib import Path

import pytest
import torch
from small_log import write_beauty_log

from sracl_dist.bench import BENCHES
from sracl_dist.bench.operations import count_operations
from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.bench.settings import parse_settings
from sracl_dist.bench.train import TrainSettings
from sracl_dist.errors import ConfigError, InputError

ROOT = Path(__file__).parent.parent.parent
FIGURES = {
    "speedup",
    "examples_per_second",
    "peak_share",
    "catalogue_softmax_share",
    "peak_rss_gb",
    "baseline_examples_per_second",
    "baseline_peak_share",
    "baseline_peak_rss_gb",
    "bfloat16_examples_per_second",
    "bfloat16_speedup",
    "encoded_examples_per_second",
    "encoded_speedup",
    "encoded_peak_share",
    "seconds_per_epoch",
    "matrix_peak_gflops",
    "narrow_matrix_gflops",
    "megaflop_per_example",
    "baseline_megaflop_per_example",
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_beauty_log(tmp_path)
    return tmp_path


def test_every_figure_is_there_and_a_positive_number(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    settings = [f"path={log}", "quick=true", "threads=1", "batch_rows=16", "baseline_batch_rows=16"]
    assert importlib.import_module("jobs.bench").main(["train", *settings]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert list(result) == ["bench", "figures", "settings"]
    assert result["bench"] == "train"
    assert set(result["figures"]) == FIGURES
    for name, value in result["figures"].items():
        assert math.isfinite(value), name
        assert value > 0, name
    assert result["settings"]["rounds"] == 1
    assert result["settings"]["batch_rows"] == 16
    assert "log: 60 users, 48 items" in printed.err
    assert [line.split()[0] for line in printed.err.splitlines()[-5:-1]] == ["baseline", "bank", "bfloat16", "encoded"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("thread=1", "The setting thread is unknown; did you mean threads?"),
        ("threads=two", "threads is 'two'; use a whole number."),
        ("threads=0", "threads is 0; use 1 or more."),
        ("threads", "The setting 'threads' is not KEY=VALUE; write for example source=VALUE."),
        ("turn_s=0", "turn_s is 0.0; use above 0."),
        ("device=tpu", "device is 'tpu'; use cpu or cuda."),
    ],
)
def test_a_wrong_setting_is_said(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(TrainSettings, [word])
    assert str(caught.value) == message


def test_every_setting_is_described() -> None:
    for name in BENCHES:
        assert all(line.endswith(".") for line in describe_settings(name).splitlines())
    assert "  quick=false: " in describe_settings("train")


def test_a_log_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it needs"):
        run_bench("train", [f"path={tmp_path}", "quick=true"])


def test_operations_of_products_and_attention_are_counted() -> None:
    left, right = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    assert count_operations(lambda: (left @ right).sum().backward()) == 3 * (2 * 3 * 4 * 5)
    query = torch.ones(2, 1, 6, 8, requires_grad=True)
    attention = torch.nn.functional.scaled_dot_product_attention
    product = 2 * 2 * 6 * 6 * 8
    assert count_operations(lambda: attention(query, query, query)) == 2 * product
    assert count_operations(lambda: attention(query, query, query).sum().backward()) == (2 + 5) * product
