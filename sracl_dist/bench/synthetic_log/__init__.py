"""A realistic log of any size with planted structure, to test and measure with."""

from sracl_dist.bench.synthetic_log.settings import SyntheticLogSettings
from sracl_dist.bench.synthetic_log.write import write_log

__all__ = ["SyntheticLogSettings", "write_log"]
