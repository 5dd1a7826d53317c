"""neighbours: the nearest items and users by meaning, with the recall that was measured.

The recall against an exact search on a sample is written to quality.json.

    python jobs/neighbours.py --config configs/demo.yaml
    python jobs/neighbours.py --config configs/mine.yaml neighbours.num_neighbours=20
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("neighbours", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
