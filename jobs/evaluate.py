"""evaluate: rank the whole catalogue for every user's test item, seen items kept and removed.

python jobs/evaluate.py --config configs/demo.yaml
python jobs/evaluate.py --config configs/mine.yaml evaluate.num_workers=4
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("evaluate", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
