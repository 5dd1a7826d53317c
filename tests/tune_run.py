"""A small run whose tables are done, and a configuration that searches on them."""

from pathlib import Path
from typing import Any

import yaml
from synthetic import make_sequences, write_run

from sracl_dist.config import Config, load_config
from sracl_dist.run_folder import Manifest, RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.stages import STAGES, stage_status

SPACE: dict[str, Any] = {
    "train.learning_rate": {"log_uniform": [0.001, 0.05]},
    "model.dropout": {"uniform": [0.0, 0.4]},
    "objectives.terms": {"choice": [["next_item"], ["next_item", "cross_sequence"]]},
    "objectives.cross_sequence.weight": {"uniform": [0.01, 0.3], "when": {"objectives.terms": "cross_sequence"}},
}


def write_config(folder: Path, **tune: Any) -> Path:
    """A configuration file; its run lies beside it."""
    (folder / "log.csv").write_text("the tables are made without it\n")
    values = {
        "run": {"dir": str(folder / "run"), "seed": 3},
        "data": {"interactions": [str(folder / "log.csv")]},
        "cluster": {"address": "local", "num_cpus": 2, "object_store_bytes": 80_000_000},
        "model": {"width": 16, "num_layers": 1, "num_heads": 2, "feedforward_width": 32, "max_length": 6},
        "train": {"epochs": 4, "batch_rows": 32},
        "tune": {"space": SPACE, "num_trials": 6, "num_random": 3, **tune},
    }
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def write_tables(config: Config, sequences: Sequences) -> RunFolder:
    """Tables with the manifests that the stages would have written."""

    def manifest_of(run: RunFolder, name: str) -> Manifest:
        if name == "embed":  # which reads what is between it and prepare
            draft = stage_status(STAGES["profile"], config, run).draft
            with run.working_on("profile", draft.fingerprint) as folder:
                folder.commit(draft)
        return stage_status(STAGES[name], config, run).draft

    return write_run(Path(config.run.tables or config.run.dir), sequences, manifest_of=manifest_of)


def searchable(folder: Path, *overrides: str, **tune: Any) -> tuple[Config, RunFolder]:
    """A configuration and its run, ready to be searched."""
    config = load_config(write_config(folder, **tune), overrides)
    return config, write_tables(config, make_sequences(80))
