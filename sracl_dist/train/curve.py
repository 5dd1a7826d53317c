"""The curve of training as a file: one line of JSON for every finished epoch."""

import json

from sracl_dist.run_folder import StageFolder
from sracl_dist.train.state import Progress

METRICS = "metrics.jsonl"


def write_curve(folder: StageFolder, progress: Progress) -> None:
    """Commit the lines of all epochs so far."""
    lines = "".join(json.dumps(line) + "\n" for line in progress.history)
    folder.write_bytes(METRICS, lines.encode())
