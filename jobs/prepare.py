"""prepare: from a raw log and item texts to sequences, items, users and id maps.

Rows that cannot be used are counted in the table rejects, with the reason. Where the log has only got new files since
the tables were made, these are added and nothing is renumbered. A killed job goes on where it was.

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
