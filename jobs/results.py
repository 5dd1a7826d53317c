"""results: train configurations with several seeds on shared tables, and write one table of what came out.

Every configuration is taken up to the stage evaluate with every seed, in <run.dir>/seed-<n>; what is done is skipped.
The tables of prepare, profile, embed and neighbours are made once, in run.tables or else in run.dir, for all seeds.
With --against, the others are tested against that configuration, user by user. KEY=VALUE holds for all of them.

    python jobs/results.py --configs configs/beauty/*.yaml --against configs/beauty/sasrec.yaml
    python jobs/results.py --configs configs/demo.yaml --seeds 0 1 2 3 4 --parallel 2 cluster.num_cpus=4
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sracl_dist.cli import ArgumentParser, exit_status
from sracl_dist.results.job import make_results


def main(argv: Sequence[str] | None = None) -> int:
    """Make the table; returns the exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    return exit_status(
        lambda: make_results(
            arguments.configs,
            arguments.seeds,
            Path(__file__).parent,
            arguments.output,
            against=arguments.against,
            overrides=arguments.overrides,
            parallel=arguments.parallel,
        )
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; overrides are taken out first, or a list such as that of --seeds would swallow them."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--configs", required=True, nargs="+", metavar="FILE", help="YAML files, a row each")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="values of run.seed (0 1 2)")
    parser.add_argument("--against", metavar="FILE", help="test the others against this one, which is trained too")
    parser.add_argument("--output", default="runs/results.md", help="the page; .json beside it has every number")
    parser.add_argument("--parallel", type=int, default=1, help="runs that train side by side; give each its share")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that override every file")
    overrides = [word for word in argv if re.match(r"\w+(\.\w+)+=", word)]
    arguments = parser.parse_intermixed_args([word for word in argv if word not in overrides])
    arguments.overrides = [*arguments.overrides, *overrides]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
