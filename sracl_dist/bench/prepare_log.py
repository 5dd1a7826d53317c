"""The stage prepare as a program of its own, to be measured: a run folder, and folders of Parquet files in order."""

import sys

from sracl_dist.config import parse_config
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status


def prepare_log(location: str, *folders: str) -> None:
    """Run the stage on the Parquet files of the folders."""
    interactions = [f"{folder}/*.parquet" for folder in folders]
    config = parse_config({"run": {"dir": location}, "data": {"interactions": interactions}})
    run = RunFolder(location)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)


if __name__ == "__main__":
    prepare_log(*sys.argv[1:])
