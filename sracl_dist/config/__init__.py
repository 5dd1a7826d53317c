"""Settings of a run: typed sections, one YAML file over their defaults, and KEY=VALUE overrides."""

from sracl_dist.config.load import flatten, load_config, nested, parse_config, refuse_unknown, with_values
from sracl_dist.config.sections import Config

__all__ = ["Config", "flatten", "load_config", "nested", "parse_config", "refuse_unknown", "with_values"]
