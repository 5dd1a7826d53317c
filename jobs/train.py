"""train: fit the recommender on the workers of a Ray cluster; a killed run goes on from its last checkpoint.

python jobs/train.py --config configs/demo.yaml
python jobs/train.py --config configs/mine.yaml train.epochs=3 train.num_workers=4
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("train", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
