"""A run of all eight stages within seconds: workers in this process, profiles by a real HTTP server, training without
Ray; and what it brought, to be compared with that of other runs."""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from chat_server import ChatServer, good
from small_run import small_config, write_log

from sracl_dist.cli import run_one
from sracl_dist.config import Config
from sracl_dist.embed.vectors import load_vectors
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES

NAMES = tuple(STAGES)
WITHOUT_TIME = ("epoch", "is_best", "loss", "validation")
"""Keys of a line of the curve that tell no time."""


@contextlib.contextmanager
def profile_server() -> Iterator[ChatServer]:
    """Answers the same question in the same way, whenever it comes."""
    with ChatServer(lambda message, _: good(f"Likes {hashlib.md5(message.encode()).hexdigest()}.")).running() as chat:
        yield chat


class WholeRun:
    """The configuration of a run below `home`, whose log may be shared by several."""

    def __init__(self, home: Path, log: Path, url: str) -> None:
        self.home = home
        self.config: Config = small_config(
            log,
            f"run.dir={home}",
            "profile.engine=endpoint",
            "profile.model=served-model",
            f"profile.endpoint.url={url}",
            "train.local=true",
            "train.num_workers=1",
            "train.epochs=2",
            "embed.shard_rows=8",
            "neighbours.query_block_rows=8",
        )

    @property
    def run(self) -> RunFolder:
        """Opened anew, as each program does."""
        return RunFolder(str(self.home))

    def do(self, name: str) -> bool:
        """What a job does; returns whether there was anything to do."""
        return run_one(STAGES[name], self.config, self.run)

    def do_all(self) -> None:
        for name in NAMES:
            self.do(name)

    def copy_to(self, home: Path) -> None:
        """The run's files, which are no copies until one of them is replaced."""
        shutil.copytree(self.home, home, copy_function=lambda source, target: Path(target).hardlink_to(source))


def make_log(folder: Path, seed: int = 0) -> Path:
    write_log(folder, seed)
    return folder


def results(run: RunFolder, name: str) -> Any:
    """All that a stage brought, but for times and sizes of programs."""
    return _RESULTS[name](run)


def _columns(table: pa.Table, *left_out: str) -> dict[str, list[Any]]:
    return {column: table[column].to_pylist() for column in table.column_names if column not in left_out}


def _prepare(run: RunFolder) -> Any:
    folder = run.stage("prepare")
    tables = [folder.read_shards("users/"), folder.read_shards("sequences/")]
    tables += [folder.read_table("items.parquet"), folder.read_table("rejects.parquet")]
    return [_columns(table) for table in tables]


def _profile(run: RunFolder) -> Any:
    return [_columns(run.stage("profile").read_shards(f"{kind}/")) for kind in ("items", "users")]


def _embed(run: RunFolder) -> Any:
    return [load_vectors(run, kind).tolist() for kind in ("items", "users")]


def _neighbours(run: RunFolder) -> Any:
    folder = run.stage("neighbours")
    recall = [quality["recall"] for quality in folder.read_json("quality.json").values()]
    return [recall, *(_columns(folder.read_table(f"{kind}.parquet")) for kind in ("items", "users"))]


def _train(run: RunFolder) -> Any:
    folder = run.stage("train")
    lines = [json.loads(line) for line in folder.read_bytes("metrics.jsonl").splitlines()]
    curve = [{key: line[key] for key in WITHOUT_TIME if key in line} for line in lines]
    weights = [
        hashlib.sha256(folder.read_bytes(f"best/{name}.safetensors")).hexdigest() for name in ("encoder", "model")
    ]
    manifest = folder.manifest()
    assert manifest is not None
    return [curve, weights, manifest.details["best_epoch"]]


def _evaluate(run: RunFolder) -> Any:
    return [_columns(run.stage("evaluate").read_shards("ranks/")), run.stage("evaluate").read_json("metrics.json")]


def _recommend(run: RunFolder) -> Any:
    return _columns(run.stage("recommend").read_shards("recommendations/"))


def _report(run: RunFolder) -> Any:
    page = run.stage("report").read_bytes("report.html").decode()
    assert page.rstrip().endswith("</html>")
    return [re.findall(r"\b0\.\d{4}\b", page), *(page.count(tag) for tag in ("<table", "<svg", "<tr", "<section"))]


_RESULTS: dict[str, Callable[[RunFolder], Any]] = {
    "prepare": _prepare,
    "profile": _profile,
    "embed": _embed,
    "neighbours": _neighbours,
    "train": _train,
    "evaluate": _evaluate,
    "recommend": _recommend,
    "report": _report,
}
