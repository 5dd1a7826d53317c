"""tune: search for better settings of the training, judged on validation; a killed search goes on where it was.

The tables of the stages up to neighbours must be there, and are shared by all trials. docs/tuning.md tells how to write
a space.

python jobs/tune.py --config configs/tune/beauty.yaml
python jobs/tune.py --config configs/tune/beauty.yaml tune.num_trials=40 tune.scheduler=none
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import job
from sracl_dist.tune.job import tune


def main(argv: Sequence[str] | None = None) -> int:
    """Search; returns the exit status."""
    return job(__doc__, argv, tune)


if __name__ == "__main__":
    sys.exit(main())
