"""report: one HTML page about the run, which needs nothing beside itself.

The page is the file report.html in the stage's folder.

    python jobs/report.py --config configs/demo.yaml
    python jobs/report.py --config configs/demo.yaml report.title="Our shop in May" report.num_samples=12
"""

import sys
from collections.abc import Sequence

from sracl_dist.cli import stage_job


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; returns the exit status."""
    return stage_job("report", __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
