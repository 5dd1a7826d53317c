"""pipeline: all stages in order, from the raw log to the report; what is done already is skipped.

Each stage runs in a process of its own and can be killed and resumed.

    python jobs/pipeline.py --config configs/demo.yaml
    python jobs/pipeline.py --config configs/demo.yaml train.epochs=3
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sracl_dist.cli import job
from sracl_dist.pipeline import run_pipeline


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    return job(__doc__, arguments, lambda config, run: run_pipeline(config, run, Path(__file__).parent, arguments))


if __name__ == "__main__":
    sys.exit(main())
