"""The benchmark of profiles runs with a few prompts and says what it should; what it measures there means nothing."""

import math
from pathlib import Path

import pytest
from small_log import write_beauty_log

from sracl_dist.bench.profile import ProfileSettings
from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.bench.settings import parse_settings
from sracl_dist.errors import ConfigError


@pytest.mark.ray
@pytest.mark.llm
@pytest.mark.slow
def test_every_figure_is_there(tmp_path: Path) -> None:
    write_beauty_log(tmp_path)
    figures = run_bench("profile", [f"path={tmp_path}", "quick=true"])["figures"]
    assert figures["num_output_tokens"] <= 8 * 4
    assert 0 <= figures["prefix_cache_hit_rate"] < 1
    assert figures["bare_tokens_per_s"] > 0
    assert all(math.isfinite(value) for value in figures.values())


def test_settings_are_described_and_checked() -> None:
    assert all(line.endswith(".") for line in describe_settings("profile").splitlines())
    with pytest.raises(ConfigError, match="num_prompts is 0; use 1 or more"):
        parse_settings(ProfileSettings, ["num_prompts=0"])
