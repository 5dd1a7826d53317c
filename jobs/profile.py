"""profile: a language model describes every item and every user, from training interactions only.

Finished answers are never asked again, whatever stops the stage.

    python jobs/profile.py --config configs/demo.yaml
    python jobs/profile.py --config configs/mine.yaml profile.max_items=100 profile.max_users=100
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("profile", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
