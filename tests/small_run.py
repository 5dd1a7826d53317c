"""A raw log with texts, small enough to take every stage through in a minute, and a configuration for it."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sracl_dist.config import Config, parse_config
from sracl_dist.run_folder import RunFolder

GENRES = ("space opera", "romantic comedy", "courtroom drama", "cooking show")
NUM_USERS = 24
NUM_ITEMS = 20


def write_log(folder: Path, seed: int = 0) -> None:
    """Users mostly stay with one genre; users 0 and 1 have the same history."""
    random = np.random.default_rng(seed)
    lines = ["user_id,item_id,timestamp"]
    histories = []
    for user in range(NUM_USERS):
        own = [item for item in range(NUM_ITEMS) if item % len(GENRES) == user % len(GENRES)]
        others = random.permutation(NUM_ITEMS)[:3].tolist()
        histories.append([*random.permutation(own).tolist(), *(item for item in others if item not in own)])
    histories[1] = histories[0]
    for user, history in enumerate(histories):
        lines += [f"u{user:02d},i{item:02d},{1000 + place}" for place, item in enumerate(history)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    items = ["item_id,title,brand,categories"]
    items += [
        f"i{item:02d},{GENRES[item % 4].title()} part {item},Studio {item % 4},{GENRES[item % 4]}"
        for item in range(NUM_ITEMS)
    ]
    (folder / "items.csv").write_text("\n".join(items) + "\n")


def small_values(folder: Path) -> dict[str, Any]:
    """Settings with which each stage takes seconds; the log is expected in `folder`."""
    return {
        "run": {"dir": str(folder / "run"), "seed": 1},
        "cluster": {"address": "local", "num_cpus": 2, "object_store_bytes": 100_000_000},
        "data": {
            "interactions": [str(folder / "log.csv")],
            "item_texts": [str(folder / "items.csv")],
            "item_columns": {"description": None},
            "min_user_interactions": 3,
            "min_item_interactions": 1,
        },
        "profile": {
            "max_prompt_tokens": 192,
            "max_output_tokens": 12,
            "histories_per_item": 1,
            "batch_rows": 4,
            "max_running_prompts": 8,
            "kv_cache_gib": 1,
            "commit_interval_s": 0.1,
        },
        "embed": {"shard_rows": 16, "max_tokens": 64},
        "neighbours": {"num_neighbours": 4},
        "model": {"width": 16, "num_layers": 1, "feedforward_width": 32, "dropout": 0.1, "max_length": 8},
        "train": {"epochs": 4, "batch_rows": 8, "num_workers": 2, "learning_rate": 0.01},
        "evaluate": {"shard_users": 8},
        "recommend": {"shard_users": 8, "num_items": 4},
    }


def small_config(folder: Path, *overrides: str) -> Config:
    """The same, validated."""
    return parse_config(small_values(folder), overrides)


def make_project(folder: Path) -> tuple[Path, RunFolder]:
    """The log, and a configuration file for jobs beside it; returns the latter and its run."""
    write_log(folder)
    values = small_values(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml", RunFolder(values["run"]["dir"])
