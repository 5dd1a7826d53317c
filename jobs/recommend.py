"""recommend: the best items for every user after the whole history, in the user's own ids.

python jobs/recommend.py --config configs/demo.yaml
python jobs/recommend.py --config configs/mine.yaml recommend.num_items=50
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("recommend", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
