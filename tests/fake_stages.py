"""Jobs that only pretend to work, as programs of their own, so that what starts and joins them can be tested at once.

Skipping, settings and messages are the real ones; every job that works adds a line to calls.log.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from sracl_dist.cli import stage_job
from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.results.plan import SeedRun
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, StageResult, run_stage, stage_status

NUM_USERS = 6
NUM_ITEMS = 50
SECONDS_PER_EPOCH = 1.5


def write_jobs(folder: Path) -> Path:
    """A folder of jobs."""
    folder.mkdir(parents=True)
    for name in STAGES:
        program = f"import sys\nsys.path[0] = {str(Path(__file__).parent)!r}\n"
        program += f"from fake_stages import main\nsys.exit(main({name!r}, sys.argv[1:]))\n"
        (folder / f"{name}.py").write_text(program)
    return folder


def write_config(file: Path, *, epochs: int, tables: Path | None = None, items: int = 5) -> str:
    """A configuration whose run folder, log and calls.log lie beside its file; returns its path."""
    (file.parent / "log.csv").write_text("user_id,item_id,timestamp\n")
    place = "" if tables is None else f", tables: {tables}"
    file.write_text(
        f"run: {{dir: {file.with_suffix('')}{place}}}\n"
        f"data: {{interactions: [{file.parent}/log.csv], min_item_interactions: {items}}}\n"
        f"train: {{epochs: {epochs}}}\n"
    )
    return str(file)


def calls(folder: Path) -> list[str]:
    """`stage name-of-run-folder` of every job that has worked."""
    log = folder / "calls.log"
    return log.read_text().splitlines() if log.exists() else []


def main(name: str, argv: Sequence[str]) -> int:
    """What a pretended job does."""
    STAGES[name] = replace(STAGES[name], function=f"{__name__}:work_{name}")
    return stage_job(name, None, argv)


def finish(run: SeedRun, names: Sequence[str]) -> None:
    """The same in this process, which is faster."""
    for name in names:
        stage = replace(STAGES[name], function=f"{__name__}:work_{name}")
        run_stage(stage, run.config, run.folder, stage_status(stage, run.config, run.folder).draft)


def home(config: Config) -> Path:
    return Path(config.data.interactions[0]).parent


def work_table(name: str, config: Config, run: RunFolder) -> StageResult:
    own, folder = Path(config.run.dir), home(config)
    with (folder / "calls.log").open("a") as log:
        log.write(f"{name} {own.parent.name}/{own.name}\n")
    if (folder / f"fail-{name}-{own.parent.name}-{own.name}").exists():
        raise StageError(f"{name} was told to fail; delete the file that says so.")
    return StageResult(rows={"items": NUM_ITEMS, "users": NUM_USERS})


def work_prepare(config: Config, run: RunFolder) -> StageResult:
    return work_table("prepare", config, run)


def work_profile(config: Config, run: RunFolder) -> StageResult:
    return work_table("profile", config, run)


def work_embed(config: Config, run: RunFolder) -> StageResult:
    return work_table("embed", config, run)


def work_neighbours(config: Config, run: RunFolder) -> StageResult:
    return work_table("neighbours", config, run)


def work_train(config: Config, run: RunFolder) -> StageResult:
    """With the file meet-<n> there, wait until n trainings run at the same time."""
    work_table("train", config, run)
    for barrier in home(config).glob("meet-*"):
        deadline = time.monotonic() + 180
        while sum(call.startswith("train") for call in calls(barrier.parent)) < int(barrier.name.removeprefix("meet-")):
            if time.monotonic() > deadline:
                raise StageError("No other training came; start them side by side.")
            time.sleep(0.02)
    details = {"best_epoch": 1 + config.run.seed, "seconds_per_epoch": SECONDS_PER_EPOCH}
    return StageResult(rows={"epochs": config.train.epochs}, details=details)


def work_evaluate(config: Config, run: RunFolder) -> StageResult:
    """More epochs give better ranks, and a higher seed worse ones."""
    work_table("evaluate", config, run)
    kept = [1 + config.run.seed + user * (10 // config.train.epochs) for user in range(NUM_USERS)]
    table = pa.table(
        {
            "user": pa.array(range(NUM_USERS), pa.int64()),
            "target": pa.array(range(1, NUM_USERS + 1), pa.int32()),
            "rank_seen_kept": pa.array(kept, pa.int32()),
            "rank_seen_removed": pa.array([(rank + 1) // 2 for rank in kept], pa.int32()),
        }
    )
    return write_evaluation(run, table)


def write_evaluation(run: RunFolder, table: pa.Table) -> StageResult:
    """Ranks in two shards and the metrics file, with slices of the even and the odd users."""
    folder = run.stage("evaluate")
    folder.write_table("ranks/1.parquet", table.slice(0, 2))
    folder.write_table("ranks/0.parquet", table.slice(2))
    columns = {name: table[f"rank_{name}"].to_numpy() for name in ("seen_kept", "seen_removed")}
    metrics = {name: mean_metrics(ranks, NUM_ITEMS) for name, ranks in columns.items()}
    parity = table["user"].to_numpy() % 2
    groups = [
        {
            "name": name,
            "num_users": int((parity == index).sum()),
            **{protocol: mean_metrics(ranks[parity == index], NUM_ITEMS) for protocol, ranks in columns.items()},
        }
        for index, name in enumerate(("even", "odd"))
    ]
    folder.write_json("metrics.json", {**metrics, "slices": {"num_training_items": groups}})
    return StageResult(rows={"ranks": table.num_rows})
