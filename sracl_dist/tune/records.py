"""The records of a search: one JSON file per trial, which alone decide what is done and what the search knows.

    search.json                      what the search is for; a folder made for another one is refused
    trials/0003/trial.json           values, state and the metric of every epoch
    trials/0003/config.yaml          a configuration that trains the same
    trials/0003/metrics.jsonl        the whole curve
    trials/0003/best/                weights of its best epoch
    trials/0003/last-0/, last-1/     where it goes on, gone when it has ended

Ray Tune's own state is disposable: nothing is ever read back from it.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sracl_dist.config import Config, flatten, with_values
from sracl_dist.errors import StageOrderError, StorageError
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.run_folder.plain import dataclass_from
from sracl_dist.stages import STAGES

FOLDER = "tune"
SEARCH = "search.json"
TRIALS = "trials"
RECORD = "trial.json"
CURVE = "metrics.jsonl"
CONFIG = "config.yaml"
TABLE = "trials.csv"
BEST = "best/"
SPACE = "tune.space."
"""Start of the keys of the space in search.json."""

SESSION = "session"
"""Folder of Ray Tune's own state; deleted before and after."""

Status = Literal["running", "finished", "stopped", "failed"]
ENDS: tuple[Status, ...] = ("finished", "stopped", "failed")
SEARCH_KEYS = ("tune.algorithm", "tune.num_random", "tune.scheduler")
SCHEDULER_KEYS = ("tune.grace_epochs", "tune.reduction_factor")
"""What a search is bound to beside the settings of training and its space; how long it lasts may change."""


@dataclass(kw_only=True)
class Trial:
    """What is known of one trial."""

    number: int
    values: dict[str, Any]
    """Settings that the search chose, by key; those that do not exist in this trial are missing."""
    status: Status = "running"
    """running: not at its end, whether a process trains it now or not; stopped: by the scheduler."""
    curve: list[float] = field(default_factory=list)
    """The metric after each epoch."""
    wall_s: list[float] = field(default_factory=list)
    """Seconds of each epoch."""
    reason: str = ""
    """Why it failed."""

    @property
    def id(self) -> str:
        """Name of its folder."""
        return trial_id(self.number)

    @property
    def is_done(self) -> bool:
        """Whether it will not train any further."""
        return self.status != "running"

    @property
    def best_value(self) -> float | None:
        """The best metric so far."""
        return max(self.curve, default=None)

    @property
    def best_epoch(self) -> int:
        """The first epoch with it; 0 before the first."""
        return self.curve.index(max(self.curve)) + 1 if self.curve else 0

    def add(self, epoch: int, value: float, wall_s: float) -> None:
        """Note an epoch; one that is told again, after a restart, takes the place of the old one."""
        self.curve[epoch - 1 : epoch] = [value]
        self.wall_s[epoch - 1 : epoch] = [round(wall_s, 3)]


def trial_id(number: int) -> str:
    """Name of a trial's folder."""
    return f"{number:04d}"


def place_of(number: int) -> str:
    """A trial's folder within the folder of the search."""
    return f"{TRIALS}/{trial_id(number)}/"


class Records:
    """All trials of a search, by number, as they are on disk.

    Raises:
        StorageError: a record is damaged.
    """

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder
        self.trials: dict[int, Trial] = {}
        for name in folder.files(TRIALS):
            if name.endswith(f"/{RECORD}"):
                trial = _parse(folder, name)
                self.trials[trial.number] = trial

    def write(self, trial: Trial) -> None:
        """Keep a trial as it is now."""
        self.trials[trial.number] = trial
        self._folder.write_json(place_of(trial.number) + RECORD, asdict(trial))

    def __iter__(self) -> Any:
        return iter(self.trials[number] for number in sorted(self.trials))

    def count(self, *statuses: Status) -> int:
        """Trials with one of the states."""
        return sum(trial.status in statuses for trial in self.trials.values())

    @property
    def best(self) -> Trial | None:
        """The trial with the best metric; the lower number where two are equal."""
        return best_of(self)


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The first trial with the best metric, or None where no trial has one."""
    best: Trial | None = None
    for trial in trials:
        value = trial.best_value
        if value is not None and (best is None or best.best_value is None or value > best.best_value):
            best = trial
    return best


def config_of(config: Config, folder: StageFolder, number: int) -> Config:
    """The search's configuration with the values of a recorded trial.

    Raises:
        ConfigError: these values do not go together.
    """
    return with_values(config, _parse(folder, place_of(number) + RECORD).values)


def _parse(folder: StageFolder, name: str) -> Trial:
    try:
        trial = dataclass_from(Trial, folder.read_json(name))
        is_right = place_of(trial.number) + RECORD == name and len(trial.curve) == len(trial.wall_s)
    except ValueError:
        is_right = False
    if not is_right:
        raise folder.damaged(name)
    return trial


def require_same_search(folder: StageFolder, wanted: dict[str, Any]) -> None:
    """Refuse a folder with the trials of another search; `wanted` is what this one is for, see `made_for`.

    Raises:
        StageOrderError: the message names what differs.
        StorageError: there are trials, and nothing tells what they are for.
    """
    try:
        old = folder.read_json(SEARCH) if folder.exists(SEARCH) else None
    except StorageError:
        old = None
    if isinstance(old, dict):
        _require_same(folder, old, wanted)
    elif folder.fingerprints(f"{TRIALS}/") - {fingerprint_of(wanted)}:
        raise StorageError(
            f"{folder.shown(SEARCH)} is damaged or missing beside trials of another search; {folder.anew}."
        )


def made_for(config: Config, inputs: dict[str, str]) -> dict[str, Any]:
    """What the trials of a search have in common: fixed settings, the space by key, and the tables."""
    tune = config.tune
    values = flatten(config, STAGES["train"].settings, with_neutral=False)
    values |= flatten(config, SEARCH_KEYS if tune.scheduler == "none" else (*SEARCH_KEYS, *SCHEDULER_KEYS))
    values = {key: value for key, value in values.items() if key not in tune.space}
    values |= {f"{SPACE}{key}": entry for key, entry in tune.space.items()}
    return values | {f"the stage {name}": fingerprint for name, fingerprint in inputs.items()}


def fingerprint_of(made_for: dict[str, Any]) -> str:
    """Hash of what a search is for."""
    return hashlib.sha256(json.dumps(made_for, sort_keys=True).encode()).hexdigest()[:20]


def search_facts(config: Config) -> dict[str, str]:
    """A digest of the search in the run folder, for the stage that shows it; empty without one."""
    folder = RunFolder(config.run.dir, config.run.tables).stage(FOLDER)
    if not folder.exists(TABLE):
        return {}
    return {"the search in tune/": hashlib.sha256(folder.read_bytes(TABLE)).hexdigest()[:20]}


def _require_same(folder: StageFolder, old: dict[str, Any], new: dict[str, Any]) -> None:
    differences = [
        f"{key} was {old.get(key, 'absent')!r} and is {new.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]
    if differences:
        raise StageOrderError(
            f"The search in {folder.path()} is for something else ({'; '.join(differences)}); restore these settings "
            f"to go on with it, or set run.dir to another folder, with run.tables for the tables, to search anew."
        )
