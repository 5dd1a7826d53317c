"""prepare: from a raw log and item texts to sequences, items, users and id maps.

Rows that cannot be used are in the table rejects, with the reason. When the log has grown, users and items that were
there keep their dense ids. A killed job goes on where it was.

    python jobs/prepare.py --config configs/demo.yaml
    python jobs/prepare.py --config configs/mine.yaml data.min_user_interactions=3
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("prepare", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
