"""embed: a text encoder turns profiles and raw texts into unit vectors.

Every item and user gets a vector; without a profile it is made from the raw text.

    python jobs/embed.py --config configs/demo.yaml
    python jobs/embed.py --config configs/mine.yaml embed.text=raw
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("embed", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
