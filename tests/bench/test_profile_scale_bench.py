"""The benchmark of many prompts runs with a few and loses nothing; what it measures there means nothing."""

import math

import pytest

from sracl_dist.bench.profile_scale import ProfileScaleSettings
from sracl_dist.bench.run import describe_settings, run_bench
from sracl_dist.bench.settings import parse_settings
from sracl_dist.errors import ConfigError


@pytest.mark.slow
@pytest.mark.fault
def test_killed_twice_it_loses_nothing() -> None:
    figures = run_bench("profile_scale", ["quick=true"])["figures"]
    assert (figures["num_lost"], figures["num_asked_again"]) == (0, 0)
    assert figures["num_prompts"] > 2000
    assert all(math.isfinite(value) for value in figures.values())


def test_settings_are_described_and_checked() -> None:
    assert all(line.endswith(".") for line in describe_settings("profile_scale").splitlines())
    with pytest.raises(ConfigError, match="num_users is 0; use 1 or more"):
        parse_settings(ProfileScaleSettings, ["num_users=0"])
