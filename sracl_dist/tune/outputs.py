"""What a search leaves for people: a table of all trials, and configurations that train the same again."""

import csv
import io
import json
from typing import Any

import yaml

from sracl_dist.config import Config, flatten, nested, with_values
from sracl_dist.config.schema import all_keys
from sracl_dist.run_folder import StageFolder
from sracl_dist.run_folder.locations import location_below, shown_location
from sracl_dist.secrets import referenced
from sracl_dist.stages import STAGES
from sracl_dist.tune.records import FOLDER, TABLE, TRIALS, Records, Trial
from sracl_dist.tune.space import Space

BEST_CONFIG = "best.yaml"
SECTION = "tune."
UNKNOWN = "???"
"""Marks a value that must be given."""


def shown_values(values: dict[str, Any]) -> str:
    """Values of a trial for messages."""
    return ", ".join(f"{key}={shown_value(value)}" for key, value in values.items())


def runnable(config: Config, trial: Trial, name: str = "") -> str:
    """A configuration file that trains like the trial, in a folder of its own and on the same tables.

    It refers to the environment where the search took a secret from there.

    Args:
        config: of the search.
        trial: whose values are taken.
        name: of that folder within the search's; by default one below the trial's own.
    """
    flat = flatten(with_values(config, trial.values), with_secrets=True)
    kept = set(flatten(config, STAGES["train"].settings))
    defaults = {key.name: key.default for key in all_keys()}
    values = {
        key: value
        for key, value in flat.items()
        if not key.startswith(SECTION) and (key in kept or value != defaults[key])
    }
    own = name or f"{TRIALS}/{trial.id}/run"
    values["run.dir"] = _place(location_below(config.run.dir, f"{FOLDER}/{own}"))
    values["run.tables"] = _place(config.run.tables or config.run.dir)
    return yaml.safe_dump(nested(referenced(values)), sort_keys=False, allow_unicode=True, width=110)


def _place(location: str) -> str:
    """A folder or URI; one with a secret in it is not written down and must be given as an override."""
    return location if shown_location(location) == location else UNKNOWN


def write_best(config: Config, folder: StageFolder, best: Trial) -> None:
    """Write best.yaml."""
    value = best.best_value or 0.0
    lines = [
        f"# The best of the trials in {TABLE} beside this file: trial {best.id}, validation {config.train.metric}",
        f"# ({config.train.protocol.replace('_', ' ')}) {value!r} after epoch {best.best_epoch} of {len(best.curve)}.",
        "#",
        f"#     python jobs/train.py --config {shown_location(folder.path(BEST_CONFIG))}",
    ]
    if best.status != "finished":
        lines += ["#", "# The trial was not at its end; this takes it there, with the same curve as far as it came."]
    folder.write_bytes(BEST_CONFIG, ("\n".join(lines) + "\n\n" + runnable(config, best, "best")).encode())


def write_table(config: Config, folder: StageFolder, space: Space, records: Records) -> None:
    """Write trials.csv: one row per trial, one column per parameter, empty where it does not exist."""
    keys = [parameter.key for parameter in space.parameters]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "status", config.train.metric, "best_epoch", "epochs", "wall_s", *keys, "reason"])
    for trial in records:
        value = trial.best_value
        parameters = [shown_value(trial.values[key]) if key in trial.values else "" for key in keys]
        shown = "" if value is None else repr(value)
        facts = [trial.id, trial.status, shown, trial.best_epoch, len(trial.curve), round(sum(trial.wall_s), 3)]
        writer.writerow([*facts, *parameters, trial.reason])
    folder.write_bytes(TABLE, stream.getvalue().encode())


def shown_value(value: Any) -> str:
    """A value as it is written in YAML."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
