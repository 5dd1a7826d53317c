"""The benchmark of prepare runs on small logs and says what it should; what it measures there means nothing."""

import math

import pyarrow.parquet as pq
import pytest

from sracl_dist.bench.polars_prepare import prepare_with_polars
from sracl_dist.bench.prepare import PrepareSettings
from sracl_dist.bench.prepare_log import prepare_log
from sracl_dist.bench.process_tree import run_measured
from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.bench.settings import parse_settings
from sracl_dist.bench.synthetic_log import SyntheticLogSettings, write_log
from sracl_dist.errors import ConfigError, StageError
from sracl_dist.run_folder import RunFolder


def test_every_figure_is_there() -> None:
    figures = run_bench("prepare", ["quick=true", "num_processes=1"])["figures"]
    reference = {"reference_ratio", "reference_rss_gb"}
    sizes = {f"{name}_{num}" for name in ("wall_s", "peak_rss_gb") for num in (5_000, 15_000)}
    assert figures.keys() == {"rows_per_second", "peak_rss_gb", "growth"} | reference | sizes
    assert all(math.isfinite(value) and value > 0 for value in figures.values())


def test_polars_does_the_same_work(tmp_path) -> None:
    write_log(
        tmp_path / "log", SyntheticLogSettings(num_events=9000, num_users=500, num_items=200, events_per_shard=2000)
    )
    num_kept = prepare_with_polars(tmp_path / "log" / "interactions", tmp_path / "polars")
    prepare_log(str(tmp_path / "run"), str(tmp_path / "log" / "interactions"))
    folder = RunFolder(str(tmp_path / "run")).stage("prepare")
    assert folder.manifest().rows["interactions"] == num_kept
    own, other = folder.read_shards("sequences/"), pq.read_table(tmp_path / "polars" / "sequences.parquet")
    assert own["times"].to_pylist() == other["times"].to_pylist()
    assert folder.read_shards("users/")["user_id"].equals(
        pq.read_table(tmp_path / "polars" / "users.parquet")["user_id"].cast("string")
    )


def test_the_memory_of_children_counts() -> None:
    child = "import time; held = bytearray(200_000_000); time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert 0.2 < run_measured(["-c", parent]).peak_rss_gb < 0.35


def test_a_program_that_fails_tells_why() -> None:
    with pytest.raises(StageError, match=r"ended with status 1: .*ZeroDivisionError"):
        run_measured(["-c", "1 / 0"])


def test_settings_are_described_and_checked() -> None:
    assert all(line.endswith(".") for line in describe_settings("prepare").splitlines())
    with pytest.raises(ConfigError, match=r"reference_events is 5; use one of num_events"):
        parse_settings(PrepareSettings, ["reference_events=5"])
    with pytest.raises(ConfigError, match=r"num_events is \[10, 20\]; use rising numbers from 5000 on"):
        parse_settings(PrepareSettings, ["num_events=[10,20]", "reference_events=10"])
