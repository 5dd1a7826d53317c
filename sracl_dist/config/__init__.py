"""Settings of a run: typed sections, one YAML file over their defaults, and KEY=VALUE overrides."""

from sracl_dist.config.load import flatten, load_config, parse_config
from sracl_dist.config.sections import Config

__all__ = ["Config", "flatten", "load_config", "parse_config"]
