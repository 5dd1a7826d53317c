"""The stage prepare as a program of its own, to be measured: the run folder, and the folder of a log's files."""

import sys

from sracl_dist.config import parse_config
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status


def prepare_log(location: str, log: str) -> None:
    """Run the stage on the Parquet files of a log."""
    config = parse_config({"run": {"dir": location}, "data": {"interactions": [f"{log}/*.parquet"]}})
    run = RunFolder(location)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)


if __name__ == "__main__":
    prepare_log(*sys.argv[1:])
